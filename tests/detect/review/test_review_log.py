"""The desk on a real transparency log: two persons for a suspension, a leaf before every look."""

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from safehold.console.sources import DeskLeaves
from safehold.detect.review.authority import GrantAuthority
from safehold.detect.review.desk import ReviewDesk
from safehold.detect.review.interface import CaseAction, CaseKind, ReviewVerdict
from safehold.errors import SafeholdError, TrustError
from safehold.guard.ledger.interface import Entry
from safehold.guard.ledger.reader import LedgerReader
from safehold.testing.monitoring import fill
from safehold.testing.trust import GOVERNING, POLICY, Enclave, person_id
from safehold.trust.grants.details import AccountStep
from safehold.trust.grants.interface import GrantRequest, Resource
from safehold.trust.log.dsse import open_envelope
from safehold.trust.log.log_entries import Record, read_leaf
from safehold.trust.people.statement import Act

_BAD = ReviewVerdict.RESTRICTED_HELPFUL
_JUDGES = ("dev-one", "dev-two")
_RULES = "".join(
    f"""
[[rule]]
operation = "account.{action}"
thresholds = [{{ team = "t-everybody", count = 2 }}]
max_duration_s = 86400
keys = ["ssh"]
"""
    for action in ("suspend", "step-up")
)


class _Site:
    """A founded log, a ledger with ten stopped exchanges, and a desk that uses both."""

    def __init__(self, folder: Path) -> None:
        self.enclave = Enclave(folder / "log", policy=POLICY + GOVERNING + _RULES)
        fill(str(folder / "l.db"), [("a", f"question {i}", True) for i in range(10)])
        self._ledger = LedgerReader.open(str(folder / "l.db"))
        self.read_after: list[list[Record]] = []
        self.desk = ReviewDesk(
            str(folder / "r.db"),
            evidence=self,
            leaves=DeskLeaves(self.enclave.desk),
            authority=GrantAuthority(self.enclave.desk),
            sampling_key=b"k",
            clock=lambda: float(self.enclave.time),
        )

    def decision(self, decision_id: str) -> list[Entry]:
        """Read the ledger, and keep what the log on the disk held at that moment."""
        self.read_after.append(self.records())
        return self._ledger.decision(decision_id)

    def records(self) -> list[Record]:
        """Return the records of the log as another process finds it."""
        store = self.enclave.open_desk().store
        emitters = store.keys.emitter_keys()
        leaves = [read_leaf(open_envelope(data, emitters)[0]) for _, data in store.entries()]
        return [one for one in leaves if isinstance(one, Record)]

    def judge(self, *names: str, verdict: ReviewVerdict = _BAD) -> int:
        """Let these people judge one account's case, and return its number."""
        case = self.desk.open_case(
            CaseKind.ACCOUNT, ["d0"], severity=4, opened_by="monitor", account="a"
        )
        for name in names:
            item = self.desk.next(name)
            assert item is not None
            self.desk.reveal(item.item, name, reason="queue")
            self.desk.verdict(item.item, name, verdict)
        return case

    def grant(
        self, case: int, *approvers: str, action: str = "suspend", account: str = "a"
    ) -> GrantRequest:
        """Ask for a suspension of this case's account; these people approve."""
        asked = self.enclave.ask(
            "dev-three",
            f"account.{action}",
            details=AccountStep(account, self.enclave.time + 3600),
            resource=Resource(kind="case", name=f"case-{case}", version="1", parts=("*",)),
        )
        self.enclave.file(asked)
        self.enclave.approve(asked, *approvers)
        return asked


@pytest.fixture
def site(tmp_path: Path) -> _Site:
    """A desk on a log of its own."""
    return _Site(tmp_path)


def _ids(*names: str) -> tuple[str, ...]:
    return tuple(person_id(name) for name in names)


def test_two_judges_and_two_others_suspend_and_the_grant_is_spent(site: _Site) -> None:
    """The whole way on a real log; the spent grant does no second case."""
    case = site.judge(*_ids(*_JUDGES))
    grant = site.grant(case, "sec-one", "sec-two")
    site.desk.decide(case, CaseAction.SUSPEND, by=person_id("dev-one"), grant_id=grant.sha256)
    closed = [one for one in site.records() if one.kind == "case-close"]
    assert [(one.facts["case"], one.facts["action"]) for one in closed] == [("1", "suspend")]
    assert site.enclave.desk.state.case(grant.sha256).uses == 1
    again = site.judge(*_ids(*_JUDGES))
    with pytest.raises(TrustError, match="case-2"):
        site.desk.decide(again, CaseAction.SUSPEND, by="x", grant_id=grant.sha256)


def _no_grant(site: _Site) -> tuple[int, str | None]:
    return site.judge(*_ids(*_JUDGES)), None


def _one_judge(site: _Site) -> tuple[int, str | None]:
    case = site.judge(*_ids("dev-one"))
    return case, site.grant(case, "sec-one", "sec-two").sha256


def _one_approver(site: _Site) -> tuple[int, str | None]:
    case = site.judge(*_ids(*_JUDGES))
    return case, site.grant(case, "sec-one").sha256


def _nobody_approved(site: _Site) -> tuple[int, str | None]:
    case = site.judge(*_ids(*_JUDGES))
    return case, site.grant(case).sha256


def _judge_approved(site: _Site) -> tuple[int, str | None]:
    case = site.judge(*_ids(*_JUDGES))
    return case, site.grant(case, "dev-one", "sec-one").sha256


def _second_name(site: _Site) -> tuple[int, str | None]:
    """One person judges under two names, of which the roster knows none."""
    case = site.judge("ann", "anna")
    return case, site.grant(case, "sec-one", "sec-two").sha256


def _other_case(site: _Site) -> tuple[int, str | None]:
    case = site.judge(*_ids(*_JUDGES))
    return case, site.grant(case + 1, "sec-one", "sec-two").sha256


def _other_action(site: _Site) -> tuple[int, str | None]:
    case = site.judge(*_ids(*_JUDGES))
    return case, site.grant(case, "sec-one", "sec-two", action="step-up").sha256


def _other_account(site: _Site) -> tuple[int, str | None]:
    case = site.judge(*_ids(*_JUDGES))
    return case, site.grant(case, "sec-one", "sec-two", account="b").sha256


def _revoked(site: _Site) -> tuple[int, str | None]:
    case = site.judge(*_ids(*_JUDGES))
    grant = site.grant(case, "sec-one", "sec-two")
    note = site.enclave.note(grant)
    site.enclave.desk.revoke(note, site.enclave.keys["sec-one"].sign(Act.REVOKE, note))
    return case, grant.sha256


def _expired(site: _Site) -> tuple[int, str | None]:
    case = site.judge(*_ids(*_JUDGES))
    grant = site.grant(case, "sec-one", "sec-two")
    site.enclave.time += 86_400 * 2
    return case, grant.sha256


def _unknown(site: _Site) -> tuple[int, str | None]:
    return site.judge(*_ids(*_JUDGES)), "ab" * 32


@pytest.mark.parametrize(
    "attack",
    [
        _no_grant,
        _one_judge,
        _one_approver,
        _nobody_approved,
        _judge_approved,
        _second_name,
        _other_case,
        _other_action,
        _other_account,
        _revoked,
        _expired,
        _unknown,
    ],
)
def test_a_suspension_without_two_persons_on_each_side_is_refused(
    site: _Site, attack: Callable[[_Site], tuple[int, str | None]]
) -> None:
    """Nothing is closed, and no leaf says that something was."""
    case, grant = attack(site)
    with pytest.raises(SafeholdError):
        site.desk.decide(case, CaseAction.SUSPEND, by="lead", grant_id=grant)
    assert not [one for one in site.records() if one.kind == "case-close"]


def test_every_look_has_its_leaf_in_the_log_before_the_ledger_is_read(site: _Site) -> None:
    """What another process reads off the disk at the moment of the read names the look."""
    site.desk.open_case(CaseKind.SAMPLE, [f"d{i}" for i in range(6)], severity=0, opened_by="x")
    looks = 0
    for name in _ids(*_JUDGES):
        while (item := site.desk.next(name)) is not None:
            before = len(site.read_after)
            shown = site.desk.reveal(item.item, name, reason="queue")
            looks += 1
            (held,) = site.read_after[before:]
            opened = [one for one in held if one.kind == "review-open"]
            assert len(opened) == looks
            assert opened[-1].facts == {
                "person": name, "item": str(item.item), "case": str(item.case)
            }  # fmt: skip
            assert b"question" in msgspec.json.encode(shown)
            site.desk.verdict(item.item, name, _BAD)
    assert looks >= 6
    text = "".join(str(one) for one in site.records())
    assert "question" not in text
