"""The folder of one incident: each step's result is one file, written whole or not at all.

A step that was killed left nothing; running it again does it again. What stands in the folder says
how far the response has come, and its times are the clock.
"""

import hashlib
import os
from pathlib import Path
from typing import TypeVar

import msgspec

from safehold.guard.overlay.interface import HotRule, RuleApproval
from safehold.improve.response.gates import GateReport
from safehold.improve.response.hotrule import MeasuredRule
from safehold.improve.response.interface import Dress, Incident, ResponseError, Variant
from safehold.trust.log.files import change_whole

T = TypeVar("T")
STEPS = ("incident", "dress", "variants", "rule", "approvals", "challenger", "report")
"""The steps in their order, by the names of their files."""


class IncidentCase:
    """One incident's folder."""

    def __init__(self, folder: Path) -> None:
        """Take the folder; it need not exist yet."""
        self.folder = folder

    def begin(self, incident: Incident, dress: Dress) -> None:
        """Open the case.

        Raises:
            ResponseError: Another incident stands there already.
        """
        if (self.folder / "incident.json").exists() and self.incident() != incident:
            raise ResponseError(f"{self.folder}: another incident stands there; choose another")
        self.folder.mkdir(parents=True, exist_ok=True)
        self._put("dress", msgspec.json.encode(dress))
        self._put("incident", msgspec.json.encode(incident))

    def incident(self) -> Incident:
        """Return the incident."""
        return self._get("incident", Incident)

    def dress(self) -> Dress:
        """Return its dress."""
        return self._get("dress", Dress)

    def variants(self) -> list[Variant]:
        """Return its variants."""
        return self._get("variants", list[Variant])

    def keep_variants(self, made: list[Variant]) -> None:
        """Keep its variants."""
        self._put("variants", msgspec.json.encode(made))

    def rule(self) -> HotRule:
        """Return its rule."""
        return self._get("rule", HotRule)

    def keep_rule(self, found: MeasuredRule) -> None:
        """Keep its rule; approvals of an earlier one do not hold for it."""
        (self.folder / "approvals.json").unlink(missing_ok=True)
        self._put("rule", msgspec.json.encode(found.rule))

    def approvals(self) -> tuple[RuleApproval, ...]:
        """Return who approved the rule so far."""
        if not (self.folder / "approvals.json").exists():
            return ()
        return self._get("approvals", tuple[RuleApproval, ...])

    def keep_approval(self, approval: RuleApproval) -> None:
        """Keep one more approval; a person's later one replaces the earlier."""
        path = self.folder / "approvals.json"

        def with_it(data: bytes | None) -> bytes:
            there = () if data is None else self._decoded(data, path, tuple[RuleApproval, ...])
            others = [one for one in there if one.person != approval.person]
            return msgspec.json.encode([*others, approval])

        try:
            change_whole(path, with_it)
        except OSError as error:
            raise ResponseError(f"{path}: can't be written ({error.strerror})") from error

    def keep_rules_file(self, file: Path) -> None:
        """Keep in which signed file the case's rule was put."""
        self._put("placed", msgspec.json.encode(str(file.absolute())))

    def rules_file(self) -> Path | None:
        """Return the signed file that the case's rule was put in; None: in none yet."""
        if not (self.folder / "placed.json").exists():
            return None
        return Path(self._get("placed", str))

    def keep_report(self, report: GateReport) -> None:
        """Keep the gates' report."""
        self._put("report", msgspec.json.encode(report))

    def report(self) -> GateReport:
        """Return the gates' report."""
        return self._get("report", GateReport)

    def keep_trial(self, file: Path) -> None:
        """Keep where a trial of the case's challenger has its signed file."""
        there = [one for one in self.trials() if one != file.absolute()]
        self._put("trials", msgspec.json.encode([str(one) for one in (*there, file.absolute())]))

    def trials(self) -> tuple[Path, ...]:
        """Return the signed files of the trials that began on this case."""
        if not (self.folder / "trials.json").exists():
            return ()
        return tuple(map(Path, self._get("trials", list[str])))

    @property
    def challenger(self) -> Path:
        """The folder of the challenger bundle."""
        return self.folder / "challenger"

    def challenger_digest(self) -> str:
        """Return the digest of the challenger's manifest.

        Raises:
            ResponseError: There is no challenger yet.
        """
        try:
            return hashlib.sha256((self.challenger / "manifest.json").read_bytes()).hexdigest()
        except OSError as error:
            raise ResponseError(
                f"{self.folder}: there is no challenger yet; `safehold respond retrain`"
            ) from error

    def done(self) -> dict[str, float]:
        """Return when each step that is done was done, seconds since the epoch."""
        found: dict[str, float] = {}
        for step in STEPS:
            place = self.challenger if step == "challenger" else self.folder / f"{step}.json"
            if place.exists():
                found[step] = place.stat().st_mtime
        return found

    def _put(self, step: str, data: bytes) -> None:
        draft = self.folder / f".{step}.{os.getpid()}"
        with draft.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(self.folder / f"{step}.json")

    def _get(self, step: str, kind: type[T]) -> T:
        path = self.folder / f"{step}.json"
        try:
            data = path.read_bytes()
        except OSError as error:
            raise ResponseError(f"{self.folder}: the step {step!r} is not done yet") from error
        return self._decoded(data, path, kind)

    def _decoded(self, data: bytes, path: Path, kind: type[T]) -> T:
        try:
            return msgspec.json.decode(data, type=kind)
        except msgspec.DecodeError as error:
            raise ResponseError(f"{path}: expected the result of a step: {error}") from error
