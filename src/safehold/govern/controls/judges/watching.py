"""Judges of monitoring, insiders, deception, response and governance."""

from collections.abc import Iterator

from safehold.govern.controls.facts.documents import Decoys, Insider, Monitoring, Outputs, Staff
from safehold.govern.controls.facts.machine import AuditRules
from safehold.govern.controls.facts.site import Site
from safehold.govern.controls.facts.trust_log import LogReading
from safehold.govern.controls.interface import DAY, HostFacts, Judge, need
from safehold.govern.controls.judges.common import drill_faults, drilled, some

_HOUR = 3600
_PATHS = ("weights", "sudoers", "/etc/safehold", "init_module")
_IN_SCOPE = ("T1041", "T1048", "T1078", "T1005", "T1562")


def mon_01(facts: HostFacts) -> Iterator[str]:
    """The log is whole (its reader verified it), not empty, and grew within a day."""
    log = facts.of(LogReading)
    yield from need(log.size > 0, "the log is empty")
    yield from need(facts.at - log.last_time <= DAY, "the log did not grow for a day")


def mon_02(facts: HostFacts) -> Iterator[str]:
    """Enough witnesses cosigned within the hour, and all of the log but the newest leaves."""
    log, site = facts.of(LogReading), facts.of(Site)
    young = [name for name, time in log.witnesses.items() if 0 <= facts.at - time <= _HOUR]
    yield from need(
        len(young) >= max(1, site.witnesses), f"{len(young)} witnesses cosigned within the hour"
    )


def mon_03(facts: HostFacts) -> Iterator[str]:
    """The audit watches weights, sudo, our settings and modules, and its rules are locked."""
    found = facts.of(AuditRules)
    for word in _PATHS:
        yield from need(any(word in rule for rule in found.rules), f"no audit rule names {word}")
    yield from need(found.locked, "the audit's rules can be changed")


def mon_04(facts: HostFacts) -> Iterator[str]:
    """No source lost an event, the ledger covers every byte sent, and the lag is a minute."""
    found = facts.of(Monitoring)
    yield from some(found.lost, "source of events")
    for name, lost in sorted(found.lost.items()):
        yield from need(lost == 0, f"{name} lost {lost} events")
    yield from need(found.lag_s <= 60, f"events take {found.lag_s:g} s")
    covered = facts.of(Outputs).coverage
    yield from need(covered >= 1, f"the ledger covers {covered:.4%} of what was sent")
    yield from need(facts.of(AuditRules).lost == 0, "the audit lost events")


def mon_06(facts: HostFacts) -> Iterator[str]:
    """Each technique in scope has a detection, and each detection a test."""
    found = facts.of(Monitoring)
    covered = {technique for many in found.detections.values() for technique in many}
    for technique in _IN_SCOPE:
        yield from need(technique in covered, f"no detection covers {technique}")
    yield from (f"detection {name} has no test" for name in found.untested)


def mon_07(facts: HostFacts) -> Iterator[str]:
    """Somebody looked at each case within a day."""
    for one in facts.of(Monitoring).cases:
        looked = (one.triaged or facts.at) - one.opened
        yield from need(0 <= looked <= DAY, f"case {one.id} waited for {looked // _HOUR} h")


def mon_08(facts: HostFacts) -> Iterator[str]:
    """Each daemon gave a sign of life within five minutes, the gateway among them."""
    found = facts.of(Monitoring).heartbeats
    yield from some(found, "heartbeat")
    for name, last in sorted(found.items()):
        yield from need(0 <= facts.at - last <= 300, f"{name} gave no sign of life")
    yield from need(facts.of(Outputs).gateway_up, "the gateway is down")


def mon_09(facts: HostFacts) -> Iterator[str]:
    """A person reviewed all uses of weights within the week."""
    log = facts.of(LogReading)
    reviews = [
        one for one in log.of_kind("change-review") if one.facts.get("of") == "weight-access"
    ]
    yield from need(reviews, "nobody ever reviewed the uses of weights")
    if reviews:
        yield from need(facts.at - reviews[-1].time <= 7 * DAY, "the review is over a week old")


def mon_10(facts: HostFacts) -> Iterator[str]:
    """Outside evidence bounds the time of the log: a time stamp within a day."""
    age = facts.at - facts.of(Monitoring).timestamped
    yield from need(0 <= age <= DAY, f"the last outside time stamp is {age // _HOUR} h old")


def mon_11(facts: HostFacts) -> Iterator[str]:
    """Nothing was deleted without a proof."""
    found = facts.of(Monitoring)
    yield from need(found.deleted_without_proof == 0, "records were deleted without a proof")


def ins_01(facts: HostFacts) -> Iterator[str]:
    """Nobody has two roles that must be apart."""
    pairs = facts.of(Staff).conflicting_roles
    yield from some(pairs, "pair of roles")
    for one in facts.of(LogReading).persons:
        held = set(one.roles) | set(one.teams)
        for left, right in pairs:
            yield from need(not {left, right} <= held, f"{one.name} is {left} and {right}")


def ins_02(facts: HostFacts) -> Iterator[str]:
    """No set of administrators that can stop detection is one person."""
    found = facts.of(Staff).admin_sets
    yield from some(found, "set of administrators")
    for one in found:
        yield from need(len(set(one)) >= 2, "one person can stop detection")


def ins_03(facts: HostFacts) -> Iterator[str]:
    """Alerts on people stay within their budget, and the measured recall is known."""
    found = facts.of(Insider)
    yield from need(found.alerts_per_day <= 2, "too many alerts on people a day")
    yield from need(
        found.recall_n > 0 and found.recall_k * 2 >= found.recall_n, "recall is unknown"
    )


def ins_04(facts: HostFacts) -> Iterator[str]:
    """No pair approves half of everything, nobody approves within seconds, devices differ."""
    found = facts.of(Insider)
    yield from need(found.pair_share < 0.5, "one pair approves half of everything")
    yield from need(found.median_approve_s >= 30, "approvals take seconds")
    yield from need(found.same_device == 0, "approvals came from one device")


def ins_05(facts: HostFacts) -> Iterator[str]:
    """A grant of somebody about to leave was carried by one person more."""
    risky = set(facts.of(Staff).at_risk)
    for case in facts.of(LogReading).used("weights."):
        if case.requester in risky:
            others = set(case.carried_by) - {case.requester}
            yield from need(len(others) >= 3, f"{case.request[:8]} lacks one person more")


def dec_01(facts: HostFacts) -> Iterator[str]:
    """Decoy weights exist and are watched, and touching one alarmed within 5 seconds."""
    yield from _decoys(facts, "weights")
    yield from drill_faults(facts, "decoy-weights", days=8, seconds=5)


def dec_02(facts: HostFacts) -> Iterator[str]:
    """Decoy credentials exist and are watched, and using one alarmed."""
    yield from _decoys(facts, "credential")
    yield from drill_faults(facts, "decoy-credential", days=8)


def dec_03(facts: HostFacts) -> Iterator[str]:
    """Decoy services exist and are watched, and touching one alarmed."""
    yield from _decoys(facts, "service")
    yield from drill_faults(facts, "decoy-service", days=8)


def dec_04(facts: HostFacts) -> Iterator[str]:
    """Decoy identities exist and are watched."""
    yield from _decoys(facts, "identity")


def dec_05(facts: HostFacts) -> Iterator[str]:
    """Metadata does not tell decoys from real files."""
    found = facts.of(Decoys).separable
    yield from need(0 <= found <= 0.7, f"decoys are told apart ({found:.2f})")


def _decoys(facts: HostFacts, kind: str) -> Iterator[str]:
    found = [one for one in facts.of(Decoys).decoys if one.kind == kind]
    yield from some(found, f"decoy {kind}")
    yield from (f"decoy {one.name} is not watched" for one in found if not one.watched)


def gov_02(facts: HostFacts) -> Iterator[str]:
    """The matrix of stages and techniques was reviewed within 90 days without an open gap."""
    yield from _recorded(facts, "coverage-review", days=90)


def gov_05(facts: HostFacts) -> Iterator[str]:
    """Each exception in force has an owner and two approvers, and lasts 90 days at most."""
    for case in facts.of(LogReading).used("controls.except"):
        until = case.details.get("expires", "")
        end = int(until) if until.isdigit() else 0
        if facts.at < end:
            named = case.details.get("owner") and case.details.get("reason")
            two = len(set(case.carried_by) - {case.requester}) >= 2
            brief = end - (case.used_at or 0) <= 90 * DAY
            yield from need(
                named and two and brief,
                f"exception for {case.details.get('control', '?')} lacks an owner, two or an end",
            )


def gov_08(facts: HostFacts) -> Iterator[str]:
    """Somebody determined where the model in use stands, within the year."""
    cases = facts.of(LogReading).used("standards.determine")
    yield from need(cases, "nobody determined where the model stands")
    if cases:
        age = facts.at - max(one.used_at or 0 for one in cases)
        yield from need(age <= 366 * DAY, "the determination is over a year old")


def gov_09(facts: HostFacts) -> Iterator[str]:
    """Two persons activated a standard."""
    cases = facts.of(LogReading).used("standards.activate")
    yield from need(cases, "no standard was ever activated")
    for case in cases:
        yield from need(len(set(case.carried_by)) >= 2, "a standard was activated by one")


def gov_10(facts: HostFacts) -> Iterator[str]:
    """No review date has passed: the threat model was reviewed within the year."""
    yield from _recorded(facts, "threat-model-review", days=366)


def _recorded(facts: HostFacts, what: str, *, days: int) -> Iterator[str]:
    log = facts.of(LogReading)
    found = [one for one in log.of_kind("change-review") if one.facts.get("of") == what]
    yield from need(found, f"the log holds no {what}")
    if found:
        yield from need(facts.at - found[-1].time <= days * DAY, f"{what} is over {days} days old")


JUDGES: dict[str, Judge] = {
    "mon-01": mon_01,
    "mon-02": mon_02,
    "mon-03": mon_03,
    "mon-04": mon_04,
    "mon-06": mon_06,
    "mon-07": mon_07,
    "mon-08": mon_08,
    "mon-09": mon_09,
    "mon-10": mon_10,
    "mon-11": mon_11,
    "mon-12": drilled("exfiltration", days=7),
    "ins-01": ins_01,
    "ins-02": ins_02,
    "ins-03": ins_03,
    "ins-04": ins_04,
    "ins-05": ins_05,
    "dec-01": dec_01,
    "dec-02": dec_02,
    "dec-03": dec_03,
    "dec-04": dec_04,
    "dec-05": dec_05,
    "res-01": drilled("incident", days=90, seconds=900),
    "res-02": drilled("mass-revocation", days=90, seconds=300),
    "res-05": drilled("loss-estimate", days=90),
    "gov-02": gov_02,
    "gov-04": drilled("sample-audit", days=90),
    "gov-05": gov_05,
    "gov-08": gov_08,
    "gov-09": gov_09,
    "gov-10": gov_10,
}
