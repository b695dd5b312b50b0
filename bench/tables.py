"""What a benchmark returns to `python -m bench`: tables, each perhaps with bars to draw."""

import msgspec


class Table(msgspec.Struct, frozen=True):
    """One table of results; `bars` names the numeric column that the page's picture shows."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""
    bars: str | None = None

    def markdown(self) -> str:
        """Return the table in Markdown."""
        head = f"| {' | '.join(self.columns)} |\n|{' --- |' * len(self.columns)}"
        lines = [f"| {' | '.join(row)} |" for row in self.rows]
        note = f"\n\n{self.note}" if self.note else ""
        return f"### {self.title}\n\n{head}\n" + "\n".join(lines) + note + "\n"
