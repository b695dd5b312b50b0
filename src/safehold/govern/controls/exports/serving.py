"""What the gateway served and what left: out of the ledger, the settings and the watch."""

import itertools
import subprocess
from http import HTTPStatus
from pathlib import Path

import msgspec
from sqlalchemy import func, select

from safehold.errors import DataError, UsageError
from safehold.govern.controls.facts.documents import FlowRecords, Outputs
from safehold.govern.controls.facts.site import Site
from safehold.govern.controls.facts.trust_log import LogReading
from safehold.govern.controls.interface import DAY, ControlError, HostError
from safehold.guard.gateway.policy import Settings
from safehold.guard.ledger.coverage import LedgerCoverage, StallLimits, audit
from safehold.guard.ledger.reader import LedgerReader
from safehold.guard.ledger.schema import FINALS, PROMPTS
from safehold.http_ask import ask
from safehold.secure.egress.declare.register import load_register
from safehold.secure.egress.watch.timeline_files import timeline_rows
from safehold.secure.egress.watch.timeline_rows import TimelineRow

_ASK_S = 5.0
_TOP = {"strip": 0, "chosen": 1}


def outputs(site: Site, log: LogReading, now: int) -> Outputs:
    """Export what the ledger says of a day, and whether the gateway answers.

    Raises:
        LedgerError: the ledger can't be read.
    """
    del log
    at = site.export
    if not at.ledger:
        raise ControlError("controls.toml: expected export.ledger")
    reader = LedgerReader.open(at.ledger)
    found = audit(reader, now=float(now), limits=StallLimits())
    with reader.snapshot() as connection:
        sums = connection.execute(
            select(PROMPTS.c.key_id, func.sum(FINALS.c.delivered_bytes))
            .join_from(FINALS, PROMPTS, FINALS.c.decision_id == PROMPTS.c.decision_id)
            .where(FINALS.c.at > now - DAY)
            .group_by(PROMPTS.c.key_id)
        ).all()
        newest = connection.execute(
            select(PROMPTS.c.bundle_digest).order_by(PROMPTS.c.seq.desc()).limit(1)
        ).scalar()
    return Outputs(
        written=now,
        bytes_per_key={key or "none": int(sent) for key, sent in sums},
        quota=at.key_quota,
        top_logprobs=_logprobs(at.gateway_settings),
        coverage=covered(found),
        gateway_up=_answers(at.gateway),
        bundle_sha256=newest or "",
    )


def covered(found: LedgerCoverage) -> float:
    """Return the part of the delivered bytes that were scored and kept; 1 only without any gap."""
    sent = sum(one.delivered_bytes for one in found.surfaces.values())
    lost = sum(one.unscored_bytes + one.unlogged_bytes for one in found.surfaces.values())
    share = max(0.0, 1 - lost / sent) if sent else 1.0
    return min(share, 0.9999) if found.gaps else share


def _logprobs(path: str) -> int:
    """How many tokens' chances the settings tell: none, or the chosen one's."""
    if not path:
        raise ControlError("controls.toml: expected export.gateway_settings")
    try:
        settings = msgspec.convert(msgspec.yaml.decode(Path(path).read_bytes()), Settings)
    except OSError as error:
        raise ControlError(f"{path}: {error.strerror}") from error
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise ControlError(f"{path}: {error}") from error
    every = (settings.default, *settings.surfaces.values())
    return max(_TOP[one.rules.logprobs] for one in every)


def _answers(url: str) -> bool:
    try:
        return ask(f"{url}/readyz", timeout_s=_ASK_S).status == HTTPStatus.OK
    except (UsageError, OSError):
        return False


def flows(site: Site, log: LogReading, now: int) -> FlowRecords:
    """Export the watch's timeline and the connections that live now.

    Raises:
        HostError: the timeline can't be read.
        ControlError: `ss` does not answer.
    """
    at = site.export
    begins, today = 0.0, list[float]()
    row: TimelineRow | None = None
    try:
        for row in timeline_rows(Path(site.egress) / "timeline.jsonl"):
            begins = begins or row.time
            if now - row.time <= DAY:
                today.append(row.time)
    except DataError as error:
        raise HostError(f"egress: {error}") from error
    if row is None:
        raise HostError("timeline.jsonl is empty")
    seen = {flow: sent for flow, sent in row.passed.items() if flow != "total"}
    gaps = [after - before for before, after in itertools.pairwise(today)]
    register = load_register(Path(site.register))
    # A row that names no local sender attributes its bytes to no process.
    bare = {
        one.id
        for one in register.flows
        if not one.source.user and one.source.uid is None and not one.source.cgroup
    }
    alerts = {
        one.facts["edge"]
        for one in log.of_kind("incident")
        if "edge" in one.facts and now - one.time <= 30 * DAY
    }
    return FlowRecords(
        written=now,
        longest_gap_s=max((*gaps, now - today[-1])) if today else float(DAY),
        kept_days=int((row.time - begins) // DAY),
        bytes_seen=sum(seen.values()),
        bytes_unattributed=sum(sent for flow, sent in seen.items() if flow in bare),
        baseline_edges=at.edges,
        edges=tuple(sorted(_edges(at.hosts))),
        alerted_edges=tuple(sorted(alerts)),
    )


def _edges(hosts: dict[str, str]) -> set[str]:
    """Return who is connected with whom: names of the site, else addresses."""
    try:
        done = subprocess.run(
            ["ss", "-Htn", "state", "established"], capture_output=True, check=True, timeout=20
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise ControlError(f"ss: {error}") from error
    found = set()
    for line in done.stdout.decode("utf-8", "replace").splitlines():
        here, there = (one.rpartition(":")[0].strip("[]") for one in line.split()[2:4])
        if here.startswith("127.") or here == "::1":
            continue
        found.add(f"{hosts.get(here, here)}-{hosts.get(there, there)}")
    return found
