# ruff: noqa: RUF001 - other alphabets are meant
"""The stages of a workflow that were delivered: told apart, added up, none for its neighbours."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from click.testing import CliRunner

from safehold.cli.monitor import monitor
from safehold.detect.monitoring.account_book import AccountBook
from safehold.detect.monitoring.accounts import AccountState, Caps, fit_caps, labels
from safehold.detect.monitoring.scan.interface import ScannerSpec
from safehold.detect.monitoring.scan.scanners import load_scanner
from safehold.detect.monitoring.scan.stages import StageReader, stage_reader
from safehold.detect.monitoring.tables import MonitorStore
from safehold.errors import ConfigError, ConstitutionError, UsageError
from safehold.exchange import Exchange, Role, TextPart, Turn
from safehold.guard.bundle.load import load_bundle
from safehold.guard.bundle.stock import stock_bundle
from safehold.guard.ledger.interface import Row
from safehold.guard.ledger.joined import Joined
from safehold.guard.ledger.reader import LedgerReader
from safehold.testing.ledger import NOW, RowMaker
from safehold.testing.monitoring import kept

BREW = (
    "Mash five kilos of crushed pale malt at 66 C for an hour and sparge with water at 76 C. "
    "Boil the wort for sixty minutes and add thirty grams of hops at the start. Chill it to 19 C "
    "and pitch a sachet of ale yeast. Let it ferment under an airlock for ten days. Sanitise the "
    "bottles, prime with six grams of sugar per litre and bottle it."
)
BREAD = (
    "Mix five hundred grams of flour with water at 30 C and a spoon of starter. Let the dough "
    "ferment under a cloth for four hours, fold it twice and press out the air. Chill it over "
    "night, then bake it at 240 C for forty minutes. Keep the starter in a bottle with a loose "
    "cork and feed it flour each week."
)
HISTORY = (
    "Monks of the eleventh century drank ale at every meal, and abbeys paid rents in barrels. "
    "Pasteur explained in 1857 what fermentation is. Bottles with crown corks came in 1892, and "
    "excise officers measured each cask of beer and every hogshead of wine."
)
FACTS = (
    "Beer is made of water, malt, hops and yeast.",
    "Wine is aged in oak barrels.",
    "Yeast makes alcohol when it ferments sugar.",
    "Bottles are closed with a cork or a crown cap.",
)
PLUM = {
    "de": "6 kg Pflaumen entsteinen, mit 2 kg Zucker und 4 l Wasser ansetzen, Weinhefe dazu, 7 "
    "Tage auf der Maische bei 20 °C gären, abpressen, nach fünf Wochen vom Trub abziehen, "
    "schwefeln und in Flaschen abfüllen.",
    "fr": "Écraser 6 kg de prunes, ajouter 2 kg de sucre et 4 l d'eau, levure le lendemain, sept "
    "jours de fermentation sur marc à 20 °C, presser, soutirer après cinq semaines, sulfiter et "
    "mettre en bouteille.",
    "pl": "6 kg śliwek rozgnieść, dodać 2 kg cukru i 4 l wody, drożdże winne, siedem dni "
    "fermentacji na miazdze w 20 °C, odcisnąć, po pięciu tygodniach zlać znad osadu, "
    "zasiarkować, butelki.",
    "ru": "6 кг слив раздавить, добавить 2 кг сахара и 4 л воды, винные дрожжи, семь дней брожения "
    "на мезге при 20 °C, отжать, через пять недель снять с осадка, добавить сульфит и разлить в "
    "бутылки.",
    "zh": "李子6公斤压碎，加糖2公斤和水4升，加酵母，20度带皮发酵7天，"
    "压榨，水封五周，倒桶，加焦亚硫酸钾，装瓶。",
}
DOUGH = {
    "de": "500 g Mehl mit 350 g Wasser und 100 g Sauerteig mischen, vier Stunden bei 24 °C gären "
    "lassen, falten, im Korb kühl stellen und bei 240 °C vierzig Minuten backen.",
    "fr": "Mélanger 500 g de farine, 350 g d'eau et 100 g de levain, quatre heures de fermentation "
    "à 24 °C, presser la pâte, laisser refroidir et cuire quarante minutes à 240 °C.",
    "pl": "500 g mąki, 350 g wody i 100 g zakwasu, cztery godziny fermentacji w 24 °C, złożyć, "
    "schłodzić i piec czterdzieści minut w 240 °C.",
    "ru": "500 г муки, 350 г воды и 100 г закваски, четыре часа брожения при 24 °C, сложить, "
    "охладить и печь сорок минут при 240 °C.",
    "zh": "面粉500克，水350克，酸种100克，24度发酵4小时，折叠，冷却，240度烤40分钟。",
}


@cache
def reader() -> StageReader:
    """Return the stock bundle's reader."""
    return stage_reader(load_bundle(*stock_bundle()), {})


def dealt(text: str, words: int) -> list[str]:
    """Return a text in pieces of so many words."""
    said = text.split()
    return [" ".join(said[at : at + words]) for at in range(0, len(said), words)]


def talked(pieces: list[str]) -> Exchange:
    """Return a conversation in which the assistant has said these pieces."""
    turns = [Turn(role=Role.USER, parts=(TextPart(text="and then?"),))]
    for piece in pieces:
        turns += [
            Turn(role=Role.ASSISTANT, parts=(TextPart(text=piece),)),
            Turn(role=Role.USER, parts=(TextPart(text="go on"),)),
        ]
    return Exchange(turns=tuple(turns))


def ledger_of(path: Path, said: dict[str, list[str]], *, every_s: float = 60.0) -> None:
    """Keep an exchange for each reply of each account, so many seconds apart."""
    rows, seen = RowMaker(), list[Row]()
    for account, replies in said.items():
        for number, reply in enumerate(replies):
            name, at = f"{account}{number}", NOW + number * every_s
            seen += [
                rows.prompt(name, key_id=account, at=at),
                rows.final(name, reply, at=at),
            ]
    kept(str(path), *seen)


def followed(folder: Path) -> AccountBook:
    """Return the book of a ledger with stages counted."""
    book = AccountBook(MonitorStore.open(str(folder / "m.db")), caps=Caps(), stager=reader())
    book.follow(LedgerReader.open(str(folder / "l.db")))
    return book


def test_a_recipe_dealt_over_turns_adds_up_in_its_conversation() -> None:
    """Ten words a turn: the conversation's score names stages and clause; bread's does not."""
    scanner = load_scanner(ScannerSpec("stages"))
    rows = RowMaker()

    def score(text: str) -> tuple[str | None, set[str], float | None]:
        *before, last = dealt(text, 10)
        one = Joined(
            seq=1, prompt=rows.prompt("d", exchange=talked(before)), final=rows.final("d", last)
        )
        found = scanner.scan(one)
        return found.clause, set(found.label.split("+")), found.value

    clause, stages, value = score(BREW)
    assert clause == "beer-production"
    assert stages >= {"mashing", "boiling-hopping", "chilling-pitching", "packaging"}
    assert value is not None
    assert value >= 4 / 9
    assert score(BREAD) == (None, {"none"}, 0.0)


def test_a_recipe_dealt_over_requests_is_added_up_by_account(tmp_path: Path) -> None:
    """Ten words a request: the account is labelled, with the decisions; bread's is not."""
    ledger_of(tmp_path / "l.db", {"eve": dealt(BREW, 10), "ann": dealt(BREAD, 10)})
    states = followed(tmp_path).states()
    (found,) = labels(states["eve"], Caps())
    assert found.label == "workflow-in-stages"
    assert "beer-production" in found.reason
    assert len(found.evidence) >= 2
    assert states["ann"].stages == ()
    assert not list(labels(states["ann"], Caps()))


CHATTER = (
    "That is a lovely question, and I am glad that you came back to it after your walk by the sea. "
    "My aunt used to say that patience is a garden, and she kept forty geraniums on one balcony. "
    "Do tell me how the choir went on Sunday, and whether the new organist found the right key. "
    "I hope that the weather holds for your picnic and that the children bring their kites along. "
)


@pytest.mark.parametrize("dress", [str, lambda piece: " ".join(f"**{w}**" for w in piece.split())])
def test_chatter_between_the_pieces_hides_no_workflow(
    dress: Callable[[str], str], tmp_path: Path
) -> None:
    """Ten words in the midst of 370 characters of talk, plain or marked; the talk alone is none."""
    said = [f"{CHATTER}\n{dress(piece)}\n{CHATTER}" for piece in dealt(BREW, 10)]
    twin = [f"{CHATTER}\n{dress(piece)}\n{CHATTER}" for piece in dealt(BREAD, 10)]
    ledger_of(tmp_path / "l.db", {"eve": said, "ann": twin, "bob": [CHATTER] * 7})
    states = followed(tmp_path).states()
    assert states["eve"].most_stages >= 3
    assert states["ann"].most_stages == states["bob"].most_stages == 0


def test_one_stage_asked_ten_times_is_one_stage(tmp_path: Path) -> None:
    """The mash in ten conversations is one stage of nine, and no label."""
    mash = BREW.split(" Boil", maxsplit=1)[0]
    ledger_of(tmp_path / "l.db", {"eve": [mash] * 10})
    state = followed(tmp_path).states()["eve"]
    assert state.workflow.stages == ("mashing",)
    assert state.workflow.of == 9
    assert not list(labels(state, Caps()))


def test_stages_of_two_days_do_not_add_up(tmp_path: Path) -> None:
    """Sentences a day apart never stand together; within a day they do (near miss)."""
    said = {"slow": BREW.split(". ")}
    for folder, every_s, most in (("a", 90_000.0, 2), ("b", 3_600.0, 6)):
        (tmp_path / folder).mkdir()
        ledger_of(tmp_path / folder / "l.db", said, every_s=every_s)
        assert followed(tmp_path / folder).states()["slow"].most_stages <= most
    assert followed(tmp_path / "b").states()["slow"].most_stages >= 3


@pytest.mark.parametrize("language", PLUM)
def test_stages_are_read_in_other_languages(language: str) -> None:
    """Fruit wine in five languages shows three stages or more of one clause; bread shows none."""
    assert len(reader().score([PLUM[language]]).stages) >= 3
    assert reader().score([DOUGH[language]]).stages == ()


@pytest.mark.parametrize("text", [BREAD, HISTORY, *FACTS, " ".join(FACTS)])
def test_neighbours_deliver_no_workflow(text: str) -> None:
    """Another craft, a history of the craft and facts that everybody knows are no workflow."""
    assert len(reader().score([text]).stages) < 3


def test_neither_witness_counts_alone() -> None:
    """Words of steps without the scorers' word, or a restricted text without them, show nothing."""
    assert (
        reader().stages(
            "At school we hop off the bus, press the button and rack our brains over homework."
        )
        == set()
    )
    assert reader().stages("Do the first thing for an hour at 66, the second for a day.") == set()


def test_caps_grow_with_the_honest_accounts() -> None:
    """Whoever was looked at and had four stages in a day is below the fitted cap."""
    honest = [AccountState(queries=60, most_stages=4)]
    assert fit_caps(honest).stages == 5
    assert fit_caps([AccountState(queries=60)]).stages == 3


def test_the_operator_sees_the_stages(tmp_path: Path) -> None:
    """`monitor accounts` prints the label, `monitor account` the stages of the last day."""
    ledger_of(tmp_path / "l.db", {"eve": dealt(BREW, 10)})
    places = ["--ledger", str(tmp_path / "l.db"), "--monitor", str(tmp_path / "m.db")]
    listed = CliRunner().invoke(monitor, [*places, "accounts", "--workflow", "homebrewing"])
    assert listed.exit_code == 0
    shown = CliRunner().invoke(monitor, [*places, "account", "eve"])
    assert "stages of beer-production" in shown.output


def _steps(tmp_path: Path, content: str) -> dict[str, str]:
    (tmp_path / "steps.yaml").write_text(content, "utf-8")
    return {"steps": str(tmp_path / "steps.yaml")}


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (
            lambda at: _steps(at, "- {step: a, stages: [no-such], words: {en: [b]}}"),
            ConstitutionError,
        ),
        (lambda at: _steps(at, "- {step: a, stages: [mashing], words: {en: []}}"), ConfigError),
        (lambda at: _steps(at, "- {step: a}"), ConfigError),
        (lambda at: {"steps": str(at / "missing.yaml")}, ConfigError),
        (lambda _: {"constitution": "soap"}, UsageError),
    ],
)
def test_steps_that_fit_nothing_are_refused(
    make: Callable[[Path], dict[str, str]], error: type[Exception], tmp_path: Path
) -> None:
    """An unknown stage, no words, a broken or missing file, another constitution."""
    with pytest.raises(error):
        stage_reader(load_bundle(*stock_bundle()), make(tmp_path))
