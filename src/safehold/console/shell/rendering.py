"""Pages from templates: the environment, and how times, numbers and rates are written."""

import datetime as dt
import math
from pathlib import Path
from typing import Any

import jinja2
import msgspec
from markupsafe import Markup

from safehold.console.shell.inert_text import WHOLE_CHARS, one_line, visible

_NEXT_UNIT = 1000

_TEMPLATES = Path(__file__).parent / "templates"
_MINUTE, _HOUR, _DAY = 60, 3600, 86_400
_SMALL = 1e-4
_SHORT_ID = 14


def environment() -> jinja2.Environment:
    """Return the templates' environment: everything escaped, nothing undefined."""
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        "n": number,
        "pct": percent,
        "span": span,
        "when": when,
        "short": short,
        "visible": visible,
        "whole": lambda text: visible(text, WHOLE_CHARS),
        "line": one_line,
        "id": ident,
        "size": size,
        "fields": fields,
    }
    return made


def number(value: float) -> str:
    """Return a number with thousands apart."""
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.3f}"


def percent(rate: float) -> str:
    """Return a share in per cent, with as many digits as it has meaning."""
    if math.isnan(rate):  # nothing was seen
        return "-"
    return f"{rate:.3%}" if 0 < rate < 100 * _SMALL else f"{rate:.1%}"


def span(seconds: float) -> str:
    """Return a length of time in the two largest units that fit."""
    left = max(0, int(seconds))
    if left < _MINUTE:
        return f"{left} s"
    if left < _HOUR:
        return f"{left // _MINUTE} min"
    if left < _DAY:
        return f"{left // _HOUR} h {left % _HOUR // _MINUTE} min"
    return f"{left // _DAY} d {left % _DAY // _HOUR} h"


def when(at: float) -> Markup:
    """Return a moment in UTC, for people and machines."""
    moment = dt.datetime.fromtimestamp(at, dt.UTC)
    iso, text = moment.isoformat(timespec="seconds"), moment.strftime("%-d %b %H:%M")
    return Markup('<time datetime="{}" title="{} UTC">{}</time>').format(iso, iso, text)


def short(digest: str) -> Markup:
    """Return the beginning of a digest, with all of it on demand."""
    return Markup('<code title="{}">{}</code>').format(one_line(digest), one_line(digest[:8]))


def ident(text: str) -> Markup:
    """Return the beginning of a long id, with all of it on demand."""
    if len(text) <= _SHORT_ID:
        return one_line(text)
    return Markup('<span title="{}">{}…</span>').format(one_line(text, 200), one_line(text[:11]))


def size(count: float) -> str:
    """Return a number of bytes in a unit that a person reads."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < _NEXT_UNIT:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= _NEXT_UNIT
    return f"{value:.1f} TB"


def fields(value: msgspec.Struct) -> dict[str, Any]:
    """Return a value's members by name."""
    return msgspec.structs.asdict(value)
