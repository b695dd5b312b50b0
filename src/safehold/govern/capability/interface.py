"""The values of a capability run: staged tasks with rubrics, samples, a run, and two arms.

The tasks are of the stand-in domain. An item is a task; it counts as a success when any of its
attempts meets every critical point of the rubric and half of the others. An attempt without text
is unscorable, and an attempt that failed on the wire is an error: both count as successes in a
rule-out, since nobody knows what they would have shown.
"""

from enum import StrEnum
from typing import Annotated

import msgspec

from safehold.errors import SafeholdError

Name = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}\Z")]
Count = Annotated[int, msgspec.Meta(ge=0)]


class CapabilityError(SafeholdError):
    """Correct the suite, the run or the record of arms named in the message."""

    exit_status = 2


class Point(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One point of a rubric: it holds when one of the patterns (RE2, any case) is found."""

    id: Name
    critical: bool
    any: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)]


class StagedTask(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One task of one stage of the workflow."""

    id: Name
    stage: Name
    prompt: Annotated[str, msgspec.Meta(min_length=1)]
    points: Annotated[tuple[Point, ...], msgspec.Meta(min_length=1)]


class TaskSuite(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Tasks that are run together; a plan names the suite's id."""

    id: Name
    title: str
    task: Annotated[tuple[StagedTask, ...], msgspec.Meta(min_length=1)]


class SampleOutcome(StrEnum):
    """What became of one attempt."""

    SUCCESS = "success"
    FAILURE = "failure"
    UNSCORABLE = "unscorable"
    ERROR = "error"


class TaskSample(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One attempt at one task: how it was drawn out, what was answered, which points it met."""

    task: Name
    elicitation: Name
    attempt: int
    reply: str
    met: tuple[str, ...]
    missed_critical: tuple[str, ...]
    outcome: SampleOutcome


class CapabilityRun(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A run of a suite on one model; times in POSIX seconds."""

    suite: Name
    suite_sha256: str
    model: str
    model_name: str
    started: int
    ended: int
    elicitations: tuple[str, ...]
    attempts: int
    items: Count
    successes: Count
    unscorable: Count
    errors: Count
    with_critical_faults: Count
    by_stage: dict[str, tuple[int, int]]
    """Successes and items of each stage."""
    samples_sha256: str


class Participant(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One person's plan: how many critical faults it has, and whether it reached the end."""

    id: Name
    arm: Annotated[str, msgspec.Meta(pattern=r"^(control|treated)\Z")]
    critical_faults: Count
    complete: bool


class UpliftTrial(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A trial with two arms: persons with common means, and persons with the model beside them."""

    id: Name
    model: str
    participants: Annotated[tuple[Participant, ...], msgspec.Meta(min_length=2)]
