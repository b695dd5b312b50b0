"""Judges of binary allowlisting."""

from collections.abc import Iterator

from safehold.govern.controls.facts.documents import EndpointDocument
from safehold.govern.controls.facts.machine import Kernel
from safehold.govern.controls.facts.processes import Processes
from safehold.govern.controls.facts.system import Mounts, Sysctls
from safehold.govern.controls.interface import OPEN_PLACES, HostFacts, Inapplicable, Judge, need
from safehold.govern.controls.judges.common import drilled, some


def bin_01(facts: HostFacts) -> Iterator[str]:
    """Execution is refused by default: the guard enforces, and stopped a fresh program."""
    found = facts.of(EndpointDocument)
    yield from need(found.mode == "enforce", f"the execution guard is in mode {found.mode}")
    yield from _stopped(found, "unknown-elf")


def bin_02(facts: HostFacts) -> Iterator[str]:
    """Rows are keyed by digest or signer."""
    rows = facts.of(EndpointDocument).rows
    yield from some(rows, "row of the allowlist")
    for row in rows:
        keyed = row.keyed_by in {"sha256", "signer", "package"}
        yield from need(keyed, f"row {row.id} is keyed by {row.keyed_by}")


def bin_03(facts: HostFacts) -> Iterator[str]:
    """The inventory of programs is signed, and nothing in it is of nobody."""
    found = facts.of(EndpointDocument)
    yield from need(found.inventory > 0 and found.inventory_signed, "there is no signed inventory")
    yield from need(found.unowned == 0, f"{found.unowned} programs belong to no package")


def bin_04(facts: HostFacts) -> Iterator[str]:
    """Foreign libraries were stopped, and nothing is loaded before all others."""
    found = facts.of(EndpointDocument)
    yield from _stopped(found, "unknown-library")
    yield from need(not found.preload, "a library is loaded before all others")


def bin_05(facts: HostFacts) -> Iterator[str]:
    """Foreign scripts were stopped, run by shell and by Python."""
    yield from _stopped(facts.of(EndpointDocument), "shell-script")
    yield from _stopped(facts.of(EndpointDocument), "python-script")


def bin_06(facts: HostFacts) -> Iterator[str]:
    """Nothing runs from places where everybody may write."""
    found = {one.target: one.options for one in facts.of(Mounts).mounts}
    for target in OPEN_PLACES:
        options = found.get(target, frozenset())
        missing = sorted({"noexec", "nosuid", "nodev"} - options)
        yield from need(not missing, f"{target} lacks {', '.join(missing)}")


def bin_07(facts: HostFacts) -> Iterator[str]:
    """Each row has an owner, a reason, a ticket, two approvers and an expiry ahead."""
    for row in facts.of(EndpointDocument).rows:
        named = row.owner and row.reason and row.ticket
        yield from need(named, f"row {row.id} has no owner, reason or ticket")
        yield from need(len(set(row.approvers)) >= 2, f"row {row.id} lacks two approvers")
        yield from need(facts.at < row.expires, f"row {row.id} has expired")


def bin_08(facts: HostFacts) -> Iterator[str]:
    """Enforcement followed a week of learning with few blocks a day."""
    found = facts.of(EndpointDocument)
    yield from need(found.learn_days >= 7, f"only {found.learn_days} days of learning")
    yield from need(found.would_block_per_day <= 1, "learning still saw blocks every day")


def bin_09(facts: HostFacts) -> Iterator[str]:
    """No event of the guard was dropped, and reports take a minute at most."""
    found = facts.of(EndpointDocument)
    yield from need(found.dropped_events == 0, f"{found.dropped_events} events were dropped")
    yield from need(found.report_lag_s <= 60, f"reports take {found.report_lag_s:g} s")


def bin_10(facts: HostFacts) -> Iterator[str]:
    """The compilers and installers that may run are the approved ones."""
    found = facts.of(EndpointDocument)
    for name in sorted(set(found.compilers) - set(found.approved_compilers)):
        yield f"{name} may run and was never approved"


def bin_11(facts: HostFacts) -> Iterator[str]:
    """Kernel modules are signed, or none can be loaded any more."""
    kernel = facts.of(Kernel)
    if not kernel.has_modules:
        raise Inapplicable("this kernel was built without modules")
    closed = facts.of(Sysctls).number("kernel/modules_disabled") == 1
    locked = kernel.lockdown in {"integrity", "confidentiality"}
    yield from need(closed or kernel.sig_enforce or locked, "unsigned modules may be loaded")


def bin_13(facts: HostFacts) -> Iterator[str]:
    """The last day's decisions, replayed on the compiled policy, are the same."""
    found = facts.of(EndpointDocument).replay_differences
    yield from need(found == 0, f"{found} decisions differ from the policy")


def bin_14(facts: HostFacts) -> Iterator[str]:
    """Three compiled engines or more were compared with the policy, and none decides otherwise."""
    found = facts.of(EndpointDocument)
    yield from need(len(found.engines_equal) >= 3, "fewer than three engines decide alike")
    yield from (f"engine {name} decides otherwise" for name in found.engines_differing)


def bin_15(facts: HostFacts) -> Iterator[str]:
    """The execution guard runs and holds marks."""
    guards = facts.of(Processes).named("endpoint guard")
    yield from need(any(one.fanotify_marks for one in guards), "no execution guard holds marks")


def _stopped(found: EndpointDocument, probe: str) -> Iterator[str]:
    yield from need(
        probe in found.stopped and probe not in found.ran, f"probe {probe} was not stopped"
    )


JUDGES: dict[str, Judge] = {
    "bin-01": bin_01,
    "bin-02": bin_02,
    "bin-03": bin_03,
    "bin-04": bin_04,
    "bin-05": bin_05,
    "bin-06": bin_06,
    "bin-07": bin_07,
    "bin-08": bin_08,
    "bin-09": bin_09,
    "bin-10": bin_10,
    "bin-11": bin_11,
    "bin-12": drilled("endpoint-killed", days=30),
    "bin-13": bin_13,
    "bin-14": bin_14,
    "bin-15": bin_15,
}
