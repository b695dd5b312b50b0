"""A run in the log: one leaf with the root of all results, so that no result changes afterwards."""

from collections.abc import Sequence

import msgspec

from safehold.canonical import canonical, sha256_hex
from safehold.govern.controls.facts.trust_log import LogReading
from safehold.govern.controls.interface import (
    ControlError,
    ControlResult,
    ControlRun,
    ControlStatus,
)
from safehold.secure.endpoint.inventory.book import merkle_root
from safehold.trust.log.log_entries import Record

KIND = "control-result"


def results_root(results: Sequence[ControlResult]) -> str:
    """Return the Merkle root (RFC 6962 hashes) over the results, in the catalogue's order."""
    return merkle_root([canonical(msgspec.to_builtins(one)) for one in results])


def run_record(run: ControlRun, now: int) -> Record:
    """Return the leaf of a run: how many controls were satisfied, and the root of all results."""
    return Record(
        time=now,
        kind=KIND,
        facts={
            "host": run.host,
            "at": str(run.at),
            "controls": str(len(run.results)),
            "satisfied": str(sum(one.satisfied for one in run.results)),
            **{
                status.value: str(sum(one.status is status for one in run.results))
                for status in ControlStatus
            },
        },
        digests={"results": results_root(run.results), "catalogue": run.catalogue_sha256},
    )


def require_recorded(run: ControlRun, log: LogReading) -> int:
    """Return when a saved run was recorded, in POSIX seconds.

    Raises:
        ControlError: no leaf has its results: it was never recorded, or changed since.
    """
    root = results_root(run.results)
    for one in reversed(log.of_kind(KIND)):
        if one.digests.get("results") == root and one.facts.get("host") == run.host:
            return one.time
    raise ControlError(
        f"no leaf of the log holds these results ({sha256_hex(root.encode())[:12]}): the run was "
        "not recorded with `controls run --log`, or it was changed"
    )
