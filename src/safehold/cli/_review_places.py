"""Where the commands of `safehold review` find the desk, the ledger and the log."""

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from safehold.detect.review.appeals import AppealBook
    from safehold.detect.review.desk import ReviewDesk


class ReviewPlaces(msgspec.Struct, frozen=True):
    """Where the ledger, the desk's database and the log are."""

    ledger: str
    review: str
    log_dir: Path
    key_dir: Path | None

    def desk(self, examples: Path | None = None, *, make: bool = False) -> "ReviewDesk":
        """Open the desk; the key that chooses second reviews comes from the log's private key.

        Only what opens a case makes the desk's tables: a mistyped path makes no file.
        """
        from safehold.cli._leaves import LogLeaves
        from safehold.cli._trust import key_directory, open_desk, read_signing_key
        from safehold.detect.review.authority import GrantAuthority, LedgerHolds
        from safehold.detect.review.desk import ReviewDesk
        from safehold.guard.ledger.reader import LedgerReader

        emitter = read_signing_key(key_directory(self.log_dir, self.key_dir) / "emitter.key")
        return ReviewDesk(
            self.review,
            evidence=LedgerReader.open(self.ledger),
            leaves=LogLeaves(self.log_dir, self.key_dir),
            authority=GrantAuthority(open_desk(self.log_dir, self.key_dir)),
            holds=LedgerHolds(self.ledger),
            examples=examples,
            make=make,
            sampling_key=hashlib.sha256(f"review {emitter.text()}".encode()).digest(),
        )

    def appeals(self, *, make: bool = False) -> "AppealBook":
        """Open the appeals, as the desk."""
        from safehold.detect.review.appeals import AppealBook
        from safehold.guard.ledger.reader import LedgerReader

        evidence = LedgerReader.open(self.ledger)
        return AppealBook(self.review, desk=self.desk(make=make), evidence=evidence, make=make)
