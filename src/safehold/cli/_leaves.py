"""Leaves that the commands about detection write to the transparency log."""

import time
from pathlib import Path

_DIGESTS = frozenset({"decision", "note"})


class LogLeaves:
    """Keeps leaves in a transparency log; durable when `append` returns."""

    def __init__(self, log_dir: Path, key_dir: Path | None) -> None:
        self._log_dir, self._key_dir = log_dir, key_dir

    def append(self, kind: str, facts: dict[str, str]) -> None:
        """Append one record."""
        from safehold.cli._trust import open_desk
        from safehold.trust.log.log_entries import Record

        record = Record(
            time=int(time.time()),
            kind=kind,
            facts={name: text for name, text in facts.items() if name not in _DIGESTS},
            digests={name: text for name, text in facts.items() if name in _DIGESTS},
        )
        open_desk(self._log_dir, self._key_dir).record(record)
