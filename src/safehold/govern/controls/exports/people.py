"""What is known of people: the personnel file, and what the log says of who approves what."""

import datetime as dt
import statistics
import tomllib
from collections import Counter
from pathlib import Path

import msgspec

from safehold.govern.controls.facts.documents import Insider, ServiceAccount, Staff
from safehold.govern.controls.facts.site import Site
from safehold.govern.controls.facts.trust_log import LogReading
from safehold.govern.controls.interface import DAY, ControlError
from safehold.toml_text import parse_toml

_TELLING = 5
"""Fewer grants than that say nothing of who approves for whom."""

_WINDOW = 90 * DAY


class _Service(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    owner: str
    rotated: dt.date


class StaffFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`staff.toml`: what the personnel office says. An unknown key is an error."""

    present: tuple[str, ...]
    departed: dict[str, dt.date] = {}
    at_risk: tuple[str, ...] = ()
    conflicting_roles: tuple[tuple[str, str], ...] = ()
    recertified: dict[str, dt.date] = {}
    services: tuple[_Service, ...] = ()
    admin_sets: tuple[tuple[str, ...], ...] = ()


def staff(site: Site, log: LogReading, now: int) -> Staff:
    """Export the personnel file; the document is as old as the file.

    Raises:
        ControlError: it can't be read, or holds an unknown key.
    """
    del log
    path = Path(site.export.staff)
    try:
        found = msgspec.convert(parse_toml(path.read_text("utf-8")), StaffFile)
        written = int(path.stat().st_mtime)
    except OSError as error:
        raise ControlError(f"can't read {path.name}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, msgspec.ValidationError) as error:
        raise ControlError(f"{path.name}: {error}") from error
    return Staff(
        written=min(written, now),
        present=found.present,
        departed={who: _seconds(day) for who, day in found.departed.items()},
        at_risk=found.at_risk,
        conflicting_roles=found.conflicting_roles,
        recertified={team: _seconds(day) for team, day in found.recertified.items()},
        services=tuple(
            ServiceAccount(one.name, one.owner, _seconds(one.rotated)) for one in found.services
        ),
        admin_sets=found.admin_sets,
    )


def _seconds(day: dt.date) -> int:
    return int(dt.datetime(day.year, day.month, day.day, tzinfo=dt.UTC).timestamp())


def insider(site: Site, log: LogReading, now: int) -> Insider:
    """Export the statistics of approvers over 90 days; recall is that of the drills on people."""
    del site
    used = [one for one in log.cases if one.used_at is not None and now - one.used_at <= _WINDOW]
    pairs = Counter(
        (one.requester, who) for one in used for who in one.carried_by if who != one.requester
    )
    # A pair's share needs enough cases to be one: below five there is nothing to compare.
    share = max(pairs.values(), default=0) / len(used) if len(used) >= _TELLING else 0.0
    waits = [one.used_at - one.requested_at for one in used if one.used_at is not None]
    recent = [one for one in log.alarms if now - one.time <= 7 * DAY]
    drills = [one for one in log.of_kind("drill") if one.facts.get("drill", "")[:8] == "insider-"]
    devices: dict[str, set[str]] = {}
    for session in log.of_kind("session"):
        if "device" in session.facts:
            devices.setdefault(session.facts["device"], set()).add(session.facts.get("person", ""))
    return Insider(
        written=now,
        pair_share=share,
        median_approve_s=float(statistics.median(waits)) if waits else float(DAY),
        same_device=sum(len(who) > 1 for who in devices.values()),
        alerts_per_day=len(recent) / 7,
        recall_n=len(drills),
        recall_k=sum(one.facts.get("outcome") == "passed" for one in drills),
    )
