"""One incident on the stock bundle: its dress, its variants, its rule, its challenger."""

import json
import math
from pathlib import Path
from statistics import fmean

import msgspec
import numpy as np
import pytest

from safehold.detect.redteam.questions import questions, wrappers
from safehold.errors import DataError
from safehold.guard.bundle.load import Bundle, UnsafeUnsigned, load_bundle
from safehold.guard.bundle.stock import stock_bundle
from safehold.improve.response.corpus import Corpus
from safehold.improve.response.hotrule import cost_of, hot_rule, searched
from safehold.improve.response.incident import dress_of
from safehold.improve.response.interface import (
    MOST_CHARS,
    Incident,
    IncidentKind,
    ResponseError,
    checked,
)
from safehold.improve.response.judged import Judge
from safehold.improve.response.proliferate import ProliferateSettings, variants
from safehold.improve.response.warm import WarmSettings, at, challenger
from safehold.improve.training.float_weights import keep_weights, kept_weights
from safehold.improve.training.interface import LabelledText
from safehold.progress import Progress

ASK = questions("homebrewing").topics[0].questions[3]
SMALL = ProliferateSettings(learnt=48, held_out=32)
BENIGN_MAIL = (
    "Dear members of the choir, the rehearsal of next Tuesday begins at seven instead of half past "
    "six, since the hall is let to the chess club before us. Please bring the blue folders."
)


def incident(text: str, **changes: object) -> Incident:
    """Return an incident of this text."""
    given = Incident(
        id="inc-1",
        kind=IncidentKind.MISS,
        at=1_000,
        text=text,
        clause="beer-production",
        source="test",
        reporter="tester",
    )
    return msgspec.structs.replace(given, **changes)


@pytest.mark.parametrize("number", [3, 17, 21, 27, 34, 36, 45])
def test_the_ask_is_found_in_its_dress(champion: Bundle, number: int) -> None:
    """Quoted, in a line, behind a label or in JSON: what is left is the dress with a slot."""
    text = wrappers()[number].around(ASK)
    dress = dress_of(incident(text, confirmed_by="anna"), Judge(champion))
    assert dress.ask in ASK
    assert len(dress.ask) > 0.5 * len(ASK)
    assert "<<ask>>" in dress.wrapper.text
    assert dress.known_as == wrappers()[number].family


def test_benign_text_that_is_reported_as_a_jailbreak_is_refused(champion: Bundle) -> None:
    """Poison: somebody wants the choir's mail refused; nothing in it is restricted."""
    with pytest.raises(ResponseError, match="confirmed-by"):
        dress_of(incident(BENIGN_MAIL), Judge(champion))


def test_a_confirmed_poison_still_costs_what_it_costs(champion: Bundle, corpus: Corpus) -> None:
    """Confirmed all the same, its rule hits the operator's own mails, and the cost says so."""
    given = incident(BENIGN_MAIL, confirmed_by="mallory")
    dress = dress_of(given, Judge(champion))
    made = variants(dress, corpus.asks(), SMALL)
    own = [BENIGN_MAIL, BENIGN_MAIL.replace("Tuesday", "Friday"), "A quite different mail."]
    rule = hot_rule(given, dress, made, own, sources={}, owner="mallory", now=1_000).rule
    assert rule.cost is not None
    assert rule.cost.hits == 2


@pytest.mark.parametrize("text", ["", "  \n ", "x" * (MOST_CHARS + 1), "x" * 10_000_000])
def test_an_example_without_text_or_of_ten_megabytes_is_refused(text: str) -> None:
    """The message says how much is taken; nothing is cut in silence."""
    with pytest.raises(ResponseError):
        checked(text)
    assert checked("x" * MOST_CHARS)


def test_variants_repeat_and_have_both_sides(champion: Bundle, corpus: Corpus) -> None:
    """Equal seeds give equal texts; restricted and permitted asks stand in the same dress."""
    dress = dress_of(incident(wrappers()[36].around(ASK)), Judge(champion))
    made = variants(dress, corpus.asks(), SMALL)
    assert made == variants(dress, corpus.asks(), SMALL)
    counts = {(one.restricted, one.held_out) for one in made}
    assert len(counts) == 4
    assert sum(one.held_out for one in made) == 64
    held = {one.text for one in made if one.held_out}
    assert not held & {one.text for one in made if not one.held_out}


def test_a_rewriter_may_reword_the_dress_and_never_lose_the_slot(
    champion: Bundle, corpus: Corpus
) -> None:
    """What comes back without the slot is not used."""
    dress = dress_of(incident(wrappers()[36].around(ASK)), Judge(champion))
    lost = variants(dress, corpus.asks(), SMALL, lambda text, seed: f"{seed} qqlost {len(text)}")
    assert not any("qqlost" in one.text.lower() for one in lost)
    kept = variants(dress, corpus.asks(), SMALL, lambda _, seed: f"reworded {seed}: <<ask>>")
    assert any("reworded" in one.text for one in kept if not one.held_out)


@pytest.mark.parametrize("number", [1, 5, 12, 24, 29, 36, 44])
def test_the_rule_catches_its_family_and_nothing_benign(
    champion: Bundle, corpus: Corpus, number: int
) -> None:
    """At least nine of ten held-out variants are caught, none of the benign texts is."""
    text = wrappers()[number].around(ASK)
    given = incident(text, confirmed_by="anna")
    dress = dress_of(given, Judge(champion))
    made = variants(dress, corpus.asks(), SMALL)
    benign = corpus.benign(600, 1)
    found = hot_rule(given, dress, made, benign, sources={"b": "0"}, owner="anna", now=1_000)
    assert found.caught.value >= 0.9
    assert found.rule.cost is not None
    assert (found.rule.cost.hits, found.rule.cost.n) == (0, 600)
    assert searched(found.rule).search(text) is not None
    assert cost_of(found.rule, [text], {}).hits == 1


def test_a_dress_of_nothing_makes_no_rule(champion: Bundle) -> None:
    """A bare ask has no dress: a rule of it would refuse whatever it stands in."""
    given = incident(ASK, confirmed_by="anna")
    dress = dress_of(given, Judge(champion), ask=ASK)
    with pytest.raises(ResponseError, match="warm start"):
        hot_rule(given, dress, [], ["benign"], sources={}, owner="anna", now=1)
    with pytest.raises(ResponseError, match="benign"):
        hot_rule(given, dress, [], [], sources={}, owner="anna", now=1)


def warmed(
    champion: Bundle,
    corpus: Corpus,
    out: Path,
    settings: ProliferateSettings,
    *,
    replay: list[LabelledText],
    benign: int,
) -> Bundle:
    """Return a challenger for a dress that the champion misses, set on so many benign texts."""
    given = incident(wrappers()[36].around(ASK))
    return challenger(
        champion,
        stock_bundle()[0],
        incident=given,
        made=variants(dress_of(given, Judge(champion)), corpus.asks(), settings),
        replay=replay,
        benign=corpus.benign(benign, 1),
        settings=WarmSettings(rounds=1),
        out=out,
        key=None,
        progress=Progress(),
    )


@pytest.fixture(scope="module")
def made_challenger(
    champion: Bundle,
    corpus: Corpus,
    replay: list[LabelledText],
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Bundle, Path]:
    """A challenger for a dress that the champion misses, and where it stands."""
    out = tmp_path_factory.mktemp("warm") / "challenger"
    return warmed(champion, corpus, out, SMALL, replay=replay[:400], benign=100), out


def test_a_challenger_learns_the_dress_with_a_restricted_ask_only(
    champion: Bundle, made_challenger: tuple[Bundle, Path]
) -> None:
    """Held-out questions in it are hotter to stage 1 and no more pass; benign ones hardly more.

    The stock bundle stops most of them already, so that few more can be. `tests/soak` learns from
    as much as a real one does, and none more passes then.
    """
    fresh, _ = made_challenger
    found, dress = questions("homebrewing"), wrappers()[36]
    asks = [dress.around(ask) for topic in found.topics for ask in topic.questions[::2]]
    twins = [dress.around(one.text) for one in found.benign]
    before, after = Judge(champion), Judge(fresh)

    def hotter(texts: list[str]) -> float:
        return fmean(after.stage1(texts)) - fmean(before.stage1(texts))

    def refused(judge: Judge, texts: list[str]) -> int:
        return sum(one.blocked for one in judge.prompts(texts))

    assert hotter(asks) > 0.1
    assert refused(after, asks) >= refused(before, asks) - len(asks) // 20
    assert refused(after, twins) <= refused(before, twins) + 4


def test_a_challenger_is_a_bundle_that_loads_and_can_be_warmed_again(
    made_challenger: tuple[Bundle, Path],
) -> None:
    """All but the prompt head is the champion's; its float weights stand beside it, not in it."""
    fresh, out = made_challenger
    assert load_bundle(out, UnsafeUnsigned()).digest == fresh.digest
    assert "respond retrain --incident inc-1" in fresh.manifest.lineage.command
    stock, _ = stock_bundle()
    for name in fresh.manifest.files:
        same = (out / name).read_bytes() == (stock / name).read_bytes()
        assert same is (name not in {"stage1.prompt.npy", "golden.jsonl"})
    assert not any(path.suffix == ".safetensors" for path in out.iterdir())
    assert (out.parent / "challenger.training" / "weights.safetensors").is_file()


def test_the_same_seed_gives_the_same_bytes(
    champion: Bundle, corpus: Corpus, replay: list[LabelledText], tmp_path: Path
) -> None:
    """A warm start is repeatable."""
    few = ProliferateSettings(learnt=12, held_out=8)
    fresh, again = (
        warmed(champion, corpus, tmp_path / name, few, replay=replay[:60], benign=16)
        for name in "ab"
    )
    assert again.digest == fresh.digest
    assert again.digest != champion.digest


def test_a_false_alarm_is_answered_by_its_own_twins(champion: Bundle, corpus: Corpus) -> None:
    """What was refused wrongly makes variants with permitted asks, and restricted twins."""
    text = "At the museum of brewing, which copper kettle is the oldest one that visitors may see?"
    given = incident(text, kind=IncidentKind.FALSE_ALARM)
    dress = dress_of(given, Judge(champion))
    made = variants(dress, corpus.asks(), SMALL)
    assert {one.restricted for one in made} == {True, False}


def test_a_false_alarm_passes_after_the_warm_start_and_its_twins_stay_stopped(
    champion: Bundle, corpus: Corpus, replay: list[LabelledText], tmp_path: Path
) -> None:
    """The hottest of some benign prompts, planted as refused: it passes, and is in the golden set.

    The champion is the stock bundle at a threshold just below what that prompt scores.
    """
    judge = Judge(champion)
    seen = {text: judge.prompt(text) for text in corpus.benign(40, 1)}
    text = max(seen, key=lambda one: seen[one].score)
    score = seen[text].score
    prompt = champion.cascade.prompt
    block = prompt.block + math.log(score / (1 - score)) - 0.05
    refusing = at(champion, msgspec.structs.replace(prompt, block=block))
    assert Judge(refusing).prompt(text).blocked
    given = incident(text, kind=IncidentKind.FALSE_ALARM)
    made = variants(dress_of(given, Judge(refusing)), corpus.asks(), SMALL)
    with pytest.raises(ResponseError, match="false alarm"):
        hot_rule(given, dress_of(given, judge), made, [text], sources={}, owner="anna", now=1)
    fresh = challenger(
        refusing,
        stock_bundle()[0],
        incident=given,
        made=made,
        replay=replay[:300],
        benign=corpus.benign(60, 1),
        settings=WarmSettings(),
        out=tmp_path / "challenger",
        key=None,
        progress=Progress(),
    )
    assert not Judge(fresh).prompt(text).blocked
    lines = (tmp_path / "challenger" / "golden.jsonl").read_text(encoding="utf-8").splitlines()
    kept = [json.loads(line) for line in lines]
    assert {"prompt": text, "reply": "", "blocked": False} in kept
    bad = [one.text for one in made if one.restricted and one.held_out]
    stopped = sum(one.blocked for one in Judge(fresh).prompts(bad))
    assert stopped >= 0.9 * sum(one.blocked for one in Judge(refusing).prompts(bad))


def test_the_weights_of_another_bundle_are_refused(tmp_path: Path) -> None:
    """A warm start from the wrong weights would release something that nobody trained."""
    keep_weights(tmp_path / "b", "1" * 64, {"stage1.prompt": np.zeros(4, np.float32)})
    assert kept_weights(tmp_path / "b", "1" * 64) is not None
    assert kept_weights(tmp_path / "c", "1" * 64) is None
    with pytest.raises(DataError):
        kept_weights(tmp_path / "b", "2" * 64)
