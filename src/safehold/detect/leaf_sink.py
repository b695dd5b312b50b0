"""The transparency log, as detection uses it."""

from typing import Protocol


class LeafSink(Protocol):
    """The transparency log, as the desk uses it; a kind and facts without content."""

    def append(self, kind: str, facts: dict[str, str]) -> None:
        """Keep a leaf durably, or raise; what it tells of happens only afterwards."""
        ...
