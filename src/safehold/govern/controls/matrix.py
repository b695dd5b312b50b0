"""The matrix of stages and techniques as one self-contained HTML page: no script, no outside."""

import datetime as dt
from collections.abc import Iterator, Mapping, Sequence
from html import escape

from safehold.govern.controls.interface import ChainStage, Control, ControlResult, ControlStatus
from safehold.govern.controls.library import ControlCatalogue
from safehold.govern.controls.names import SAFEGUARDS, TECHNIQUES

_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:78rem;padding:0 1rem;
color:#1f2937}
table{border-collapse:collapse;width:100%;margin:1rem 0}
th,td{border:1px solid #d1d5db;padding:.3rem .5rem;text-align:left;vertical-align:top}
th{background:#f3f4f6}
.s{color:#14532d;background:#dcfce7}.n{color:#7f1d1d;background:#fee2e2}
.s,.n{border-radius:.25rem;padding:0 .3rem;margin:.1rem;display:inline-block}
.gap{background:#fef3c7}
a{color:inherit}
"""


def matrix_html(
    catalogue: ControlCatalogue, results: Sequence[ControlResult], *, host: str, at: int
) -> str:
    """Return the page of a run as it stands at a time (POSIX seconds)."""
    found = {one.control: one for one in results}
    when = dt.datetime.fromtimestamp(at, dt.UTC).strftime("%Y-%m-%d %H:%M UTC")
    return "\n".join(
        (
            '<!doctype html><html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width">',
            f"<title>Controls of {escape(host)}</title><style>{_STYLE}</style></head><body><main>",
            f"<h1>Controls of {escape(host)}</h1><p>{when}. {escape(closing_line(results))}</p>",
            "<p>Green is satisfied, red is not; the words beside an id say the status.</p>",
            *_matrix(catalogue.controls, found),
            *_safeguards(catalogue.controls, found),
            *_rows(catalogue, found),
            "</main></body></html>\n",
        )
    )


def closing_line(results: Sequence[ControlResult]) -> str:
    """Say how many of all are satisfied, and the statuses of the rest."""
    satisfied = sum(one.satisfied for one in results)
    rest = [
        f"{status.value} {count}"
        for status in ControlStatus
        if (count := sum(one.status is status for one in results if not one.satisfied))
    ]
    said = f"{satisfied} of {len(results)} satisfied"
    return f"{said}; {', '.join(rest)}" if rest else said


def gaps(catalogue: ControlCatalogue) -> tuple[tuple[ChainStage, str], ...]:
    """Return stages of an attack that no control prevents, or that none detects."""
    said = []
    for stage in ChainStage:
        kinds = {one.kind.value for one in catalogue.controls if one.stage is stage}
        said += [(stage, kind) for kind in ("preventive", "detective") if kind not in kinds]
    return tuple(said)


def _tag(control: Control, found: Mapping[str, ControlResult]) -> str:
    result = found.get(control.id)
    status = result.status.value if result else "missing"
    colour = "s" if result and result.satisfied else "n"
    return f'<a class="{colour}" href="#{control.id}">{control.id} {status}</a>'


def _matrix(controls: Sequence[Control], found: Mapping[str, ControlResult]) -> Iterator[str]:
    yield '<h2 id="matrix">Stage and technique</h2><table><thead><tr><th scope="col">Technique</th>'
    yield (
        "".join(f'<th scope="col">{stage.value}</th>' for stage in ChainStage)
        + "</tr></thead><tbody>"
    )
    for technique in sorted({one for control in controls for one in control.techniques}):
        cells = []
        for stage in ChainStage:
            here = [one for one in controls if one.stage is stage and technique in one.techniques]
            cells.append(f"<td>{' '.join(_tag(one, found) for one in here)}</td>")
        name = escape(TECHNIQUES.get(technique, ""))
        yield f'<tr><th scope="row">{technique}<br>{name}</th>{"".join(cells)}</tr>'
    yield "</tbody></table>"


def _safeguards(controls: Sequence[Control], found: Mapping[str, ControlResult]) -> Iterator[str]:
    yield '<h2 id="safeguards">The seventeen published safeguards</h2><table><thead><tr>'
    yield '<th scope="col">Safeguard</th><th scope="col">Controls</th></tr></thead><tbody>'
    for key, title in SAFEGUARDS.items():
        tags = " ".join(_tag(one, found) for one in controls if key in one.safeguards)
        yield f'<tr><th scope="row">{escape(title)}</th><td>{tags}</td></tr>'
    yield "</tbody></table>"


def _rows(catalogue: ControlCatalogue, found: Mapping[str, ControlResult]) -> Iterator[str]:
    for family in catalogue.families:
        yield f'<h2>{escape(family.title)}</h2><table><thead><tr><th scope="col">Control</th>'
        yield '<th scope="col">Status</th><th scope="col">Why</th></tr></thead><tbody>'
        for one in family.control:
            result = found.get(one.id)
            why = "; ".join(result.reasons) if result else "no result"
            yield (
                f'<tr id="{one.id}"><th scope="row">{one.id}: {escape(one.title)} '
                f"({one.kind.value}, {one.way.value})</th><td>{_tag(one, found)}</td>"
                f"<td>{escape(why)}</td></tr>"
            )
        yield "</tbody></table>"
