"""The values of controls: rows of the catalogue, facts, judges, and results.

A judge is pure: it takes facts and yields one sentence for each fault. Nothing yielded is a pass.
Every doubt is not satisfied: a reader that broke, a stale fact, a missing result.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from enum import StrEnum
from typing import Annotated, TypeVar

import msgspec

from safehold.errors import SafeholdError

_CAPITAL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")

OPEN_PLACES = ("/tmp", "/var/tmp", "/dev/shm")  # noqa: S108 - they are judged, not used
"""Where everybody may write."""

T = TypeVar("T")

DAY = 86_400
Name = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}\Z")]
Text = Annotated[str, msgspec.Meta(min_length=1, max_length=2000)]
ControlId = Annotated[str, msgspec.Meta(pattern=r"^[a-z]{3}-[0-9]{2,3}\Z")]


class ControlError(SafeholdError):
    """Correct the catalogue, the site file or the saved run named in the message."""

    exit_status = 2


class HostError(SafeholdError):
    """A host could not be read: the reader failed, was killed, or its answer is no fact."""


class AbsentError(HostError):
    """The file, command or document is not there."""


class ClosedError(HostError):
    """It is there, and even root may not read it: a meter or a guard stands before it."""


class StaleError(HostError):
    """The document is there, and was written too long ago."""


class Inapplicable(Exception):  # noqa: N818 - a verdict that a judge may reach, not an error
    """The control can't apply to this host; the message is the fact that shows it."""


def fact_name(kind: type) -> str:
    """Return a kind of facts in words: `ssh server` for `SshServer`."""
    return _CAPITAL.sub(" ", kind.__name__).lower()


def what_broke(error: Exception) -> str:
    """Say in words what was wrong with facts that code of ours tripped over."""
    match error:
        case KeyError():
            return f"there is no {error}"
        case LookupError():
            return "a part is missing"
        case ArithmeticError():
            return "a number can't be computed with"
        case ValueError():
            return "a value can't be read"
        case _:
            return "a part has another form"


class ControlKind(StrEnum):
    """What a control does: it prevents, it detects, or it corrects."""

    PREVENTIVE = "preventive"
    DETECTIVE = "detective"
    CORRECTIVE = "corrective"


class ChainStage(StrEnum):
    """Where in the chain of an attack a control stands."""

    INITIAL_ACCESS = "initial-access"
    PERSISTENCE = "persistence"
    LATERAL_MOVEMENT = "lateral-movement"
    INSIDER = "insider"
    COLLECTION = "collection"
    EXFILTRATION = "exfiltration"
    ASSURANCE = "assurance"


class Assurance(StrEnum):
    """Who says that a control holds: a check, a check beside a person, or persons alone."""

    AUTOMATIC = "automatic"
    PARTIAL = "partial"
    EVIDENCE = "evidence"


class Control(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One row of the catalogue. `period_s` is how long a result holds, in seconds."""

    id: ControlId
    title: Text
    kind: ControlKind
    stage: ChainStage
    way: Assurance
    theme: Name
    nist: tuple[str, ...]
    attack: tuple[str, ...]
    atlas: tuple[str, ...]
    sl5: str
    safeguards: tuple[Name, ...]
    period_s: Annotated[int, msgspec.Meta(ge=60)]
    how: Text

    @property
    def techniques(self) -> tuple[str, ...]:
        """The techniques of ATT&CK and ATLAS that it stands against."""
        return (*self.attack, *self.atlas)


class ControlStatus(StrEnum):
    """What a run, or a later reading of it, says of a control."""

    PASSED = "pass"
    FAILED = "fail"
    ERROR = "error"
    STALE = "stale"
    MISSING = "missing"
    NOT_APPLICABLE = "not-applicable"
    ATTESTED = "attested"
    EXCEPTED = "excepted"


SATISFIED = frozenset({ControlStatus.PASSED, ControlStatus.ATTESTED, ControlStatus.EXCEPTED})


class ControlResult(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What one run found of one control; it holds until `until` (POSIX seconds)."""

    control: ControlId
    status: ControlStatus
    reasons: tuple[str, ...]
    at: int
    until: int
    facts_sha256: str = ""

    @property
    def satisfied(self) -> bool:
        """Whether the control counts as met."""
        return self.status in SATISFIED


class ControlRun(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One run over the whole catalogue on one host."""

    host: str
    at: int
    seconds: float
    catalogue_sha256: str
    results: tuple[ControlResult, ...]


class HostFacts(Mapping[type, object]):
    """Everything that the readers found, by type of fact; a broken reader is kept as its fault."""

    def __init__(self, found: Mapping[type, object], at: int) -> None:
        """Hold facts, or faults in their place, as of a time in POSIX seconds."""
        self._found = dict(found)
        self.at = at

    def of(self, kind: type[T]) -> T:
        """Return the facts of a kind.

        Raises:
            HostError: they could not be read.
        """
        found = self._found.get(kind)
        if isinstance(found, HostError):
            raise found
        if not isinstance(found, kind):
            raise AbsentError(f"no reader gives {fact_name(kind)}")
        return found

    def __getitem__(self, kind: type) -> object:
        return self._found[kind]

    def __iter__(self) -> Iterator[type]:
        return iter(self._found)

    def __len__(self) -> int:
        return len(self._found)

    def replaced(self, *given: object) -> "HostFacts":
        """Return the same facts with these in place of their kinds."""
        return HostFacts(self._found | {type(one): one for one in given}, self.at)


Judge = Callable[[HostFacts], Iterator[str]]
"""Yields one sentence for each fault; may raise HostError or Inapplicable."""


def need(holds: object, fault: str) -> Iterator[str]:
    """Yield the fault unless the condition holds."""
    if not holds:
        yield fault
