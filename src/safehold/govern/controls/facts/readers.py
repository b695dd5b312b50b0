"""The table of readers, and one pass over a host that keeps every fault in place of its facts."""

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType

from safehold.govern.controls.facts import accounts, egress, machine, processes, system, weights
from safehold.govern.controls.facts.documents import DOCUMENTS, document
from safehold.govern.controls.facts.host import ControlledHost
from safehold.govern.controls.facts.site import Site
from safehold.govern.controls.facts.trust_log import LogReading
from safehold.govern.controls.interface import HostError, HostFacts, fact_name, what_broke

Reader = Callable[[ControlledHost, Site], object]


def _of_host(read: Callable[[ControlledHost], object]) -> Reader:
    return lambda host, _: read(host)


def _log(host: ControlledHost, site: Site) -> LogReading:
    return host.log(site.log, site.log_keys)


def _site(_: ControlledHost, site: Site) -> Site:
    return site


READERS: Mapping[type, Reader] = MappingProxyType(
    {
        system.Sysctls: _of_host(system.sysctls),
        system.Mounts: _of_host(system.mounts),
        system.Ruleset: _of_host(system.ruleset),
        system.Shaped: _of_host(system.shaped),
        system.Listeners: _of_host(system.listeners),
        processes.Processes: _of_host(processes.processes),
        accounts.AccountFacts: _of_host(accounts.accounts),
        accounts.SshServer: _of_host(accounts.ssh_server),
        machine.Kernel: _of_host(machine.kernel),
        machine.Packages: _of_host(machine.packages),
        machine.AuditRules: _of_host(machine.audit_rules),
        machine.ClockFacts: _of_host(machine.clock),
        machine.Disks: _of_host(machine.disks),
        machine.Privileged: _of_host(machine.privileged),
        egress.EgressFacts: egress.egress,
        egress.WatchFacts: egress.watch,
        weights.WeightFacts: weights.weights,
        LogReading: _log,
        Site: _site,
        **{kind: partial(document, kind=kind) for kind in DOCUMENTS},
    }
)


def collect(host: ControlledHost, site: Site) -> HostFacts:
    """Read everything once; what a reader can't read is a fault, and what it trips over too."""
    found: dict[type, object] = {}
    for kind, read in READERS.items():
        try:
            found[kind] = read(host, site)
        except HostError as fault:
            found[kind] = fault
        except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
            found[kind] = HostError(
                f"{fact_name(kind)}: an answer of another shape ({what_broke(error):.80})"
            )
    return HostFacts(found, host.now)
