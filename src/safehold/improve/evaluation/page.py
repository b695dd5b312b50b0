"""`report.html`: one file, pictures inside, nothing loaded from anywhere."""

import base64
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

from safehold.improve.evaluation.interface import (
    EvaluationReport,
    Frequency,
    GroupFigures,
    Label,
    Separation,
    SurfaceFigures,
)

_STYLE = """
:root { color-scheme: light dark; --line: #8885; --soft: #8882; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 76rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.5rem; margin-bottom: .2rem } h2 { font-size: 1.15rem; margin-top: 2.2rem }
table { border-collapse: collapse; width: 100%; font-size: .86rem }
th, td { text-align: left; padding: .3rem .6rem; border-bottom: 1px solid var(--line) }
th { font-weight: 600 } td.n { font-variant-numeric: tabular-nums; white-space: nowrap }
tr:hover td { background: var(--soft) } small, .note { color: #777 }
img { max-width: 100%; background: white; border-radius: 4px } code { font-size: .85em }
.scroll { overflow-x: auto }
"""
_MANY = 60
"""Rows of a long table that are shown; `report.json` has all of them."""


def render(report: EvaluationReport, pictures: Sequence[Path]) -> str:
    """Return the page of a report; everything that came from data is escaped."""
    title = f"{report.bundle} ({report.constitution})"
    parts = [
        f"<h1>Evaluation of {escape(title)}</h1>",
        _about(report),
        "<h2>At the bundle's operating point</h2>",
        _groups(report.headline),
        *(_picture(path) for path in pictures),
        "<h2>Restricted texts against others, free of a threshold</h2>",
        _separations(report.separations),
        "<h2>Where restricted replies were stopped</h2>",
        _stops(report),
    ]
    if report.ablations:
        parts += ["<h2>What each part is worth (streamed replies)</h2>", _ablations(report)]
    if report.judge is not None:
        parts += [
            f"<h2>What the judge says ({escape(report.judge.model)})</h2>",
            _groups(report.judge.headline),
            _separations(report.judge.separations),
        ]
    parts += [
        "<h2>By slice</h2>",
        _groups(report.slices),
        "<h2>By language and by length</h2>",
        _groups((*report.languages, *report.lengths)),
        "<h2>By category, where anything was misjudged</h2>",
        _groups([row for row in report.categories if _wrong(row)][:_MANY]),
        "<h2>By source, where anything was misjudged</h2>",
        _groups([row for row in report.sources if _wrong(row)][:_MANY]),
        "<h2>Data</h2>",
        _table(("file", "SHA-256"), [(name, sha) for name, sha in report.files.items()]),
    ]
    if report.skipped:
        names = ", ".join(escape(name) for name in report.skipped)
        parts.append(f"<p class=note>Skipped, network data: {names}</p>")
    body = "\n".join(parts)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width"><title>{escape(title)}</title>'
        f"<style>{_STYLE}</style></head><body>\n{body}\n</body></html>\n"
    )


def _about(report: EvaluationReport) -> str:
    return (
        f"<p class=note>bundle <code>{report.bundle_digest}</code> · safehold "
        f"{escape(report.safehold)} · {report.items:,} items of {len(report.files)} files. Every "
        "rate is printed with its n and an exact one-sided 95% bound (Clopper-Pearson).</p>"
    )


def rate_text(rate: Frequency | None, label: Label) -> str:
    """Say a rate with the bound on its unfavourable side."""
    if rate is None:
        return "-"
    return rate.rate.at_least() if label is Label.RESTRICTED else rate.rate.at_most()


def _wrong(row: GroupFigures) -> bool:
    return any(
        figures is not None
        and figures.flagged.events != (figures.flagged.n if row.label is Label.RESTRICTED else 0)
        for figures in (row.prompt, row.reply)
    )


def _groups(rows: Iterable[GroupFigures]) -> str:
    def cells(row: GroupFigures) -> tuple[str, ...]:
        return (row.name, row.label, *_cells(row.prompt, row.label), *_cells(row.reply, row.label))

    head = ("group", "label", "flagged as prompt", "escalated", "flagged as reply", "escalated")
    return _table(head, [cells(row) for row in rows])


def _cells(figures: SurfaceFigures | None, label: Label) -> tuple[str, str]:
    if figures is None:
        return "-", "-"
    flagged = rate_text(figures.flagged, label)
    if figures.unscorable:
        flagged += f"; {figures.unscorable} unscorable"
    return flagged, figures.escalated.rate.at_most()


def _separations(rows: Iterable[Separation]) -> str:
    def cells(row: Separation) -> tuple[str, ...]:
        return (
            row.others,
            row.surface,
            f"{row.n_restricted:,} / {row.n_others:,}",
            f"{row.auc:.4f} (≥ {row.auc_lower:.4f})",
            rate_text(row.tpr_at_1_percent, Label.RESTRICTED),
            rate_text(row.tpr_at_01_percent, Label.RESTRICTED),
        )

    head = ("against", "shown as", "n", "AUC", "detected at 1% FPR", "detected at 0.1% FPR")
    return _table(head, [cells(row) for row in rows])


def _stops(report: EvaluationReport) -> str:
    rows = [
        (
            name,
            f"{stops.stopped:,}",
            f"{stops.scored_p50:.0f} / {stops.scored_p90:.0f}",
            f"{stops.released_p50:.0f} / {stops.released_p90:.0f}",
            f"{stops.released_share_p50:.1%} / {stops.released_share_p90:.1%}",
        )
        for name, stops in report.stops.items()
    ]
    head = ("slice", "stopped", "tokens scored, p50 / p90", "tokens released", "share released")
    return _table(head, rows)


def _ablations(report: EvaluationReport) -> str:
    rows = [
        (
            row.variant,
            f"{row.separation.auc:.4f} (≥ {row.separation.auc_lower:.4f})",
            rate_text(row.separation.tpr_at_1_percent, Label.RESTRICTED),
            rate_text(row.restricted_flagged, Label.RESTRICTED),
            rate_text(row.benign_flagged, Label.BENIGN),
            rate_text(row.encoded_flagged, Label.RESTRICTED),
            f"{row.stage2_calls_per_item:.2f}",
        )
        for row in report.ablations
    ]
    head = (
        "variant", "AUC", "detected at 1% FPR", "restricted flagged", "benign flagged",
        "encoded restricted flagged", "stage-2 calls per item",
    )  # fmt: skip
    return _table(head, rows)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    if not rows:
        return "<p class=note>nothing</p>"
    top = "".join(f"<th>{escape(name)}</th>" for name in head)
    lines = "\n".join(
        "<tr>" + "".join(f"<td class=n>{escape(cell)}</td>" for cell in row) + "</tr>"
        for row in rows
    )
    return f"<div class=scroll><table><tr>{top}</tr>\n{lines}</table></div>"


def _picture(path: Path) -> str:
    data = base64.b64encode(path.read_bytes()).decode()
    return f'<p><img alt="{escape(path.stem)}" src="data:image/png;base64,{data}"></p>'
