"""Held content is encrypted at rest where the operator gives a key, and nothing else breaks."""

import asyncio
import base64
from pathlib import Path

import pytest
from sqlalchemy import select, update

from safehold.errors import ConfigError, LedgerError
from safehold.exchange import Channel, Lane, user_says
from safehold.guard.ledger.coverage import StallLimits, audit
from safehold.guard.ledger.engine import open_engine
from safehold.guard.ledger.holds import hold
from safehold.guard.ledger.interface import Delivered, FinalRow, PromptRow
from safehold.guard.ledger.reader import LedgerReader
from safehold.guard.ledger.schema import FINALS
from safehold.guard.ledger.sealing import VARIABLE, ContentKey, make_key
from safehold.guard.ledger.writer import Ledger
from safehold.testing.ledger import NOW, RowMaker

ASKED, GOT = "how long should the rye sourdough rest?", "Eleven hours at nineteen degrees."


@pytest.fixture
def held(url: str, rows: RowMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Keep one decision, and hold it with a key at hand."""
    prompt = rows.prompt("d", exchange=user_says(ASKED))
    final = rows.final("d", GOT)

    async def go() -> None:
        ledger = await Ledger.open(url)
        await ledger.append(prompt, final, rows.prompt("free"), rows.final("free", "open words"))
        await ledger.close()

    asyncio.run(go())
    make_key(tmp_path / "ledger.key")
    monkeypatch.setenv(VARIABLE, str(tmp_path / "ledger.key"))
    hold(url, ["d"], holder="case-1", until=NOW + 60, now=NOW)
    return url


def read(url: str, decision: str = "d") -> tuple[PromptRow, FinalRow]:
    """Return both rows of a decision."""
    prompt, final = (entry.row for entry in LedgerReader.open(url).decision(decision))
    assert isinstance(prompt, PromptRow)
    assert isinstance(final, FinalRow)
    return prompt, final


def test_with_the_key_everything_reads_as_before(held: str) -> None:
    """Prompt and reply are whole; a second hold seals nothing twice; the audit finds no gap."""
    hold(held, ["d"], holder="case-2", until=NOW + 60, now=NOW)
    prompt, final = read(held)
    assert prompt.exchange == user_says(ASKED)
    assert final.delivered == (Delivered(Lane(choice=0, channel=Channel.TEXT), GOT),)
    assert final.error is None


def test_without_the_key_the_content_is_gone_and_nothing_else(
    held: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who asked and what the guard said stay readable; the neighbour's content too."""
    monkeypatch.delenv(VARIABLE)
    prompt, final = read(held)
    assert (prompt.exchange, final.delivered, final.error) == (None, (), "Sealed")
    assert final.delivered_bytes > 0
    assert read(held, "free")[1].delivered[0].text == "open words"
    found = audit(LedgerReader.open(held), now=NOW, limits=StallLimits())
    assert not [gap for gap in found.gaps if "other bytes" in gap]


def test_no_byte_of_held_content_is_on_the_disk(
    rows: RowMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file, its log and its free pages are searched; the twin that nobody holds is found."""
    url = str(tmp_path / "l.db")

    async def go() -> None:
        ledger = await Ledger.open(url)
        await ledger.append(rows.prompt("d", exchange=user_says(ASKED)), rows.final("d", GOT))
        await ledger.append(rows.prompt("f"), rows.final("f", "the unheld words"))
        await ledger.close()

    asyncio.run(go())
    make_key(tmp_path / "ledger.key")
    monkeypatch.setenv(VARIABLE, str(tmp_path / "ledger.key"))
    hold(url, ["d"], holder="case-1", until=NOW + 60, now=NOW)
    disk = b"".join(file.read_bytes() for file in tmp_path.glob("l.db*"))
    assert b"the unheld words" in disk
    assert ASKED.encode() not in disk
    assert GOT.encode() not in disk


def test_another_key_a_changed_byte_or_another_place_is_an_error(
    held: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing that does not open is passed on as content."""
    engine = open_engine(held, wait_s=5.0, write=True)
    with engine.begin() as connection:
        sealed = connection.execute(
            select(FINALS.c.delivered).where(FINALS.c.decision_id == "d")
        ).scalar_one()
        here = update(FINALS).where(FINALS.c.decision_id == "free")
        connection.execute(here.values(delivered=sealed))
    with pytest.raises(LedgerError, match="another place"):
        read(held, "free")
    data = bytearray(base64.b64decode(sealed.removeprefix("sealed:1:")))
    data[20] ^= 1
    with engine.begin() as connection:
        here = update(FINALS).where(FINALS.c.decision_id == "d")
        wrong = "sealed:1:" + base64.b64encode(bytes(data)).decode()
        connection.execute(here.values(delivered=wrong))
    with pytest.raises(LedgerError):
        read(held)
    make_key(tmp_path / "other.key")
    monkeypatch.setenv(VARIABLE, str(tmp_path / "other.key"))
    with pytest.raises(LedgerError):
        read(held)


def test_a_key_that_others_can_read_or_that_is_none_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A loose mode, a wrong length, a missing file, and a file that would be overwritten."""
    path = tmp_path / "k"
    make_key(path)
    with pytest.raises(ConfigError):
        make_key(path)
    path.chmod(0o644)
    monkeypatch.setenv(VARIABLE, str(path))
    with pytest.raises(ConfigError, match="others"):
        hold(str(tmp_path / "l.db"), ["d"], holder="c", until=NOW + 1, now=NOW)
    monkeypatch.setenv(VARIABLE, str(tmp_path / "none"))
    with pytest.raises(ConfigError):
        hold(str(tmp_path / "l.db"), ["d"], holder="c", until=NOW + 1, now=NOW)
    with pytest.raises(ConfigError):
        ContentKey(b"short")
