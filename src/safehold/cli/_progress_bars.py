"""Progress bars on standard error, for every long command."""

from typing import Self

import rich.progress
from rich.console import Console

from safehold.progress import Progress


class Bars(Progress):
    """One bar for each piece of work; a pipe gets none."""

    def __init__(self, console: Console) -> None:
        """Take the console that the bars are drawn on."""
        self._bars = rich.progress.Progress(
            rich.progress.TextColumn("{task.description}"),
            rich.progress.BarColumn(),
            rich.progress.MofNCompleteColumn(),
            rich.progress.TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = rich.progress.TaskID(0)

    def __enter__(self) -> Self:
        """Show the bars."""
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the bars as they are."""
        self._bars.stop()

    def start(self, what: str, total: int) -> None:
        """Begin a bar."""
        self._task = self._bars.add_task(what, total=total)

    def advance(self, steps: int = 1) -> None:
        """Move the bar."""
        self._bars.advance(self._task, steps)
