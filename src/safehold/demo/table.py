"""The demo's table, for a terminal and as a picture."""

from collections.abc import Sequence

from rich import box
from rich.table import Table

from safehold.demo.outcomes import Happened
from safehold.demo.scenes import SceneVerdict, StoppedAt

_WIDE = 140


def table(rows: Sequence[Happened], width: int) -> Table:
    """Return the table for so many columns; a narrow one gets ids cut short."""
    shown = Table(
        title="What the gateway did",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        padding=(0, 1),
        pad_edge=False,
    )
    shown.add_column("", style="dim", no_wrap=True)
    shown.add_column("exchange", min_width=18)
    shown.add_column("wire", min_width=9)
    shown.add_column("answered by", min_width=8)
    shown.add_column("verdict", no_wrap=True)
    shown.add_column("stopped", min_width=13)
    shown.add_column("added, ms", justify="right", min_width=5)
    shown.add_column("decision", style="dim", no_wrap=True)
    for number, row in enumerate(rows, 1):
        shown.add_row(
            str(number),
            row.title,
            f"{row.wire}{', stream' if row.stream else ''}",
            row.upstream,
            verdict(row),
            stopped(row),
            added(row),
            row.decision_id if width >= _WIDE else row.decision_id[:9] + "…",
        )
    return shown


def verdict(row: Happened) -> str:
    """Say the verdict, in colour; what was not expected is marked."""
    colour = "green" if row.verdict is SceneVerdict.ANSWERED else "red"
    mark = "" if row.as_expected else " [bold yellow](unexpected)[/]"
    return f"[{colour}]{row.verdict}[/]{mark}"


def stopped(row: Happened) -> str:
    """Say where an exchange was stopped, in the guard's own tokens."""
    match row.place:
        case StoppedAt.NOWHERE:
            return ""
        case StoppedAt.PROMPT:
            return "at the prompt"
        case StoppedAt.REPLY:
            whole = "" if row.reply_tokens is None else f" of {row.reply_tokens}"
            return f"after {row.scored_tokens}{whole} tokens ({row.sent_tokens} sent)"


def added(row: Happened) -> str:
    """Say how long the guard itself took."""
    return "-" if row.guard_ms is None else f"{row.guard_ms:.0f}"
