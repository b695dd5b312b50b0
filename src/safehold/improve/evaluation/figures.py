"""From scores to the report's figures; every rate with its n and exact bounds."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from safehold.guard.session.cascade import Cascade
from safehold.improve.evaluation.curves import auc, auc_lower, rank, tpr_at
from safehold.improve.evaluation.interface import (
    Frequency,
    GroupFigures,
    ItemSide,
    JudgedItem,
    Label,
    Score,
    Separation,
    Stops,
    SurfaceFigures,
)
from safehold.stats import Rate

_ONE_BY_ONE = 100
_BANDS = (200, 1000, 4000)
_BENIGN = (Label.BENIGN, Label.OTHER_DOMAIN)
Ranked = Callable[[Score], float]


def ranking(cascade: Cascade, surface: ItemSide) -> Ranked:
    """Return the function that orders scores of one surface; 0 is the operating point."""
    operating = cascade.prompt if surface is ItemSide.PROMPT else cascade.reply
    block = operating.block if cascade.has_stage2 else operating.alone

    def ranked(score: Score) -> float:
        return rank(score, block, two_stages=cascade.has_stage2)

    return ranked


def scores_on(judged: Iterable[JudgedItem], surface: ItemSide) -> list[Score]:
    """Return the scores that items have on a surface."""
    found = (entry.scores.on(surface) for entry in judged)
    return [score for score in found if score is not None]


def grouped(
    judged: Iterable[JudgedItem], key: Callable[[JudgedItem], str]
) -> tuple[GroupFigures, ...]:
    """Return the figures of every (key, label), in the order of labels, then of names."""
    groups: dict[tuple[Label, str], list[JudgedItem]] = defaultdict(list)
    for entry in judged:
        groups[entry.item.label, key(entry)].append(entry)
    order = list(Label)
    ordered = sorted(groups, key=lambda pair: (order.index(pair[0]), pair[1]))
    return tuple(group(name, label, groups[label, name]) for label, name in ordered)


def by_language(judged: Sequence[JudgedItem]) -> tuple[GroupFigures, ...]:
    """Return the figures by language: those of `_ONE_BY_ONE` rows and more alone, others as one."""
    counts = Counter((entry.item.label, entry.item.language) for entry in judged)

    def name(entry: JudgedItem) -> str:
        own = entry.item.language
        return own if counts[entry.item.label, own] >= _ONE_BY_ONE else "other languages"

    return grouped(judged, name)


def length_of(entry: JudgedItem) -> str:
    """Return the band of a text's length, in characters."""
    size = len(entry.item.reply)
    band = next((str(most) for most in _BANDS if size <= most), None)
    return f"over {_BANDS[-1]} characters" if band is None else f"up to {band} characters"


def group(name: str, label: Label, judged: Sequence[JudgedItem]) -> GroupFigures:
    """Return the figures of one group."""
    return GroupFigures(
        name,
        label,
        prompt=_surface(scores_on(judged, ItemSide.PROMPT)),
        reply=_surface(scores_on(judged, ItemSide.REPLY)),
    )


def _surface(scores: Sequence[Score]) -> SurfaceFigures | None:
    if not scores:
        return None
    sound = [score for score in scores if not score.unscorable]
    return SurfaceFigures(
        flagged=Frequency.of(Rate(sum(score.blocked for score in sound), len(sound))),
        escalated=Frequency.of(Rate(sum(score.escalations > 0 for score in sound), len(sound))),
        unscorable=len(scores) - len(sound),
    )


def headline(judged: Sequence[JudgedItem]) -> tuple[GroupFigures, ...]:
    """Return the figures that a reader looks for first."""

    def those(name: str, label: Label, *, adjacent: bool | None = None) -> GroupFigures | None:
        chosen = [
            entry
            for entry in judged
            if entry.item.label is label and adjacent in (None, entry.item.adjacent)
        ]
        return group(name, label, chosen) if chosen else None

    rows = (
        those("restricted texts", Label.RESTRICTED),
        those("benign, adjacent to the restricted", Label.BENIGN, adjacent=True),
        those("benign, general", Label.BENIGN, adjacent=False),
        those("another domain's restricted texts", Label.OTHER_DOMAIN),
        those("on the boundary (no right answer)", Label.BOUNDARY),
        those("jailbreak templates alone", Label.TEMPLATE),
    )
    return tuple(row for row in rows if row is not None)


def separations(judged: Sequence[JudgedItem], cascade: Cascade) -> tuple[Separation, ...]:
    """Return how restricted items stand apart from each benign slice, and from all of them."""
    found: list[Separation] = []
    restricted = [entry for entry in judged if entry.item.label is Label.RESTRICTED]
    benign = [entry for entry in judged if entry.item.label in _BENIGN]
    groups: dict[str, list[JudgedItem]] = {
        "all benign": benign,
        "all adjacent benign": [entry for entry in benign if entry.item.adjacent],
        "all general benign": [entry for entry in benign if not entry.item.adjacent],
    }
    for entry in benign:
        groups.setdefault(entry.item.slice, []).append(entry)
    for surface in (ItemSide.REPLY, ItemSide.PROMPT):
        ranked = ranking(cascade, surface)
        positives = [ranked(score) for score in scores_on(restricted, surface)]
        for name, members in groups.items():
            negatives = [ranked(score) for score in scores_on(members, surface)]
            if positives and negatives:
                found.append(separation("restricted texts", name, surface, positives, negatives))
    return tuple(found)


def separation(
    restricted: str,
    others: str,
    surface: ItemSide,
    positives: Sequence[float],
    negatives: Sequence[float],
) -> Separation:
    """Return how well two sets of ranks stand apart."""
    area = auc(positives, negatives)
    one, tenth = tpr_at(positives, negatives, 0.01), tpr_at(positives, negatives, 0.001)
    return Separation(
        restricted=restricted,
        others=others,
        surface=surface,
        n_restricted=len(positives),
        n_others=len(negatives),
        auc=area,
        auc_lower=auc_lower(area, len(positives), len(negatives)),
        tpr_at_1_percent=None if one is None else Frequency.of(one),
        tpr_at_01_percent=None if tenth is None else Frequency.of(tenth),
    )


def stops(judged: Iterable[JudgedItem]) -> dict[str, Stops]:
    """Return where the stopped restricted replies were stopped, slice by slice."""
    groups: dict[str, list[Score]] = defaultdict(list)
    for entry in judged:
        score = entry.scores.reply
        if entry.item.label is Label.RESTRICTED and score is not None and score.blocked:
            groups[entry.item.slice].append(score)
    return {name: _stops(scores) for name, scores in sorted(groups.items())}


def _stops(scores: Sequence[Score]) -> Stops:
    def percentile(values: Sequence[float], share: float) -> float:
        return round(float(np.quantile(np.asarray(values), share)), 4)

    scored = [float(score.stop) for score in scores]
    released = [float(score.released) for score in scores]
    shares = [score.released / max(1, score.length) for score in scores]
    return Stops(
        stopped=len(scores),
        scored_p50=percentile(scored, 0.5),
        scored_p90=percentile(scored, 0.9),
        released_p50=percentile(released, 0.5),
        released_p90=percentile(released, 0.9),
        released_share_p50=percentile(shares, 0.5),
        released_share_p90=percentile(shares, 0.9),
    )
