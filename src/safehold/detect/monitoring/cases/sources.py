"""Where cases come from: the monitor's own labels, the ledger's alarms, the transparency log.

Detection may not import the enclave's side: closures of egress, denials of endpoints and touches of
decoys reach it as leaves of the transparency log, which it verifies like every reader.
"""

from collections.abc import Iterable, Iterator

import msgspec
from sqlalchemy import select

from safehold.detect.monitoring.account_book import KeptLabel
from safehold.detect.monitoring.campaigns import Campaign
from safehold.detect.monitoring.cases.interface import Finding, MonitorCase
from safehold.detect.monitoring.tables import CURSORS, MonitorStore
from safehold.errors import LedgerError, TrustError
from safehold.guard.ledger.codec import to_entry
from safehold.guard.ledger.interface import EventKind, EventRow
from safehold.guard.ledger.joined import watermark
from safehold.guard.ledger.reader import LedgerReader
from safehold.guard.ledger.schema import EVENTS
from safehold.trust.grants.events import Alarm
from safehold.trust.grants.leaf_reader import readable
from safehold.trust.log.files import DirectorySource
from safehold.trust.log.follow import Follower
from safehold.trust.log.interface import LogTamperError
from safehold.trust.log.keys import LogKeys
from safehold.trust.log.log_entries import Leaf, Record

_ALARMS = "cases/alarms"
_LEAVES = "cases/leaves"
_DAY_S = 86_400


class News(msgspec.Struct, frozen=True):
    """New cases, and up to where their source was read; both are kept in one transaction."""

    cases: tuple[MonitorCase, ...]
    cursor: tuple[str, int] | None = None


def of_labels(labels: Iterable[KeptLabel]) -> Iterator[MonitorCase]:
    """Yield a case for each label; one that began anew is a new one."""
    for one in labels:
        yield MonitorCase(
            key=f"label/{one.account}/{one.label}/{one.since:.0f}",
            kind=Finding.ACCOUNT_LABEL,
            title=f"account {one.account}: {one.label}",
            severity=3,
            opened_at=one.since,
            facts={"account": one.account, "label": one.label, "reason": one.reason},
            evidence=one.evidence,
        )


def of_campaigns(found: Iterable[Campaign], *, now: float) -> Iterator[MonitorCase]:
    """Yield a case for each alarm; a cluster that grows keeps the case of its rarest wording."""
    for one in found:
        if not one.alarm:
            continue
        mark = min(one.shared, default=min(one.decision_ids))
        yield MonitorCase(
            key=f"campaign/{mark}",
            kind=Finding.CAMPAIGN,
            title=f"{len(one.decision_ids)} texts of {len(one.accounts)} accounts share wording",
            severity=3,
            opened_at=now,
            facts={"accounts": ", ".join(one.accounts[:20]), "stopped": str(one.stopped)},
            evidence=one.decision_ids[:16],
        )


def of_ledger(store: MonitorStore, reader: LedgerReader) -> News:
    """Return a case for each kind of alarm on each day of the gateway's ledger, of its news.

    Raises:
        LedgerError: a database can't be used.
    """
    after, found = _cursor(store, _ALARMS), []
    with reader.snapshot() as ledger:
        through = watermark(ledger)
        query = (
            select(EVENTS)
            .where(EVENTS.c.seq > after, EVENTS.c.seq <= through)
            .where(EVENTS.c.kind == EventKind.ALARM.value)
            .order_by(EVENTS.c.seq)
        )
        for columns in ledger.execute(query).mappings():
            row = to_entry(EventRow, dict(columns)).row
            if not isinstance(row, EventRow):
                raise LedgerError(f"row {columns['seq']} is no event")
            name = str(row.detail.get("alarm", "alarm"))
            found.append(
                MonitorCase(
                    key=f"alarm/{name}/{int(row.at) // _DAY_S}",
                    kind=Finding.GATEWAY_ALARM,
                    title=f"the gateway raised {name}",
                    severity=3,
                    opened_at=row.at,
                    facts={key: str(value)[:200] for key, value in row.detail.items()},
                    evidence=(f"ledger row {columns['seq']}",),
                )
            )
    return News(tuple(found), (_ALARMS, through))


def of_log(store: MonitorStore, source: DirectorySource, keys: LogKeys, *, now: float) -> News:
    """Return a case for each new leaf that people should see, or for a log that is not one.

    Raises:
        LedgerError: the log can't be read at all.
    """
    after = _cursor(store, _LEAVES)
    follower = Follower(source, keys, at_least=after)
    try:
        entries = follower.news()
    except LogTamperError as error:
        fork = MonitorCase(
            key=f"fork/{keys.origin}/{int(now) // _DAY_S}",
            kind=Finding.LOG_FORK,
            title=f"the transparency log {keys.origin} does not hold",
            severity=4,
            opened_at=now,
            facts={"reason": str(error)[:400], "leaves seen before": str(after)},
        )
        return News((fork,))
    except TrustError as error:
        raise LedgerError(f"the transparency log can't be read: {error}") from error
    news = ((index, entry) for index, entry in entries if index >= after)
    leaves = readable(news, keys.emitter_keys())
    found = (one for index, leaf in leaves if (one := _of_leaf(index, leaf)) is not None)
    return News(tuple(found), (_LEAVES, follower.size))


def _of_leaf(index: int, leaf: Leaf) -> MonitorCase | None:
    match leaf:
        case Record():
            return _of_record(index, leaf)
        case Alarm():
            return MonitorCase(
                key=f"leaf/{index}",
                kind=Finding.TRUST_ALARM,
                title=f"{leaf.kind}: {leaf.subject}",
                severity=2,
                opened_at=float(leaf.time),
                facts={"detail": leaf.detail},
                evidence=(f"leaf {index}",),
            )
        case _:
            return None


def _of_record(index: int, leaf: Record) -> MonitorCase | None:
    event, named = leaf.facts.get("event", ""), leaf.facts.get("incident", "")
    if leaf.kind == "exec-deny":
        kind, severity = Finding.DENIALS, 2
        title = f"{leaf.facts.get('refused', '?')} programs refused on {leaf.facts.get('host')}"
    elif leaf.kind == "incident" and event == "decoy-touched":
        kind, severity = Finding.DECOY, 4
        title = f"a decoy was read on {leaf.facts.get('host', 'a host')}"
    elif leaf.kind == "incident" and event.startswith("egress-"):
        kind, severity = Finding.EGRESS, 2 if event == "egress-warn" else 4
        title = f"{event.replace('-', ' ')}: {leaf.facts.get('flow', 'the plan')}"
    elif leaf.kind == "incident":
        kind, severity, title = (
            Finding.INCIDENT,
            3,
            f"incident: {event or named or 'without a name'}",
        )
    else:
        return None
    return MonitorCase(
        key=f"leaf/{index}",
        kind=kind,
        title=title,
        severity=severity,
        opened_at=float(leaf.time),
        facts={name: text[:200] for name, text in leaf.facts.items()},
        evidence=(f"leaf {index}",),
    )


def _cursor(store: MonitorStore, name: str) -> int:
    with store.begin() as connection:
        query = select(CURSORS.c.seq).where(CURSORS.c.name == name)
        return int(connection.execute(query).scalar() or 0)
