"""The heartbeat that the key service asks for: each way in which it is stale is refused."""

import hashlib
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from safehold.secure.endpoint.heartbeat import (
    Heart,
    StaleGuardError,
    listen,
    read_pulse,
    require_guard,
)
from safehold.secure.endpoint.interface import CodeKind, EndpointRecordError, GuardState
from safehold.secure.endpoint.policy import Mode
from safehold.secure.endpoint.publish import publish
from safehold.secure.endpoint.records import Denial
from safehold.secure.weights.keyd.config import _endpoint, read_config
from safehold.secure.weights.keyd.interface import KeydError
from safehold.trust.log.log_entries import Record

POLICY = "ab" * 32
NOW = 1_790_000_000


@pytest.fixture
def state() -> GuardState:
    """A guard that has just gone round."""
    return GuardState(asked=7, refused=1, round=time.monotonic(), marks=3)


@pytest.fixture
def beating(tmp_path: Path, state: GuardState) -> Iterator[Path]:
    """The socket of that guard, in enforce mode."""
    if os.geteuid() != 0:
        pytest.skip("who answers must be root")
    path = tmp_path / "socket"
    ended = threading.Event()
    with listen(path) as listener:
        heart = Heart(listener, POLICY, Mode.ENFORCE, "gpu-1")
        thread = threading.Thread(target=heart.beat, args=(state, ended))
        thread.start()
        yield path
        ended.set()
        thread.join(5)


def test_living_guard_of_the_policy_is_accepted(beating: Path) -> None:
    """The benign twin: what it counts comes through."""
    pulse = require_guard(beating, POLICY)
    assert (pulse.asked, pulse.refused, pulse.marks, pulse.host) == (7, 1, 3, "gpu-1")


def test_guard_that_goes_round_no_more_is_refused(beating: Path, state: GuardState) -> None:
    """A thread that still answers does not hide a loop that is stuck."""
    state.round = time.monotonic() - 6
    with pytest.raises(StaleGuardError, match="6 s ago"):
        require_guard(beating, POLICY)


def test_guard_without_marks_is_refused(beating: Path, state: GuardState) -> None:
    """A guard that the kernel asks nothing guards nothing."""
    state.marks = 0
    with pytest.raises(StaleGuardError, match="no marks"):
        require_guard(beating, POLICY)


def test_guard_of_another_policy_is_refused(beating: Path) -> None:
    """Enforcing something else is not enforcing this."""
    with pytest.raises(StaleGuardError, match="expected cdcd"):
        require_guard(beating, "cd" * 32)


@pytest.mark.parametrize("mode", [Mode.AUDIT, Mode.LEARN])
def test_guard_that_only_watches_is_refused(tmp_path: Path, state: GuardState, mode: Mode) -> None:
    """In audit and learn mode everything runs: no key is released."""
    with listen(tmp_path / "s") as listener:
        ended = threading.Event()
        heart = Heart(listener, POLICY, mode, "gpu-1")
        thread = threading.Thread(target=heart.beat, args=(state, ended))
        thread.start()
        with pytest.raises(StaleGuardError, match=f"in mode {mode}"):
            require_guard(tmp_path / "s", POLICY)
        ended.set()
        thread.join(5)


def test_silence_is_staleness(tmp_path: Path) -> None:
    """No socket, and a socket that nobody answers, are stale: a killed worker says nothing."""
    with pytest.raises(StaleGuardError, match="silent"):
        read_pulse(tmp_path / "none")
    with listen(tmp_path / "s"), pytest.raises(StaleGuardError, match="silent"):
        read_pulse(tmp_path / "s")


KEYD = """
socket = "s"
log = "l"
log_keys = "k"
log_key = "k"
emitter_key = "k"
memory = "m"
publisher = "p"
providers = ["p"]
host = "gpu-1"
host_sha256 = "{sha}"
loaders = [0]
code = []
"""


def test_key_service_releases_nothing_while_the_guard_is_stale(
    tmp_path: Path, beating: Path, state: GuardState
) -> None:
    """Keyd's own check passes beside a living guard, and refuses once it is stuck."""
    config = tmp_path / "keyd.toml"
    text = KEYD.format(sha=POLICY)
    config.write_text(text + f'endpoint_socket = "{beating}"\nendpoint_policy = "{POLICY}"\n')
    check = _endpoint(read_config(config))
    check()
    state.round = 0.0
    with pytest.raises(KeydError, match="endpoint guard"):
        check()


def denial(count: int) -> Denial:
    """One line of the record."""
    return Denial(
        NOW, count, "enforce", CodeKind.ELF, "/x", "ab" * 32, "", False, 0, "/y", "", "no row"
    )


def test_refusals_are_one_leaf_of_a_batch_and_none_twice(tmp_path: Path) -> None:
    """Any number of refusals is one leaf with their digest, at most one a minute, each once."""
    records, memory = tmp_path / "denials", tmp_path / "published"
    lines = b"".join(msgspec.json.encode(denial(count)) + b"\n" for count in (2, 40))
    records.write_bytes(lines + b'{"cut')
    leaves: list[Record] = []

    def record(leaf: Record) -> int:
        leaves.append(leaf)
        return len(leaves)

    assert publish(records, memory, "gpu-1", NOW, record) == 1
    assert leaves[0].facts["refused"] == "42"
    assert leaves[0].digests["batch"] == hashlib.sha256(lines).hexdigest()
    assert "/x" not in str(leaves[0])
    records.write_bytes(lines + msgspec.json.encode(denial(1)) + b"\n")
    assert publish(records, memory, "gpu-1", NOW + 59, record) is None
    assert publish(records, memory, "gpu-1", NOW + 60, record) == 2
    assert leaves[1].facts["refused"] == "1"
    assert publish(records, memory, "gpu-1", NOW + 120, record) is None


def test_record_that_is_no_record_is_an_error(tmp_path: Path) -> None:
    """A line that was tampered with is not skipped."""
    (tmp_path / "denials").write_bytes(b"nonsense\n")
    with pytest.raises(EndpointRecordError):
        publish(tmp_path / "denials", tmp_path / "p", "h", NOW, lambda _: 1)
