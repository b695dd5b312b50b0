"""The values of standing: a document of thresholds and standards, and the records of its life.

Times are POSIX seconds. Records are leaves of a log: `index` is their place, which nobody chooses.
The model is the one of public frontier frameworks: a capability threshold that is not ruled out
demands standards; whoever can't rule out activates them as a precaution.
"""

from enum import StrEnum
from typing import Annotated

import msgspec

Name = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}\Z")]
Text = Annotated[str, msgspec.Meta(min_length=1, max_length=2000)]
Digest = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]
Time = Annotated[int, msgspec.Meta(ge=0)]
Count = Annotated[int, msgspec.Meta(ge=0)]


class StandardKind(StrEnum):
    """What a standard protects: the weights, the deployed model, or both."""

    SECURITY = "security"
    DEPLOYMENT = "deployment"
    BOTH = "both"


class CapabilityThreshold(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A capability that demands standards unless it is ruled out.

    `below` is the largest success rate at which a plan may still call it ruled out.
    """

    id: Name
    domain: Name
    text: Text
    below: Annotated[float, msgspec.Meta(gt=0, lt=1)]
    requires: Annotated[tuple[Name, ...], msgspec.Meta(min_length=1)]


class SafeguardStandard(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A set of safeguards; `controls` are the ids whose results show that it is met."""

    id: Name
    kind: StandardKind
    title: Text
    criteria: tuple[Text, ...]
    controls: tuple[Name, ...] = ()


class StandardsDocument(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A published framework as data. `baseline` standards are demanded of every model.

    `growth` is the factor of effective compute from which an evaluation no longer speaks for a
    model.
    """

    id: Name
    version: Text
    title: Text
    source: Text
    effective: Time
    thresholds: Annotated[tuple[CapabilityThreshold, ...], msgspec.Meta(min_length=1)]
    standards: Annotated[tuple[SafeguardStandard, ...], msgspec.Meta(min_length=1)]
    baseline: tuple[Name, ...] = ()
    supersedes: str = ""
    growth: Annotated[float, msgspec.Meta(gt=1)] = 4.0


class Elicitation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How hard somebody tried to draw the capability out, and what is known to be missing."""

    method: Text
    effort_h: Annotated[float, msgspec.Meta(ge=0)]
    tools: tuple[Text, ...]
    guard_off: bool
    gaps: tuple[Text, ...] = ()


class EvaluationPlan(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="plan"):
    """What will rule a threshold out; logged before the runs.

    Every suite must show a success rate below `below`. The `confidence` holds for all suites
    together: each is tested at 1 - (1 - confidence) / suites (Bonferroni).
    """

    index: Count
    time: Time
    id: Name
    threshold: Name
    suites: Annotated[tuple[Name, ...], msgspec.Meta(min_length=1)]
    below: Annotated[float, msgspec.Meta(gt=0, lt=1)]
    least_items: Annotated[int, msgspec.Meta(ge=1)]
    confidence: Annotated[float, msgspec.Meta(ge=0.9, lt=1)] = 0.95
    supersedes: str = ""


class EvaluationRun(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="evaluation"):
    """One run of one suite. `unscorable` and `errors` are items too, and count as successes."""

    index: Count
    time: Time
    plan: Name
    suite: Name
    model: Digest
    started: Time
    items: Count
    successes: Count
    unscorable: Count
    errors: Count
    compute: Annotated[float, msgspec.Meta(gt=0)]
    elicitation: Elicitation
    log_sha256: Digest
    expires: Time


class DeterminationStatus(StrEnum):
    """What was decided about a model and a threshold."""

    RULED_OUT = "ruled_out"
    CANNOT_RULE_OUT = "cannot_rule_out"
    PASSED = "passed"


class Determination(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="determination"):
    """Persons decide; `basis` are the log indices of the evaluations that they rely on."""

    index: Count
    time: Time
    model: Digest
    threshold: Name
    status: DeterminationStatus
    basis: tuple[int, ...]
    rationale: Text
    next_review: Time
    approvers: tuple[Name, ...]


class Activation(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="activation"):
    """A standard is in force from now on, perhaps as a precaution, perhaps provisionally."""

    index: Count
    time: Time
    standard: Name
    precautionary: bool
    provisional: bool
    rationale: Text
    approvers: tuple[Name, ...]


class Adjustment(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="adjustment"):
    """A standard stays in force without these controls."""

    index: Count
    time: Time
    standard: Name
    without: Annotated[tuple[Name, ...], msgspec.Meta(min_length=1)]
    rationale: Text
    approvers: tuple[Name, ...]


class Deactivation(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="deactivation"):
    """A standard is in force no more."""

    index: Count
    time: Time
    standard: Name
    rationale: Text
    approvers: tuple[Name, ...]


class Dissent(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="dissent"):
    """Somebody disagrees with a record. It blocks nothing, and every report shows it."""

    index: Count
    time: Time
    about: Count
    person: Name
    text: Text


StandingRecord = (
    EvaluationPlan
    | EvaluationRun
    | Determination
    | Activation
    | Adjustment
    | Deactivation
    | Dissent
)
