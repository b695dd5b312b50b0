"""Steps against keys and weights: the real key service, read meter, sealing and decoys."""

import contextlib
import functools
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from safehold.demo.heist.enclave import Enclave
from safehold.demo.heist.table import HeistOutcome, HeistTry
from safehold.errors import SafeholdError
from safehold.secure.endpoint.decoys import DecoyWatch, Lure, Touch, write
from safehold.secure.endpoint.heartbeat import require_guard
from safehold.secure.fanotify.group import Group
from safehold.secure.weights.keyd.service import KeyService
from safehold.testing.keyd import Vaulted
from safehold.testing.weights import Publisher

PREVENTED, DETECTED, MISSED = HeistOutcome
_READY_S = 30.0
_SERVING = "ab" * 32
"""The workload that the grant names: the serving program, which the thief's is not."""


def stolen_grant(made: Enclave) -> Iterator[HeistTry]:
    """The thief knows an approved grant, and asks the key service with a program of his own."""
    step = "a stolen grant is shown to the key service"
    vaulted = Vaulted(made.folder / "keys")
    try:
        for control, changes in (("", {}), ("wac-15", {"workload_sha256": _SERVING})):
            request = vaulted.granted(**changes)
            yield HeistTry(step, control, _loaded(functools.partial(vaulted.load, request)))
    finally:
        vaulted.stop()


def blind_host(made: Enclave) -> Iterator[HeistTry]:
    """The thief ended the execution guard, and has the serving program ask for the key."""
    step = "a key is asked for on a host without its guard"
    vaulted = Vaulted(made.folder / "blind")
    try:
        yield HeistTry(step, "", _loaded(lambda: vaulted.load(vaulted.granted())))
        absent = made.folder / "no-guard.sock"
        with _service(vaulted, lambda: _require(absent)):
            yield HeistTry(step, "bin-15", _loaded(lambda: vaulted.load(vaulted.granted())))
    finally:
        vaulted.stop()


def _require(socket: Path) -> None:
    require_guard(socket, "0" * 64)


@contextlib.contextmanager
def _service(vaulted: Vaulted, endpoint: Callable[[], None]) -> Iterator[None]:
    """Run the key service again, with a question to the execution guard before each lease."""
    vaulted.stop()
    releaser = vaulted.new_releaser(endpoint=endpoint)
    service = KeyService(vaulted.socket, releaser, [vaulted.root / "code"], 0o600)
    thread = threading.Thread(target=service.serve, daemon=True)
    thread.start()
    try:
        yield
    finally:
        service.stop()
        thread.join(5)


def _loaded(load: Callable[[], object]) -> HeistOutcome:
    try:
        model = load()
    except SafeholdError:
        return PREVENTED
    close = getattr(model, "close", None)
    if close is not None:
        close()
    return MISSED


def read_weights(made: Enclave) -> Iterator[HeistTry]:
    """The thief reads the files of the weights: plain ones, and the same sealed by the product."""
    publisher = Publisher(made.folder / "vault")
    publisher.seal()
    plain = made.folder / "vault" / "plain"
    tensors = next(plain.glob("*.safetensors")).read_bytes()[-1000:]
    for control, folder in (("", "plain"), ("war-01", "sealed")):
        files = [one for one in (made.folder / "vault" / folder).rglob("*") if one.is_file()]
        got = any(tensors in one.read_bytes() for one in files)
        yield HeistTry("a read of the weights", control, MISSED if got else PREVENTED)


def copy_sealed(made: Enclave) -> Iterator[HeistTry]:
    """The thief packs the sealed files, to wait for a key that leaks one day."""
    step = "a copy of the sealed weights"
    folder = made.folder / "metered"
    publisher = Publisher(folder)
    publisher.seal()
    sealed = folder / "sealed"
    yield HeistTry(step, "", MISSED if _packs(made, sealed) else PREVENTED)
    command = [sys.executable, "-m", "safehold", "weights", "meter", str(sealed), "--budget", "0"]
    with (folder / "meter.log").open("wb") as said:
        meter = subprocess.Popen(command, stdout=said, stderr=said)
    try:
        end = time.monotonic() + _READY_S
        while not (folder / "meter.log").stat().st_size and time.monotonic() < end:
            time.sleep(0.05)
        time.sleep(0.2)
        outcome = MISSED if _packs(made, sealed) else PREVENTED
        if meter.poll() is not None:
            outcome = MISSED  # a meter that did not run prevents nothing
        yield HeistTry(step, "wac-09", outcome)
    finally:
        meter.terminate()
        meter.wait(10)


def _packs(made: Enclave, folder: Path) -> bool:
    out = made.folder / "loot.tar"
    out.unlink(missing_ok=True)
    done = subprocess.run(
        ["tar", "-cf", str(out), str(folder)], check=False, capture_output=True, timeout=60
    )
    shards = sum(one.stat().st_size for one in folder.iterdir() if one.suffix == ".sealed")
    return done.returncode == 0 and out.stat().st_size > shards


def decoys(made: Enclave) -> Iterator[HeistTry]:
    """The thief looks through folders for keys and for weights, and opens what he finds."""
    for step, lure, name, control in (
        ("a search for credentials", Lure.CREDENTIALS, "credentials", "dec-02"),
        ("a search for weights", Lure.WEIGHTS, "model.safetensors", "dec-01"),
    ):
        folder = made.folder / control
        folder.mkdir()
        made_decoy = write(folder / name, lure, int(time.time()))
        yield HeistTry(step, "", MISSED if _opens(folder / name) else PREVENTED)
        touched: list[float] = []

        def told(_: Touch, touched: list[float] = touched) -> None:
            touched.append(time.monotonic())

        watch = DecoyWatch([made_decoy], told, lambda: int(time.time()))
        ended = threading.Event()
        with Group() as group:
            watch.mark(group)

            def answer(
                group: Group = group, watch: DecoyWatch = watch, ended: threading.Event = ended
            ) -> None:
                while not ended.is_set():
                    watch.answer(group, 0.1)

            thread = threading.Thread(target=answer, daemon=True)
            thread.start()
            began = time.monotonic()
            _opens(folder / name)
            ended.set()
            thread.join(5)
        if touched:
            yield HeistTry(step, control, DETECTED, seconds=max(0.0, touched[0] - began))
        else:
            yield HeistTry(step, control, MISSED)


def _opens(path: Path) -> bool:
    cat = shutil.which("cat") or "/bin/cat"
    done = subprocess.run([cat, str(path)], check=False, capture_output=True, timeout=20)
    return done.returncode == 0 and bool(done.stdout)
