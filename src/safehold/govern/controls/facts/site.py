"""The site: where this host keeps what readers read; paths, people and limits of the operator."""

import msgspec

from safehold.govern.controls.facts.sources import ExportSources


class Site(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`controls.toml`: every key has a default, and an unknown one is an error.

    `state` is the folder of the documents that the parts and the operator's exporters write.
    """

    log: str = "/var/lib/safehold/trust-log"
    log_keys: str = "/etc/safehold/log.json"
    register: str = "/etc/safehold/flows.toml"
    plan: str = "/etc/safehold/egress.toml"
    egress: str = "/var/lib/safehold/egress"
    state: str = "/var/lib/safehold/state"
    weights: tuple[str, ...] = ("/var/lib/safehold/weights",)
    weight_uids: tuple[int, ...] = (0,)
    resolvers: tuple[str, ...] = ()
    proxies: tuple[str, ...] = ()
    mirrors: tuple[str, ...] = ()
    listening: tuple[int, ...] = ()
    workloads: tuple[str, ...] = ()
    setuid: tuple[str, ...] = ()
    capable: tuple[str, ...] = ()
    accounts: tuple[str, ...] = ()
    key_owners: tuple[str, ...] = ()
    services: tuple[str, ...] = ("safehold serve",)
    witnesses: int = 2
    export: ExportSources = ExportSources()
    freezes: tuple[tuple[int, int], ...] = ()
