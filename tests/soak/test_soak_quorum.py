"""Whatever people, thieves and a lying log writer do, no key goes out without a full quorum.

Random histories (see `quorum_history`) against the real rules and real signatures, in memory. The
strongest adversary appends leaves straight to the state; the same histories also go through the
desk, leaf by leaf in signed envelopes, over a log in memory, and must end in the same state.
`make test` runs hundreds, `make soak` 100,000 different ones (or SAFEHOLD_SOAK_HISTORIES).
"""

import os
import time
from collections import Counter

import click
import msgspec
import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from quorum_history import ORIGIN, START, History, Signer, founded

from safehold.errors import TrustError
from safehold.stats import upper_bound
from safehold.testing.trust_log import MemoryLog
from safehold.trust.grants.events import Event
from safehold.trust.grants.grant_service import Desk
from safehold.trust.grants.state import TrustState
from safehold.trust.log.dsse import seal
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
        self.state = TrustState(ORIGIN)
        self.state.roster, self.state._policy = FOUNDED.roster, FOUNDED.policy
        self.state.founding_sha256 = FOUNDED.founding_sha256
        self.state.last_time = START
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
        first = seal(statement_of(founded(SIGNER)), KEY)
        book = MemoryLog(KEY, LogKeys(ORIGIN, vkey, (vkey,)), [first])
        self.desk = Desk(book, KEY, lambda: self.time)

    def append(self, event: Event) -> bool:
        """Have the desk record a leaf."""
        try:
            self.desk.record(event)
        except TrustError:
            return False
        return True


def run(histories: int, counts: Counter[str], start: int = 0) -> int:
    """Run so many different histories and more, in seeded batches; return how many differed."""
    seen: set[int] = set()

    def one(acts: list[bytes]) -> None:
        counts["histories"] += 1
        seen.add(hash(tuple(acts)))
        History(Straight().append, SIGNER, counts).run(acts)

    batch = start
    while len(seen) < histories:
        quiet = settings(
            max_examples=min(BATCH, max(50, histories - len(seen))),
            deadline=None,
            database=None,
            phases=(Phase.generate, Phase.shrink),
            suppress_health_check=list(HealthCheck),
        )
        seed(batch)(quiet(given(operations)(one)))()
        batch += 1
    return len(seen)


def test_no_key_release_without_a_full_quorum() -> None:
    """Over random histories rules and model agree on every use, and every release has one."""
    counts: Counter[str] = Counter()
    run(500, counts)
    assert counts["quorum uses"] > 0


@pytest.mark.soak
def test_no_key_release_without_a_full_quorum_in_100_000_histories(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The same over 100,000 histories and more; what they reached is counted and printed."""
    counts: Counter[str] = Counter()
    began = time.process_time()
    distinct = run(HISTORIES, counts, start=1)
    spent = time.process_time() - began
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
