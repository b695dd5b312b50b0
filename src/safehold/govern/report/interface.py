"""The values of a report: who may read what, evidence with its fields, claims and their states.

Every value has an audience; the default is internal. A report of a level is assembled from values
of that level only: what is above it never reaches the assembler.
"""

from enum import Enum, StrEnum
from typing import Annotated

import msgspec

from safehold.errors import SafeholdError
from safehold.stats import Rate

Name = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9._:-]{0,79}\Z")]
Time = Annotated[int, msgspec.Meta(ge=0)]


class ReportError(SafeholdError):
    """Correct the case, the evidence or the report named in the message."""

    exit_status = 2


class Audience(StrEnum):
    """Who may read a value."""

    PUBLIC = "public"
    PARTNER = "partner"
    INTERNAL = "internal"

    def may_read(self, value: "Audience") -> bool:
        """Whether a reader of this level may read a value of that one."""
        order = list(Audience)
        return order.index(value) <= order.index(self)


class Good(StrEnum):
    """Which direction of a rate is good; its bound is printed on the other side."""

    LOW = "low"
    HIGH = "high"


class Figure(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One field of evidence: a rate of `events` in `n`, a number, or words."""

    audience: Audience = Audience.INTERNAL
    events: Annotated[int, msgspec.Meta(ge=0)] | None = None
    n: Annotated[int, msgspec.Meta(ge=0)] | None = None
    good: Good = Good.LOW
    number: float | None = None
    unit: str = ""
    text: str = ""

    def rate(self) -> Rate | None:
        """Return the rate, when it is one."""
        return None if self.events is None or self.n is None else Rate(self.events, self.n)


class CaseEvidence(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What something showed: from a file, a control run, the log, a drill.

    It holds `holds_s` seconds from `made`, and only for the bundle that it names (none: for any).
    """

    id: Name
    kind: str
    made: Time
    holds_s: Annotated[int, msgspec.Meta(ge=1)]
    bundle: str = ""
    method: str = ""
    fields: dict[str, Figure]

    @property
    def until(self) -> int:
        """When it is stale."""
        return self.made + self.holds_s


class NodeKind(StrEnum):
    """What a node of the case is (Goal Structuring Notation, version 3)."""

    GOAL = "goal"
    STRATEGY = "strategy"
    SOLUTION = "solution"
    CONTEXT = "context"
    ASSUMPTION = "assumption"
    JUSTIFICATION = "justification"


class Operator(StrEnum):
    """How a field is compared; the bounds of a rate are exact, one-sided, at 95 %."""

    AT_MOST = "<="
    AT_LEAST = ">="
    UPPER_AT_MOST = "upper<="
    LOWER_AT_LEAST = "lower>="
    IS = "is"


class Predicate(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a solution demands of its evidence."""

    field: str
    op: Operator
    value: float | str


class Section(StrEnum):
    """Where a top goal stands: the template of AISI's principles, or the published post's order."""

    REQUIREMENTS = "safeguard-requirements"
    PLAN = "safeguards-plan"
    EVIDENCE = "evidence"
    AFTER = "post-deployment-assessment"
    SUFFICIENCY = "justification-of-sufficiency"
    RATIONALE = "rationale"
    DEPLOYMENT = "deployment-measures"
    SECURITY = "security"
    CONCLUSIONS = "conclusions"


TITLES: dict[Section, str] = {
    Section.REQUIREMENTS: "Safeguard requirements",
    Section.PLAN: "Safeguards plan",
    Section.EVIDENCE: "Collecting and documenting evidence",
    Section.AFTER: "Post-deployment assessment",
    Section.SUFFICIENCY: "Justification of sufficiency",
    Section.RATIONALE: "Rationale",
    Section.DEPLOYMENT: "Deployment measures",
    Section.SECURITY: "Security",
    Section.CONCLUSIONS: "Conclusions",
}


class Node(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One node: its words (figures only as `{evidence.field}`), and what supports it."""

    id: Name
    kind: NodeKind
    text: Annotated[str, msgspec.Meta(min_length=1, max_length=2000)]
    audience: Audience = Audience.INTERNAL
    section: Section | None = None
    supported_by: tuple[Name, ...] = ()
    evidence: Name | None = None
    predicate: Predicate | None = None


class SafetyCase(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A whole case, as its file has it."""

    id: Name
    title: str
    node: Annotated[tuple[Node, ...], msgspec.Meta(min_length=1)]

    def find(self, name: str) -> Node:
        """Return a node by id."""
        return next(one for one in self.node if one.id == name)


class ClaimState(StrEnum):
    """Where a claim stands, computed at building; the worst of all below it counts."""

    SUPPORTED = "supported"
    STALE = "stale"
    UNDERMINED = "undermined"
    UNSUPPORTED = "unsupported"


class Why(Enum):
    """Why a claim is not supported: fixed words, so that nothing above a level is told."""

    MISSING = "its evidence is missing"
    EXPIRED = "its evidence is older than it may be"
    OTHER_BUNDLE = "its evidence is of another bundle than the live one"
    NOT_MET = "its evidence does not show what is demanded"
    DISSENT = "somebody dissents"
    INCIDENT = "an open incident names it"
    BELOW = "something that it rests on is not supported"


class NodeState(msgspec.Struct, frozen=True):
    """The state of one node, and why."""

    state: ClaimState
    why: tuple[Why, ...] = ()


class Doubt(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A dissent or an open incident: what it names (node or evidence ids), and its words."""

    kind: Annotated[str, msgspec.Meta(pattern=r"^(dissent|incident)\Z")]
    about: tuple[str, ...]
    text: str
    audience: Audience = Audience.INTERNAL
    time: Time = 0


class CaseSources(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that a case is judged on, at a time, for the bundle that is live."""

    at: int
    bundle: str
    evidence: dict[str, CaseEvidence]
    doubts: tuple[Doubt, ...] = ()


class ClaimView(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A claim as a level shows it."""

    id: str
    kind: NodeKind
    section: Section | None
    text: str
    state: ClaimState
    why: tuple[str, ...]
    supported_by: tuple[str, ...]
    evidence: str
    demand: str
    withheld: int
    """How many nodes below it this level may not show."""


class EvidenceView(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Evidence as a level shows it: fields in words, or that they are withheld."""

    id: str
    kind: str
    made: int
    until: int
    bundle: str
    fields: dict[str, str]


class Report(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A report of one level: all that its pages show. Its canonical form is what is signed."""

    title: str
    level: Audience
    at: int
    bundle: str
    case_sha256: str
    claims: tuple[ClaimView, ...]
    evidence: tuple[EvidenceView, ...]
    doubts: tuple[str, ...]
