"""A scorer that breaks: its stage's fail mode decides, and each bypass is a row."""

import json
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from gateway_wire import PATHS, Start, body_for, post

from safehold.guard.gateway.bundles.active_guard import Held
from safehold.guard.gateway.policy import SurfacePolicy
from safehold.guard.gateway.server import Parts
from safehold.guard.interface import FailMode
from safehold.guard.ledger.interface import EventKind, EventRow
from safehold.guard.session.session import Guard
from safehold.testing.guards import PlainDecoder
from safehold.testing.scorers import keyword_guard, keyword_head
from safehold.testing.upstream import says

REPLY = "the wort is what it is about, and wort again"


class BrokenLane:
    """Breaks at its first token."""

    def feed(self, tokens: Sequence[str]) -> float:
        """Break."""
        raise ZeroDivisionError(*tokens)

    def attribution(self) -> str:
        """Name nothing."""
        return ""


class BrokenStage1:
    """A stage 1 whose every lane breaks."""

    name = "broken"

    def open_prompt(self) -> BrokenLane:
        """Open a lane that breaks."""
        return BrokenLane()

    def open_reply(self) -> BrokenLane:
        """Open a lane that breaks."""
        return BrokenLane()


def held(stage: str) -> Held:
    """Return a guard whose stage 1 breaks, or whose stage 2 does not answer."""
    guard = keyword_guard(keyword_head("wort"), has_stage2=stage == "stage2")
    if stage == "stage1":
        cascade = msgspec.structs.replace(guard.cascade, stage1=BrokenStage1())
        guard = Guard(cascade, PlainDecoder())
    return Held(guard)


def serve(stage_of: Start, stage: str, mode: FailMode) -> Any:
    """Start a gateway with a broken stage under a fail mode."""
    policy = SurfacePolicy(**{f"fail_mode_{stage}": mode})
    parts = Parts(loader=None, held=held(stage))
    return stage_of(says(REPLY), parts, default=policy)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("broken", ["stage1", "stage2"])
def test_a_broken_stage_blocks_by_default(stage: Start, broken: str, path: str) -> None:
    """Without a word about it in the policy, nothing of the reply leaves and the row says why."""
    at = serve(stage, broken, SurfacePolicy().fail_mode_stage1)
    text = "hi" if broken == "stage2" else "wort wort wort"
    body = post(at.gateway.port, path, json.dumps(body_for(path, text)).encode())[2]
    assert b"wort" not in body
    assert at.finals()[-1].stage == "fail_mode"
    assert at.finals()[-1].delivered_bytes == 0


@pytest.mark.parametrize("broken", ["stage1", "stage2"])
def test_a_bypass_delivers_and_every_one_is_a_row(stage: Start, broken: str) -> None:
    """A policy that says `bypass` delivers; each failure is an event that names it, no content."""
    at = serve(stage, broken, FailMode.BYPASS)
    asked = json.dumps(body_for(PATHS[0], "wort wort wort")).encode()
    body = post(at.gateway.port, PATHS[0], asked)[2]
    assert b"wort" in body
    rows = [row for row in at.ledger.rows if isinstance(row, EventRow)]
    reasons = [row.detail["reason"] for row in rows if row.kind is EventKind.BYPASS]
    expected = "ZeroDivisionError" if broken == "stage1" else "NoStage2"
    assert reasons
    assert set(reasons) == {f"{broken}: {expected}"}
    ids = {row.decision_id for row in rows if row.kind is EventKind.BYPASS}
    assert ids == {at.prompts()[-1].decision_id}


def test_the_other_stages_mode_is_not_asked(stage: Start) -> None:
    """A bypass of stage 2 does not open stage 1."""
    policy = SurfacePolicy(fail_mode_stage2=FailMode.BYPASS)
    at = stage(says(REPLY), Parts(loader=None, held=held("stage1")), default=policy)
    asked = json.dumps(body_for(PATHS[0], "hi")).encode()
    assert b"wort" not in post(at.gateway.port, PATHS[0], asked)[2]
