"""Our exports in other people's readers: Inspect Scout, DuckDB and pandas.

Run by `scripts/outside scout`: `python bench/outside/scout.py FOLDER [ROWS]`. A ledger with hostile
texts is scanned and exported by our commands; `scout_read.py` reads it
in an environment of its own.
"""

import asyncio
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from safehold.cli.monitor import monitor
from safehold.exchange import Channel, Exchange, Lane, Role, TextPart, Turn, user_says
from safehold.guard.ledger.interface import Action, Delivered, LedgerVerdict
from safehold.guard.ledger.writer import Ledger
from safehold.testing.ledger import NOW, RowMaker

HERE = Path(__file__).resolve().parent
NEEDLE = "needle of the hay"
ODD = (
    "lone \ud800 surrogate",
    "NUL \x00 inside",
    "quotes ' \" \\ and `;--",
    "lines\r\nand\u2028more",
    "\u202eright to left",
    '{"role": "user"}',
    "emoji \U0001f9ff" * 500,
    "",
)


def planted(number: int, count: int) -> bool:
    """Say whether it is one of three accounts' stopped look-alikes, in the newer half."""
    return number >= count // 2 and number % 9 < 3


def prompt_of(number: int, count: int) -> Exchange:
    """Return a look-alike, odd text, a tool's round, or text with or without the needle."""
    if planted(number, count):
        return user_says(f"seven purple umbrellas walked quietly beside the frozen river {number}")
    if number % 5 == 0:
        return user_says(ODD[number // 5 % len(ODD)])
    if number % 5 == 1:
        call = (
            TextPart("lookup", Channel.TOOL_NAME),
            TextPart('{"word": "malt"}', Channel.TOOL_ARGUMENTS),
        )
        return Exchange(
            (
                Turn(Role.SYSTEM, (TextPart("be brief"),)),
                Turn(Role.USER, (TextPart("what is malt?"),)),
                Turn(Role.ASSISTANT, call),
                Turn(Role.TOOL, (TextPart("a grain", Channel.TOOL_RESULT),)),
            )
        )
    if number % 5 == 2:
        return user_says(f"bWFsdCBpcyBhIGdyYWluIHRoYXQgd2FzIHdldA== {number}")
    return user_says(f"{NEEDLE} {number}" if number % 5 == 3 else f"plain question {number}")


async def fill(url: str, count: int) -> None:
    """Keep the exchanges; a label and a campaign are among them."""
    rows = RowMaker()
    lanes = (Delivered(Lane(0, Channel.REASONING), "hm"), Delivered(Lane(), "malted grain"))
    async with await Ledger.open(url) as ledger:
        for number in range(count):
            at, name = NOW + number, f"d{number}"
            about: dict[str, Any] = {
                "key_id": f"a{number % 9}",
                "exchange": prompt_of(number, count),
            }
            if planted(number, count):
                about |= {"verdict": LedgerVerdict.BLOCK, "action": Action.BLOCK, "clause": "c"}
            said = {"delivered": () if planted(number, count) else lanes}
            prompt = rows.prompt(name, at=at, **about)
            await ledger.append(prompt, rows.final(name, at=at, **said))


def command(*words: str) -> str:
    """Run our command, which must succeed."""
    done = CliRunner().invoke(monitor, list(words))
    if done.exit_code != 0:
        raise SystemExit(f"monitor {' '.join(words)}: {done.output} {done.exception}")
    return done.stdout


def main() -> int:
    """Export and have it read; the exit status says whether every check held."""
    place = Path(sys.argv[1]).resolve()
    count = int(sys.argv[2]) if len(sys.argv) > 2 else 1_000
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        at = ["--ledger", f"{made}/ledger.db", "--monitor", f"{made}/monitor.db"]
        asyncio.run(fill(at[1], count))
        command(*at, "scan", "--scanner", "decoded")
        command(*at, "cases")
        command(
            *at, "export", "--scout", f"{made}/whole", "--content", "--parquet", f"{made}/tables"
        )
        command(*at, "export", "--scout", f"{made}/bare")
        needles = sum(number % 5 == 3 and not planted(number, count) for number in range(count))
        told = json.dumps({"rows": count, "needles": needles, "needle": NEEDLE})
        (folder / "told.json").write_text(told)
        python = str(place / "scout" / "bin" / "python")
        read = [python, "-W", "ignore", str(HERE / "scout_read.py"), made]
        return subprocess.run(read, check=False, timeout=500).returncode


if __name__ == "__main__":
    sys.exit(main())
