"""Scanners that misbehave on purpose, and a ledger full of exchanges to scan."""

import asyncio
import hashlib
import os
import time
from collections.abc import Sequence
from typing import Any

from safehold.detect.monitoring.scan.interface import ScanFinding, Scanner, ScannerSpec
from safehold.exchange import user_says
from safehold.guard.ledger.interface import Action, FinalRow, LedgerVerdict, PromptRow, Row
from safehold.guard.ledger.joined import Joined
from safehold.guard.ledger.writer import Ledger
from safehold.testing.ledger import NOW, RowMaker

LIES: dict[str, Any] = {
    "lies": ScanFinding(value=float("nan"), label="allow"),
    "lies above": ScanFinding(value=1.5, label="allow"),
    "lies below": ScanFinding(value=-0.1, label="allow"),
    "lies by infinity": ScanFinding(value=float("inf"), label="allow"),
    "lies by a word": ScanFinding(value="0.5", label="allow"),  # type: ignore[arg-type]
    "lies by a label": ScanFinding(value=0.5, label=7),  # type: ignore[arg-type]
    "lies at length": ScanFinding(value=0.5, label="a" * 5_000),
    "lies by silence": None,
    "lies by another kind": {"value": 0.5, "label": "allow"},
}
"""What no scanner may answer, by the text that it answers to."""


class HashScanner:
    """Gives each exchange a value that depends on its text alone; some texts do harm.

    `kills me` kills the process, `hangs me` never returns, `leaves` ends the process politely,
    `breaks` raises, and what begins with `lies` answers what no scanner may.
    """

    digest = "hash:1"

    def __init__(self, pause_s: float) -> None:
        self._pause_s = pause_s

    def scan(self, one: Joined) -> ScanFinding:
        """Do what the text says."""
        time.sleep(self._pause_s)
        text = "".join(part.text for part in one.exchange.texts()) if one.exchange else ""
        match text:
            case "kills me":
                os.abort()
            case "hangs me":
                time.sleep(3600)
            case "leaves":
                raise SystemExit
            case _ if text in LIES:
                lie: ScanFinding = LIES[text]
                return lie
            case "breaks":
                raise RuntimeError(text)
        first = hashlib.sha256(text.encode()).digest()[0]
        return ScanFinding(value=first / 255, label="allow")


def load_hash_scanner(spec: ScannerSpec) -> Scanner:
    """Build the scanner; the option `pause_s` is how long it takes for one exchange."""
    return HashScanner(float(spec.options.get("pause_s", "0")))


def fill(url: str, asked: Sequence[tuple[str, str, bool]]) -> None:
    """Keep one ended exchange for each (account, prompt, blocked), a second after the other."""
    rows = RowMaker()

    async def write() -> None:
        ledger = await Ledger.open(url)
        for number, (account, text, blocked) in enumerate(asked):
            await ledger.append(*_exchange(rows, number, account, text, blocked=blocked))
        await ledger.close()

    asyncio.run(write())


def kept(url: str, *rows: Row) -> None:
    """Keep rows in a ledger."""

    async def write() -> None:
        ledger = await Ledger.open(url)
        for row in rows:
            await ledger.append(row)
        await ledger.close()

    asyncio.run(write())


def turned_away(url: str, account: str, count: int) -> None:
    """Keep rows of requests of an account that were refused at the door."""
    rows = RowMaker()

    async def write() -> None:
        ledger = await Ledger.open(url)
        for number in range(count):
            refused = {"verdict": LedgerVerdict.UNSCORED, "action": Action.REFUSE}
            about = {"key_id": account, "exchange": None, "at": NOW + 1e3, **refused}
            pair = rows.prompt(f"r{number}", **about), rows.final(f"r{number}", "", at=NOW + 1e3)
            await ledger.append(*pair)
        await ledger.close()

    asyncio.run(write())


def _exchange(
    rows: RowMaker, number: int, account: str, text: str, *, blocked: bool
) -> tuple[PromptRow, FinalRow]:
    at = NOW + number
    about = {"key_id": account, "exchange": user_says(text), "at": at}
    if not blocked:
        prompt = rows.prompt(f"d{number}", **about)
        return prompt, rows.final(f"d{number}", at=at)
    stop = {"verdict": LedgerVerdict.BLOCK, "clause": "c", "action": Action.BLOCK, "score": 0.9}
    return rows.prompt(f"d{number}", **about, **stop), rows.final(f"d{number}", "", at=at)
