"""Facts that parts and exporters write as documents: one JSON file each, typed, with a date.

A document older than its `max_age_s` is stale: what nobody renews, nobody vouches for.
"""

from typing import ClassVar

import msgspec

from safehold.govern.controls.facts.host import ControlledHost
from safehold.govern.controls.facts.site import Site
from safehold.govern.controls.interface import DAY, HostError, StaleError


class StateDocument(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A dated document of the state folder; `written` in POSIX seconds."""

    file: ClassVar[str] = ""
    max_age_s: ClassVar[int] = 2 * DAY
    written: int


class MergedChange(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One merged change: persons by id, trees by digest, times in POSIX seconds."""

    id: str
    author: str
    approvers: tuple[str, ...]
    owners: tuple[str, ...] = ()
    security_approvers: tuple[str, ...] = ()
    critical: bool = False
    touches_weights: bool = False
    hardware_signed: bool = True
    risk: str = "low"
    test: str = ""
    rollback: str = ""
    approved_tree: str
    merged_tree: str
    merged_at: int
    deployer: str = ""
    emergency: bool = False
    reviewed_at: int = 0


class Changes(StateDocument, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Changes of protected repositories, and the heads that their refs had, oldest first.

    `refs` maps a ref to pairs of head and whether the head before is its ancestor.
    """

    file: ClassVar[str] = "changes"
    changes: tuple[MergedChange, ...]
    refs: dict[str, tuple[bool, ...]]
    allowed_signers_kinds: tuple[str, ...]


class Deployed(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What runs: its digest, what built it, and the source that it came from."""

    name: str
    kind: str
    sha256: str
    source_reviewed: bool
    builder: str
    provenance_level: int
    rebuilt_sha256: str = ""
    sbom_written: int = 0
    signed: bool = True


class Deployments(StateDocument, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Everything that is deployed, the builders that may build, and drift from the declared."""

    file: ClassVar[str] = "deployments"
    deployed: tuple[Deployed, ...]
    builders: tuple[str, ...]
    drift: tuple[str, ...]
    drift_checked: int


class AllowlistRow(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A row of the allowlist: what it is keyed by, and who answers for it."""

    id: str
    keyed_by: str
    owner: str
    reason: str
    ticket: str
    expires: int
    approvers: tuple[str, ...]


class EndpointDocument(StateDocument, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What the execution guard says of itself: mode, rows, probes that it stopped, counters."""

    file: ClassVar[str] = "endpoint"
    max_age_s: ClassVar[int] = DAY // 12
    mode: str
    rows: tuple[AllowlistRow, ...]
    inventory: int
    inventory_signed: bool
    unowned: int
    stopped: tuple[str, ...]
    ran: tuple[str, ...]
    policy_sha256: str
    replay_differences: int
    engines_equal: tuple[str, ...]
    engines_differing: tuple[str, ...] = ()
    dropped_events: int
    report_lag_s: float
    learn_days: int
    would_block_per_day: float
    compilers: tuple[str, ...]
    approved_compilers: tuple[str, ...]
    preload: str = ""


class Secrets(StateDocument, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Scans for secrets: fingerprints by zone, places where one lay open, and certificates.

    `certificates` maps a service to its lifetime in seconds.
    """

    file: ClassVar[str] = "secrets"
    zones: dict[str, tuple[str, ...]]
    exposed: tuple[str, ...]
    scanned_files: int
    certificates: dict[str, int]
    plaintext_services: tuple[str, ...]


class ServiceAccount(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An account without a person: who answers for it, and when its secret was changed."""

    name: str
    owner: str
    rotated: int


class Staff(StateDocument, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What the personnel records say: persons by id, times in POSIX seconds."""

    file: ClassVar[str] = "staff"
    present: tuple[str, ...]
    departed: dict[str, int]
    at_risk: tuple[str, ...]
    conflicting_roles: tuple[tuple[str, str], ...]
    recertified: dict[str, int]
    services: tuple[ServiceAccount, ...]
    admin_sets: tuple[tuple[str, ...], ...]


class Copy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A copy of sealed weights elsewhere: backup or transfer, with what both ends counted."""

    name: str
    kind: str
    sealed: bool
    logged: bool
    sent: int
    received: int


class Copies(StateDocument, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Backups and transfers of weights."""

    file: ClassVar[str] = "copies"
    copies: tuple[Copy, ...]


class Outputs(StateDocument, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What the gateway sent: bytes a day by key against the quota, and what it reveals."""

    file: ClassVar[str] = "outputs"
    bytes_per_key: dict[str, int]
    quota: int
    top_logprobs: int
    coverage: float
    gateway_up: bool
    bundle_sha256: str


class FlowRecords(StateDocument, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Flow records: completeness, attribution, edges between hosts, and detectors' scores."""

    file: ClassVar[str] = "flows"
    longest_gap_s: float
    kept_days: int
    bytes_seen: int
    bytes_unattributed: int
    baseline_edges: tuple[str, ...]
    edges: tuple[str, ...]
    alerted_edges: tuple[str, ...]


class DecoyRow(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A decoy: file, credential, service or identity; `watched` says that touching it alarms."""

    name: str
    kind: str
    where: str
    watched: bool


class Decoys(StateDocument, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The register of decoys, and how well metadata tells them from real files.

    `separable` is the area under the curve of the best of size, entropy and times (0.5: not).
    """

    file: ClassVar[str] = "decoys"
    max_age_s: ClassVar[int] = 8 * DAY
    decoys: tuple[DecoyRow, ...]
    separable: float


class CaseRow(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A case of an alert: when it was opened, and when somebody first looked."""

    id: str
    opened: int
    triaged: int


class Monitoring(StateDocument, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How monitoring works: losses, lag, cases, tested detections, retention, time stamps."""

    file: ClassVar[str] = "monitoring"
    lost: dict[str, int]
    lag_s: float
    cases: tuple[CaseRow, ...]
    detections: dict[str, tuple[str, ...]]
    untested: tuple[str, ...]
    heartbeats: dict[str, int]
    timestamped: int
    deleted_without_proof: int


class Insider(StateDocument, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Statistics of approvers and readers: the busiest pair's share, times to approve, alerts."""

    file: ClassVar[str] = "insider"
    pair_share: float
    median_approve_s: float
    same_device: int
    alerts_per_day: float
    recall_n: int
    recall_k: int


class Supply(StateDocument, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What software is made of: pins, indexes, known faults with their age, models by format."""

    file: ClassVar[str] = "supply"
    unpinned: tuple[str, ...]
    pinned: int
    indexes: tuple[str, ...]
    advisories: dict[str, int]
    advisories_written: int
    pickles: tuple[str, ...]
    models_unsigned: tuple[str, ...]
    models: int


class StartupBaseline(StateDocument, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Digests of units, timers and start scripts, declared and found, and what runs contained."""

    file: ClassVar[str] = "baseline"
    declared: dict[str, str]
    found: dict[str, str]
    containers: dict[str, tuple[str, ...]]
    hardening: dict[str, bool]


DOCUMENTS: tuple[type[StateDocument], ...] = (
    Changes,
    Deployments,
    EndpointDocument,
    Secrets,
    Staff,
    Copies,
    Outputs,
    FlowRecords,
    Decoys,
    Monitoring,
    Insider,
    Supply,
    StartupBaseline,
)


def document(host: ControlledHost, site: Site, kind: type[StateDocument]) -> StateDocument:
    """Read one document.

    Raises:
        AbsentError: nobody wrote it.
        StaleError: it is too old.
        HostError: it is of another shape.
    """
    try:
        found = msgspec.json.decode(host.read(f"{site.state}/{kind.file}.json"), type=kind)
    except msgspec.DecodeError as error:
        raise HostError(f"{kind.file}.json: {error}") from error
    if not 0 <= host.now - found.written <= kind.max_age_s:
        raise StaleError(f"{kind.file}.json was written {host.now - found.written} s ago")
    return found
