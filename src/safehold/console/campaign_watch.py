"""The search for campaigns over the newest exchanges, beside the pages and within a duty.

It judges against the background that `safehold monitor campaigns` keeps: what was usual in the last
weeks, and what clusters by itself. Without a monitor's database the older half of what it looks at
stands in. It keeps nothing.
"""

from safehold.console.index import ExchangeIndex
from safehold.console.screens.accounts import FoundCampaigns
from safehold.detect.monitoring.campaign_book import CampaignSettings, look
from safehold.detect.monitoring.tables import MonitorStore
from safehold.guard.ledger.reader import LedgerReader

_SETTINGS = CampaignSettings(newest_rows=8_000, longest=4_000)
_SHOWN = 50


def watch(
    index: ExchangeIndex, reader: LedgerReader, store: MonitorStore | None, *, now: float
) -> None:
    """Search once more, if the last search is old enough."""

    def find() -> FoundCampaigns:
        looked = look(store, reader, _SETTINGS, keep=False)
        found = [one for one in looked.found if len(one.accounts) > 1]
        return FoundCampaigns(
            at=now,
            exchanges=looked.window,
            found=tuple(found[:_SHOWN]),
            background=looked.background,
        )

    index.refresh("campaigns", find, now=now)
