"""Whoever is killed at any step leaves what was there before, and the next one goes on."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest

from safehold.exchange import user_says
from safehold.guard.interface import DeliveryMode
from safehold.guard.ledger.interface import Action, LedgerVerdict, PromptRow
from safehold.guard.ledger.writer import Ledger
from safehold.improve.response.decided import decided
from safehold.improve.response.interface import IncidentKind, ResponseError


def test_forty_writers_killed_at_random_leave_nothing_torn(tmp_path: Path) -> None:
    """Case, rules, approvals, report, trial and its memory: each reads, and the work goes on."""
    script = Path(__file__).with_name("response_kills.py")
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path / "site"), "40"],
        capture_output=True,
        timeout=240,
        check=True,
    )
    found = json.loads(done.stdout)
    assert found["wrong"] == []
    assert found["killed"] == 40
    assert {"incident", "variants", "rule", "report"} <= set(found["steps"])


async def _kept(url: str) -> None:
    ledger = await Ledger.open(url)
    for name, verdict in (("sh_1", LedgerVerdict.BLOCK), ("sh_2", LedgerVerdict.ALLOW)):
        blocked = verdict is LedgerVerdict.BLOCK
        await ledger.append(
            PromptRow(
                decision_id=name,
                at=1.0,
                surface="chat",
                protocol="chat",
                model="m",
                stream=False,
                exchange=user_says(f"the text of {name}"),
                bundle_digest="a" * 64,
                mode=DeliveryMode.HOLD,
                verdict=verdict,
                action=Action.BLOCK if blocked else Action.FORWARD,
            )
        )
    await ledger.close()


def test_an_incident_is_read_from_the_ledger_and_must_be_what_it_is_called(
    tmp_path: Path,
) -> None:
    """A refused prompt is a false alarm, one that passed a miss; anything else says what it was."""
    url = str(tmp_path / "ledger.db")
    asyncio.run(_kept(url))
    assert decided(url, "sh_1", IncidentKind.FALSE_ALARM) == "the text of sh_1"
    assert decided(url, "sh_2", IncidentKind.MISS) == "the text of sh_2"
    for name, kind, why in (
        ("sh_2", IncidentKind.FALSE_ALARM, "nothing of it was refused"),
        ("sh_1", IncidentKind.MISS, "no miss"),
        ("sh_9", IncidentKind.MISS, "no prompt"),
    ):
        with pytest.raises(ResponseError, match=why):
            decided(url, name, kind)
