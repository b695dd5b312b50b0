"""Pages: one self-contained HTML, and the same as PDF; equal input gives equal bytes."""

import datetime as dt
import os
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape

from safehold.errors import DependencyError
from safehold.govern.report.build import report_sha256
from safehold.govern.report.interface import TITLES, ClaimState, ClaimView, Report, Section

_STYLE = """
body{font:15px/1.5 sans-serif;margin:2rem auto;max-width:60rem;padding:0 1rem;color:#1f2937}
table{border-collapse:collapse;width:100%;margin:1rem 0}
th,td{border:1px solid #d1d5db;padding:.3rem .5rem;text-align:left;vertical-align:top}
th{background:#f3f4f6}
.state{border-radius:.25rem;padding:0 .3rem}
.supported{color:#14532d;background:#dcfce7}.stale{color:#713f12;background:#fef9c3}
.undermined{color:#7c2d12;background:#ffedd5}.unsupported{color:#7f1d1d;background:#fee2e2}
ul{padding-left:1.2rem}
"""
_PARTS = (
    (
        "The case, in the sections of the template for evaluating misuse safeguards",
        (Section.REQUIREMENTS, Section.PLAN, Section.EVIDENCE, Section.AFTER, Section.SUFFICIENCY),
    ),
    (
        "The decision, in the order of the published post",
        (Section.RATIONALE, Section.DEPLOYMENT, Section.SECURITY, Section.CONCLUSIONS),
    ),
)


def report_html(report: Report, signers: tuple[str, ...] = ()) -> str:
    """Return the page of a report; `signers` are the persons who signed its digest."""
    title = escape(report.title)
    by_id = {one.id: one for one in report.claims}
    return "\n".join(
        (
            '<!doctype html><html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width">',
            f"<title>{title}</title><style>{_STYLE}</style></head><body><main>",
            f"<h1>{title}</h1><p>Level: {report.level.value}. Made {_when(report.at)}.</p>",
            f"<p>Live bundle: {escape(report.bundle or 'none')}.</p>",
            f"<p>SHA-256 of this report: {report_sha256(report)}.</p>",
            f"<p>Signed by: {escape(', '.join(signers) or 'nobody')}.</p>",
            *_summary(report),
            *_sections(report, by_id),
            *_evidence(report),
            *_doubts(report),
            "</main></body></html>\n",
        )
    )


def report_pdf(report: Report, signers: tuple[str, ...] = ()) -> bytes:
    """Return the page as PDF.

    Raises:
        DependencyError: WeasyPrint is not installed.
    """
    try:
        from weasyprint import HTML
    except ImportError as error:
        raise DependencyError("a PDF needs: pip install safehold[report]") from error
    with _fixed_clock(report.at):
        found = HTML(string=report_html(report, signers), url_fetcher=_refuse).write_pdf(
            pdf_identifier=report_sha256(report).encode()[:32], uncompressed_pdf=False
        )
    return bytes(found or b"")


def _refuse(url: str) -> dict[str, bytes]:
    raise DependencyError(f"a report loads nothing from outside, and asked for {url[:60]!r}")


@contextmanager
def _fixed_clock(at: int) -> Iterator[None]:
    """Give the time of the report to font subsetting, whose tables hold a time."""
    before = os.environ.get("SOURCE_DATE_EPOCH")
    os.environ["SOURCE_DATE_EPOCH"] = str(at)
    try:
        yield
    finally:
        if before is None:
            del os.environ["SOURCE_DATE_EPOCH"]
        else:
            os.environ["SOURCE_DATE_EPOCH"] = before


def _when(at: int) -> str:
    return dt.datetime.fromtimestamp(at, dt.UTC).strftime("%Y-%m-%d %H:%M UTC")


def _tag(state: ClaimState) -> str:
    return f'<span class="state {state.value}">{state.value}</span>'


def _summary(report: Report) -> Iterator[str]:
    counts = [
        f"{sum(one.state is state for one in report.claims)} {state.value}" for state in ClaimState
    ]
    yield f"<p>{len(report.claims)} claims: {', '.join(counts)}.</p>"


def _sections(report: Report, by_id: dict[str, ClaimView]) -> Iterator[str]:
    for title, sections in _PARTS:
        yield f"<h2>{title}</h2>"
        for section in sections:
            yield f"<h3>{TITLES[section]}</h3>"
            tops = [one for one in report.claims if one.section is section]
            if not tops:
                yield "<p>No claim stands here at this level.</p>"
            for one in tops:
                yield f"<ul>{_claim(one, by_id)}</ul>"


def _claim(one: ClaimView, by_id: dict[str, ClaimView]) -> str:
    why = f" ({escape('; '.join(one.why))})" if one.why else ""
    proof = ""
    if one.evidence:
        demand = f", which must show {escape(one.demand)}" if one.demand else ""
        proof = f" Evidence: {escape(one.evidence)}{demand}."
    below = "".join(_claim(by_id[name], by_id) for name in one.supported_by)
    if one.withheld:
        below += "<li>More rests below, and is withheld at this level.</li>"
    tail = f"<ul>{below}</ul>" if below else ""
    return (
        f"<li><strong>{one.kind.value} {escape(one.id)}</strong> {_tag(one.state)}{why}: "
        f"{escape(one.text)}{proof}{tail}</li>"
    )


def _evidence(report: Report) -> Iterator[str]:
    yield '<h2>Evidence</h2><table><thead><tr><th scope="col">Evidence</th>'
    yield '<th scope="col">Made, and until</th><th scope="col">What it shows</th></tr></thead>'
    yield "<tbody>"
    for one in report.evidence:
        shown = "<br>".join(
            f"{escape(name)}: {escape(text)}" for name, text in sorted(one.fields.items())
        )
        yield (
            f'<tr><th scope="row">{escape(one.id)} ({escape(one.kind)})</th>'
            f"<td>{_when(one.made)}<br>{_when(one.until)}</td><td>{shown}</td></tr>"
        )
    yield "</tbody></table>"


def _doubts(report: Report) -> Iterator[str]:
    yield "<h2>Dissent and open incidents</h2>"
    if not report.doubts:
        yield "<p>There is none.</p>"
    else:
        yield "<ul>" + "".join(f"<li>{escape(one)}</li>" for one in report.doubts) + "</ul>"
