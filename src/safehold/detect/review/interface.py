"""Cases, verdicts and actions of the review desk, and what it needs from outside."""

from collections.abc import Sequence
from enum import StrEnum
from typing import Protocol

import msgspec

from safehold.errors import TrustError
from safehold.exchange import Exchange
from safehold.guard.ledger.interface import Delivered, Entry


class CaseKind(StrEnum):
    """Why a case was opened."""

    ACCOUNT = "account"
    CAMPAIGN = "campaign"
    SAMPLE = "sample"
    BOUNTY = "bounty"
    INTEL = "intel"
    APPEAL = "appeal"
    FALSE_ALARM = "false_alarm"


class ReviewVerdict(StrEnum):
    """What a reviewer says of one exchange; `border` goes to the constitution's owner."""

    RESTRICTED_HELPFUL = "restricted_helpful"
    RESTRICTED_NOT_GIVEN = "restricted_not_given"
    PERMITTED = "permitted"
    BORDER = "border"
    CANT_TELL = "cant_tell"


class CaseAction(StrEnum):
    """What is done about a case; the last two are beyond one person's power.

    `constitution_note` asks the constitution's owner, `incident` goes to `safehold respond`, and
    `training_example` needs the tenant's consent, by its reference.
    """

    NONE = "none"
    LABEL = "label"
    RATE_LIMIT = "rate_limit"
    CONSTITUTION_NOTE = "constitution_note"
    TRAINING_EXAMPLE = "training_example"
    INCIDENT = "incident"
    OVERTURN = "overturn"
    UPHOLD = "uphold"
    STEP_UP = "step_up"
    SUSPEND = "suspend"


RESTRICTED = frozenset({ReviewVerdict.RESTRICTED_HELPFUL, ReviewVerdict.RESTRICTED_NOT_GIVEN})
"""Verdicts that say that something restricted was asked."""

ABOUT_BLOCKS = frozenset({CaseAction.OVERTURN, CaseAction.UPHOLD})
"""Actions that say of a block whether it stands."""

OF_BLOCKS = frozenset({CaseKind.APPEAL, CaseKind.FALSE_ALARM})
"""Kinds of cases that are about a block."""

BY_TWO = frozenset({CaseAction.STEP_UP, CaseAction.SUSPEND})
"""Actions that need two reviewers who agree, and a grant."""


def actions_for(kind: CaseKind | str) -> tuple[CaseAction, ...]:
    """Return what may be done about a case of this kind."""
    return tuple(one for one in CaseAction if kind in OF_BLOCKS or one not in ABOUT_BLOCKS)


class Assignment(msgspec.Struct, frozen=True, kw_only=True):
    """What a reviewer learns with an item: nothing that another person or a scorer said."""

    item: int
    case: int
    kind: CaseKind
    locked_until: float


class Revealed(msgspec.Struct, frozen=True, kw_only=True):
    """The content of one exchange; no score, label, clause, outcome or verdict."""

    exchange: Exchange | None
    delivered: tuple[Delivered, ...]


class GivenVerdict(msgspec.Struct, frozen=True, kw_only=True):
    """One person's verdict on an item."""

    person: str
    verdict: ReviewVerdict


class Context(msgspec.Struct, frozen=True, kw_only=True):
    """What is told after the verdict: the guard's score and clause, and the others' verdicts."""

    score: float | None
    clause: str | None
    verdicts: tuple[GivenVerdict, ...]


class ReviewLedger(Protocol):
    """The ledger, as the desk uses it."""

    def decision(self, decision_id: str) -> list[Entry]:
        """Return every row about one decision."""
        ...


class Authority(Protocol):
    """Checks and spends a grant."""

    def spend(
        self,
        action: CaseAction,
        *,
        case: int,
        account: str | None,
        grant_id: str,
        judges: frozenset[str],
    ) -> None:
        """Spend the grant for this action on this case and account; no approver judged the case.

        Raises:
            TrustError: there is no such grant, it is for something else, or a judge approved it.
        """
        ...


class NoAuthority:
    """Has no grant for anybody: every action by grant is refused."""

    def spend(
        self,
        action: CaseAction,
        *,
        case: int,
        account: str | None,
        grant_id: str,
        judges: frozenset[str],
    ) -> None:
        """Refuse."""
        del judges, account
        raise TrustError(f"no grant service is configured: {action} on case {case} by {grant_id}")


class Holds(Protocol):
    """Keeps decisions in the ledger while a case needs them."""

    def hold(self, decision_ids: Sequence[str], *, case: int) -> None:
        """Keep these decisions from pruning."""
        ...

    def let_go(self, *, case: int) -> None:
        """Let go of everything that the case held."""
        ...


class NoHolds:
    """Holds nothing: a ledger that is pruned takes a case's decisions along."""

    def hold(self, decision_ids: Sequence[str], *, case: int) -> None:
        """Do nothing."""

    def let_go(self, *, case: int) -> None:
        """Do nothing."""
