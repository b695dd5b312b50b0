"""The table of scanners: new rules, sketches, conversations and the judge over old traffic."""

import json
from pathlib import Path

import msgspec
import pytest

from safehold.detect.monitoring.account_book import AccountBook
from safehold.detect.monitoring.accounts import (
    AccountState,
    Caps,
    DayScores,
    labels,
    observe_window,
    sketch,
)
from safehold.detect.monitoring.scan.guard_scanners import day_joiner
from safehold.detect.monitoring.scan.interface import ScannerSpec
from safehold.detect.monitoring.scan.judge_scanner import on_the_top
from safehold.detect.monitoring.scan.scanners import SCANNERS, load_scanner
from safehold.detect.monitoring.scan.work import ScanJob, ScanWorker
from safehold.detect.monitoring.tables import RESULTS, MonitorStore
from safehold.errors import UsageError
from safehold.exchange import Exchange, Role, TextPart, Turn
from safehold.guard.ledger.joined import joined
from safehold.guard.ledger.reader import LedgerReader
from safehold.testing.judge import JudgeServer, by_words
from safehold.testing.ledger import RowMaker
from safehold.testing.monitoring import fill

BREW = (
    "Mash the crushed pale malt at 67 C for an hour. Sparge with water at 76 C. Boil the wort for "
    "sixty minutes with thirty grams of hops. Chill it to 20 C, pitch eleven grams of ale yeast "
    "and let it ferment for two weeks before you prime and bottle the beer."
)


def scanned(folder: Path, spec: ScannerSpec, asked: list[str]) -> list[tuple[str, float | None]]:
    """Scan a small ledger; return label and value of each exchange."""
    paths = str(folder / "l.db"), str(folder / "m.db")
    if not (folder / "l.db").exists():
        fill(paths[0], [("a", text, False) for text in asked])
    worker = ScanWorker(ScanJob(*paths, spec, load_scanner), "w")
    worker.queue.plan(LedgerReader.open(paths[0]), name=spec.name)
    while worker.step():
        pass
    with MonitorStore.open(paths[1]).begin() as connection:
        query = RESULTS.select().where(RESULTS.c.scanner == worker.scanner.digest)
        rows = connection.execute(query.order_by(RESULTS.c.seq)).all()
    return [(row.label, row.value) for row in rows]


def test_new_rules_say_whether_they_would_have_fired(tmp_path: Path) -> None:
    """Only the exchange that the rule is about; the clause is named."""
    rule = {"id": "r", "clause": "c/kettle", "pattern": "copper kettle", "example": "copper kettle"}
    (tmp_path / "rules.yaml").write_text(json.dumps({"rules": [rule]}))
    spec = ScannerSpec("rules", {"file": str(tmp_path / "rules.yaml")})
    found = scanned(tmp_path, spec, ["a copper kettle", "a steel kettle"])
    assert found == [("would_fire", 1.0), ("silent", 0.0)]


def test_sketches_find_what_resembles_a_text_that_is_not_at_hand(tmp_path: Path) -> None:
    """The scanner gets 64 numbers; a reworded copy is found, another text is not."""
    known = "the quick brown fox jumps over the lazy dog while the band plays on and on"
    (tmp_path / "k.jsonl").write_text(json.dumps(sketch(known)))
    spec = ScannerSpec("sketch", {"file": str(tmp_path / "k.jsonl")})
    found = scanned(tmp_path, spec, [known + " again", "how long should bread rest?"])
    assert [label for label, _ in found] == ["resembles", "new"]
    (tmp_path / "k.jsonl").write_text("[1, 2")
    with pytest.raises(UsageError):
        load_scanner(spec)


def test_the_judge_sees_the_top_share_alone(tmp_path: Path) -> None:
    """Two of ten exchanges lie in the top fifth; the judge is asked about those two."""
    asked = [f"what is the capital of country {n}?" for n in range(9)] + [BREW]
    base = scanned(tmp_path, ScannerSpec("session"), asked)
    top = sorted((value for _, value in base if value is not None), reverse=True)[1]
    with JudgeServer(by_words("malt")) as server:
        options = {"url": server.url, "model": "m", "share": "0.2", "constitution": "homebrewing"}
        spec = on_the_top(ScannerSpec("judge", options), str(tmp_path / "m.db"))
        found = scanned(tmp_path, spec, asked)
    judged = [n for n, (label, _) in enumerate(found) if label != "below_top"]
    assert judged == [n for n, (_, value) in enumerate(base) if value >= top]
    assert found[9][0] == "would_block"
    with pytest.raises(UsageError, match="first"):
        on_the_top(ScannerSpec("judge", {"by": "known"}), str(tmp_path / "m.db"))


def test_a_conversation_is_judged_as_one_text(tmp_path: Path) -> None:
    """Pieces over turns are seen together; one question with its answer is left to `session`."""
    scanner = load_scanner(ScannerSpec("workflow"))
    words = BREW.split()
    turns = [
        Turn(role, (TextPart(" ".join(words[n : n + 6])),))
        for n in range(0, len(words), 6)
        for role in (Role.USER if n % 12 == 0 else Role.ASSISTANT,)
    ]
    rows = RowMaker()
    many, one = Exchange(tuple(turns)), Exchange((turns[0],))
    paths = str(tmp_path / "l.db")
    fill(paths, [("a", "x", False)])
    with LedgerReader.open(paths).snapshot() as connection:
        base = next(iter(joined(connection, after=0, through=10)))
    told = msgspec.structs.replace(base, prompt=rows.prompt("d", exchange=many))
    single = msgspec.structs.replace(base, prompt=rows.prompt("d", exchange=one))
    assert scanner.scan(told).label == "would_block"
    assert scanner.scan(single).label == "one_turn"


def test_a_workflow_in_pieces_earns_its_label_and_small_talk_none(tmp_path: Path) -> None:
    """Six words a request: none is stopped, the day is; the twin asks as often about bread."""
    words = (BREW + " ").split() * 6
    pieces = [" ".join(words[n : n + 6]) for n in range(0, len(words), 6)]
    talk = [f"how long should rye bread number {n} rest?" for n in range(len(pieces))]
    asked = [("eve", text, False) for text in pieces] + [("ann", text, False) for text in talk]
    fill(str(tmp_path / "l.db"), asked)
    book = AccountBook(
        MonitorStore.open(str(tmp_path / "m.db")), caps=Caps(), joiner=day_joiner({})
    )
    book.follow(LedgerReader.open(str(tmp_path / "l.db")))
    states = book.states()
    assert "workflow-in-pieces" in {one.label for one in labels(states["eve"], Caps())}
    assert states["ann"].split == 0
    assert not list(labels(states["ann"], Caps()))


def test_one_accident_is_one_event() -> None:
    """A window that would be stopped ends: its texts do not count again with the next exchange."""
    state = AccountState()
    after = observe_window(state, decision_id="d", scores=DayScores(got=1.0), caps=Caps())
    assert (after.split, after.windows, after.recent) == (1, 1, ())
    assert not list(labels(after, Caps()))


def test_every_scanner_of_the_table_refuses_what_it_can_not_do() -> None:
    """Each that needs an option says which."""
    for name in ("judge", "known", "rules", "sketch"):
        with pytest.raises(UsageError, match="needs"):
            load_scanner(ScannerSpec(name))
    assert set(SCANNERS) == {
        "session", "workflow", "stages", "judge", "known", "rules", "sketch", "decoded"
    }  # fmt: skip
