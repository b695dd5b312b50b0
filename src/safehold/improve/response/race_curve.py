"""The race's curve as a picture: questions cleared against queries, drawn without a library.

One line for each defence and number of accounts, the mean over its seeds. A mark stands where the
median seed was acted on, a ring where it became universal; a line without a ring never did.
"""

import statistics
from collections.abc import Sequence
from xml.sax.saxutils import escape

from safehold.improve.response.race import RaceResult

_WIDE, _HIGH, _LEFT, _TOP = 720, 400, 48, 24
_RIGHT, _FOOT = 230, 44
_COLOURS = ("#0b6e4f", "#b3541e", "#3b4cc0", "#8c2d62", "#5d5d5d", "#9a7d0a")


def drawn(found: Sequence[RaceResult]) -> str:
    """Return an SVG of all races, those of one defence and number of accounts together."""
    groups: dict[tuple[str, int], list[RaceResult]] = {}
    for one in found:
        groups.setdefault((one.settings.defence.value, one.settings.accounts), []).append(one)
    queries = max((len(one.curve) for one in found), default=1)
    asked = max((one.settings.questions for one in found), default=1)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDE} {_HIGH}" role="img">',
        "<style>text{font:12px sans-serif;fill:#222}</style>",
        f"<title>Questions cleared of {asked} against queries, by defence</title>",
        f'<rect width="{_WIDE}" height="{_HIGH}" fill="#ffffff"/>',
    ]
    parts += _axes(queries, asked)
    for number, ((defence, accounts), races) in enumerate(sorted(groups.items())):
        colour = _COLOURS[number % len(_COLOURS)]
        parts += _line(races, queries, asked, colour)
        seeds = "seed" if len(races) == 1 else "seeds"
        label = f"{defence}, {accounts} accounts, {len(races)} {seeds}"
        y = _TOP + 18 * number + 8
        x = _WIDE - _RIGHT + 16
        parts.append(f'<rect x="{x}" y="{y - 9}" width="14" height="4" fill="{colour}"/>')
        parts.append(f'<text x="{x + 20}" y="{y - 3}">{escape(label)}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def _axes(queries: int, asked: int) -> list[str]:
    foot, right = _HIGH - _FOOT, _WIDE - _RIGHT
    parts = [
        f'<path d="M{_LEFT} {_TOP}V{foot}H{right}" fill="none" stroke="#444444"/>',
        f'<text x="{_LEFT}" y="{_HIGH - 8}">queries of the attacker</text>',
        f'<text x="{_LEFT}" y="{_TOP - 8}">questions cleared</text>',
    ]
    for share in (0.0, 0.5, 1.0):
        parts.append(
            f'<text x="{_x(share * queries, queries):.0f}" y="{foot + 16}" '
            f'text-anchor="middle">{share * queries:.0f}</text>'
        )
        parts.append(
            f'<text x="{_LEFT - 6}" y="{_y(share * asked, asked) + 4:.0f}" '
            f'text-anchor="end">{share * asked:.0f}</text>'
        )
    return parts


def _line(races: Sequence[RaceResult], queries: int, asked: int, colour: str) -> list[str]:
    length = max(len(one.curve) for one in races)
    means = [statistics.fmean(_cleared(one, at) for one in races) for at in range(length)]
    points = " ".join(
        f"{_x(at + 1, queries):.1f},{_y(mean, asked):.1f}" for at, mean in enumerate(means)
    )
    parts = [f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>']
    marks = {"acted_at": colour, "universal_at": "none"}
    for field, fill in marks.items():
        at = _median(races, field)
        if at is not None and at < length:
            parts.append(
                f'<circle cx="{_x(at + 1, queries):.1f}" cy="{_y(means[at], asked):.1f}" r="5" '
                f'fill="{fill}" stroke="{colour}" stroke-width="2"/>'
            )
    return parts


def _cleared(one: RaceResult, at: int) -> int:
    return one.curve[min(at, len(one.curve) - 1)] if one.curve else 0


def _median(races: Sequence[RaceResult], field: str) -> int | None:
    """Return the median query, where it happened in more than half of the seeds."""
    times = sorted(at for one in races if (at := getattr(one, field)) is not None)
    place = len(races) // 2
    return times[place] if place < len(times) else None


def _x(query: float, queries: int) -> float:
    return _LEFT + (_WIDE - _RIGHT - _LEFT) * query / max(queries, 1)


def _y(count: float, asked: int) -> float:
    return _HIGH - _FOOT - (_HIGH - _FOOT - _TOP) * count / max(asked, 1)
