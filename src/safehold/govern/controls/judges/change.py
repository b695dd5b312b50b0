"""Judges of change management, and of where software comes from."""

from collections.abc import Iterator
from fnmatch import fnmatch

from safehold.govern.controls.facts.documents import (
    Changes,
    Deployed,
    Deployments,
    Supply,
)
from safehold.govern.controls.facts.machine import Packages
from safehold.govern.controls.facts.processes import Processes
from safehold.govern.controls.facts.site import Site
from safehold.govern.controls.facts.trust_log import LogReading
from safehold.govern.controls.interface import DAY, HostError, HostFacts, Judge, need
from safehold.govern.controls.judges.common import some

_SLSA = 3


def chg_01(facts: HostFacts) -> Iterator[str]:
    """Two persons beside the author approved each change; an emergency's come later."""
    found = facts.of(Changes).changes
    yield from some(found, "change")
    for one in found:
        others = set(one.approvers) - {one.author}
        yield from need(
            len(others) >= 2 or one.emergency,
            f"{one.id} was approved by {len(others)} beside its author",
        )


def chg_02(facts: HostFacts) -> Iterator[str]:
    """Changes are signed by keys in hardware, and no other kind may sign."""
    found = facts.of(Changes)
    yield from some(found.allowed_signers_kinds, "kind of signer")
    for kind in found.allowed_signers_kinds:
        yield from need(kind.startswith("sk-"), f"keys of kind {kind} may sign")
    for one in found.changes:
        yield from need(one.hardware_signed, f"{one.id} was signed by software")


def chg_03(facts: HostFacts) -> Iterator[str]:
    """An owner of the touched paths approved each change that has owners."""
    found = facts.of(Changes).changes
    yield from need(any(one.owners for one in found), "no change has owners")
    for one in found:
        if one.owners:
            approved = set(one.owners) & (set(one.approvers) - {one.author})
            yield from need(approved, f"{one.id} was approved by no owner")


def chg_04(facts: HostFacts) -> Iterator[str]:
    """Somebody of security approved each change of a critical path."""
    for one in facts.of(Changes).changes:
        if one.critical:
            held = set(one.security_approvers) & set(one.approvers) - {one.author}
            yield from need(held, f"{one.id} is critical, and security approved none of it")


def chg_05(facts: HostFacts) -> Iterator[str]:
    """Each new head of a protected ref has the head before as its ancestor."""
    refs = facts.of(Changes).refs
    yield from some(refs, "protected ref")
    for name, steps in sorted(refs.items()):
        yield from need(steps, f"no earlier head of {name} is remembered")
        yield from need(all(steps), f"{name} was rewritten")


def chg_06(facts: HostFacts) -> Iterator[str]:
    """Somebody beside the requester carried each change of the grants' policy."""
    log = facts.of(LogReading)
    yield from need(log.policy_version >= 1, "there is no policy of grants")
    for case in log.used("policy."):
        others = set(case.carried_by) - {case.requester}
        yield from need(others, f"policy change {case.request[:8]} was carried by one person")


def chg_07(facts: HostFacts) -> Iterator[str]:
    """Each change has a class of risk, and a risky one a test and a way back."""
    for one in facts.of(Changes).changes:
        yield from need(one.risk in {"low", "medium", "high"}, f"{one.id} has no class of risk")
        if one.risk == "high":
            yield from need(one.test and one.rollback, f"{one.id} has no test or no way back")


def chg_08(facts: HostFacts) -> Iterator[str]:
    """The live state was compared within 15 minutes, and does not differ from the declared."""
    found = facts.of(Deployments)
    age = facts.at - found.drift_checked
    yield from need(0 <= age <= 900, f"drift was looked for {age} s ago")
    yield from found.drift


def chg_09(facts: HostFacts) -> Iterator[str]:
    """All that runs is from reviewed source; a bundle is also released in the log."""
    found = facts.of(Deployments).deployed
    released = {
        digest
        for one in facts.of(LogReading).of_kind("bundle-release")
        for digest in one.digests.values()
    }
    yield from some(found, "deployed artefact")
    for one in found:
        yield from need(one.source_reviewed, f"{one.name} is of unreviewed source")
        if one.kind == "bundle":
            yield from need(one.sha256 in released, f"bundle {one.name} was never released")


def chg_10(facts: HostFacts) -> Iterator[str]:
    """No program runs whose file was removed or replaced."""
    for one in facts.of(Processes).running:
        if not one.exe:
            raise HostError(f"the program of process {one.pid} can't be read")
        yield from need(not one.exe.endswith(" (deleted)"), f"{one.exe} runs and is gone")


def chg_11(facts: HostFacts) -> Iterator[str]:
    """Each emergency change was reviewed within a day."""
    for one in facts.of(Changes).changes:
        if one.emergency:
            due = one.merged_at + DAY
            seen = 0 < one.reviewed_at <= due or facts.at < due
            yield from need(seen, f"{one.id} was an emergency, and nobody reviewed it in a day")


def chg_12(facts: HostFacts) -> Iterator[str]:
    """Nothing but emergencies was merged in a freeze."""
    for one in facts.of(Changes).changes:
        frozen = any(begin <= one.merged_at < end for begin, end in facts.of(Site).freezes)
        yield from need(not frozen or one.emergency, f"{one.id} was merged in a freeze")


def chg_13(facts: HostFacts) -> Iterator[str]:
    """Author, approver and deployer of code at the weights are different persons."""
    for one in facts.of(Changes).changes:
        if one.touches_weights:
            apart = one.deployer and one.deployer not in {one.author, *one.approvers}
            yield from need(apart, f"{one.id} was deployed by its author or approver")


def chg_15(facts: HostFacts) -> Iterator[str]:
    """What was merged is what was approved."""
    for one in facts.of(Changes).changes:
        yield from need(
            one.approved_tree == one.merged_tree, f"{one.id} changed after its approval"
        )


def chg_16(facts: HostFacts) -> Iterator[str]:
    """Two builds of each program gave the same bytes."""
    for one in _programs(facts):
        yield from need(one.rebuilt_sha256 == one.sha256, f"{one.name} is built differently twice")


def sup_01(facts: HostFacts) -> Iterator[str]:
    """Each program has a list of its parts, at most 90 days old."""
    for one in _programs(facts):
        young = one.sbom_written > 0 and facts.at - one.sbom_written <= 90 * DAY
        yield from need(young, f"{one.name} has no list of parts, or an old one")


def sup_02(facts: HostFacts) -> Iterator[str]:
    """Every dependency is pinned by its digest, and comes from a mirror of the site."""
    found, mirrors = facts.of(Supply), facts.of(Site).mirrors
    yield from need(found.pinned > 0, "nothing is pinned")
    yield from (f"{name} is not pinned" for name in found.unpinned)
    for host in found.indexes:
        yield from need(any(fnmatch(host, one) for one in mirrors), f"{host} is no mirror")


def sup_03(facts: HostFacts) -> Iterator[str]:
    """Advisories are a week old at most, and no known fault is older than a week."""
    found = facts.of(Supply)
    yield from need(facts.at - found.advisories_written <= 7 * DAY, "the advisories are old")
    for name, since in sorted(found.advisories.items()):
        yield from need(facts.at - since <= 7 * DAY, f"{name} has been open for a week")


def sup_04(facts: HostFacts) -> Iterator[str]:
    """Each program has provenance of level 3 by a builder that may build."""
    found = facts.of(Deployments)
    for one in _programs(facts):
        yield from need(one.provenance_level >= _SLSA, f"{one.name} has provenance of a low level")
        yield from need(one.builder in found.builders, f"{one.name} was built by a stranger")


def sup_05(facts: HostFacts) -> Iterator[str]:
    """No model is in a format that runs code when it is read."""
    found = facts.of(Supply)
    yield from need(found.models > 0, "no model was looked at")
    yield from (f"{name} runs code when it is read" for name in found.pickles)


def sup_06(facts: HostFacts) -> Iterator[str]:
    """Each model and data set is listed and signed."""
    found = facts.of(Supply)
    yield from need(found.models > 0, "no model is listed")
    yield from (f"{name} is not signed" for name in found.models_unsigned)


def _programs(facts: HostFacts) -> Iterator[Deployed]:
    found = [one for one in facts.of(Deployments).deployed if one.kind == "program"]
    if not found:
        raise HostError("no deployed program is listed: there is nothing to judge")
    yield from found


def lat_10(facts: HostFacts) -> Iterator[str]:
    """Packages come from mirrors of the site only."""
    mirrors = facts.of(Site).mirrors
    yield from some(mirrors, "mirror")
    for host in facts.of(Packages).sources:
        yield from need(any(fnmatch(host, one) for one in mirrors), f"{host} is no mirror")


def hst_01(facts: HostFacts) -> Iterator[str]:
    """No restart is due, and packages are known."""
    found = facts.of(Packages)
    yield from some(found.installed, "package")
    yield from need(not found.restart_due, "updates wait for a restart")


JUDGES: dict[str, Judge] = {
    "chg-01": chg_01,
    "chg-02": chg_02,
    "chg-03": chg_03,
    "chg-04": chg_04,
    "chg-05": chg_05,
    "chg-06": chg_06,
    "chg-07": chg_07,
    "chg-08": chg_08,
    "chg-09": chg_09,
    "chg-10": chg_10,
    "chg-11": chg_11,
    "chg-12": chg_12,
    "chg-13": chg_13,
    "chg-15": chg_15,
    "chg-16": chg_16,
    "sup-01": sup_01,
    "sup-02": sup_02,
    "sup-03": sup_03,
    "sup-04": sup_04,
    "sup-05": sup_05,
    "sup-06": sup_06,
    "lat-10": lat_10,
    "hst-01": hst_01,
}
