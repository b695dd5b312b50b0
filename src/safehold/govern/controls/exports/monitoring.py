"""How watching works: lost events, lag, cases, detections with their tests, signs of life."""

import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from sqlalchemy import select

from safehold.canonical import sha256_hex
from safehold.errors import SafeholdError
from safehold.govern.controls.facts.documents import CaseRow, Monitoring
from safehold.govern.controls.facts.egress import watch
from safehold.govern.controls.facts.host import LocalHost
from safehold.govern.controls.facts.site import Site
from safehold.govern.controls.facts.trust_log import LogReading
from safehold.govern.controls.interface import Assurance, ControlError, ControlKind, HostError
from safehold.govern.controls.library import stock_catalogue
from safehold.guard.ledger.interface import EventKind
from safehold.guard.ledger.reader import LedgerReader
from safehold.guard.ledger.schema import EVENTS, HEAD, WRITERS
from safehold.secure.endpoint.heartbeat import read_pulse


def monitoring(site: Site, log: LogReading, now: int) -> Monitoring:
    """Export how watching works.

    Raises:
        ControlError: no part shows any sign of life.
    """
    at = site.export
    lost: dict[str, int] = {}
    beats: dict[str, int] = {}
    beats["endpoint"] = 0  # a guard that is silent shows no sign of life
    with suppress(SafeholdError):
        pulse = read_pulse(Path(at.endpoint_socket))
        lost["endpoint"] = pulse.lost
        beats["endpoint"] = int(time.time() - pulse.age_s)
    lag = 0.0
    beats["egress"] = 0
    with suppress(HostError):
        last = watch(LocalHost(), site).rows[-1]
        beats["egress"] = int(last.time)
        lag = max(0.0, now - last.time)
    deleted = 0
    if at.ledger:
        with LedgerReader.open(at.ledger).snapshot() as connection:
            seen = connection.execute(
                select(WRITERS.c.seen_at).where(WRITERS.c.closed_at.is_(None))
            ).scalars()
            beats["gateway"] = int(max(seen, default=0))
            pruned = connection.execute(select(HEAD.c.pruned)).scalar_one()
            told = connection.execute(
                select(EVENTS.c.seq).where(EVENTS.c.kind == EventKind.PRUNE.value)
            ).all()
            # A pruning leaves an event with its count; rows that went without one have no proof.
            deleted = 0 if told else int(pruned)
            lost["ledger"] = 0
    if not any(beats.values()):
        raise ControlError(
            "neither endpoint guard nor egress watch nor ledger shows a sign of life"
        )
    beats["log"] = log.last_time
    detections = _detections()
    tested = _tested(log)
    return Monitoring(
        written=now,
        lost=lost,
        lag_s=lag,
        cases=tuple(_cases(at.cases, log)),
        detections=detections,
        untested=tuple(sorted(set(detections) - tested)),
        heartbeats=beats,
        # A witness states its own clock beside the head that it cosigns.
        timestamped=max(log.witnesses.values(), default=0),
        deleted_without_proof=deleted,
    )


def _detections() -> dict[str, tuple[str, ...]]:
    """Return the detections that are code; what persons watch is attested, with its evidence."""
    return {
        one.id: one.attack
        for one in stock_catalogue().controls
        if one.kind is ControlKind.DETECTIVE and one.attack and one.way is Assurance.AUTOMATIC
    }


def _tested(log: LogReading) -> set[str]:
    """Return the controls that a passed drill names: a heist, or a drill of their own."""
    return {
        name
        for one in log.of_kind("drill")
        if one.facts.get("outcome") == "passed"
        for name in one.facts.get("controls", "").replace(",", " ").split()
    }


def _cases(folder: str, log: LogReading) -> Iterator[CaseRow]:
    """Yield a row for each case file; a leaf with its digest says that somebody looked."""
    if not folder or not Path(folder).is_dir():
        return
    looked: dict[str, int] = {}
    for kind in ("review-open", "case-close"):
        for one in log.of_kind(kind):
            for digest in one.digests.values():
                looked.setdefault(digest, one.time)
    for path in sorted(Path(folder).glob("*.json")):
        digest = sha256_hex(path.read_bytes().rstrip(b"\n"))
        yield CaseRow(path.stem, int(path.stat().st_mtime), looked.get(digest, 0))
