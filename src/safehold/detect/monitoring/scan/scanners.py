"""The table of scanners: adding one is a class and a line."""

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from safehold.detect.monitoring.accounts import RESEMBLES, likeness, sketch
from safehold.detect.monitoring.scan.guard_scanners import (
    RulesScanner,
    SessionScanner,
    WorkflowScanner,
    stages_scanner,
)
from safehold.detect.monitoring.scan.interface import ScanFinding, Scanner, ScannerSpec
from safehold.detect.monitoring.scan.judge_scanner import JudgeScanner
from safehold.errors import UsageError
from safehold.exchange.views import views
from safehold.guard.ledger.joined import Joined
from safehold.guard.scorers.similar import KnownAttack, KnownAttacks


class KnownScanner:
    """A new known attack over old traffic: would it have fired?"""

    def __init__(self, options: Mapping[str, str]) -> None:
        """Take `file` with the known text, and `at_least`: the share that is too much."""
        if "file" not in options:
            raise UsageError("the scanner known needs file=PATH with the known text")
        text = Path(options["file"]).read_text("utf-8")
        share = float(options.get("at_least", "0.5"))
        attack = KnownAttack(id="known", clause="known", text=text, at_least=share)
        self._known = KnownAttacks([attack])
        self.digest = f"known:{share}:{hashlib.sha256(text.encode()).hexdigest()}"

    def scan(self, one: Joined) -> ScanFinding:
        """Look into the prompt's texts and the reply's."""
        hit = any(self._known.search(text) is not None for text in texts(one))
        return ScanFinding(value=float(hit), label="would_fire" if hit else "silent")


class DecodedScanner:
    """Which exchanges hold text that had to be decoded: base64, leet, morse and the like."""

    def __init__(self, options: Mapping[str, str]) -> None:
        """Take no option."""
        del options
        self.digest = "decoded:1"

    def scan(self, one: Joined) -> ScanFinding:
        """Count the readings beside the text itself."""
        found = sum(len(views(text)) > 1 for text in texts(one))
        return ScanFinding(value=float(found > 0), label="decoded" if found else "plain")


class SketchScanner:
    """Which exchanges resemble known texts, of which only sketches are at hand."""

    def __init__(self, options: Mapping[str, str]) -> None:
        """Take `file`: known texts, one a line, or their sketches as JSON lists of 64 numbers."""
        if "file" not in options:
            raise UsageError("the scanner sketch needs file=PATH: a text or a sketch a line")
        content = Path(options["file"]).read_text("utf-8")
        self._known = [_sketch_of(line) for line in content.splitlines() if line.strip()]
        self.digest = f"sketch:1:{hashlib.sha256(content.encode()).hexdigest()}"

    def scan(self, one: Joined) -> ScanFinding:
        """Return the greatest share that a text has in common with a known one."""
        found = [sketch(text) for text in texts(one)]
        best = max((likeness(mine, known) for mine in found for known in self._known), default=0.0)
        return ScanFinding(value=best, label="resembles" if best >= RESEMBLES else "new")


def _sketch_of(line: str) -> tuple[int, ...]:
    if not line.lstrip().startswith("["):
        return sketch(line)
    try:
        return msgspec.json.decode(line, type=tuple[int, ...])
    except msgspec.DecodeError as error:
        raise UsageError(f"a sketch is a JSON list of numbers: {error}") from error


SCANNERS: dict[str, Callable[[Mapping[str, str]], Scanner]] = {
    "session": SessionScanner,
    "workflow": WorkflowScanner,
    "stages": stages_scanner,
    "judge": JudgeScanner,
    "known": KnownScanner,
    "rules": RulesScanner,
    "sketch": SketchScanner,
    "decoded": DecodedScanner,
}


def load_scanner(spec: ScannerSpec) -> Scanner:
    """Build a scanner by its name.

    Raises:
        UsageError: there is no such scanner, or an option is missing.
        BundleError: its bundle can't be used.
    """
    if spec.name not in SCANNERS:
        raise UsageError(f"expected a scanner of {', '.join(SCANNERS)}, came {spec.name}")
    return SCANNERS[spec.name](spec.options)


def texts(one: Joined) -> list[str]:
    """Return every text of an exchange: the prompt's parts, then the reply's lanes."""
    asked = [] if one.exchange is None else [part.text for part in one.exchange.texts()]
    return asked + [lane.text for lane in one.final.delivered]
