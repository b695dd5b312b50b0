"""Whatever people, thieves and a lying log writer do, no key goes out without a full quorum.

Random histories (see `quorum_history`) against the real rules and real signatures, in memory. The
strongest adversary appends leaves straight to the state; the same histories also go through the
desk, leaf by leaf in signed envelopes, over a log in memory, and must end in the same state.
`make test` runs hundreds, `make soak` 100,000 different ones (or SAFEHOLD_SOAK_HISTORIES).
"""

import hashlib
import math
import os
import time
from collections import Counter
from pathlib import Path

import click
import msgspec
import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from quorum_history import FOUNDING, ORIGIN, START, History, Signer, founded, state_of

from safehold.errors import TrustError
from safehold.stats import upper_bound
from safehold.testing.trust_log import MemoryLog
from safehold.trust.grants.events import Event
from safehold.trust.grants.grant_service import Desk
from safehold.trust.grants.state import TrustState
from safehold.trust.log.dsse import sign_envelope
from safehold.trust.log.keys import LogKeys
from safehold.trust.log.log_entries import statement_of
from safehold.trust.log.note import SigningKey

HISTORIES = int(os.environ.get("SAFEHOLD_SOAK_HISTORIES", "100000"))
BATCH = 1000
SIGNER = Signer()
FOUNDED = TrustState(ORIGIN)
assert FOUNDED.apply(0, founded(SIGNER))
KEY = SigningKey.generate(ORIGIN)
# Four bytes an operation, in one draw: a list of draws costs more than the history it makes.
operations = st.binary(min_size=12, max_size=48).map(
    lambda data: [data[at : at + 4] for at in range(0, len(data) - 3, 4)]
)


class Straight:
    """A log whose writer appends anything: every leaf goes to the reader's judgement."""

    def __init__(self) -> None:
        # The founding's signatures were verified once, above.
        self.state = state_of(FOUNDING)
        self._index = 0

    def append(self, event: Event) -> bool:
        """Append a leaf."""
        self._index += 1
        return self.state.apply(self._index, event)


class OverDesk:
    """An honest desk over a log in memory: it refuses to append what would be void."""

    def __init__(self) -> None:
        self.time = START
        vkey = str(KEY.verifier)
        first = sign_envelope(statement_of(founded(SIGNER)), KEY)
        book = MemoryLog(KEY, LogKeys(ORIGIN, vkey, (vkey,)), [first])
        self.desk = Desk(book, KEY, lambda: self.time)

    def append(self, event: Event) -> bool:
        """Have the desk record a leaf."""
        try:
            self.desk.record(event)
        except TrustError:
            return False
        return True


class Progress:
    """What a long run has reached, in a file: a run that was cut goes on at its next batch."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.counts: Counter[str] = Counter()
        self.seen: set[bytes] = set()
        self.batch = 1
        self.spent = 0.0
        if path is not None and path.exists():
            kept = msgspec.msgpack.decode(path.read_bytes())
            self.counts.update(kept["counts"])
            self.seen.update(kept["seen"])
            self.batch, self.spent = kept["batch"], kept["spent"]

    def keep(self) -> None:
        """Write it down, all or nothing."""
        if self.path is None:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        kept = {
            "counts": dict(self.counts),
            "seen": list(self.seen),
            "batch": self.batch,
            "spent": self.spent,
        }
        new = self.path.with_suffix(".new")
        new.write_bytes(msgspec.msgpack.encode(kept))
        new.replace(self.path)


def run(histories: int, progress: Progress, *, until: float = math.inf) -> int:
    """Run so many different histories and more, in seeded batches; return how many differed.

    Args:
        histories: How many.
        progress: What was reached before; kept after every batch.
        until: Stop before this moment of the monotonic clock.
    """
    seen, counts = progress.seen, progress.counts

    def one(acts: list[bytes]) -> None:
        counts["histories"] += 1
        seen.add(hashlib.sha256(b"".join(acts)).digest()[:10])
        History(Straight().append, SIGNER, counts).run(acts)

    while len(seen) < histories and time.monotonic() < until:
        began = time.process_time()
        quiet = settings(
            max_examples=min(BATCH, max(50, histories - len(seen))),
            deadline=None,
            database=None,
            phases=(Phase.generate, Phase.shrink),
            suppress_health_check=list(HealthCheck),
        )
        seed(progress.batch)(quiet(given(operations)(one)))()
        progress.batch += 1
        progress.spent += time.process_time() - began
        progress.keep()
    return len(seen)


def test_no_key_release_without_a_full_quorum() -> None:
    """Over random histories rules and model agree on every use, and every release has one."""
    progress = Progress(None)
    run(500, progress)
    assert progress.counts["quorum uses"] > 0
    for change in ("people.enrol", "people.add-key", "people.remove-key", "people.remove"):
        assert progress.counts[f"{change} in effect"] > 0, change


def test_a_run_that_was_cut_goes_on_where_it_was(tmp_path: Path) -> None:
    """The second run begins with the counts and histories of the first, at the next batch."""
    first = Progress(tmp_path / "soak")
    run(60, first)
    again = Progress(tmp_path / "soak")
    assert (again.batch, again.counts, again.seen) == (first.batch, first.counts, first.seen)
    run(90, again)
    assert again.counts["histories"] > first.counts["histories"]


@pytest.mark.soak
def test_no_key_release_without_a_full_quorum_in_100_000_histories(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The same over 100,000 histories and more; what they reached is counted and printed."""
    # Cut and begun again, it goes on: .bench/quorum-soak holds what was reached.
    progress = Progress(Path(os.environ.get("SAFEHOLD_SOAK_PROGRESS", ".bench/quorum-soak")))
    distinct = run(HISTORIES, progress)
    counts, spent = progress.counts, progress.spent
    reached = ", ".join(f"{name} {count:,}" for name, count in sorted(counts.items()))
    bound = upper_bound(0, counts["use"])
    with capsys.disabled():
        click.echo(
            f"\nquorum: {distinct:,} different histories in {spent:.0f} s of CPU; releases without "
            f"a quorum: 0 of {counts['use']:,} tried (95% bound {bound:.1e}): {reached}"
        )
    assert distinct >= HISTORIES
    assert counts["quorum uses"] > HISTORIES // 100
    assert counts["glass uses"] > HISTORIES // 100
    for change in ("people.enrol", "people.remove", "people.remove-key", "policy.change"):
        assert counts[f"{change} in effect"] > HISTORIES // 1000
    for kind in ("uses by services", "twin", "skewed", "foundings in effect"):
        assert counts[kind] > HISTORIES // 1000


@settings(max_examples=20, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(acts=operations)
def test_the_desk_reaches_the_same_state(acts: list[bytes]) -> None:
    """What the desk records and reads back from its log is what a straight reader finds."""
    straight, over = Straight(), OverDesk()
    History(straight.append, SIGNER, Counter()).run(acts)
    History(over.append, SIGNER, Counter()).run(acts)
    left, right = straight.state, over.desk.state
    assert (left.roster, left.policy, left.last_time) == (
        right.roster,
        right.policy,
        right.last_time,
    )
    assert msgspec.to_builtins(dict(left.cases)) == msgspec.to_builtins(dict(right.cases))


def test_the_machine_reaches_releases() -> None:
    """The model grants when it should: a soak in which nothing is ever released proves nothing."""
    counts: Counter[str] = Counter()
    history = History(Straight().append, SIGNER, counts)
    history.ask("dev-one", 1, 1)
    history.gather("keyd", 0, 0)
    history.use("keyd", 0, 0)
    history.use("keyd", 0, 0)
    history.use("keyd", 0, 0)
    assert (counts["quorum uses"], counts["releases"]) == (2, 2)
    history.ask("sec-two", 0, 4)
    history.smash("sec-two", 0, 1)
    history.use("keyd", 1, 0)
    assert (counts["glass uses"], counts["releases"]) == (1, 3)
