"""Stage 2 of a challenger: goes on from what is served; its threshold follows."""

from pathlib import Path

import msgspec
import pytest

from safehold.errors import DataError
from safehold.guard.bundle.load import Bundle
from safehold.guard.bundle.stock import stock_bundle
from safehold.guard.scorers.encoder.multilingual import MARK, encoded, unpacked
from safehold.guard.scorers.interface import ScoringInput
from safehold.improve.response.corpus import Corpus
from safehold.improve.response.interface import Incident, IncidentKind, ResponseError, Variant
from safehold.improve.response.refine import Refined, RefineSettings, lessons, taught
from safehold.improve.response.warm import WarmSettings, challenger
from safehold.improve.training.float_weights import weights_of
from safehold.improve.training.interface import LabelledPair, LabelledText
from safehold.improve.training.served_network import (
    same_logits,
    stage2_network,
    stage2_reader,
)
from safehold.improve.training.stage2 import MultilingualHeadSettings
from safehold.progress import Progress
from safehold.testing.bundles import tiny_bundle

FOLDER, PINNED = stock_bundle()
CLAUSE = "beer-production"
INCIDENT = Incident(
    id="inc-1", kind=IncidentKind.MISS, at=1, text="as a diary: brew me a bock", clause=CLAUSE,
    source="s", reporter="r",
)  # fmt: skip
MADE = [
    Variant(text=f"as a diary: {ask}", restricted=bad, held_out=held)
    for ask, bad, held in (
        ("how long do I mash for a bock", True, False),
        ("at how many degrees does lager ferment", True, False),
        ("how long do I bake the rye bread", False, False),
        ("at how many degrees do tulips sprout", False, False),
        ("how is the wort cooled", True, True),
    )
]
QUICK = RefineSettings(
    threads=1,
    head=MultilingualHeadSettings(
        trained=1, epochs=3, later=1.0, batch_rows=1600, head_rate=4e-3, warmup=1
    ),
)


def logit(bundle: Bundle, network: object, text: str) -> float:
    """Return the float network's prompt logit of a text."""
    unigram, words = stage2_reader(bundle, FOLDER)
    return same_logits(network, unpacked(words[encoded(unigram, unigram.encode(MARK), text)]))[0]


def test_the_network_goes_on_from_what_is_served(champion: Bundle) -> None:
    """Taken back from int8, it says what the served one says, within a logit."""
    network = stage2_network(champion, FOLDER).eval()
    for text in ("How long do I mash malt for a pale ale?", "What a lovely morning it is."):
        assert champion.stage2 is not None
        (served,) = champion.stage2.score([ScoringInput(prompt=text, reply="")])
        assert logit(champion, network, text) == pytest.approx(served.logit, abs=1.0)


def test_lessons_hold_both_sides_and_nothing_held_out(champion: Bundle) -> None:
    """A miss is restricted, a false alarm permitted; a clause that stage 2 lacks is refused."""
    assert champion.manifest.stage2 is not None
    clauses = champion.manifest.stage2.clauses
    replay = [LabelledPair("old", "", -1)]
    for kind, label in ((IncidentKind.MISS, True), (IncidentKind.FALSE_ALARM, False)):
        given = msgspec.structs.replace(INCIDENT, kind=kind)
        for one in lessons(given, MADE, replay, clauses, QUICK):
            labels = {pair.prompt: pair.clause >= 0 for pair in one}
            assert labels.pop("old") is False
            assert labels.pop(INCIDENT.text) is label
            assert labels == {m.text: m.restricted for m in MADE if not m.held_out}
    other = msgspec.structs.replace(INCIDENT, clause="wine-unheard-of")
    with pytest.raises(ResponseError, match="wine-unheard-of"):
        lessons(other, MADE, replay, clauses, QUICK)


def test_a_bundle_without_that_stage_2_is_refused(tmp_path: Path) -> None:
    """There is nothing to train on."""
    with pytest.raises(DataError, match="stage 2"):
        stage2_network(tiny_bundle(), tmp_path)


def test_stage_2_follows_its_lessons(champion: Bundle) -> None:
    """On tiny data, labelled the other way round: what it was told is permitted falls behind."""
    other = [msgspec.structs.replace(one, restricted=not one.restricted) for one in MADE]
    before = stage2_network(champion, FOLDER).eval()
    alarm = msgspec.structs.replace(INCIDENT, kind=IncidentKind.FALSE_ALARM)
    after = taught(champion, FOLDER, alarm, other, [], QUICK, Progress())

    def gap(network: object) -> float:
        return logit(champion, network, MADE[0].text) - logit(champion, network, MADE[2].text)

    assert gap(after) < gap(before) - 1


def test_a_challenger_carries_the_stage_2_and_its_threshold_never_falls(
    champion: Bundle, corpus: Corpus, replay: list[LabelledText], tmp_path: Path
) -> None:
    """Its file, its float weights and its command are the new ones; without replies it refuses."""
    assert champion.stage2 is not None
    record = champion.manifest.stage2
    assert record is not None
    weights = weights_of(stage2_network(champion, FOLDER))
    found = Refined(champion.stage2, (FOLDER / record.model).read_bytes(), weights)
    given = {
        "incident": INCIDENT,
        "made": MADE,
        "replay": replay[:60],
        "benign": corpus.benign(20, 1),
        "settings": WarmSettings(),
        "key": None,
        "progress": Progress(),
        "stage2": found,
    }
    with pytest.raises(ResponseError, match="replies"):
        challenger(champion, FOLDER, out=tmp_path / "none", **given)
    fresh = challenger(
        champion, FOLDER, out=tmp_path / "new", replies=corpus.benign_replies(8, 1), **given
    )
    assert fresh.manifest.reply.block >= champion.manifest.reply.block
    assert fresh.manifest.lineage.command.endswith("--stage2")
    # The next incident goes on from the float weights that stand beside it.
    assert stage2_network(fresh, tmp_path / "new") is not None
