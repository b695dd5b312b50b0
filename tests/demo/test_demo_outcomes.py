"""What the demo says happened: client and ledger must agree, and a wrong verdict shows."""

import msgspec
import pytest

from safehold.demo.client import Heard
from safehold.demo.outcomes import happened
from safehold.demo.scenes import Scene, SceneProtocol, SceneVerdict, StoppedAt, scenes
from safehold.demo.table import added, stopped, table
from safehold.exchange import Lane, user_says
from safehold.guard.interface import DeliveryMode
from safehold.guard.ledger.interface import (
    Action,
    Delivered,
    Entry,
    FinalRow,
    Latency,
    LedgerVerdict,
    Outcome,
    PromptRow,
)

SCENE = Scene("t", ("hello",), reply="one two three four five six")


def entries(
    *,
    prompt: LedgerVerdict = LedgerVerdict.ALLOW,
    outcome: Outcome = Outcome.COMPLIED,
    **final: object,
) -> list[Entry]:
    """Return the two rows of one exchange."""
    first = PromptRow(
        decision_id="d", at=0.0, surface="s", protocol="s", model="m", stream=True,
        exchange=user_says("hello"), bundle_digest="0", mode=DeliveryMode.HOLD, verdict=prompt,
        action=Action.FORWARD,
    )  # fmt: skip
    last = FinalRow(
        decision_id="d", at=0.0, outcome=outcome, verdict=LedgerVerdict.ALLOW,
        delivered=(Delivered(Lane(), "one two"),), delivered_bytes=7, scored_bytes=27,
        latency=Latency(guard_ms=2.0),
    )  # fmt: skip
    last = msgspec.structs.replace(last, **final)
    return [Entry(1, "w", first), Entry(2, "w", last)]


ANSWERED = Heard(SceneVerdict.ANSWERED, "one two", "d")
BLOCKED = Heard(SceneVerdict.BLOCKED, "sorry", "d")


@pytest.mark.parametrize(
    ("heard", "rows", "problem"),
    [
        (ANSWERED, entries(outcome=Outcome.BLOCKED_BY_GUARD), "client saw answered"),
        (BLOCKED, entries(), "client saw blocked"),
        (ANSWERED, entries(outcome=Outcome.ERROR, error="Broken"), "Broken"),
        (ANSWERED, entries(delivered_bytes=99), "more bytes"),
        (Heard(SceneVerdict.ANSWERED, "", "d"), entries(), "empty"),
        (ANSWERED, [], "no rows"),
    ],
)
def test_disagreement_is_a_problem(heard: Heard, rows: list[Entry], problem: str) -> None:
    """Whatever client and ledger tell differently makes the exchange a failed one."""
    row = happened(SCENE, heard, rows)
    assert problem in row.problem
    assert not row.as_expected


def test_missed_block_is_unexpected() -> None:
    """A restricted scene that was answered fails, though client and ledger agree."""
    scene = msgspec.structs.replace(SCENE, expected=StoppedAt.PROMPT)
    assert not happened(scene, ANSWERED, entries()).as_expected


def test_false_block_is_unexpected() -> None:
    """A benign scene that was blocked fails."""
    rows = entries(prompt=LedgerVerdict.BLOCK, outcome=Outcome.BLOCKED_BY_GUARD)
    assert not happened(SCENE, BLOCKED, rows).as_expected


def test_reply_that_was_stopped_says_after_how_many_tokens() -> None:
    """The stop is told in tokens scored, of all there were, and sent."""
    scene = msgspec.structs.replace(SCENE, expected=StoppedAt.REPLY)
    rows = entries(outcome=Outcome.BLOCKED_BY_GUARD, offset=18)
    row = happened(scene, BLOCKED, rows)
    assert row.as_expected
    assert stopped(row) == "after 4 of 6 tokens (2 sent)"
    assert added(row) == "2"


def test_table_holds_every_kind_of_exchange() -> None:
    """The scenes cover both wires, streamed and whole, and each place of a stop."""
    played = scenes()
    assert len(played) >= 12
    assert {scene.wire for scene in played} == set(SceneProtocol)
    assert {scene.stream for scene in played} == {True, False}
    assert {scene.expected for scene in played} == set(StoppedAt)
    rows = [happened(scene, ANSWERED, entries()) for scene in played]
    assert table(rows, 200).row_count == len(played)
    assert {row.upstream for row in rows} == {"embedded model", "scripted upstream"}
