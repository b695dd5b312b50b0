"""A long log costs little: readers wait for no writer, and a state is replayed once."""

import fcntl
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from safehold.errors import TrustError
from safehold.testing.trust import Enclave, person_id, vetted
from safehold.trust.clock import CORRECT
from safehold.trust.exemptions.interface import (
    ExemptionAction,
    ExemptionTerms,
    Relaxation,
    Subject,
    SubjectKind,
)
from safehold.trust.grants import snapshot
from safehold.trust.grants.cases import Cases
from safehold.trust.grants.details import CorrectClock, RemovePerson
from safehold.trust.grants.grant_service import Desk
from safehold.trust.grants.snapshot import Snapshots
from safehold.trust.grants.state import TrustState
from safehold.trust.log.merkle import hash_leaf
from safehold.trust.log.note import SigningKey
from safehold.trust.log.store import LogStore
from safehold.trust.log.tiles import Frontier
from safehold.trust.people.statement import Act

STEP = 7
"""Leaves between snapshots on the way."""
QUORUM = ("dev-two", "dev-three", "sec-one")
TERMS = ExemptionTerms(
    subject=Subject(SubjectKind.ORGANISATION, "org-1"),
    relaxations=(Relaxation("brewing.process", ExemptionAction.AUDIT),),
    surfaces=("api",),
    use_case="brewing-school",
    seats=2,
    rate_per_hour=3,
    vetting=vetted(),
)


def lived(enclave: Enclave) -> None:
    """Let every kind of case happen: used, denied, revoked, broken, exempted, in flight."""
    for number, end in enumerate(("use", "deny", "revoke", "expire", "none")):
        asked = enclave.ask("dev-one", nonce=f"{number:032x}")
        enclave.file(asked)
        if end in {"use", "revoke", "none"}:
            enclave.approve(asked, *QUORUM)
        if end == "use":
            enclave.use(asked)
        note = enclave.note(asked)
        if end == "deny":
            enclave.desk.deny(note, enclave.keys["sec-two"].sign(Act.DENY, note))
        if end == "revoke":
            enclave.desk.revoke(note, enclave.keys["sec-two"].sign(Act.REVOKE, note))
        enclave.time += 3601 if end == "expire" else 1
    glass = enclave.ask("sec-one", break_glass=True)
    enclave.file(glass)
    enclave.desk.break_glass(glass.sha256, enclave.keys["sec-one"].sign(Act.BREAK_GLASS, glass))
    enclave.carry("exemption.give", TERMS)
    enclave.carry("people.remove", RemovePerson(person_id("dev-four")))
    enclave.desk.alarm("a", "b", "c")


def told(state: TrustState) -> object:
    """Return everything that a state says, so that two can be compared."""
    return (
        state.members(),
        {digest: state.cases[digest] for digest in state.cases},
        state.exemptions(),
        state.overdue_reviews(state.last_time + 10**6),
        {digest: state.decide(digest, state.last_time) for digest in state.cases},
    )


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make every leaf worth a snapshot."""
    monkeypatch.setattr(snapshot, "MIN_NEW_LEAVES", 1)


def keep(enclave: Enclave, path: Path, key: SigningKey | None = None) -> Snapshots:
    """Write a snapshot of the log as it is."""
    made = Snapshots(path, enclave.emitter if key is None else key)
    made.keep(enclave.desk.state, tree(enclave.desk), enclave.desk.store)
    return made


def tree(desk: Desk) -> Frontier:
    """Return the tree of every leaf of a desk's log."""
    taken = Frontier()
    for _, entry in desk.store.entries():
        taken.add(hash_leaf(entry))
    return taken


def test_a_state_from_a_snapshot_says_what_replaying_says(enclave: Enclave, tmp_path: Path) -> None:
    """Every case, decision, exemption and counter is the same, now and after more leaves."""
    lived(enclave)
    keep(enclave, tmp_path / "snap")
    found = Snapshots(tmp_path / "snap", enclave.emitter).load(enclave.desk.store)
    assert found is not None
    state, taken = found
    assert (taken.size, taken.root()) == (enclave.desk.store.size, tree(enclave.desk).root())
    assert told(state) == told(enclave.open_desk().state)
    desk = Desk(
        LogStore(enclave.root, enclave.log_key),
        enclave.emitter,
        lambda: enclave.time,
        memory=tmp_path / "snap",
    )
    lived_after = enclave.ask("dev-two")
    enclave.file(lived_after)
    assert told(desk.state) == told(enclave.open_desk().state)


def test_a_snapshot_is_really_used(enclave: Enclave, tmp_path: Path) -> None:
    """A desk that has one reads no leaf of before it."""
    lived(enclave)
    keep(enclave, tmp_path / "snap")
    begun: list[int] = []

    class Counting(LogStore):
        def entries(self, start: int = 0) -> object:  # type: ignore[override]
            begun.append(start)
            return super().entries(start)

    store = Counting(enclave.root, enclave.log_key)
    desk = Desk(store, enclave.emitter, lambda: enclave.time, memory=tmp_path / "snap")
    assert len(desk.state.cases) == len(enclave.desk.state.cases)
    assert begun == [store.size]


def test_a_snapshot_of_another_key_is_not_taken(enclave: Enclave, tmp_path: Path) -> None:
    """Who judges for itself takes no state from the log's writer."""
    keep(enclave, tmp_path / "snap", SigningKey.generate("enclave.test/other"))
    assert Snapshots(tmp_path / "snap", enclave.emitter).load(enclave.desk.store) is None


@pytest.mark.parametrize("changed", [{"origin": "enclave.test/two"}, {"founding": "0" * 64}])
def test_a_snapshot_of_another_log_is_not_taken(
    enclave: Enclave, tmp_path: Path, changed: dict[str, str]
) -> None:
    """The same leaves under another name, or another pinned founding, are another enclave's."""
    keep(enclave, tmp_path / "snap")
    snapshots = Snapshots(tmp_path / "snap", enclave.emitter)
    store = LogStore(enclave.root, enclave.log_key)
    assert snapshots.load(store) is not None
    store.keys = msgspec.structs.replace(store.keys, **changed)
    assert snapshots.load(store) is None


def test_a_state_of_other_leaves_is_not_kept(enclave: Enclave, tmp_path: Path) -> None:
    """What was read is not what is signed, or more than is signed: no snapshot."""
    made = Snapshots(tmp_path / "snap", enclave.emitter)
    entries = [entry for _, entry in enclave.desk.store.entries()]
    for read in ([*entries[:-1], b"other"], [b"other", *entries[1:]], [*entries, b"more"]):
        taken = Frontier()
        for entry in read:
            taken.add(hash_leaf(entry))
        made.keep(enclave.desk.state, taken, enclave.desk.store)
        assert not (tmp_path / "snap").exists()
    made.keep(enclave.desk.state, tree(enclave.desk), enclave.desk.store)
    assert (tmp_path / "snap").exists()


class Cut(LogStore):
    """A log whose reader is stopped behind some leaves."""

    reads = 0

    def entries(self, start: int = 0) -> Iterator[tuple[int, bytes]]:
        """Yield so many entries, and then stop whoever reads."""
        for index, entry in super().entries(start):
            if index >= self.reads:
                raise KeyboardInterrupt
            yield index, entry


def resumed(enclave: Enclave, path: Path) -> Desk:
    """Return a desk that has a memory."""
    store = LogStore(enclave.root, enclave.log_key)
    return Desk(store, enclave.emitter, lambda: enclave.time, memory=path)


def stopped(enclave: Enclave, path: Path, reads: int) -> None:
    """Let a command replay so many leaves, and stop it there."""
    store = Cut(enclave.root, enclave.log_key)
    store.reads = reads
    with pytest.raises(KeyboardInterrupt):
        _ = Desk(store, enclave.emitter, lambda: enclave.time, memory=path).state


def test_who_is_stopped_goes_on(
    enclave: Enclave, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped at any leaf, again and again: at most a step is replayed twice, the state is one."""
    monkeypatch.setattr(snapshot, "ON_THE_WAY", STEP)
    lived(enclave)
    whole, size = told(enclave.open_desk().state), enclave.desk.store.size
    assert size > 4 * STEP
    for first in range(size):
        path = tmp_path / f"snap-{first}"
        for reads in (first, (first + size) // 2):
            stopped(enclave, path, reads)
            found = Snapshots(path, enclave.emitter).load(enclave.desk.store)
            kept = 0 if found is None else found[1].size
            assert reads - max(STEP, reads // 4 + 1) <= kept <= reads
        assert told(resumed(enclave, path).state) == whole


def test_who_is_killed_at_a_drawn_moment_goes_on(enclave: Enclave, tmp_path: Path) -> None:
    """SIGKILL, again and again, with and without what was kept before: the state is one."""
    lived(enclave)
    keys = tmp_path / "keys"
    keys.mkdir(mode=0o700)
    for name, key in (("log.key", enclave.log_key), ("emitter.key", enclave.emitter)):
        (keys / name).touch(mode=0o600)
        (keys / name).write_text(key.text() + "\n")
    script = Path(__file__).with_name("snapshot_kills.py")
    done = subprocess.run(
        [sys.executable, str(script), str(enclave.root), str(keys), "40"],
        capture_output=True,
        timeout=240,
        check=True,
    )
    told_of = json.loads(done.stdout)
    assert [same for _, same in told_of["found"]] == [True] * 40
    assert {size for size, _ in told_of["found"]} - {0, told_of["leaves"]}


def test_what_was_kept_on_the_way_is_believed_no_more_than_at_the_end(
    enclave: Enclave, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Forged, altered, of another history, of other code: the log is replayed from its start."""
    monkeypatch.setattr(snapshot, "ON_THE_WAY", STEP)
    other = Enclave(tmp_path / "other")
    other.log_key, other.emitter = enclave.log_key, enclave.emitter
    lived(enclave)
    other.file(other.ask("dev-two"))
    lived(other)
    path = tmp_path / "snap"
    stopped(enclave, path, 2 * STEP)
    good = path.read_bytes()
    reader = Snapshots(path, enclave.emitter)
    assert reader.load(enclave.desk.store) is not None
    # 1. Signed by somebody else.
    assert Snapshots(path, enclave.log_key).load(enclave.desk.store) is None
    # 2. One bit.
    path.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    assert reader.load(enclave.desk.store) is None
    # 3. Of as many leaves of another log that has the same keys.
    path.write_bytes(good)
    assert reader.load(other.desk.store) is None
    # 4. Of another version.
    monkeypatch.setattr(snapshot, "code_digest", lambda: "0" * 64)
    assert reader.load(enclave.desk.store) is None


def test_a_snapshot_of_more_leaves_than_are_signed_is_not_taken(
    enclave: Enclave, tmp_path: Path
) -> None:
    """A log that was put back to an earlier copy gives its own state, not the later one."""
    copy = tmp_path / "copy"
    shutil.copytree(enclave.root, copy)
    lived(enclave)
    keep(enclave, tmp_path / "snap")
    earlier = LogStore(copy, enclave.log_key)
    assert Snapshots(tmp_path / "snap", enclave.emitter).load(earlier) is None


def test_what_was_settled_by_a_wrong_clock_is_listed_again(
    enclave: Enclave, tmp_path: Path
) -> None:
    """A clock that ran ahead settles an open grant; corrected, the lists of live ones have it."""
    asked = enclave.ask("dev-one")
    enclave.file(asked)
    right = enclave.time
    enclave.time += 30 * 86_400
    enclave.file(enclave.ask("dev-two", nonce="7" * 32))
    keep(enclave, tmp_path / "snap")
    desk = resumed(enclave, tmp_path / "snap")
    assert asked.sha256 not in dict(desk.state.cases.live())
    wrong, enclave.time = enclave.time, right + 60
    back = enclave.ask("dev-one", CORRECT, details=CorrectClock(wrong=wrong, right=enclave.time))
    enclave.file(back)
    enclave.approve(back, "dev-two", "sec-one")
    assert asked.sha256 in dict(desk.state.cases.live())
    assert told(desk.state) == told(enclave.open_desk().state)


def test_every_altered_byte_of_a_snapshot_is_seen(enclave: Enclave, tmp_path: Path) -> None:
    """A flipped bit anywhere, or a cut, costs the shortcut and nothing else."""
    keep(enclave, tmp_path / "snap")
    good = (tmp_path / "snap").read_bytes()
    reader = Snapshots(tmp_path / "snap", enclave.emitter)
    step = max(1, len(good) // 200)
    for at in range(0, len(good), step):
        (tmp_path / "snap").write_bytes(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
        assert reader.load(enclave.desk.store) is None
        (tmp_path / "snap").write_bytes(good[:at])
        assert reader.load(enclave.desk.store) is None


def test_a_snapshot_of_another_history_is_not_taken(enclave: Enclave, tmp_path: Path) -> None:
    """Signed by the same key, of as many leaves, but no beginning of this tree: refused."""
    other = Enclave(tmp_path / "other")
    other.log_key, other.emitter = enclave.log_key, enclave.emitter
    other.file(other.ask())
    enclave.file(enclave.ask("dev-two"))
    enclave.file(enclave.ask("dev-three"))
    keys = enclave.desk.store.keys
    made = Snapshots(tmp_path / "snap", enclave.emitter)
    state = other.desk.state
    state.origin, state.founding_pin = keys.origin, keys.founding
    made.keep(state, tree(other.desk), other.desk.store)
    assert (tmp_path / "snap").exists()
    assert made.load(enclave.desk.store) is None


def test_a_snapshot_of_other_code_is_not_taken(
    enclave: Enclave, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A version that judges otherwise replays everything."""
    reader = keep(enclave, tmp_path / "snap")
    assert reader.load(enclave.desk.store) is not None
    monkeypatch.setattr(snapshot, "code_digest", lambda: "0" * 64)
    assert reader.load(enclave.desk.store) is None


def test_a_reader_does_not_wait_for_a_writer(enclave: Enclave) -> None:
    """While another process holds the log, listing, deciding and opening go on."""
    asked = enclave.ask()
    enclave.file(asked)
    handle = os.open(enclave.root / "lock", os.O_RDWR)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        desk = enclave.open_desk()
        assert asked.sha256 in desk.state.cases
        assert asked.sha256 in enclave.desk.state.cases
    finally:
        os.close(handle)


def test_a_settled_case_still_counts(enclave: Enclave) -> None:
    """A packed case is found by its beginning, and its request is still a replay."""
    asked = enclave.ask()
    enclave.file(asked)
    live, settled = enclave.desk.state.cases.pack(asked.expires)
    assert (len(live), len(settled)) == (0, 1)
    state = enclave.desk.state
    state.cases = Cases.unpacked(live, settled)
    assert state.cases.live() == []
    assert state.case(asked.sha256[:12]).signed.request == asked
    with pytest.raises(TrustError, match="replay"):
        enclave.file(asked)
