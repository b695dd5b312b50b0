"""The ladder of an account: what each step does, who may take it, and the file that says so."""

from enum import StrEnum
from typing import Annotated

import msgspec

from safehold.errors import BundleError
from safehold.trust.text import Line

DAY_S = 86_400
MOST_DAYS = 90
"""Days that a step may last: whoever wants it longer looks at the account again."""
PROVISIONAL_S = DAY_S
"""Seconds that a step may last which the monitor takes without a grant."""
MOST_STANDINGS = 100_000


class AccountStateError(BundleError):
    """A file of account states can't be used; the states in force stay."""


class LadderStep(StrEnum):
    """A step of the ladder. Each includes what those below it do."""

    OBSERVE = "observe"
    """It is noted; nothing changes."""
    REVIEW = "review"
    """People look at the account; nothing changes for it."""
    STEP_UP = "step-up"
    """Its replies are held whole until scored; what is blocked goes to a reviewer."""
    RATE_LIMIT = "rate-limit"
    """So many requests an hour, else HTTP 429."""
    SUSPEND = "suspend"
    """Every request is refused with HTTP 403."""

    @property
    def rank(self) -> int:
        """The step's place, from 0."""
        return list(LadderStep).index(self)


GRANTED = frozenset({LadderStep.STEP_UP, LadderStep.RATE_LIMIT, LadderStep.SUSPEND})
"""Steps that a grant gives; the first two may be taken for a day before people have decided."""

Word = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}\Z")]
DecisionId = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_.:-]{1,100}\Z")]


class AccountStanding(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One step of one account: why, shown by which decisions, and until when.

    `account` is tenant and key as the ledger names them (`default/key-1`). `created` and `expires`
    are seconds since the epoch, UTC. `grant` is the request in the transparency log that gives the
    step; empty for a step that needs none, or for one of a day at most.
    """

    account: Line
    level: LadderStep
    label: Word
    reason: Line
    evidence: Annotated[tuple[DecisionId, ...], msgspec.Meta(max_length=16)] = ()
    created: int
    expires: int
    requests_per_hour: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] | None = None
    grant: Annotated[str, msgspec.Meta(pattern=r"^([0-9a-f]{64})?\Z")] = ""


class AccountStates(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Every account's steps. A lower `serial` than one seen before is an old file: refused.

    `fresh_until` is when its writer will have written another one; later a reader knows that it
    is kept from the news.
    """

    serial: Annotated[int, msgspec.Meta(ge=1)]
    at: int
    fresh_until: int
    standings: tuple[AccountStanding, ...] = ()
