"""What a lint rule is, what it sees and what it says."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from safehold.constitution.document import ValuePath
from safehold.constitution.interface import Constitution


class Severity(StrEnum):
    """An error must be corrected before training; a warning should be read."""

    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True, slots=True)
class SeedCount:
    """How many written texts there are about one clause, and one of its stages.

    `side` is "restricted" or "permitted"; `stage` is None where the text names none.
    """

    clause: str
    side: str
    stage: str | None
    texts: int


@dataclass(frozen=True, slots=True)
class LintSubject:
    """What is checked. `seeds` is empty where there are no seed books, None where nobody looked."""

    constitution: Constitution
    seeds: tuple[SeedCount, ...] | None = None


@dataclass(frozen=True, slots=True)
class Problem:
    """What a rule found, and where."""

    path: ValuePath
    message: str


@dataclass(frozen=True, slots=True)
class LintRule:
    """One check. `name` is stable: machines and exceptions refer to it."""

    name: str
    severity: Severity
    summary: str
    check: Callable[[LintSubject], Iterator[Problem]]


@dataclass(frozen=True, slots=True)
class LintFinding:
    """One problem of one constitution, at a path and, where a file was read, a line and column."""

    rule: str
    severity: Severity
    path: str
    line: int | None
    column: int | None
    message: str
