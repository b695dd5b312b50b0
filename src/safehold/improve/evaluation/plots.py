"""The report's pictures: ROC and DET with the operating point, histograms, false positives."""

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from safehold.errors import DependencyError
from safehold.guard.session.cascade import Cascade
from safehold.improve.evaluation.curves import roc
from safehold.improve.evaluation.figures import ranking, scores_on
from safehold.improve.evaluation.interface import (
    GroupFigures,
    ItemSide,
    JudgedItem,
    Label,
    Score,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLOURS = {
    Label.RESTRICTED: "#b3261e",
    Label.BENIGN: "#1f6f5c",
    Label.BOUNDARY: "#c58b1b",
    Label.TEMPLATE: "#6b6f76",
    Label.OTHER_DOMAIN: "#3b6ea5",
}
_LINES = ("#1f6f5c", "#3b6ea5", "#c58b1b")
_BARS = 24
_FLOOR = 1e-5


def require() -> None:
    """Check that pictures can be drawn, before any work is done for them.

    Raises:
        DependencyError: Matplotlib is not installed.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise DependencyError("the report needs: pip install 'safehold[report]'")


def draw(
    judged: Sequence[JudgedItem], slices: Sequence[GroupFigures], cascade: Cascade, out: Path
) -> list[Path]:
    """Write the PNG files that the data allow and return their paths.

    Raises:
        DependencyError: Matplotlib is not installed.
    """
    require()
    from matplotlib.figure import Figure

    paths: list[Path] = []

    def save(figure: "Figure", name: str) -> None:
        paths.append(out / f"{name}.png")
        # No date and no version inside: the same scores give the same bytes.
        figure.savefig(paths[-1], dpi=110, metadata={"Software": None})

    for surface in (ItemSide.REPLY, ItemSide.PROMPT):
        curves = _curves(judged, cascade, surface)
        if curves:
            figure = Figure(figsize=(10, 4.2), layout="constrained")
            left, right = figure.subplots(1, 2)
            _roc(left, curves, surface)
            _det(right, curves, surface)
            save(figure, f"roc-det-{surface}")
        figure = Figure(figsize=(10, 3.8), layout="constrained")
        left, right = figure.subplots(1, 2)
        _stage1(left, judged, cascade, surface)
        _final(right, judged, cascade, surface)
        save(figure, f"scores-{surface}")
    benign = [row for row in slices if row.label in (Label.BENIGN, Label.OTHER_DOMAIN)]
    if benign:
        figure = Figure(figsize=(10, 1.2 + 0.42 * len(benign)), layout="constrained")
        _false_positives(figure.subplots(), benign)
        save(figure, "false-positives")
    return paths


class _Curve:
    """One curve: a name, its points, and the operating point on it."""

    def __init__(self, name: str, positives: list[float], negatives: list[float]) -> None:
        self.name = f"{name} (n={len(negatives):,})"
        self.fpr, self.tpr = roc(positives, negatives)
        self.n = len(negatives)
        self.point = (
            sum(value >= 0 for value in negatives) / len(negatives),
            sum(value >= 0 for value in positives) / len(positives),
        )


def _curves(judged: Sequence[JudgedItem], cascade: Cascade, surface: ItemSide) -> list[_Curve]:
    ranked = ranking(cascade, surface)

    def values(*labels: Label, adjacent: bool | None = None) -> list[float]:
        chosen = (
            entry
            for entry in judged
            if entry.item.label in labels and adjacent in (None, entry.item.adjacent)
        )
        return [ranked(score) for score in scores_on(chosen, surface)]

    positives = values(Label.RESTRICTED)
    benign = (Label.BENIGN, Label.OTHER_DOMAIN)
    named = (
        ("all benign", values(*benign)),
        ("adjacent", values(*benign, adjacent=True)),
        ("general", values(*benign, adjacent=False)),
    )
    if not positives:
        return []
    return [_Curve(name, positives, negatives) for name, negatives in named if negatives]


def _roc(axes: "Axes", curves: Sequence[_Curve], surface: ItemSide) -> None:
    low = min(1 / curve.n for curve in curves) / 2
    for curve, colour in zip(curves, _LINES, strict=False):
        axes.step(np.maximum(curve.fpr, low), curve.tpr, where="post", color=colour, lw=1.6)
        axes.plot([], [], color=colour, label=curve.name)
        axes.plot(
            max(curve.point[0], low),
            curve.point[1],
            "o",
            color=colour,
            ms=7,
            mec="white",
            clip_on=False,
        )
    axes.set_xscale("log")
    axes.set_xlim(low, 1)
    axes.set_ylim(0, 1.02)
    axes.set_xlabel("false-positive rate (left edge: none)")
    axes.set_ylabel("detected")
    axes.set_title(f"ROC, {surface}; dots: operating point", fontsize=10)
    axes.grid(visible=True, which="both", alpha=0.2)
    axes.legend(loc="lower right", fontsize=8)


def _det(axes: "Axes", curves: Sequence[_Curve], surface: ItemSide) -> None:
    low = min(1 / curve.n for curve in curves) / 2
    for curve, colour in zip(curves, _LINES, strict=False):
        missed = np.maximum(1 - curve.tpr, _FLOOR)
        axes.step(np.maximum(curve.fpr, low), missed, where="post", color=colour, lw=1.6)
        x, y = max(curve.point[0], low), max(1 - curve.point[1], _FLOOR)
        axes.plot(x, y, "o", color=colour, ms=7, mec="white", clip_on=False)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(low, 1)
    axes.set_ylim(1e-3, 1)
    axes.set_xlabel("false-positive rate (left edge: none)")
    axes.set_ylabel("missed")
    axes.set_title(f"DET, {surface}", fontsize=10)
    axes.grid(visible=True, which="both", alpha=0.2)


def _histogram(axes: "Axes", groups: dict[Label, list[float]], line: float, what: str) -> None:
    everything = [value for values in groups.values() for value in values]
    if not everything:
        axes.set_axis_off()
        return
    low, high = min(*everything, line), max(*everything, line)
    edges = np.linspace(low, high, 48).tolist()
    for label, values in groups.items():
        if values:
            weights = np.full(len(values), 1 / len(values))
            axes.hist(
                values, edges, weights=weights, histtype="stepfilled", alpha=0.45,
                color=_COLOURS[label], label=f"{label} ({len(values):,})",
            )  # fmt: skip
    axes.axvline(line, color="black", lw=1.2, ls="--")
    axes.set_yscale("log")
    axes.set_xlabel(what)
    axes.set_ylabel("share of its label")
    axes.legend(fontsize=7)


def _by_label(judged: Sequence[JudgedItem], surface: ItemSide) -> dict[Label, list[Score]]:
    return {
        label: scores_on((entry for entry in judged if entry.item.label is label), surface)
        for label in Label
    }


def _stage1(
    axes: "Axes", judged: Sequence[JudgedItem], cascade: Cascade, surface: ItemSide
) -> None:
    operating = cascade.prompt if surface is ItemSide.PROMPT else cascade.reply
    line = operating.escalate if cascade.has_stage2 else operating.alone
    groups = {
        label: [score.stage1 for score in scores if score.stage1 is not None]
        for label, scores in _by_label(judged, surface).items()
    }
    means = "escalate" if cascade.has_stage2 else "block"
    _histogram(axes, groups, line, f"stage-1 logit, {surface} (line: {means})")


def _final(axes: "Axes", judged: Sequence[JudgedItem], cascade: Cascade, surface: ItemSide) -> None:
    if not cascade.has_stage2:
        axes.set_axis_off()
        return
    operating = cascade.prompt if surface is ItemSide.PROMPT else cascade.reply
    groups = {
        label: [score.final for score in scores if score.final is not None]
        for label, scores in _by_label(judged, surface).items()
    }
    what = f"ensemble logit, escalated {surface} (line: block)"
    _histogram(axes, groups, operating.block, what)


def _false_positives(axes: "Axes", rows: Sequence[GroupFigures]) -> None:
    names = [f"{row.name} ({_n(row):,})" for row in rows]
    for at, row in enumerate(rows):
        for figures, colour, shift in (
            (row.prompt, "#3b6ea5", 0.18),
            (row.reply, "#b3261e", -0.18),
        ):
            if figures is not None:
                rate = figures.flagged
                value = rate.value or 0.0
                axes.barh(at + shift, value * 100, 0.34, color=colour)
                axes.plot([value * 100, rate.upper * 100], [at + shift] * 2, color="black", lw=1)
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel("flagged, % (blue: as prompts, red: as replies; line: to the exact 95% bound)")
    axes.grid(visible=True, axis="x", alpha=0.3)


def _n(row: GroupFigures) -> int:
    figures = row.prompt or row.reply
    return figures.flagged.n if figures is not None else 0
