"""Judges of access to weights, and of weights at rest."""

import re
from collections.abc import Iterator

from safehold.govern.controls.facts.accounts import AccountFacts, SshServer
from safehold.govern.controls.facts.documents import Copies, Staff
from safehold.govern.controls.facts.machine import Kernel
from safehold.govern.controls.facts.processes import Processes
from safehold.govern.controls.facts.site import Site
from safehold.govern.controls.facts.system import Sysctls
from safehold.govern.controls.facts.trust_log import CaseFacts, LogReading
from safehold.govern.controls.facts.weights import SealedModelFacts, WeightFacts
from safehold.govern.controls.interface import DAY, HostError, HostFacts, Judge, need
from safehold.govern.controls.judges.common import drill_faults, drilled, some
from safehold.secure.weights.interface import SEALED_SUFFIX

PARTIES = 2
_HOUR = 3600
_ROTATION_S = 90 * DAY


def _weights(facts: HostFacts) -> tuple[CaseFacts, ...]:
    return facts.of(LogReading).used("weights.")


def wac_01(facts: HostFacts) -> Iterator[str]:
    """Only the serving accounts read weight files; nobody has them by group or by sudo."""
    seen, site = facts.of(WeightFacts).files, facts.of(Site)
    yield from some(seen, "weight file")
    for one in seen:
        yield from need(one.uid in site.weight_uids, f"{one.path} belongs to uid {one.uid}")
        yield from need(not one.mode & 0o077, f"{one.path} is open to others")
    serving = [one.name for one in facts.of(AccountFacts).users if one.uid in site.weight_uids]
    for group, members in sorted(facts.of(AccountFacts).groups.items()):
        if group in serving:
            for member in members:
                yield f"{member} is in the group {group}"


def wac_02(facts: HostFacts) -> Iterator[str]:
    """Two persons beside the requester carried every release of a key."""
    for case in _weights(facts):
        if case.releases and case.broken_at is None:
            others = set(case.carried_by) - {case.requester}
            yield from need(len(others) >= PARTIES, f"{case.request[:8]} was released without two")
    for rule in facts.of(LogReading).rules:
        if rule.operation.startswith("weights."):
            yield from need(rule.persons >= PARTIES, f"{rule.operation} needs one person only")


def wac_03(facts: HostFacts) -> Iterator[str]:
    """No requester carried an own request, and no two identities have one name."""
    log = facts.of(LogReading)
    for case in log.cases:
        yield from need(
            case.requester not in case.carried_by,
            f"{case.request[:8]} was approved by its requester",
        )
    names = [one.name.casefold() for one in log.persons]
    yield from some(names, "enrolled person")
    yield from need(len(names) == len(set(names)), "two identities have one name")


def wac_04(facts: HostFacts) -> Iterator[str]:
    """Approvals for weights come from keys that verify or sense their user."""
    rules = [one for one in facts.of(LogReading).rules if one.operation.startswith("weights.")]
    yield from some(rules, "rule for weights")
    for rule in rules:
        yield from need(
            set(rule.keys) <= {"passkey", "ssh-sk"}, f"{rule.operation} takes keys of software"
        )


def wac_05(facts: HostFacts) -> Iterator[str]:
    """No leaf of the log is void: every approval signs the request that it names."""
    log = facts.of(LogReading)
    yield from need(log.size > 0, "the log is empty")
    yield from log.voids


def wac_06(facts: HostFacts) -> Iterator[str]:
    """No rule or grant for weights lasts longer than 8 hours."""
    for rule in facts.of(LogReading).rules:
        if rule.operation.startswith("weights."):
            yield from need(
                rule.max_duration_s <= 8 * _HOUR,
                f"{rule.operation} may last {rule.max_duration_s} s",
            )
    for case in _weights(facts):
        yield from need(
            case.expires - case.not_before <= 8 * _HOUR, f"{case.request[:8]} lasts too long"
        )


def wac_07(facts: HostFacts) -> Iterator[str]:
    """Every request for weights says why, and names a ticket."""
    for case in facts.of(LogReading).cases:
        if case.operation.startswith("weights."):
            said = len(case.purpose.strip()) >= 10 and re.search(r"[A-Za-z]+-\d+", case.ticket)
            yield from need(said, f"{case.request[:8]} has no reason or ticket")


def wac_08(facts: HostFacts) -> Iterator[str]:
    """Grants for weights name their parts and a budget of bytes."""
    for case in facts.of(LogReading).used("weights.load"):
        named = "*" not in case.parts and case.byte_budget > 0
        yield from need(named, f"{case.request[:8]} asks for everything")


def wac_09(facts: HostFacts) -> Iterator[str]:
    """The read meter runs and holds marks, and an open without a grant failed."""
    meters = facts.of(Processes).named("weights meter")
    yield from need(any(one.fanotify_marks for one in meters), "no read meter holds marks")
    yield from drill_faults(facts, "weights-open", days=7)


def wac_12(facts: HostFacts) -> Iterator[str]:
    """Two persons reviewed each break-glass grant in time, and there was one a week at most."""
    broken = [one for one in facts.of(LogReading).cases if one.broken_at is not None]
    for case in broken:
        done = len(set(case.reviewers)) >= PARTIES or facts.at < case.reviews_until
        yield from need(done, f"break-glass {case.request[:8]} was not reviewed by two")
    recent = [one for one in broken if facts.at - (one.broken_at or 0) < 7 * DAY]
    yield from need(len(recent) <= 1, f"glass was broken {len(recent)} times this week")


def wac_13(facts: HostFacts) -> Iterator[str]:
    """An alarm follows each use of weights within a minute."""
    log = facts.of(LogReading)
    weights = {one.request for one in _weights(facts)}
    told: dict[str, list[int]] = {}
    for alarm in log.alarms:
        told.setdefault(alarm.about, []).append(alarm.time)
    for use in log.uses:
        if use.about in weights:
            quick = any(0 <= time - use.time <= 60 for time in told.get(use.about, []))
            yield from need(quick, f"nobody was told of the use of {use.about[:8]}")


def wac_14(facts: HostFacts) -> Iterator[str]:
    """There are more living approvers than the quorum needs, and nobody who left is enrolled."""
    log, staff = facts.of(LogReading), facts.of(Staff)
    humans = [one for one in log.persons if one.kind == "human"]
    wanted = max(
        (one.persons for one in log.rules if one.operation.startswith("weights.")), default=0
    )
    present = [one for one in humans if one.id in staff.present]
    yield from need(wanted, "no rule for weights")
    yield from need(len(present) >= wanted + 2, f"{len(present)} approvers are too few")
    for one in humans:
        yield from need(
            one.id in staff.present or one.id in staff.departed, f"{one.name} is unknown"
        )


def wac_15(facts: HostFacts) -> Iterator[str]:
    """Weights are loaded by the site's known programs only."""
    site = facts.of(Site)
    yield from some(site.workloads, "known workload")
    for case in facts.of(LogReading).used("weights.load"):
        yield from need(
            case.workload_sha256 in site.workloads, f"{case.request[:8]} ran an unknown program"
        )


def wac_16(facts: HostFacts) -> Iterator[str]:
    """Each interactive session has a live grant for a shell."""
    cases = facts.of(LogReading).used("host.shell")
    names = {one.id: one.name for one in facts.of(LogReading).persons}
    live = {names.get(one.requester) for one in cases if one.not_before <= facts.at < one.expires}
    for session in facts.of(SshServer).sessions:
        yield from need(session in live, f"{session} has a shell and no grant")


def wac_18(facts: HostFacts) -> Iterator[str]:
    """Each sealed model on disk was logged when it was sealed."""
    known = {
        digest
        for kind in ("seal", "rewrap")
        for one in facts.of(LogReading).of_kind(kind)
        for digest in one.digests.values()
    }
    models = facts.of(WeightFacts).models
    yield from some(models, "sealed model")
    for one in models:
        yield from need(one.header_sha256 in known, f"{one.folder} is no registered copy")


def wac_19(facts: HostFacts) -> Iterator[str]:
    """No process reads another's memory, and none leaves its own behind."""
    values = facts.of(Sysctls)
    yield from need(values.number("kernel/yama/ptrace_scope") >= 2, "ptrace is open")
    yield from need(values.number("fs/suid_dumpable") == 0, "privileged programs leave dumps")
    pattern = values.values.get("kernel/core_pattern", "")
    yield from need(pattern in {"|/bin/false", "|/usr/bin/false", ""}, "dumps are written")


def wac_20(facts: HostFacts) -> Iterator[str]:
    """An alarm follows each refused use within an hour."""
    log = facts.of(LogReading)
    for refusal in log.refusals:
        told = any(
            one.about == refusal.about and 0 <= one.time - refusal.time <= _HOUR
            for one in log.alarms
        )
        yield from need(told, f"nobody was told of the refusal of {refusal.about[:8]}")


def war_01(facts: HostFacts) -> Iterator[str]:
    """There is a sealed model, and no file beside it is plain, or closed and unknown."""
    seen = facts.of(WeightFacts)
    yield from some(seen.models, "sealed model")
    sealed = {
        f"{model.folder}/{shard.name}{SEALED_SUFFIX}"
        for model in seen.models
        for shard in model.header.shards
    }
    for one in seen.files:
        yield from need(not one.plain or one.plain == "pickle", f"{one.path} is {one.plain}")
        # What the read meter closes is judged by the signed header, which names it.
        named = not one.closed or one.path in sealed
        yield from need(named, f"{one.path} can't be read, and no header names it")


def war_02(facts: HostFacts) -> Iterator[str]:
    """Each living model is wrapped by a provider off this disk."""
    for model in _living(facts):
        for wrapped in model.header.wrapped:
            yield from need(
                wrapped.provider != "local", f"{model.folder}: its key lies on this disk"
            )


def war_03(facts: HostFacts) -> Iterator[str]:
    """Each living model can be opened by shares, of which one does not do."""
    for model in _living(facts):
        shares = [one for one in model.header.wrapped if one.provider == "shares"]
        split = any(re.search(r"\b([2-9])[-/ ]of[-/ ]\d", one.reference) for one in shares)
        yield from need(split, f"{model.folder}: no share of it is needed beside another")


def war_04(facts: HostFacts) -> Iterator[str]:
    """Each shard has a salt of its own, and the header names cipher and chunk."""
    for model in _living(facts):
        salts = [one.salt for one in model.header.shards]
        yield from need(len(salts) == len(set(salts)), f"{model.folder}: two shards have one key")
        yield from need("256" in model.header.cipher, f"{model.folder}: {model.header.cipher}")


def war_05(facts: HostFacts) -> Iterator[str]:
    """Each sealed model was wrapped anew within 90 days."""
    log = facts.of(LogReading)
    wrapped = {
        digest: one.time
        for one in (*log.of_kind("seal"), *log.of_kind("rewrap"))
        for digest in one.digests.values()
    }
    for model in _living(facts):
        age = facts.at - wrapped.get(model.header_sha256, facts.at)
        yield from need(age <= _ROTATION_S, f"{model.folder}: wrapped {age // DAY} days ago")


def war_08(facts: HostFacts) -> Iterator[str]:
    """Nothing of memory reaches a disk: no swap, no hibernation."""
    kernel = facts.of(Kernel)
    yield from (f"{name} takes pages of memory" for name in kernel.swaps)
    yield from need(not kernel.hibernation, "the host may hibernate")


def war_10(facts: HostFacts) -> Iterator[str]:
    """Each backup is sealed and in the log."""
    for copy in facts.of(Copies).copies:
        if copy.kind == "backup":
            yield from need(
                copy.sealed and copy.logged, f"backup {copy.name} is sealed or logged by none"
            )


def war_11(facts: HostFacts) -> Iterator[str]:
    """Two persons carried each shredding, and nothing shredded has a key."""
    log = facts.of(LogReading)
    for case in log.used("weights.shred"):
        others = set(case.carried_by) - {case.requester}
        yield from need(len(others) >= PARTIES, f"shredding {case.request[:8]} lacks two")
    for model in facts.of(WeightFacts).models:
        gone = not model.header.shredded or not model.header.wrapped
        yield from need(gone, f"{model.folder} was shredded and has a key")


def war_12(facts: HostFacts) -> Iterator[str]:
    """Both ends of each transfer counted the same."""
    for copy in facts.of(Copies).copies:
        if copy.kind == "transfer":
            same = copy.sent == copy.received and copy.sent > 0
            yield from need(
                same, f"transfer {copy.name}: {copy.sent} sent, {copy.received} received"
            )


def _living(facts: HostFacts) -> Iterator[SealedModelFacts]:
    models = [one for one in facts.of(WeightFacts).models if not one.header.shredded]
    if not models:
        raise HostError("there is no sealed model to judge")
    yield from models


JUDGES: dict[str, Judge] = {
    "wac-01": wac_01,
    "wac-02": wac_02,
    "wac-03": wac_03,
    "wac-04": wac_04,
    "wac-05": wac_05,
    "wac-06": wac_06,
    "wac-07": wac_07,
    "wac-08": wac_08,
    "wac-09": wac_09,
    "wac-10": drilled("weights-gate-killed", days=30, seconds=1),
    "wac-11": drilled("grant-revoked", days=30, seconds=5),
    "wac-12": wac_12,
    "wac-13": wac_13,
    "wac-14": wac_14,
    "wac-15": wac_15,
    "wac-16": wac_16,
    "wac-18": wac_18,
    "wac-19": wac_19,
    "wac-20": wac_20,
    "war-01": war_01,
    "war-02": war_02,
    "war-03": war_03,
    "war-04": war_04,
    "war-05": war_05,
    "war-06": drilled("weights-verify", days=1),
    "war-07": drilled("weights-sample", days=1),
    "war-08": war_08,
    "war-10": war_10,
    "war-11": war_11,
    "war-12": war_12,
}
