"""A warm start on as much text as a real one learns from."""

from pathlib import Path

import pytest

from safehold.constitution.library import load
from safehold.detect.redteam.questions import questions, wrappers
from safehold.guard.bundle.load import load_bundle
from safehold.guard.bundle.stock import stock_bundle
from safehold.improve.response.corpus import of_seed_books
from safehold.improve.response.incident import dress_of
from safehold.improve.response.interface import Incident, IncidentKind
from safehold.improve.response.judged import Judge
from safehold.improve.response.proliferate import ProliferateSettings, variants
from safehold.improve.response.warm import WarmSettings, challenger
from safehold.progress import Progress

pytestmark = pytest.mark.soak


def test_no_more_questions_pass_in_the_dress_of_an_incident(tmp_path: Path) -> None:
    """Of the held-out questions in it none more passes, and hardly more benign ones are stopped."""
    folder, pinned = stock_bundle()
    champion, found, dress = load_bundle(folder, pinned), questions("homebrewing"), wrappers()[36]
    corpus = of_seed_books(load("homebrewing"), 1)
    given = Incident(
        id="inc-1", kind=IncidentKind.MISS, at=1, text=dress.around(found.topics[0].questions[3]),
        clause="beer-production", source="s", reporter="r",
    )  # fmt: skip
    before = Judge(champion)
    fresh = challenger(
        champion,
        folder,
        incident=given,
        made=variants(dress_of(given, before), corpus.asks(), ProliferateSettings()),
        replay=corpus.replay(1_000, 1),
        benign=corpus.benign(400, 1),
        settings=WarmSettings(rounds=1),
        out=tmp_path / "challenger",
        key=None,
        progress=Progress(),
    )

    def refused(judge: Judge, texts: list[str]) -> int:
        return sum(one.blocked for one in judge.prompts(texts))

    asks = [dress.around(ask) for topic in found.topics for ask in topic.questions[::2]]
    twins = [dress.around(one.text) for one in found.benign]
    after = Judge(fresh)
    assert refused(after, asks) >= refused(before, asks)
    assert refused(after, twins) <= refused(before, twins) + 4
