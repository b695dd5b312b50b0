"""The engine: facts in, one result for every row of the catalogue out; nothing is skipped.

The steps for one control:
1. A judge that yields a fault: fail. One that meets a broken reader: error; an old fact: stale.
   What it found before that is told first.
2. A judge that raises anything else: error. It never passes by accident.
3. Not applicable, with the fact that shows it, is not satisfied by itself: an exception is needed.
4. A row of persons holds by an attestation in force; a partial row needs one too.
5. An exception in force stands for what is left.
"""

import time
from collections.abc import Mapping

from safehold.canonical import canonical, sha256_hex
from safehold.govern.controls.accepted import Accepted, accepted
from safehold.govern.controls.facts.host import ControlledHost
from safehold.govern.controls.facts.readers import collect
from safehold.govern.controls.facts.site import Site
from safehold.govern.controls.facts.trust_log import LogReading
from safehold.govern.controls.interface import (
    Assurance,
    Control,
    ControlResult,
    ControlRun,
    ControlStatus,
    HostError,
    HostFacts,
    Inapplicable,
    Judge,
    StaleError,
    what_broke,
)
from safehold.govern.controls.judges.table import JUDGES
from safehold.govern.controls.library import ControlCatalogue

_MOST_REASONS = 5


def run_controls(catalogue: ControlCatalogue, host: ControlledHost, site: Site) -> ControlRun:
    """Read the host once and judge every control."""
    begun = time.monotonic()
    facts = collect(host, site)
    return ControlRun(
        host=host.name,
        at=facts.at,
        seconds=round(time.monotonic() - begun, 3),
        catalogue_sha256=catalogue.sha256,
        results=judge_all(catalogue, facts),
    )


def judge_all(
    catalogue: ControlCatalogue, facts: HostFacts, judges: Mapping[str, Judge] = JUDGES
) -> tuple[ControlResult, ...]:
    """Return one result for every row, in the catalogue's order."""
    try:
        kept = accepted(facts.of(LogReading), facts.at)
    except HostError:
        kept = Accepted()
    return tuple(_result(one, facts, judges, kept) for one in catalogue.controls)


def _result(
    control: Control, facts: HostFacts, judges: Mapping[str, Judge], kept: Accepted
) -> ControlResult:
    if control.way is Assurance.AUTOMATIC:
        status, reasons = judged(judges[control.id], facts)
    else:
        status, reasons = _attested(control, kept)
    until = facts.at + control.period_s
    if status is ControlStatus.ATTESTED:
        until = min(until, kept.attested[control.id].expires)
    if status not in {ControlStatus.PASSED, ControlStatus.ATTESTED}:
        exception = kept.excepted.get(control.id)
        if exception is not None:  # 5
            until = min(until, exception.expires)
            reasons = (f"accepted by {exception.owner}: {exception.reason}", *reasons)
            status = ControlStatus.EXCEPTED
    words = reasons[:_MOST_REASONS]
    return ControlResult(
        control=control.id,
        status=status,
        reasons=words,
        at=facts.at,
        until=until,
        facts_sha256=sha256_hex(canonical([control.id, status.value, list(reasons), facts.at])),
    )


def judged(judge: Judge, facts: HostFacts) -> tuple[ControlStatus, tuple[str, ...]]:
    """Return what a judge says of facts."""
    faults: list[str] = []
    try:
        faults.extend(judge(facts))  # 1
    except StaleError as fault:
        return ControlStatus.STALE, (*faults, str(fault))
    except HostError as fault:
        return ControlStatus.ERROR, (*faults, str(fault))
    except Inapplicable as why:  # 3
        return ControlStatus.NOT_APPLICABLE, (str(why),)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:  # 2
        return ControlStatus.ERROR, (f"the judge broke on these facts: {what_broke(error):.80}",)
    return (ControlStatus.FAILED, tuple(faults)) if faults else (ControlStatus.PASSED, ())


def _attested(control: Control, kept: Accepted) -> tuple[ControlStatus, tuple[str, ...]]:
    found = kept.attested.get(control.id)
    if found is None:  # 4
        return ControlStatus.MISSING, (kept.why.get(control.id, "nobody attests it"),)
    return ControlStatus.ATTESTED, (f"attested by {found.owner}",)


def read_again(run: ControlRun, catalogue: ControlCatalogue, now: int) -> tuple[ControlResult, ...]:
    """Return the results of a saved run as they stand now: an old one is stale, none is missing."""
    found = {one.control: one for one in run.results}
    again = []
    for control in catalogue.controls:
        one = found.get(control.id)
        if one is None:
            again.append(
                ControlResult(
                    control.id, ControlStatus.MISSING, ("the run does not have it",), now, now
                )
            )
        elif not one.at <= now < one.until:
            why = f"its result held until {one.until}"
            again.append(ControlResult(control.id, ControlStatus.STALE, (why,), one.at, one.until))
        else:
            again.append(one)
    return tuple(again)
