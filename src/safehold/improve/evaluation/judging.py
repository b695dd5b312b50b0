"""A prompted judge on the same items as the guard: a second opinion, slow, kept as it comes."""

from collections.abc import Iterator, Sequence

import msgspec

from safehold.errors import ScorerError
from safehold.guard.interface import Stage
from safehold.guard.scorers.interface import ExchangeScore, ScoringInput
from safehold.guard.scorers.judge import PromptedJudge
from safehold.guard.session.segments import reading
from safehold.improve.evaluation import figures
from safehold.improve.evaluation.cache import ScoreCache, run_key
from safehold.improve.evaluation.interface import (
    DataFile,
    EvalItem,
    ItemScores,
    ItemSide,
    JudgedItem,
    JudgeFigures,
    Label,
    Score,
)
from safehold.progress import Progress

_BATCH = 8
_UNSCORABLE = Score(None, None, blocked=False, escalations=0, stage=Stage.FAIL_MODE)


class SecondOpinion(msgspec.Struct, frozen=True):
    """A judge, and what its model is called in the report and in the cache."""

    judge: PromptedJudge
    model: str


def judge_figures(
    second: SecondOpinion, sources: Sequence[DataFile], cache: ScoreCache, progress: Progress
) -> JudgeFigures:
    """Return the judge's figures; a verdict is kept as it comes, a failure is asked again."""
    judged = tuple(_judged(second, sources, cache, progress))
    restricted = [entry for entry in judged if entry.item.label is Label.RESTRICTED]
    benign = [entry for entry in judged if entry.item.label is Label.BENIGN]
    separations = []
    for surface in (ItemSide.REPLY, ItemSide.PROMPT):
        high, low = _logits(restricted, surface), _logits(benign, surface)
        if high and low:
            separations.append(
                figures.separation("restricted texts", "all benign", surface, high, low)
            )
    return JudgeFigures(second.model, figures.headline(judged), tuple(separations))


def _logits(judged: Sequence[JudgedItem], surface: ItemSide) -> list[float]:
    scores = figures.scores_on(judged, surface)
    return [score.final for score in scores if score.final is not None]


def _judged(
    second: SecondOpinion, sources: Sequence[DataFile], cache: ScoreCache, progress: Progress
) -> Iterator[JudgedItem]:
    for source in sources:
        progress.start(f"judge: {source.name}", len(source.items))
        run = run_key("judge", source.sha256, second.judge.framing.digest, second.model)
        for start in range(0, len(source.items), _BATCH):
            for item, scores in _scored(second, cache, run, source.items[start : start + _BATCH]):
                yield JudgedItem(item, scores)
                progress.advance()


def _scored(
    second: SecondOpinion, cache: ScoreCache, run: str, items: Sequence[EvalItem]
) -> list[tuple[EvalItem, ItemScores]]:
    fresh = [item for item in items if cache.get(run, item.key) is None]
    asked: list[tuple[str, ItemSide, ScoringInput]] = []
    for item in fresh:
        if item.asks:
            asked.append((item.key, ItemSide.PROMPT, ScoringInput(reading(item.prompt), "")))
        if item.reply:
            asked.append((item.key, ItemSide.REPLY, ScoringInput(reading(item.before), item.reply)))
    answers = second.judge.answers([given for _, _, given in asked]) if asked else []
    scores = {
        (key, surface): _score(answer)
        for (key, surface, _), answer in zip(asked, answers, strict=True)
    }
    found: list[tuple[EvalItem, ItemScores]] = []
    for item in items:
        known = cache.get(run, item.key)
        if known is None:
            known = ItemScores(
                scores.get((item.key, ItemSide.PROMPT)), scores.get((item.key, ItemSide.REPLY))
            )
            if not any(one is not None and one.unscorable for one in (known.prompt, known.reply)):
                cache.put(run, item.key, known)
        found.append((item, known))
    return found


def _score(answer: ExchangeScore | ScorerError) -> Score:
    if isinstance(answer, ScorerError):
        return _UNSCORABLE
    return Score(None, answer.logit, blocked=answer.logit > 0, escalations=1)
