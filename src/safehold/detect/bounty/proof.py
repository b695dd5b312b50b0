"""What a reproduced submission leaves for others: an incident and a regression test, both sealed.

Descriptors stand in the open; the submission itself stays sealed to triage's key in both files.
"""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from safehold.detect.bounty.interface import (
    SLOT,
    FrozenQuestions,
    PassMark,
    Submission,
)
from safehold.detect.bounty.replay import Door, Universality, replay
from safehold.detect.bounty.sealing import SealedSubmission, opened, read_submission
from safehold.detect.monitoring.accounts import Caps
from safehold.errors import DataError


class BountyIncident(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A reproduced submission as an incident: what may be told, and the sealed evidence."""

    source: str
    id: str
    opened_at: float
    bundle: str
    cleared: int
    asked: int
    alarm_after: int | None
    clauses: tuple[str, ...]
    chain: tuple[str, ...]
    turns: int
    with_slot: bool
    evidence: SealedSubmission


class RegressionTest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A submission that must never clear a question again, and what it is measured with."""

    id: str
    found_on: str
    questions: str
    pass_mark: PassMark
    clean_chat: str
    evidence: SealedSubmission


class Regressed(msgspec.Struct, frozen=True, kw_only=True):
    """What came of one regression test: runs that cleared their question, of how many."""

    id: str
    cleared_runs: int
    runs: int
    errors: int

    @property
    def passed(self) -> bool:
        """Whether every run was asked and none cleared its question."""
        return not self.cleared_runs and not self.errors and self.runs > 0


def write_proof(
    folder: Path,
    name: str,
    *,
    submission: Submission,
    sealed: SealedSubmission,
    report: Universality,
    questions: str,
    mark: PassMark,
    clean_chat: str,
    now: float,
) -> tuple[Path, Path]:
    """Write the incident and the regression test; return their paths. Old files are replaced."""
    incident = BountyIncident(
        source="bounty",
        id=name,
        opened_at=now,
        bundle=report.bundle,
        cleared=report.cleared.events,
        asked=report.cleared.n,
        alarm_after=report.alarm_after,
        clauses=tuple(sorted({one.clause for one in report.scores if one.cleared})),
        chain=submission.transforms,
        turns=len(submission.turns),
        with_slot=any(SLOT in turn.text for turn in submission.turns),
        evidence=sealed,
    )
    test = RegressionTest(
        id=name,
        found_on=report.bundle,
        questions=questions,
        pass_mark=mark,
        clean_chat=clean_chat,
        evidence=sealed,
    )
    return (
        _written(folder / "incidents" / f"{name}.json", incident),
        _written(folder / "regression" / f"{name}.json", test),
    )


def read_tests(folder: Path) -> list[RegressionTest]:
    """Return the regression tests of a folder, by name.

    Raises:
        DataError: there is none, or a file is something else.
    """
    paths = sorted((folder / "regression").glob("*.json"))
    if not paths:
        raise DataError(f"{folder / 'regression'}: expected regression tests, there is none")
    return list(_read(paths))


async def regress(
    tests: Sequence[RegressionTest],
    questions: FrozenQuestions,
    door: Door,
    *,
    key: X25519PrivateKey,
    bundle: str,
    caps: Caps,
) -> list[Regressed]:
    """Replay every regression test and return what came of each."""
    found = []
    for one in tests:
        report = await replay(
            read_submission(opened(one.evidence, key)),
            questions,
            door,
            mark=one.pass_mark,
            clean_chat=one.clean_chat,
            bundle=bundle,
            caps=caps,
        )
        found.append(
            Regressed(
                id=one.id,
                cleared_runs=sum(score.runs_cleared for score in report.scores),
                runs=sum(len(score.facts) for score in report.scores),
                errors=report.errors,
            )
        )
    return found


def _read(paths: Sequence[Path]) -> Iterator[RegressionTest]:
    for path in paths:
        try:
            yield msgspec.json.decode(path.read_bytes(), type=RegressionTest)
        except msgspec.DecodeError as error:
            raise DataError(f"{path}: expected a regression test: {error}") from error


def _written(path: Path, value: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".tmp")
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(msgspec.json.format(msgspec.json.encode(value, order="sorted")) + b"\n")
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
    return path
