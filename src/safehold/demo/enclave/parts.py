"""The enclave's parts, each started by its own command, and the settings that they get."""

import contextlib
import datetime as dt
import hashlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from safehold.errors import SafeholdError
from safehold.govern.controls.interface import OPEN_PLACES, ControlError
from safehold.guard.bundle.signing import load_or_make_key
from safehold.http_ask import ask
from safehold.secure.egress.declare.plan import load_plan
from safehold.secure.egress.declare.register import load_register
from safehold.secure.egress.enforcement.audit import ChainedLog
from safehold.secure.egress.enforcement.enforce import Enforcer
from safehold.secure.egress.enforcement.state import StateFile
from safehold.secure.egress.interface import RefuseAll
from safehold.secure.egress.kernel.nft import NftKernel
from safehold.secure.egress.simulation.example_flows import operating_flows
from safehold.secure.endpoint import decoys
from safehold.secure.endpoint.facts import is_owned
from safehold.secure.endpoint.heartbeat import read_pulse
from safehold.secure.endpoint.inventory.book import Item, write_inventory
from safehold.secure.endpoint.inventory.scan import scan
from safehold.secure.weights.providers.shares import ShareProvider
from safehold.secure.weights.seal import SealOrder, seal
from safehold.secure.weights.signer import SealSigner
from safehold.testing.bundles import write_tiny
from safehold.testing.weights import MemoryProvider, write_model
from safehold.trust.log.note import SigningKey

HOST = "gpu-1"
ETC, VAR, RUN = Path("/etc/safehold"), Path("/var/lib/safehold"), Path("/run/safehold")
PORT, LURE = 8443, 2222
_READY_S = 40.0
_SMALL = '{ hour = "20 kB", day = "100 kB", week = "500 kB", month = "1 MB" }'
_ROOT = "{ uid = 0 }"
_ROWS = operating_flows(_ROOT, _ROOT, peak="1 Mbit/s", budgets=(_SMALL, _SMALL))
FLOWS = f"version = 1\n\n{_ROWS}"
PLAN = """version = 1
mode = "enforce"
[weights]
size = "60 MB"
[bound]
compression = 1.0
alpha = 0.5
steal_days = 30
[link]
interfaces = ["eth0"]
rate = "1 Mbit/s"
[local]
neighbour_discovery = false
raw_frame_guard = false
"""
_POLICY = """version = 1
mode = "enforce"
host = "{host}"
dated_overlays = true

[[allow]]
name = "system"
kinds = ["elf", "library", "script"]
path = [{paths}]
owner = "platform"
reason = "the operating system, which root alone changes"
ticket = "OPS-1"
expires = 2099-01-01

[[allow]]
name = "known"
kinds = ["elf", "library", "script"]
signer = ["platform"]
owner = "platform"
reason = "what the signed inventory names"
ticket = "OPS-2"
expires = 2099-01-01

[[inventory]]
file = "inventory.jsonl"
signer = "platform"
key = "{key}"
"""


def python(*words: str) -> list[str]:
    """Return a command of the product, as it runs here."""
    return [sys.executable, "-m", "safehold", *words]


class EnclaveParts:
    """What was started; `stop` ends all of it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.processes: dict[str, int] = {}
        self._running: list[subprocess.Popen[bytes]] = []
        self._waiting: list[tuple[str, subprocess.Popen[bytes], Callable[[], bool]]] = []

    def start(self, name: str, command: list[str], ready: Callable[[], bool]) -> int:
        """Start a part; return its process. `wait` waits until it works."""
        with (self._folder / f"{name}.log").open("wb") as file:
            child = subprocess.Popen(command, stdout=file, stderr=file, stdin=subprocess.DEVNULL)
        self._running.append(child)
        self.processes[name] = child.pid
        self._waiting.append((name, child, ready))
        return child.pid

    def wait(self) -> None:
        """Wait until everything that was started works.

        Raises:
            ControlError: a part did not start.
        """
        end = time.monotonic() + _READY_S
        for name, child, ready in self._waiting:
            while not ready():
                if child.poll() is not None or time.monotonic() > end:
                    said = (self._folder / f"{name}.log").read_text(errors="replace")
                    last = said.strip().splitlines()[-1:]
                    raise ControlError(f"{name} did not start: {''.join(last)[:200]}")
                time.sleep(0.05)
        self._waiting.clear()

    def stop(self) -> None:
        """End every part, the newest first."""
        for child in reversed(self._running):
            child.terminate()
        for child in self._running:
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(5)


def run(*command: str) -> None:
    """Run a command.

    Raises:
        ControlError: it failed.
    """
    done = subprocess.run(command, check=False, capture_output=True, timeout=120)
    if done.returncode:
        last = (done.stderr or done.stdout).decode(errors="replace").strip().splitlines()[-1:]
        raise ControlError(f"{' '.join(command[-4:])}: {''.join(last)[:300]}")


def root() -> None:
    """Make the stage a host of its own: sysfs, closed places, its accounts and mirrors."""
    run("mount", "-t", "sysfs", "sysfs", "/sys")
    for place in OPEN_PLACES:
        run("mount", "-o", "remount,noexec,nosuid,nodev", place)
    for name in ("passwd", "shadow", "group"):
        path = Path("/etc") / name
        kept = [one for one in path.read_text().splitlines() if _system(one, name)]
        path.write_text("\n".join(kept) + "\n")
    for one in Path("/etc/apt/sources.list.d").glob("*"):
        one.unlink()
    Path("/etc/apt/sources.list").write_text("deb https://mirror.example/debian stable main\n")
    for place in ("/etc/pip.conf", "~/.config/pip/pip.conf", "~/.pip/pip.conf"):
        Path(place).expanduser().unlink(missing_ok=True)
    Path("/etc/modprobe.d").mkdir(exist_ok=True)
    Path("/etc/modprobe.d/media.conf").write_text("blacklist usb_storage\nblacklist uas\n")


def _system(line: str, name: str) -> bool:
    """Whether a line of passwd, shadow or group is of root, or of an account without a shell."""
    words = line.split(":")
    if words[0] == "root" or name != "passwd":
        return True
    return words[-1].endswith(("/nologin", "/false", "/sync"))


def network() -> None:
    """Make the enclave's own loopback and one way out, into nothing."""
    for words in (
        ("link", "set", "lo", "up"),
        ("link", "add", "eth0", "type", "veth", "peer", "name", "out0"),
        ("link", "set", "out0", "up"),
        ("addr", "add", "192.0.2.2/24", "dev", "eth0"),
        ("link", "set", "eth0", "up"),
        ("route", "add", "default", "dev", "eth0"),
    ):
        run("ip", *words)
    for name, value in (("net/netfilter/nf_conntrack_acct", "1"), ("vm/memfd_noexec", "2")):
        with contextlib.suppress(OSError):
            Path(f"/proc/sys/{name}").write_text(value)


def weights(folder: Path) -> str:
    """Seal a model of some megabytes under two keys; return its header's digest."""
    plain, sealed = folder / "plain", VAR / "weights" / "brewer"
    write_model(plain, rows=120_000)
    (folder / "shares").mkdir()
    sealed.parent.mkdir(parents=True)
    shares = ShareProvider(
        folder / "shares", lambda _: "a long enough passphrase", shares=3, threshold=2, work=10
    )
    order = SealOrder(
        source=plain,
        destination=sealed,
        model="brewer",
        version="1",
        created=int(time.time()),
        chunk_bytes=1 << 20,
    )
    signer = SealSigner.generate()
    seal(order, [shares, MemoryProvider("vault-stand-in")], signer)
    for path in sealed.rglob("*"):
        path.chmod(0o600)
    (folder / "publisher").mkdir()
    signer.write(folder / "publisher")
    return hashlib.sha256((sealed / "header.json").read_bytes()).hexdigest()


def software(now: int) -> str:
    """Sign an inventory and write the software policy; return the policy's digest."""
    key = SigningKey.generate("platform")
    roots = [one for one in _code() if not is_owned(one)]
    items: list[Item] = [
        one
        for root in ("/usr/bin", "/etc", str(VAR / "settings"), *roots)
        for one in scan((root,), {}, {})[0]
    ]
    write_inventory(ETC / "inventory.jsonl", items, HOST, now, key)
    owned = [f'"{one}/**"' for one in ("/usr", *(one for one in _code() if is_owned(one)))]
    text = _POLICY.format(host=HOST, paths=", ".join(owned), key=key.verifier)
    (ETC / "endpoint.toml").write_text(text)
    return hashlib.sha256(text.encode()).hexdigest()


def _code() -> tuple[str, ...]:
    """The folders of Python and of the product, where they lie outside /usr."""
    places = {os.path.realpath(sys.base_prefix), *(one for one in sys.path if Path(one).is_dir())}
    return tuple(sorted(one for one in places if not one.startswith("/usr/")))


def devices_to_leave() -> Iterator[str]:
    """Yield every mount that is the machine's own and not the enclave's."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        kind, point = after.split()[0], before.split()[4]
        if kind not in {"overlay", "tmpfs"}:
            yield point


def guard(parts: EnclaveParts) -> int:
    """Start the execution guard over the enclave's file systems alone."""
    RUN.mkdir(parents=True, exist_ok=True)
    leave = [word for point in devices_to_leave() for word in ("--leave", point)]
    at = RUN / "endpoint.sock"

    def beats() -> bool:
        try:
            return read_pulse(at).marks > 0
        except SafeholdError:
            return False

    command = python("endpoint", "guard", "--policy", str(ETC / "endpoint.toml"), *leave)
    return parts.start("endpoint", command, beats)


def meter(parts: EnclaveParts) -> int:
    """Start the read meter: nobody may read the sealed files now."""
    folder = VAR / "weights" / "brewer"
    victim = next(one for one in folder.iterdir() if one.name.endswith(".sealed"))

    def refuses() -> bool:
        try:
            victim.read_bytes()
        except OSError:
            return True
        return False

    return parts.start("meter", python("weights", "meter", str(folder), "--budget", "0"), refuses)


def lures(parts: EnclaveParts, now: int, model: Path) -> None:
    """Place decoys beside real files, watch them, and listen where nobody has business."""
    beside = VAR / "models"
    beside.mkdir(parents=True)
    for number in range(6):
        path = beside / f"part-{number}.safetensors"
        path.write_bytes(decoys.content(decoys.Lure.WEIGHTS))
        # Parts of one model have one time; a decoy takes it over.
        os.utime(path, (now - 86_400, now - 86_400))
    book = []
    for name, lure in (
        (beside / "part-6.safetensors", decoys.Lure.WEIGHTS),
        (beside / "part-7.safetensors", decoys.Lure.WEIGHTS),
        (model / "credentials", decoys.Lure.CREDENTIALS),
    ):
        book.append(decoys.write(name, lure, now))
    decoys.store_book(VAR / "endpoint" / "decoys.json", book)
    cases = VAR / "cases"
    command = python("endpoint", "decoy", "watch", "--host", HOST, "--cases", str(cases),
                     "--log", str(VAR / "trust-log"))  # fmt: skip
    parts.start("decoys", command, lambda: cases.is_dir() and _watched(Path(book[0].path)))
    service = python("endpoint", "decoy", "serve", "--service", f"admin={LURE}", "--host", HOST,
                     "--cases", str(cases), "--log", str(VAR / "trust-log"))  # fmt: skip
    parts.start("lure", service, lambda: _listens(LURE))


def _listens(port: int) -> bool:
    """Whether something listens there, without a visit."""
    done = subprocess.run(["ss", "-Hltn"], check=True, capture_output=True, timeout=20)
    return f":{port} " in done.stdout.decode()


def _watched(path: Path) -> bool:
    inode = f"ino:{path.stat().st_ino:x} "
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                if any(inode in one.read_text() for one in (folder / "fdinfo").iterdir()):
                    return True
    return False


def egress_options() -> tuple[str, ...]:
    """Return the options that name the enclave's register, plan and state."""
    return ("--register", str(ETC / "flows.toml"), "--plan", str(ETC / "egress.toml"),
            "--state", str(VAR / "egress"))  # fmt: skip


def enforcer() -> Enforcer:
    """Return the enforcer over the enclave's own register, plan and state."""
    return Enforcer(
        register=load_register(ETC / "flows.toml"),
        plan=load_plan(ETC / "egress.toml"),
        store=StateFile(VAR / "egress"),
        audit=ChainedLog(VAR / "egress" / "audit.jsonl"),
        authorizer=RefuseAll(),
        kernel=NftKernel(None),
        today=dt.datetime.now(dt.UTC).date(),
    )


def egress(parts: EnclaveParts) -> None:
    """Put the declared flows in force and start the watch."""
    options = egress_options()
    run(*python("egress", "apply", "--first", *options))
    timeline = VAR / "egress" / "timeline.jsonl"
    parts.start(
        "watch",
        python("egress", "run", *options, "--interval", "1"),
        lambda: timeline.exists() and timeline.stat().st_size > 0,
    )


def bundle(folder: Path) -> str:
    """Write a small signed bundle; return its manifest's digest."""
    write_tiny(folder, load_or_make_key(ETC / "bundle.key"))
    return hashlib.sha256((folder / "manifest.json").read_bytes()).hexdigest()


def gateway(parts: EnclaveParts, where: Path, upstream: str) -> None:
    """Start the gateway on its floor."""
    settings = {
        "port": PORT,
        "upstream": {"url": upstream},
        "bundle": str(where),
        "bundle_keys": [str(ETC / "bundle.pub")],
        "ledger": str(VAR / "ledger.db"),
    }
    (ETC / "gateway.yaml").write_bytes(msgspec.yaml.encode(settings))
    code = [word for one in ("/usr", *_code()) for word in ("--executable", one)]
    command = python("endpoint", "run", *code, "--", *python("serve"), "--config",
                     str(ETC / "gateway.yaml"))  # fmt: skip
    parts.start("gateway", command, lambda: _open(PORT))


def questions() -> None:
    """Ask the gateway a few things, so that its ledger holds something."""
    for text in ("When does the museum open?", "Which tea goes with cake?"):
        body = {"model": "any", "messages": [{"role": "user", "content": text}]}
        ask(
            f"http://127.0.0.1:{PORT}/v1/chat/completions",
            data=msgspec.json.encode(body),
            headers={"content-type": "application/json"},
            timeout_s=20,
        )


def _open(port: int) -> bool:
    with socket.socket() as trial:
        trial.settimeout(0.5)
        return trial.connect_ex(("127.0.0.1", port)) == 0
