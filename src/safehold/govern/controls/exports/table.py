"""The table of exporters: one for each document, and one pass that writes what it can."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

import msgspec

from safehold.errors import SafeholdError
from safehold.govern.controls.exports import (
    changing,
    endpoint,
    host,
    monitoring,
    people,
    secrets_scan,
    serving,
    weights,
)
from safehold.govern.controls.facts import documents
from safehold.govern.controls.facts.site import Site
from safehold.govern.controls.facts.trust_log import LogReading, read_log
from safehold.govern.controls.interface import ControlError

Exporter = Callable[[Site, LogReading, int], documents.StateDocument]

EXPORTERS: Mapping[type[documents.StateDocument], Exporter] = MappingProxyType(
    {
        documents.Changes: changing.changes,
        documents.Deployments: changing.deployments,
        documents.EndpointDocument: endpoint.endpoint,
        documents.Secrets: secrets_scan.secrets,
        documents.Staff: people.staff,
        documents.Copies: weights.copies,
        documents.Outputs: serving.outputs,
        documents.FlowRecords: serving.flows,
        documents.Decoys: host.decoys,
        documents.Monitoring: monitoring.monitoring,
        documents.Insider: people.insider,
        documents.Supply: weights.supply,
        documents.StartupBaseline: host.baseline,
    }
)


class Exported(msgspec.Struct, frozen=True):
    """One document: written, or why not. Then the old one is gone: what it said may be untrue."""

    document: str
    fault: str = ""


def export_all(site: Site, now: int, only: frozenset[str] = frozenset()) -> Iterator[Exported]:
    """Write every document that can be written, and say of the others why not.

    Raises:
        HostError: the log can't be verified: nothing is written on what it says.
        ControlError: the state folder can't be written.
    """
    log = read_log(Path(site.log), Path(site.log_keys))
    for kind, exporter in EXPORTERS.items():
        if only and kind.file not in only:
            continue
        path = Path(site.state) / f"{kind.file}.json"
        try:
            made = exporter(site, log, now)
        except SafeholdError as fault:
            path.unlink(missing_ok=True)
            yield Exported(kind.file, str(fault))
            continue
        fresh = path.with_name(path.name + ".new")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            fresh.write_bytes(msgspec.json.format(msgspec.json.encode(made), indent=1) + b"\n")
            fresh.rename(path)
        except OSError as error:
            raise ControlError(f"can't write {path}: {error.strerror}") from error
        yield Exported(kind.file)
