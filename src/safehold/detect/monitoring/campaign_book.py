"""Campaigns along a ledger: a window of the newest exchanges against a background that is kept.

Exchanges leave the window after `window_s` and become background, unless they belonged to an alarm:
a campaign that is slow, or goes on for weeks, does not become usual by being seen. What clusters
without an alarm raises the bar for alarms.
"""

import msgspec
from sqlalchemy import delete, insert, select

from safehold.detect.monitoring.account_book import stopped
from safehold.detect.monitoring.campaigns import Background, Campaign, Sighting, campaigns
from safehold.detect.monitoring.scan.scanners import texts
from safehold.detect.monitoring.tables import BACKGROUND, MonitorStore
from safehold.errors import UsageError
from safehold.guard.ledger.joined import Joined, joined, watermark
from safehold.guard.ledger.reader import LedgerReader

_NAME = "campaigns"
_MOST_IN_WINDOW = 20_000


class CampaignSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How long an exchange stays in the window, and what share begins an empty background.

    A look that keeps nothing may go back over the newest `newest_rows` of the ledger alone, and
    read the first `longest` characters of a text: what a console can afford beside its pages.
    """

    window_s: float = 7 * 86_400.0
    begin_with: float = 0.5
    newest_rows: int | None = None
    longest: int | None = None


class Looked(msgspec.Struct, frozen=True, kw_only=True):
    """One look: the clusters, how many exchanges were in the window and in the background."""

    found: tuple[Campaign, ...]
    window: int
    background: int


def look(
    store: MonitorStore | None,
    reader: LedgerReader,
    settings: CampaignSettings | None = None,
    *,
    keep: bool = True,
) -> Looked:
    """Cluster the window, then let what has left it become background.

    Without `keep` the stored background stays as it is; without a store there is none.

    Raises:
        UsageError: it shall keep what it saw only a part of.
        LedgerError: a database can't be used.
        DataError: the stored background is damaged.
    """
    settings = settings or CampaignSettings()
    partly = (settings.newest_rows, settings.longest) != (None, None)
    if keep and (partly or store is None):
        raise UsageError("a look at a part of the ledger keeps no background")
    usual, after = (Background(), 0) if store is None else _stored(store)
    window: list[tuple[Joined, Sighting]] = []
    with reader.snapshot() as ledger:
        through = watermark(ledger)
        first = not after
        after = max(after, through - (settings.newest_rows or through))
        newest = max((one.final.at for one in joined(ledger, after=after, through=through)),
                     default=0.0)  # fmt: skip
        begin = after + int(settings.begin_with * (through - after)) if first else 0
        for one in joined(ledger, after=after, through=through):
            if one.seq <= begin:
                usual.learn(_text(one, settings), at=one.final.at, stopped=stopped(one))
                after = one.seq
            else:
                window.append((one, _sighting(one, settings)))
                del window[:-_MOST_IN_WINDOW]
    found = campaigns([sighting for _, sighting in window], usual)
    alarmed = {decision for one in found if one.alarm for decision in one.decision_ids}
    gone = [one for one, _ in window if one.final.at < newest - settings.window_s]
    left = {one.decision_id for one in gone}
    for one in gone:
        if one.decision_id not in alarmed:
            usual.learn(_text(one, settings), at=one.final.at, stopped=stopped(one))
        after = max(after, one.seq)
    for cluster in found:
        if not cluster.alarm and left.issuperset(cluster.decision_ids):
            usual.learn_cluster(cluster)
    if keep and store is not None:
        _store(store, usual, after)
    return Looked(found=tuple(found), window=len(window), background=usual.texts)


def _text(one: Joined, settings: CampaignSettings) -> str:
    said = texts(one)
    return "\n".join(said[:-1] or said)[: settings.longest]


def _sighting(one: Joined, settings: CampaignSettings) -> Sighting:
    return Sighting(
        decision_id=one.decision_id,
        account=one.account,
        text=_text(one, settings),
        stopped=stopped(one),
    )


def _stored(store: MonitorStore) -> tuple[Background, int]:
    with store.begin() as connection:
        row = connection.execute(select(BACKGROUND).where(BACKGROUND.c.name == _NAME)).one_or_none()
    return (Background(), 0) if row is None else (Background.unpacked(row.content), int(row.seq))


def _store(store: MonitorStore, usual: Background, after: int) -> None:
    row = {"name": _NAME, "seq": after, "content": usual.packed()}
    with store.begin() as connection:
        connection.execute(delete(BACKGROUND).where(BACKGROUND.c.name == _NAME))
        connection.execute(insert(BACKGROUND), row)
