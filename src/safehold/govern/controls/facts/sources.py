"""Where exporters find what the parts keep: the `[export]` table of `controls.toml`."""

import msgspec


class CopySource(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A copy of sealed weights: where it lies here, and for a transfer where it came from."""

    name: str
    kind: str
    folder: str
    source: str = ""


class ArtefactSource(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Something that is deployed: a program's file or a bundle's folder, and what vouches for it.

    `provenance` is an envelope as `safehold change vouch` writes it, `sbom` a list of parts.
    """

    name: str
    kind: str
    path: str
    provenance: str = ""
    sbom: str = ""


class ExportSources(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Files, sockets and names; an empty one means that the site does not have it.

    `secret_zones` maps a zone to its folders. `hosts` names addresses, `edges` are pairs
    `here-there` of the baseline. `tls` maps a service to `host:port`. `key_quota` is
    in bytes a day.
    """

    endpoint_policy: str = "/etc/safehold/endpoint.toml"
    endpoint_socket: str = "/run/safehold/endpoint.sock"
    endpoint_records: str = "/var/lib/safehold/endpoint/denials.jsonl"
    endpoint_probe: str = "/var/lib/safehold/endpoint"
    approved_compilers: tuple[str, ...] = ()
    repository: str = ""
    repository_base: str = ""
    repository_ref: str = "HEAD"
    critical: tuple[str, ...] = ("*",)
    at_weights: tuple[str, ...] = ()
    security_team: str = "t-security"
    artefacts: tuple[ArtefactSource, ...] = ()
    builders: tuple[str, ...] = ()
    releases: str = ""
    secret_zones: dict[str, tuple[str, ...]] = {}
    certificates: tuple[str, ...] = ()
    tls: dict[str, str] = {}
    staff: str = "/etc/safehold/staff.toml"
    copies: tuple[CopySource, ...] = ()
    ledger: str = ""
    gateway: str = ""
    gateway_settings: str = ""
    key_quota: int = 0
    hosts: dict[str, str] = {}
    edges: tuple[str, ...] = ()
    decoy_book: str = "/var/lib/safehold/endpoint/decoys.json"
    decoy_services: dict[str, int] = {}
    decoy_team: str = ""
    cases: str = ""
    locks: tuple[str, ...] = ()
    indexes: tuple[str, ...] = ()
    advisories: str = ""
    models: tuple[str, ...] = ()
    bundle_keys: tuple[str, ...] = ()
    units: tuple[str, ...] = (
        "/etc/systemd/system",
        "/etc/cron.d",
        "/etc/crontab",
        "/etc/init.d",
        "/etc/rc.local",
    )
    baseline: str = "/etc/safehold/baseline.json"
