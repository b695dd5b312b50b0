"""The timeline: bytes by flow against budget, residual, odometer and actions, in one HTML file.

The picture is SVG written here, so that the page is self-contained and needs no library.
"""

import html
import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from safehold.errors import DataError
from safehold.secure.egress.units import human_bytes
from safehold.secure.egress.watch.timeline_files import last_rows, timeline_rows
from safehold.secure.egress.watch.timeline_rows import TimelineRow

_NEARLY_SPENT = 0.8
"""The share of a budget from which it is shown hot."""

_WIDTH, _LEFT, _RIGHT, _PANEL, _GAP = 1000, 86, 150, 120, 46
_COLOURS = ("#2563eb", "#d97706", "#059669", "#7c3aed", "#db2777", "#0891b2", "#65a30d")
_LEVEL_COLOURS = {"warn": "#ca8a04", "throttle": "#ea580c", "block": "#dc2626", "seal": "#7f1d1d"}
_MAX_POINTS = 600
_MAX_LINES = 20
"""Flows in one chart; the table has all."""
_STYLE = """
body{font:14px/1.5 system-ui,sans-serif;color:#1f2937;margin:2rem auto;max-width:1040px;
padding:0 1rem}
h1{font-size:1.4rem;margin:0}h2{font-size:1.05rem;margin:1.6rem 0 .4rem}p{margin:.3rem 0}
table{border-collapse:collapse;width:100%}
th,td{padding:.35rem .6rem;border-bottom:1px solid #e5e7eb;text-align:left;vertical-align:top}
th{font-weight:600}
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}
svg{width:100%;height:auto;display:block}
.bar{background:#e5e7eb;border-radius:3px;height:8px;min-width:90px;margin-top:.4rem}
.bar i{display:block;height:8px;border-radius:3px;background:#2563eb}
.bar i.hot{background:#dc2626}
.tag{color:#fff;border-radius:3px;padding:0 .4rem;font-size:.85em}.muted{color:#6b7280}
@media(prefers-color-scheme:dark){body{background:#111827;color:#e5e7eb}
th,td{border-color:#374151}.bar{background:#374151}.muted{color:#9ca3af}}
"""


def read_timeline(path: Path) -> list[TimelineRow]:
    """Read all rows that the watch wrote, with what was rolled up; a long time takes much memory.

    Raises:
        DataError: A file can't be read, or a line is no row.
    """
    return list(timeline_rows(path))


_NEWEST_BYTES = 4 * 2**20


def newest_rows(path: Path) -> list[TimelineRow]:
    """Read the rows in about the last four megabytes; a line that is no row is left out."""
    try:
        return last_rows(path, at_least_bytes=_NEWEST_BYTES)
    except DataError:
        return []


class _Drawing:
    """What a page shows of many rows: some of them, evenly apart, the first, last and actions."""

    def __init__(self, rows: Iterable[TimelineRow]) -> None:
        self.thin: list[TimelineRow] = []
        self.actions: list[tuple[float, str, str, str]] = []
        self.count, step = 0, 1
        last: TimelineRow | None = None
        for row in rows:
            last = row
            self.actions += [(row.time, *action) for action in row.actions]
            if self.count % step == 0:
                self.thin.append(_slim(row))
            self.count += 1
            if len(self.thin) > 2 * _MAX_POINTS:
                self.thin, step = self.thin[::2], step * 2
        if last is None or self.count <= 1:
            raise DataError("a timeline needs at least two rows: let the watch run a little longer")
        self.last = last
        if self.thin[-1].time != last.time:
            self.thin.append(_slim(last))


def _slim(row: TimelineRow) -> TimelineRow:
    return msgspec.structs.replace(row, remaining={}, budgets={}, headers={}, shape={})


def render(rows: Iterable[TimelineRow], *, stolen_bytes: int, refresh_s: int = 0) -> str:
    """Return the page; `stolen_bytes` is the size of the compressed weights (S * c).

    Rows are read one at a time. With `refresh_s` the browser loads it anew so often. Of very many
    flows, the picture shows those that sent most.

    Raises:
        DataError: There are fewer than two rows.
    """
    drawing = _Drawing(rows)
    last, actions = drawing.last, drawing.actions
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8><title>Egress timeline</title>",
        f"<meta http-equiv=refresh content={refresh_s}>" if refresh_s else "",
        f"<style>{_STYLE}</style><h1>Egress timeline</h1>",
        f"<p class=muted>{_when(drawing.thin[0].time)} to {_when(last.time)} UTC</p>",
        _headline(last, stolen_bytes, len(actions)),
        _picture(drawing.thin, actions, stolen_bytes),
        "<h2>Bytes by flow against budget</h2>",
        _flow_table(last),
        _odd_table(last),
        "<h2>Actions</h2>",
        _action_table(actions),
    ]
    return "\n".join(parts)


def _headline(last: TimelineRow, stolen_bytes: int, actions: int) -> str:
    loose = sum(last.residual.values())
    sent = sum(value for name, value in last.passed.items() if name != "total")
    share = loose / stolen_bytes if stolen_bytes else 0.0
    return (
        f"<p><b>{human_bytes(sent)}</b> left in all; <b>{human_bytes(loose)}</b> unexplained of "
        f"{human_bytes(last.line)} that block everything; odometer at <b>{share:.2%}</b> of the "
        f"compressed weights; {human_bytes(last.undeclared)} of undeclared traffic met the rules; "
        f"{actions} action{'s' if actions != 1 else ''}.</p>"
    )


def _picture(
    rows: Sequence[TimelineRow], actions: Sequence[tuple[float, str, str, str]], stolen: int
) -> str:
    last = rows[-1]
    flows = [name for name in last.passed if name not in {"total", "neighbours", "arp"}]
    most = sorted(flows, key=lambda name: -last.passed[name])[:_MAX_LINES]
    flows = [name for name in flows if name in most]
    loosest = sorted(last.residual, key=lambda name: -last.residual[name])[:_MAX_LINES]
    rates = {name: _rates(rows, name) for name in flows}
    residual = {
        name: [row.residual.get(name, 0.0) for row in rows]
        for name in last.residual
        if name in loosest
    }
    odometer = [sum(row.residual.values()) / stolen * 100 if stolen else 0.0 for row in rows]
    line = float(last.line)
    start, end = rows[0].time, max(last.time, rows[0].time + 1)
    share = line / stolen * 100 if stolen else None
    panels = [
        Panel("bytes per second", rates, None, human_bytes),
        Panel("unexplained bytes since the review", residual, line, human_bytes),
        Panel("odometer: unexplained, % of S*c", {"all flows": odometer}, share, _percent),
    ]
    height = len(panels) * (_PANEL + _GAP) + 36
    out = [f'<svg viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="Egress over time">']
    times = [row.time for row in rows]
    for index, panel in enumerate(panels):
        out += _draw(panel, 24 + index * (_PANEL + _GAP), times)
    bottom = 24 + len(panels) * (_PANEL + _GAP) - _GAP
    for at, level, flow, _ in actions:
        x = _x(at, start, end)
        colour = _LEVEL_COLOURS.get(level, "#374151")
        out.append(
            f'<line x1="{x:.1f}" x2="{x:.1f}" y1="20" y2="{bottom}" stroke="{colour}" '
            f'stroke-dasharray="4 3"><title>{html.escape(f"{level} {flow}")}</title></line>'
        )
    for step in range(5):
        at = start + (end - start) * step / 4
        anchor = ("start", "middle", "middle", "middle", "end")[step]
        out.append(_label(_x(at, start, end), bottom + 18, _when(at)[5:16], anchor))
    return "".join([*out, "</svg>"])


class Panel(msgspec.Struct, frozen=True):
    """One chart: lines over time against a limit."""

    title: str
    series: Mapping[str, Sequence[float]]
    limit: float | None
    say: Callable[[float], str]


def _draw(panel: Panel, top: int, times: Sequence[float]) -> Iterator[str]:
    start, end = times[0], max(times[-1], times[0] + 1)
    values = [value for line in panel.series.values() for value in line]
    highest = max([*values, 0.0])
    # The limit stays in sight unless that would flatten the lines to nothing.
    near = panel.limit is not None and panel.limit <= max(highest, 1e-12) * 20
    peak = max(highest, panel.limit or 0.0) if near else highest
    peak = peak * 1.08 or 1.0
    base = top + _PANEL
    yield _label(_LEFT, top - 7, panel.title, colour="currentColor")
    for share in (0.0, 0.5, 1.0):
        y = base - share * _PANEL
        yield f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y}" y2="{y}" stroke="#d1d5db"/>'
        yield _label(_LEFT - 8, y + 4, panel.say(peak * share), "end")
    if panel.limit is not None and near:
        y = base - panel.limit / peak * _PANEL
        yield f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}" '
        yield 'stroke="#dc2626" stroke-width="1.5"/>'
        yield _label(_WIDTH - _RIGHT + 8, y + 4, "blocks at " + panel.say(panel.limit))
    elif panel.limit is not None:
        note = "blocks at " + panel.say(panel.limit)
        yield _label(_WIDTH - _RIGHT, top - 7, note, "end", "#dc2626")
    for number, (name, line) in enumerate(panel.series.items()):
        colour = _COLOURS[number % len(_COLOURS)]
        points = " ".join(
            f"{_x(at, start, end):.1f},{base - value / peak * _PANEL:.1f}"
            for at, value in zip(times, line, strict=True)
        )
        yield f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.8"/>'
        yield _label(_WIDTH - _RIGHT + 8, top + 14 + 17 * number, name, colour=colour)


def _rates(rows: Sequence[TimelineRow], name: str) -> list[float]:
    found = [0.0]
    for before, after in itertools.pairwise(rows):
        gap = max(after.time - before.time, 1e-3)
        found.append(max(0, after.passed.get(name, 0) - before.passed.get(name, 0)) / gap)
    if len(found) > 1:
        found[0] = found[1]
    return found


def _x(at: float, start: float, end: float) -> float:
    return _LEFT + (at - start) / (end - start) * (_WIDTH - _LEFT - _RIGHT)


def _label(x: float, y: float, text: str, anchor: str = "start", colour: str = "#6b7280") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="12" text-anchor="{anchor}" fill="{colour}">'
        f"{html.escape(text)}</text>"
    )


def _percent(value: float) -> str:
    return f"{value:.3g} %"


def _when(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(at))


def _flow_table(row: TimelineRow) -> str:
    head = "<tr><th>Flow<th class=n>Left in all<th>Window<th class=n>Used<th class=n>Remaining<th>"
    lines = []
    for name, windows in row.remaining.items():
        for index, (window, left) in enumerate(windows.items()):
            first = f"<td>{html.escape(name)}<td class=n>{human_bytes(row.passed.get(name, 0))}"
            budget = row.budgets.get(name, {}).get(window, 0)
            used = max(0, budget - left)
            share = min(1.0, used / budget) if budget else 0.0
            hot = " class=hot" if share > _NEARLY_SPENT else ""
            lines.append(
                f"<tr>{first if index == 0 else '<td><td>'}<td>{html.escape(window)}"
                f"<td class=n>{human_bytes(used)}<td class=n>{human_bytes(left)}"
                f'<td><div class=bar><i{hot} style="width:{share:.0%}"></i></div>'
            )
    return f"<table>{head}{''.join(lines)}</table>"


def _odd_table(row: TimelineRow) -> str:
    lines = [
        f"<tr><td>{html.escape(name)}<td class=n>{value:.2f}" for name, value in row.shape.items()
    ]
    lines += [f"<tr><td>{html.escape(n)}<td>over its quota" for n in row.accounts_over]
    if not lines:
        return ""
    return f"<h2>Shapes and accounts</h2><table><tr><th>What<th>Score</tr>{''.join(lines)}</table>"


def _action_table(actions: Sequence[tuple[float, str, str, str]]) -> str:
    if not actions:
        return "<p class=muted>None: nothing crossed a threshold.</p>"
    lines = [
        f'<tr><td>{_when(at)}<td><span class=tag style="background:'
        f'{_LEVEL_COLOURS.get(level, "#374151")}">{html.escape(level)}</span>'
        f"<td>{html.escape(flow)}<td>{html.escape(reason)}"
        for at, level, flow, reason in actions
    ]
    return f"<table><tr><th>Time (UTC)<th>Step<th>Flow<th>Why</tr>{''.join(lines)}</table>"
