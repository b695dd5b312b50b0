"""Sign-off: a grant of `report.publish` over the digest of a report's canonical form."""

from safehold.govern.controls.facts.trust_log import LogReading

SIGNERS = 2
OPERATION = "report.publish"


def signers_of(log: LogReading, digest: str) -> tuple[str, ...]:
    """Return the names of who signed a report; empty unless two persons did."""
    names = {one.id: one.name for one in log.persons}
    for case in log.used(OPERATION):
        signed = {case.requester, *case.carried_by}
        if case.operation == OPERATION and case.details.get("report") == digest and not case.closed:
            known = sorted(names.get(one, one) for one in signed)
            if len(signed) >= SIGNERS:
                return tuple(known)
    return ()
