"""What the demo's people do: verdicts, cases, requests, approvals, an exemption, an incident."""

from safehold.console.demo.stage import DemoStage
from safehold.console.index import ExchangeLine, Wanted
from safehold.detect.monitoring.account_book import AccountBook
from safehold.detect.monitoring.accounts import Caps
from safehold.detect.review.interface import CaseAction, CaseKind, ReviewVerdict
from safehold.testing.trust import person_id, vetted
from safehold.trust.exemptions.interface import (
    ExemptionAction,
    ExemptionTerms,
    Relaxation,
    Subject,
    SubjectKind,
    VettingTier,
)
from safehold.trust.grants.interface import GrantRequest, Resource
from safehold.trust.log.log_entries import Record
from safehold.trust.people.statement import Act

_DAY_S = 86_400
REVIEWERS = ("Tomas Keller", "Ines Pereira")


def decide(stage: DemoStage, restricted: set[str], now: float) -> None:
    """Do it all, at the stage's time; reviewers judge a prompt by what it really is."""
    _review(stage, restricted, now)
    _trust(stage)
    _incident(stage)


def _review(stage: DemoStage, restricted: set[str], now: float) -> None:
    desk, index = stage.sources.review_desk, stage.sources.index
    blocked = index.lines(Wanted(outcome="blocked_by_guard", limit=200))
    served = index.lines(Wanted(outcome="complied", limit=200))
    # 1. A sample that two people judge to its end.
    sample = desk.open_case(
        CaseKind.SAMPLE, [one.decision_id for one in blocked[10:34:2]], severity=3,
        opened_by="weekly sample",
    )  # fmt: skip
    for person in REVIEWERS:
        _judge_all(stage, person_id(person), restricted)
    desk.decide(sample, CaseAction.NONE, by=person_id("Ines Pereira"))
    # 2. A sample of what was served, judged in part.
    desk.open_case(
        CaseKind.SAMPLE, [one.decision_id for one in served[5:11]], severity=1,
        opened_by="weekly sample",
    )  # fmt: skip
    _judge_all(stage, person_id("Tomas Keller"), restricted, most=4)
    # 3. The accounts that the monitor labelled, and what clients asked to be looked at again.
    if stage.sources.monitor is not None:
        labels = AccountBook(stage.sources.monitor, caps=Caps()).labels(now=now)
        for account in dict.fromkeys(one.account for one in labels):
            first = next(one for one in labels if one.account == account)
            desk.open_case(
                CaseKind.ACCOUNT, first.evidence[-5:], severity=3, opened_by="monitor",
                account=account,
            )  # fmt: skip
    _appeal(stage, blocked)


def _appeal(stage: DemoStage, blocked: list[ExchangeLine]) -> None:
    desk = stage.sources.review_desk
    one = blocked[3]
    desk.open_case(CaseKind.APPEAL, [one.decision_id], severity=2, opened_by="client",
                   account=one.account)  # fmt: skip
    desk.open_case(CaseKind.FALSE_ALARM, [one.decision_id for one in blocked[10:13]], severity=1,
                   opened_by="support")  # fmt: skip


def _judge_all(stage: DemoStage, person: str, restricted: set[str], most: int = 99) -> None:
    desk = stage.sources.review_desk
    for _ in range(most):
        given = desk.next(person)
        if given is None:
            return
        shown = desk.reveal(given.item, person, reason="queue")
        said = " ".join(one.text for one in shown.delivered)
        turns = () if shown.exchange is None else shown.exchange.texts()
        verdict = ReviewVerdict.PERMITTED
        if any(one.text in restricted for one in turns):
            verdict = ReviewVerdict.RESTRICTED_NOT_GIVEN
            if len(said) > 400:
                verdict = ReviewVerdict.RESTRICTED_HELPFUL
        desk.verdict(given.item, person, verdict)


def _trust(stage: DemoStage) -> None:
    asks = [
        _ask(stage, "Jonas Lind", "Serve the model on the second host after its upgrade", "OPS-41"),
        _ask(stage, "Ines Pereira", "Measure the read budget of one load", "OPS-44"),
        _ask(stage, "Jonas Lind", "Move the weights to another region", "OPS-39"),
    ]
    for asked in asks:
        stage.enclave.file(asked)
    stage.enclave.approve(asks[0], "Tomas Keller")
    stage.enclave.approve(asks[1], "Tomas Keller", "Mara Okoye")
    stage.enclave.use(asks[1])
    # The key service hands out the data key to the process that may load: a live lease.
    stage.enclave.desk.release(
        asks[1].sha256, host=asks[1].host, header_sha256="5e" * 32, recipient="gpu-1/serving"
    )
    note = stage.enclave.note(asks[2], "not before the egress budget of that region is set")
    proof = stage.enclave.keys["Wei Zhang"].sign(Act.DENY, note)
    stage.enclave.desk.deny(note, proof)
    terms = ExemptionTerms(
        subject=Subject(SubjectKind.ORGANISATION, "school"),
        relaxations=(Relaxation("beer-production", ExemptionAction.AUDIT),),
        surfaces=("openai.chat",),
        use_case="brewing-course",
        seats=20,
        rate_per_hour=200,
        vetting=vetted(VettingTier.HIGH),
    )
    given = stage.enclave.ask(
        "Tomas Keller", "exemption.give", details=terms, ticket="V-7",
        purpose="A licensed brewing course at the school",
        resource=Resource(kind="exemption", name="school", version="1", parts=("*",)),
        expires=stage.enclave.time + 9 * _DAY_S,
    )  # fmt: skip
    stage.enclave.file(given)
    stage.enclave.approve(given, "Mara Okoye", "Wei Zhang")


def _ask(stage: DemoStage, who: str, purpose: str, ticket: str) -> GrantRequest:
    stage.enclave.time = int(stage.clock())
    return stage.enclave.ask(who, purpose=purpose, ticket=ticket)


def _incident(stage: DemoStage) -> None:
    desk = stage.sources.desk
    facts = {
        "incident": "Wording that gets through in verse form",
        "state": "open",
        "found-by": "red team",
    }
    desk.record(Record(time=desk.now(), kind="incident", facts=facts, digests={}))
