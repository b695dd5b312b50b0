"""How a fault is planted in a recorded host: makers for the table of planted faults."""

from collections.abc import Callable
from dataclasses import replace

import msgspec

from safehold.canonical import sha256_hex
from safehold.govern.controls.interface import DAY
from safehold.testing.hosts import NOW, RecordedHost, used

Plant = tuple[Callable[[RecordedHost], RecordedHost], set[str]]
NFT = ("nft", "-j", "list", "ruleset")
FLOWS, PLAN = "/etc/safehold/flows.toml", "/etc/safehold/egress.toml"
STATE = "/var/lib/safehold/egress/enforcement.json"
TIMELINE = "/var/lib/safehold/egress/timeline.jsonl"
MODEL = "/var/lib/safehold/weights/brewer"
DRILL_OF = {
    "egress-drift": "egr-10", "egress-slow": "egr-11", "egress-ratio": "egr-12",
    "egress-beacon": "egr-13", "egress-direct-https": "egr-15", "egress-icmp": "egr-16",
    "egress-kill-switch": "egr-17", "weights-archiving": "egr-26", "weights-open": "wac-09",
    "weights-gate-killed": "wac-10", "grant-revoked": "wac-11", "weights-verify": "war-06",
    "weights-sample": "war-07", "endpoint-killed": "bin-12", "metadata-service": "lat-09",
    "failed-logins": "iam-08", "exfiltration": "mon-12", "decoy-weights": "dec-01",
    "decoy-credential": "dec-02", "decoy-service": "dec-03", "incident": "res-01",
    "mass-revocation": "res-02", "loss-estimate": "res-05", "sample-audit": "gov-04",
}  # fmt: skip


def parameter(name: str, value: str) -> Callable[[RecordedHost], RecordedHost]:
    """Set a parameter of the kernel."""
    return lambda host: host.file(f"/proc/sys/{name}", value)


def flows_changed(old: str, new: str) -> Callable[[RecordedHost], RecordedHost]:
    """Change the register of flows."""
    return lambda host: host.swapped(FLOWS, old, new)


def rules_changed(old: str, new: str) -> Callable[[RecordedHost], RecordedHost]:
    """Change what nft lists."""
    return lambda host: host.said(*NFT, old=old, new=new)


def stated(name: str, **changes: object) -> Callable[[RecordedHost], RecordedHost]:
    """Change a document."""
    return lambda host: host.stated(name, **changes)


def row_changed(
    name: str, key: str, number: int = 0, **changes: object
) -> Callable[[RecordedHost], RecordedHost]:
    """Change one row of a document."""
    return lambda host: host.rows(name, key, number, **changes)


def case_changed(operation: str, **changes: object) -> Callable[[RecordedHost], RecordedHost]:
    """Change the case of an operation."""
    return lambda host: host.case_changed(operation, **changes)


def one_more(
    operation: str, *carried: str, **changes: object
) -> Callable[[RecordedHost], RecordedHost]:
    """Add a case."""
    return lambda host: host.with_case(used(operation, *carried, **changes))


def header_changed(old: str, new: str) -> Callable[[RecordedHost], RecordedHost]:
    """Change a header, and register the changed copy as if it had been sealed so."""

    def plant(host: RecordedHost) -> RecordedHost:
        changed = host.swapped(f"{MODEL}/header.json", old, new)
        return registered(changed)

    return plant


def registered(host: RecordedHost) -> RecordedHost:
    """Register the model's header as the log has it."""
    digest = sha256_hex(host.files[f"{MODEL}/header.json"])
    records = tuple(
        msgspec.structs.replace(one, digests={"header": digest}) if one.kind == "seal" else one
        for one in host.reading.records
    )
    return host.logged(records=records)


def records_kept(keep: Callable[..., bool]) -> Callable[[RecordedHost], RecordedHost]:
    """Keep some of the log's records."""
    return lambda host: host.logged(records=tuple(one for one in host.reading.records if keep(one)))


def old_seal(host: RecordedHost) -> RecordedHost:
    """Make the seal older than its period."""
    return host.logged(
        records=tuple(
            msgspec.structs.replace(one, time=NOW - 91 * DAY) if one.kind == "seal" else one
            for one in host.reading.records
        )
    )


def rule_changed(operation: str, **changes: object) -> Callable[[RecordedHost], RecordedHost]:
    """Change a rule of the grants' policy."""
    return lambda host: host.logged(
        rules=tuple(
            msgspec.structs.replace(one, **changes) if one.operation == operation else one
            for one in host.reading.rules
        )
    )


def person_changed(name: str, **changes: object) -> Callable[[RecordedHost], RecordedHost]:
    """Change what the log says of a person."""
    return lambda host: host.logged(
        persons=tuple(
            msgspec.structs.replace(one, **changes) if one.name == name else one
            for one in host.reading.persons
        )
    )


def undrilled(name: str) -> Callable[[RecordedHost], RecordedHost]:
    """Have a drill fail."""
    return lambda host: host.undrilled(name)


def without_review(what: str) -> Callable[[RecordedHost], RecordedHost]:
    """Take a review out of the log."""
    return records_kept(lambda one: one.facts.get("of") != what)


def mode_changed(host: RecordedHost, path: str, mode: int) -> RecordedHost:
    """Change a file's mode."""
    return replace(host, modes={**host.modes, path: mode})


def owned(host: RecordedHost) -> RecordedHost:
    """Have the weights belong to their service."""
    inside = {name: 990 for name in host.files if name.startswith("/var/lib/safehold/weights")}
    return replace(host, owners=inside)


def link_changed(host: RecordedHost, path: str, to: str) -> RecordedHost:
    """Change where a link leads."""
    return replace(host, links={**host.links, path: to})


def files_changed(host: RecordedHost, files: dict[str, str]) -> RecordedHost:
    """Change several files."""
    for path, content in files.items():
        host = host.file(path, content)
    return host
