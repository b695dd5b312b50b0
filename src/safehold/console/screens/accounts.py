"""Accounts and campaigns: what the monitor noticed, with reasons, and the exchanges behind it."""

import msgspec
from sqlalchemy import select

from safehold.console.index import ExchangeLine, Wanted
from safehold.console.shell.access import PageVisit
from safehold.console.shell.web import NotFoundError
from safehold.console.sources import ConsoleSources
from safehold.detect.monitoring.account_book import AccountBook, KeptLabel
from safehold.detect.monitoring.accounts import AccountState, Caps, evidence
from safehold.detect.monitoring.campaigns import Campaign
from safehold.detect.monitoring.fitted import caps_of
from safehold.detect.monitoring.tables import ACCOUNTS
from safehold.stats import Rate

_SHOWN = 100
_LN_10 = 2.302585092994046


class AccountLine(msgspec.Struct, frozen=True, kw_only=True):
    """One account: counts, the evidence as a power of ten, and its labels."""

    account: str
    exchanges: int
    blocked: Rate
    resembling: int
    longest_chain: int
    evidence_10: float
    labels: tuple[str, ...]


class AccountsScreen(msgspec.Struct, frozen=True):
    """Labelled accounts first, then those that were seen last."""

    rows: tuple[AccountLine, ...]
    labelled: int
    caps: Caps


class AccountPage(msgspec.Struct, frozen=True, kw_only=True):
    """One account with its labels and its newest exchanges."""

    about: AccountLine
    labels: tuple[KeptLabel, ...]
    exchanges: tuple[ExchangeLine, ...]


class Campaigns(msgspec.Struct, frozen=True):
    """What was found lately: texts of many accounts that share rare wording."""

    rows: tuple[Campaign, ...]
    looked_at: float | None
    exchanges: int
    background: int = 0


class FoundCampaigns(msgspec.Struct, frozen=True):
    """The newest search, as it is kept."""

    at: float
    exchanges: int
    found: tuple[Campaign, ...]
    background: int = 0


def accounts(visit: PageVisit[ConsoleSources]) -> AccountsScreen:
    """Return the accounts."""
    store = visit.sources.monitor
    if store is None:
        return AccountsScreen((), 0, Caps())
    caps, _ = caps_of(store)
    labels = AccountBook(store, caps=caps).labels(now=visit.now)
    named = {one.account for one in labels}
    with store.begin() as connection:
        newest = select(ACCOUNTS).order_by(ACCOUNTS.c.seen.desc()).limit(_SHOWN)
        rows = list(connection.execute(newest))
        missing = named - {row.account for row in rows}
        rows += connection.execute(select(ACCOUNTS).where(ACCOUNTS.c.account.in_(missing)))
    lines = [_line(row.account, _state(row.state), labels, caps) for row in rows]
    lines.sort(key=lambda one: (not one.labels, -one.evidence_10, one.account))
    return AccountsScreen(tuple(lines), len(named), caps)


def account(visit: PageVisit[ConsoleSources]) -> AccountPage:
    """Return one account.

    Raises:
        NotFoundError: the monitor has not seen it.
    """
    store = visit.sources.monitor
    name = f"{visit.params['tenant']}/{visit.params['key']}"
    if store is None:
        raise NotFoundError("no monitor's database is named (option --monitor)")
    with store.begin() as connection:
        query = select(ACCOUNTS.c.state).where(ACCOUNTS.c.account == name)
        found = connection.execute(query).scalar()
    if found is None:
        raise NotFoundError("the monitor has not seen this account: safehold monitor accounts")
    caps, _ = caps_of(store)
    labels = AccountBook(store, caps=caps).labels(now=visit.now)
    return AccountPage(
        about=_line(name, _state(found), labels, caps),
        labels=tuple(one for one in labels if one.account == name),
        exchanges=tuple(visit.sources.index.lines(Wanted(account=name, limit=25))),
    )


def campaigns(visit: PageVisit[ConsoleSources]) -> Campaigns:
    """Return the newest search's findings; it runs beside the pages."""
    kept = visit.sources.index.fact("campaigns", FoundCampaigns)
    if kept is None:
        return Campaigns((), None, 0)
    return Campaigns(kept.found, kept.at, kept.exchanges, kept.background)


def _state(text: str) -> AccountState:
    return msgspec.json.decode(text, type=AccountState)


def _line(name: str, state: AccountState, labels: list[KeptLabel], caps: Caps) -> AccountLine:
    strongest = max(evidence(state, caps).values(), default=0.0)
    return AccountLine(
        account=name,
        exchanges=state.queries,
        blocked=Rate(state.blocked, state.queries),
        resembling=state.walked,
        longest_chain=state.lineage,
        evidence_10=round(strongest / _LN_10, 1),
        labels=tuple(one.label for one in labels if one.account == name),
    )
