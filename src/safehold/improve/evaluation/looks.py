"""The record of looks: which figures a bundle was given on which data, and how often it was seen.

A figure is blind once: the first time anything is scored on that data. Each later look, by whatever
bundle, is `seen`, since what was learnt from the first may have shaped the bundle.
"""

import hashlib
from pathlib import Path

import msgspec

from safehold.errors import DataError
from safehold.improve.evaluation.interface import EvaluationReport, GroupFigures, Separation
from safehold.improve.evaluation.parts import DataPart


class DataLook(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One evaluation: bundle, data, the how-many-eth look at that data, and what was found.

    `data` is the digest over the files' digests and the part; `status` is `blind` for the first
    look at a blind part, `tune` for a tune part, `seen` otherwise.
    """

    bundle_digest: str
    code_digest: str
    data: str
    part: str
    look: int
    status: str
    limit: int | None
    headline: tuple[GroupFigures, ...]
    languages: tuple[GroupFigures, ...]
    lengths: tuple[GroupFigures, ...]
    separations: tuple[Separation, ...]


class Looks(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All looks, in the order they were taken."""

    looks: tuple[DataLook, ...] = ()


def data_digest(report: EvaluationReport) -> str:
    """Return the digest of the data that a report is about."""
    told = "\n".join(f"{name} {sha}" for name, sha in sorted(report.files.items()))
    return hashlib.sha256(f"{told}\n{report.part}".encode()).hexdigest()


def read_looks(path: Path) -> Looks:
    """Return the record; an absent file is an empty one.

    Raises:
        DataError: The file is no such record.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=Looks) if path.exists() else Looks()
    except msgspec.DecodeError as error:
        raise DataError(f"{path.name}: not a record of looks: {error}") from error


def record_look(path: Path, report: EvaluationReport) -> DataLook:
    """Append a report's figures to the record and return the look.

    The same bundle looking again at the same data with the same code replaces nothing and counts.

    Raises:
        DataError: The file is no such record.
    """
    known = read_looks(path)
    data = data_digest(report)
    number = 1 + sum(1 for look in known.looks if look.data == data)
    fresh = report.part == DataPart.BLIND and number == 1
    status = DataPart.TUNE if report.part == DataPart.TUNE else "blind" if fresh else "seen"
    look = DataLook(
        bundle_digest=report.bundle_digest,
        code_digest=report.code_digest,
        data=data,
        part=report.part,
        look=number,
        status=status,
        limit=report.limit,
        headline=report.headline,
        languages=report.languages,
        lengths=report.lengths,
        separations=tuple(line for line in report.separations if line.others.startswith("all ")),
    )
    encoded = msgspec.json.format(msgspec.json.encode(Looks((*known.looks, look))), indent=1)
    path.write_bytes(encoded + b"\n")
    return look
