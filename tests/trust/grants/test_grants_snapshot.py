"""A long log costs little: readers wait for no writer, and a state is replayed once."""

import fcntl
import os
from pathlib import Path

import msgspec
import pytest

from safehold.errors import TrustError
from safehold.testing.trust import Enclave, person_id, vetted
from safehold.trust.exemptions.interface import (
    ExemptionAction,
    ExemptionTerms,
    Relaxation,
    Subject,
    SubjectKind,
)
from safehold.trust.grants import snapshot
from safehold.trust.grants.cases import Cases
from safehold.trust.grants.details import RemovePerson
from safehold.trust.grants.grant_service import Desk
from safehold.trust.grants.snapshot import Snapshots
from safehold.trust.grants.state import TrustState
from safehold.trust.log.note import SigningKey
from safehold.trust.log.store import LogStore
from safehold.trust.people.statement import Act

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
    store = enclave.desk.store
    made.keep(enclave.desk.state, store.size, store.checkpoint())
    return made


def test_a_state_from_a_snapshot_says_what_replaying_says(enclave: Enclave, tmp_path: Path) -> None:
    """Every case, decision, exemption and counter is the same, now and after more leaves."""
    lived(enclave)
    keep(enclave, tmp_path / "snap")
    found = Snapshots(tmp_path / "snap", enclave.emitter).load(enclave.desk.store)
    assert found is not None
    state, size = found
    assert size == enclave.desk.store.size
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


def test_a_state_that_lacks_leaves_is_not_kept(enclave: Enclave, tmp_path: Path) -> None:
    """One leaf fewer or more than the tree that is signed: no snapshot, for it would be another."""
    store = enclave.desk.store
    made = Snapshots(tmp_path / "snap", enclave.emitter)
    for taken in (store.size - 1, store.size + 1):
        made.keep(enclave.desk.state, taken, store.checkpoint())
        assert not (tmp_path / "snap").exists()
    made.keep(enclave.desk.state, store.size, store.checkpoint())
    assert (tmp_path / "snap").exists()


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
    made.keep(state, other.desk.store.size, other.desk.store.checkpoint())
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
    live, settled = enclave.desk.state.cases.packed(asked.expires)
    assert (len(live), len(settled)) == (0, 1)
    state = enclave.desk.state
    state.cases = Cases.unpacked(live, settled)
    assert state.cases.live() == []
    assert state.case(asked.sha256[:12]).signed.request == asked
    with pytest.raises(TrustError, match="replay"):
        enclave.file(asked)
