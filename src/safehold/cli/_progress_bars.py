"""Progress on standard error, for every long command: bars on a terminal, lines off it."""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Self

import rich.progress

from safehold.progress import Progress

if TYPE_CHECKING:
    from rich.console import Console

_EVERY_S = 5.0
"""A pipe gets a line so often, and one at the start and the end of each piece of work."""


class Bars(Progress):
    """One bar for each piece of work; a pipe gets plain lines."""

    def __init__(self, console: "Console", clock: Callable[[], float] = time.monotonic) -> None:
        """Take the console that is drawn on; `clock` returns seconds."""
        self._console = console
        self._clock = clock
        self._plain = not console.is_terminal
        self._bars = rich.progress.Progress(
            rich.progress.TextColumn("{task.description}"),
            rich.progress.BarColumn(),
            rich.progress.MofNCompleteColumn(),
            rich.progress.TimeRemainingColumn(),
            rich.progress.TextColumn("{task.fields[detail]}"),
            console=console,
            disable=self._plain,
        )
        self._task = rich.progress.TaskID(0)
        self._what = self._detail = ""
        self._done = self._total = 0
        self._left_s: float | None = None
        self._began = self._told = clock()

    def __enter__(self) -> Self:
        """Show the bars."""
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the bars as they are."""
        self._finish()
        self._bars.stop()

    def start(self, what: str, total: int) -> None:
        """Begin a bar."""
        self._finish()
        self._what, self._done, self._total = what, 0, total
        self._detail, self._left_s = "", None
        self._began = self._told = self._clock()
        if self._plain:
            self._tell(f"{what}: {total:,} steps")
        else:
            self._task = self._bars.add_task(what, total=total, detail="")

    def advance(self, steps: int = 1) -> None:
        """Move the bar."""
        self._done += steps
        if not self._plain:
            self._bars.advance(self._task, steps)
            return
        self._tell_now_and_then()

    def note(self, detail: str, left_s: float | None = None) -> None:
        """Show a detail beside the bar, or in the next line."""
        self._detail, self._left_s = detail, left_s
        if self._plain:
            self._tell_now_and_then()
        else:
            self._bars.update(self._task, detail=detail)

    def say(self, line: str) -> None:
        """Print a line above the bars."""
        if self._plain:
            self._tell(line)
        else:
            self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def _tell_now_and_then(self) -> None:
        now = self._clock()
        if not self._what or now - self._told < _EVERY_S or self._done >= self._total:
            return
        self._told = now
        left = self._left_s
        if left is None and self._done:
            left = (now - self._began) / self._done * (self._total - self._done)
        parts = [f"{self._what}: {self._done:,} of {self._total:,}"]
        parts += [] if left is None else [f"about {left:.0f} s left"]
        parts += [self._detail] if self._detail else []
        self._tell(", ".join(parts))

    def _finish(self) -> None:
        if self._plain and self._what:
            seconds = self._clock() - self._began
            self._tell(f"{self._what}: {self._done:,} done in {seconds:.0f} s")
        self._what = ""

    def _tell(self, line: str) -> None:
        print(line, file=self._console.file, flush=True)
