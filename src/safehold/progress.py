"""How long work tells of its steps."""


class Progress:
    """Receives the steps of long work; this one is silent."""

    def start(self, what: str, total: int) -> None:
        """Begin a piece of work of so many steps."""

    def advance(self, steps: int = 1) -> None:
        """Note that steps were done."""

    def note(self, detail: str, left_s: float | None = None) -> None:
        """Note what to show beside the steps, and the seconds that are left where known better.

        Called every second or so by work whose steps are long.
        """

    def say(self, line: str) -> None:
        """Say a line once, whatever else is shown."""
