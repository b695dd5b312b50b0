"""The search for campaigns over the newest exchanges, beside the pages and within a duty."""

from safehold.console.index import ExchangeIndex
from safehold.console.screens.accounts import FoundCampaigns
from safehold.detect.monitoring.account_book import stopped
from safehold.detect.monitoring.campaigns import Background, Sighting, campaigns
from safehold.detect.monitoring.scan.scanners import texts
from safehold.guard.ledger.joined import joined, watermark
from safehold.guard.ledger.reader import LedgerReader

_ROWS = 8_000
"""Ledger rows that one search looks back over."""
_BACKGROUND = 0.5
_LONGEST = 4_000


def look(index: ExchangeIndex, reader: LedgerReader, *, now: float) -> None:
    """Search once more, if the last search is old enough."""

    def find() -> FoundCampaigns:
        usual, seen, count = Background(), [], 0
        with reader.snapshot() as connection:
            through = watermark(connection)
            first = max(0, through - _ROWS)
            half = first + _BACKGROUND * (through - first)
            for one in joined(connection, after=first, through=through):
                count += 1
                said = texts(one)
                text = "\n".join(said[:-1] or said)[:_LONGEST]
                if one.seq <= half:
                    usual.learn(text, at=one.final.at, stopped=stopped(one))
                else:
                    about = {"decision_id": one.decision_id, "account": one.account}
                    seen.append(Sighting(**about, text=text, stopped=stopped(one)))
        found = [one for one in campaigns(seen, usual) if len(one.accounts) > 1]
        return FoundCampaigns(now, count, tuple(found[:50]))

    index.refresh("campaigns", find, now=now)
