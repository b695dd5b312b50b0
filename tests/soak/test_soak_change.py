"""Changes under load: a swap among 200 running streams, and drift found within a minute."""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from safehold.errors import BundleError
from safehold.guard.gateway.bundles.swap import LoadedBundle, Probe
from safehold.guard.gateway.policy import Key, Settings, Upstream, digest_key
from safehold.guard.gateway.server import Parts
from safehold.testing.gateway import PATIENT, RunningGateway
from safehold.testing.guards import MARKER, held_rules
from safehold.testing.ledger import MemoryLedger
from safehold.testing.released import RELEASE_RULES, ReleaseChannel
from safehold.testing.trust import GOVERNING, POLICY, Enclave
from safehold.testing.upstream import MockUpstream, says
from safehold.trust.release.interface import ArtefactKind

sys.path.insert(0, str(Path(__file__).parents[1] / "guard" / "gateway"))
from gateway_wire import PATHS, body_for, post

from safehold.cli._artefacts import read_artefact

pytestmark = pytest.mark.soak
ADMIN = "sk-safehold-admin-0123456789abcdefghijk"
STREAMS = 200
DRIFT_LIMIT_S = 60


class Loader:
    """Loads one other guard, whose golden set fits."""

    def __call__(self, path: Path) -> LoadedBundle:
        """Return the guard called `good`."""
        if path.name != "good":
            raise BundleError("no such bundle")
        held = held_rules("green giraffe", digest="1" * 64)
        held.name = str(path)
        golden = (Probe(prompt="green giraffe", reply="", blocked=True),)
        return LoadedBundle(held=held, golden=golden)


def test_a_swap_and_a_rollback_among_200_running_streams_drop_none(tmp_path: Path) -> None:
    """Every stream ends whole, under the guard that it began with; the way back takes no second."""
    script = msgspec.structs.replace(
        says("Quite harmless words. " * 30 + "End.", size=9), delay_s=0.05
    )
    admin = f"authorization: Bearer {ADMIN}\r\n"
    answers: list[tuple[int, bytes]] = []
    with MockUpstream(script) as upstream:
        settings = Settings(
            upstream=Upstream(url=upstream.url),
            limits=PATIENT,
            port=0,
            log="none",
            keys=(Key(id="ops", sha256=digest_key(ADMIN), admin=True),),
            bundles=str(tmp_path),
        )
        parts = Parts(loader=Loader(), held=held_rules(), ledger=MemoryLedger())
        with RunningGateway(settings, parts) as gateway:

            def one() -> None:
                body = json.dumps(body_for(PATHS[0], "hi", stream=True)).encode()
                status, _, answer = post(gateway.port, PATHS[0], body)
                answers.append((status, answer))

            def act(path: str, given: Any) -> float:
                began = time.monotonic()
                body = b"" if given is None else json.dumps(given).encode()
                status, _, answer = post(gateway.port, path, body, extra=admin)
                assert status == 200, answer
                return time.monotonic() - began

            threads = [threading.Thread(target=one) for _ in range(STREAMS)]
            for thread in threads:
                thread.start()
            time.sleep(1.5)
            running = STREAMS - len(answers)
            act("/admin/bundle", {"bundle": "good"})
            back = act("/admin/bundle/rollback", None)
            during = STREAMS - len(answers)
            for thread in threads:
                thread.join(300)
    dropped = [one for one in answers if one[0] != 200 or b"End." not in one[1]]
    print(  # noqa: T201
        f"streams {STREAMS}, running at the swap {running}, after the rollback {during}; dropped "
        f"{len(dropped)}; rollback {back:.3f} s"
    )
    assert len(answers) == STREAMS
    assert not dropped
    assert during > STREAMS // 2, "the swap came after the streams"
    assert back < 1
    assert MARKER


def test_drift_is_found_within_a_minute(tmp_path: Path) -> None:
    """`change drift --every 30` names a file that was changed by hand, in less than 60 s."""
    policy = POLICY + GOVERNING + RELEASE_RULES
    enclave = Enclave(tmp_path / "log", policy=policy, now=int(time.time()))
    channel = ReleaseChannel(enclave, tmp_path / "releases")
    file = tmp_path / "safehold.yaml"
    file.write_text("default:\n  hold_tokens: 16\n")
    channel.publish(channel.next(read_artefact(ArtefactKind.GATEWAY, file)))
    names = ("log", "log_keys", "channel", "documents", "memory")
    members = "".join(f'{one} = "{getattr(channel.settings, one)}"\n' for one in names)
    (tmp_path / "releases.toml").write_text(members)
    words = ("--releases", str(tmp_path / "releases.toml"), "--artefact", f"gateway={file}")
    child = subprocess.Popen(
        [sys.executable, "-m", "safehold", "change", "drift", *words, "--every", "30", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        text=True,
    )
    try:
        assert child.stdout is not None
        assert child.stderr is not None
        assert child.stdout.readline()  # the first look: no drift
        file.write_text("default:\n  hold_tokens: 1\n")
        began = time.monotonic()
        line = child.stderr.readline()
        took = time.monotonic() - began
    finally:
        child.terminate()
        child.communicate(timeout=60)
    print(f"drift found after {took:.1f} s: {line.strip()}")  # noqa: T201
    assert "disk has another one" in line
    assert took <= DRIFT_LIMIT_S
