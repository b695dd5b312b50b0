"""Evidence out of what the parts leave behind: control runs, the log, standing, files.

Everything gets an id: `controls:egr-03`, `controls:all`, `drill:heist`, `log:witnesses`,
`standing:asl-3-security`, `threshold:weapons-basic-uplift`, and for a file the id that it names.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from safehold.govern.controls.facts.trust_log import LogReading
from safehold.govern.controls.interface import DAY, ControlResult
from safehold.govern.report.interface import (
    Audience,
    CaseEvidence,
    Doubt,
    Figure,
    Good,
    ReportError,
)
from safehold.trust.standing.gate import ModelStanding
from safehold.trust.standing.interface import Dissent, StandingRecord

_PUBLIC, _PARTNER = Audience.PUBLIC, Audience.PARTNER


def of_controls(results: Iterable[ControlResult]) -> Iterator[CaseEvidence]:
    """Yield one piece of evidence for each control, and one for all of them together."""
    many = list(results)
    for one in many:
        yield CaseEvidence(
            id=f"controls:{one.control}",
            kind="control",
            made=one.at,
            holds_s=max(1, one.until - one.at),
            fields={
                "satisfied": Figure(audience=_PUBLIC, number=float(one.satisfied)),
                "status": Figure(audience=_PARTNER, text=one.status.value),
                "reasons": Figure(text="; ".join(one.reasons)),
            },
        )
    if many:
        rate = sum(one.satisfied for one in many)
        yield CaseEvidence(
            id="controls:all",
            kind="control run",
            made=min(one.at for one in many),
            holds_s=max(1, min(one.until for one in many) - min(one.at for one in many)),
            fields={
                "satisfied": Figure(audience=_PUBLIC, events=rate, n=len(many), good=Good.HIGH),
                "number": Figure(audience=_PUBLIC, number=float(len(many))),
            },
        )


def of_log(log: LogReading, at: int) -> Iterator[CaseEvidence]:
    """Yield the newest drill of each name, and what the witnesses say."""
    newest = {one.facts.get("drill", ""): one for one in log.of_kind("drill")}
    for name, one in sorted(newest.items()):
        took = one.facts.get("seconds", "")
        fields = {
            "passed": Figure(audience=_PUBLIC, number=float(one.facts.get("outcome") == "passed"))
        }
        if took.replace(".", "", 1).isdigit():
            fields["seconds"] = Figure(audience=_PARTNER, number=float(took), unit="s")
        yield CaseEvidence(
            id=f"drill:{name}", kind="drill", made=one.time, holds_s=90 * DAY, fields=fields
        )
    young = sum(0 <= at - time <= DAY for time in log.witnesses.values())
    yield CaseEvidence(
        id="log:witnesses",
        kind="transparency log",
        made=log.last_time,
        holds_s=DAY,
        fields={
            "number": Figure(audience=_PUBLIC, number=float(young)),
            "leaves": Figure(audience=_PARTNER, number=float(log.size)),
            "void": Figure(audience=_PARTNER, number=float(len(log.voids))),
        },
    )


def of_standing(standing: ModelStanding) -> Iterator[CaseEvidence]:
    """Yield every threshold's status and every standard in force, as of the time of asking."""
    for one in standing.thresholds:
        yield CaseEvidence(
            id=f"threshold:{one.threshold}",
            kind="determination",
            made=standing.at,
            holds_s=DAY,
            fields={
                "status": Figure(audience=_PUBLIC, text=one.status.value.replace("_", " ")),
                "reasons": Figure(text="; ".join(one.reasons)),
            },
        )
    for force in standing.active:
        yield CaseEvidence(
            id=f"standing:{force.standard}",
            kind="activation",
            made=standing.at,
            holds_s=DAY,
            fields={
                "in_force": Figure(audience=_PUBLIC, number=1.0),
                "precautionary": Figure(audience=_PUBLIC, text=_yes(holds=force.precautionary)),
                "provisional": Figure(audience=_PUBLIC, text=_yes(holds=force.provisional)),
                "without": Figure(audience=_PARTNER, text=", ".join(sorted(force.without))),
            },
        )


def _yes(*, holds: bool) -> str:
    return "yes" if holds else "no"


def doubts_of(
    log: LogReading | None, standing: ModelStanding | None, records: Iterable[StandingRecord] = ()
) -> tuple[Doubt, ...]:
    """Return dissents about records in use, and incidents that nobody closed."""
    index_of: dict[int, str] = {}
    if standing is not None:
        for one in standing.thresholds:
            if one.determination is not None:
                index_of[one.determination] = f"threshold:{one.threshold}"
        index_of |= {one.index: f"standing:{one.standard}" for one in standing.active}
    found = [
        Doubt(
            kind="dissent",
            about=(index_of[record.about],),
            text=record.text,
            audience=_PUBLIC,
            time=record.time,
        )
        for record in records
        if isinstance(record, Dissent) and record.about in index_of
    ]
    if log is not None:
        closed = {one.facts.get("id") for one in log.of_kind("case-close")}
        for leaf in log.of_kind("incident"):
            if leaf.facts.get("id") not in closed or "id" not in leaf.facts:
                about = leaf.facts.get("about", "").replace(",", " ").split()
                found.append(
                    Doubt(
                        kind="incident",
                        about=tuple(about),
                        text=leaf.facts.get("summary", "an incident is open"),
                        time=leaf.time,
                    )
                )
    return tuple(found)


def read_folder(folder: Path) -> Iterator[CaseEvidence]:
    """Yield the evidence of every JSON file of a folder.

    Raises:
        ReportError: one can't be read, is malformed, or two have one id.
    """
    seen: dict[str, str] = {}
    try:
        paths = sorted(folder.glob("*.json"))
        if not folder.is_dir():
            raise ReportError(f"expected a folder of evidence, got {folder}")
        for path in paths:
            one = msgspec.json.decode(path.read_bytes(), type=CaseEvidence)
            if one.id in seen or ":" in one.id:
                raise ReportError(f"{path.name}: the id {one.id} is taken")
            seen[one.id] = path.name
            yield one
    except OSError as error:
        raise ReportError(f"can't read the evidence: {error.strerror}") from error
    except msgspec.DecodeError as error:
        raise ReportError(f"{path.name}: {error}") from error
