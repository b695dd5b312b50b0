"""A warm start costs benign text nothing, and goes on where its own variants still pass."""

import msgspec
import numpy as np
import pytest

from safehold.detect.redteam.questions import wrappers
from safehold.guard.bundle.load import Bundle
from safehold.guard.bundle.stock import stock_bundle
from safehold.improve.response.corpus import Corpus
from safehold.improve.response.incident import dress_of
from safehold.improve.response.interface import Incident, IncidentKind, ResponseError
from safehold.improve.response.judged import Heard, Judge
from safehold.improve.response.proliferate import ProliferateSettings, variants
from safehold.improve.response.warm import (
    Hardened,
    WarmSettings,
    at,
    benign_cost,
    hardened,
    part_way,
    same_point,
    with_prompt_head,
)
from safehold.improve.training.float_weights import prompt_head
from safehold.improve.training.interface import LabelledText
from safehold.progress import Progress

FOLDER, PINNED = stock_bundle()
ASK = "at how many degrees do I mash for a pale ale?"
HEARD = Heard()
ASKS = ("a birthday card", "a walk in the rain", "my late grandfather's garden")


@pytest.mark.parametrize("shift", [-1.0, 0.0, 1.0, 4.0])
@pytest.mark.parametrize("noise", [0.0, 0.2])
def test_thresholds_set_again_cost_benign_text_nothing(
    champion: Bundle, corpus: Corpus, shift: float, noise: float
) -> None:
    """Whatever the new head: no more benign text is escalated or refused, nor more in the dress."""
    benign, twins = corpus.benign(80, 1), corpus.benign(110, 2)[80:]
    start = prompt_head(champion, FOLDER)
    rng = np.random.default_rng(7)
    table = start.table + rng.normal(0, noise, start.table.shape).astype(np.float32)
    other = msgspec.structs.replace(start, table=table, bias=start.bias + shift)
    before = benign_cost(champion, benign, twins, HEARD)
    fresh = with_prompt_head(champion, other)
    fresh = at(fresh, same_point(before, fresh, benign, twins, HEARD))
    found = Judge(fresh, heard=HEARD).prompts([*benign, *twins])
    assert sum(one.escalated for one in found[: len(benign)]) <= before.escalated
    assert sum(one.blocked for one in found[: len(benign)]) <= before.refused
    assert sum(one.blocked for one in found[len(benign) :]) <= before.twins_refused
    here = champion.cascade.prompt
    assert fresh.cascade.prompt.block >= here.block
    assert fresh.cascade.prompt.escalate >= here.escalate
    # Against the head alone: the thresholds did it where the head is hotter.
    if shift >= 4:
        alone = Judge(with_prompt_head(champion, other), heard=HEARD).prompts(benign)
        assert sum(one.escalated for one in alone) > before.escalated


def test_what_is_saved_elsewhere_pays_for_no_twin(champion: Bundle, corpus: Corpus) -> None:
    """A head that spares benign text and burns the twins gets a threshold that spares both."""
    benign, twins = corpus.benign(40, 1), [wrappers()[36].around(one) for one in ASKS]
    colder = msgspec.structs.replace(champion.cascade.prompt, block=-20.0)
    before = benign_cost(at(champion, colder), benign, [], HEARD)
    assert before.refused > len(twins)  # so many refusals could be spent on the twins
    before = msgspec.structs.replace(before, twins_refused=0)
    fresh = at(champion, same_point(before, champion, benign, twins, HEARD))
    assert not any(one.blocked for one in Judge(fresh, heard=HEARD).prompts(twins))


@pytest.mark.parametrize("way", [0.0, 0.25, 0.5, 1.0])
def test_part_of_the_way_lies_between(champion: Bundle, way: float) -> None:
    """Nothing of the way is the champion, all of it the fit, and in between every weight is."""
    start = prompt_head(champion, FOLDER)
    fit = msgspec.structs.replace(start, table=start.table + 2, bias=start.bias - 1)
    between = part_way(start, fit, way)
    assert between.table == pytest.approx(start.table + 2 * way, abs=1e-5)
    assert between.bias == pytest.approx(start.bias - way)


def test_what_a_stage_2_said_is_what_it_says(champion: Bundle, corpus: Corpus) -> None:
    """A guard that remembers stage 2's answers judges as one that asks each time."""
    texts = corpus.benign(20, 3)
    assert Judge(champion, heard=Heard()).prompts(texts) == Judge(champion).prompts(texts)


def rounds(champion: Bundle, corpus: Corpus, replay: list[LabelledText], count: int) -> Hardened:
    """Return what so many harder fits find for one dress."""
    incident = Incident(
        id="inc-1", kind=IncidentKind.MISS, at=1, text=wrappers()[36].around(ASK),
        clause="beer-production", source="s", reporter="r",
    )  # fmt: skip
    dress = dress_of(incident, Judge(champion), ask=ASK)
    return hardened(
        champion,
        champion,
        prompt_head(champion, FOLDER),
        incident=incident,
        made=variants(dress, corpus.asks(), ProliferateSettings(learnt=48, held_out=8)),
        replay=replay[:100],
        benign=corpus.benign(30, 1),
        settings=WarmSettings(rounds=count),
        progress=Progress(),
    )


def test_harder_rounds_leave_fewer_learnt_variants_wrong(
    champion: Bundle, corpus: Corpus, replay: list[LabelledText]
) -> None:
    """What the first fit lets through weighs more in the next; the best fit is what is kept."""
    more = rounds(champion, corpus, replay, 3)
    assert more.tried[0] > 0
    assert len(more.wrong) == min(more.tried) < more.tried[0]
    judge = Judge(more.bundle)
    assert all(judge.prompt(one.text).blocked is not one.restricted for one in more.wrong)
    assert not any(one.held_out for one in more.wrong)


def test_a_warm_start_without_benign_text_or_fit_is_refused(
    champion: Bundle, corpus: Corpus, replay: list[LabelledText]
) -> None:
    """There is nothing to set a threshold on, or no bundle."""
    with pytest.raises(ResponseError, match="benign"):
        benign_cost(champion, [], [])
    with pytest.raises(ResponseError, match="rounds"):
        rounds(champion, corpus, replay, -1)
