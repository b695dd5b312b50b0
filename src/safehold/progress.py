"""How long work tells of its steps."""


class Progress:
    """Receives the steps of long work; this one is silent."""

    def start(self, what: str, total: int) -> None:
        """Begin a piece of work of so many steps."""

    def advance(self, steps: int = 1) -> None:
        """Note that steps were done."""
