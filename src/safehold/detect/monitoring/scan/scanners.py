"""The table of scanners: adding one is a class and a line."""

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path

from safehold.detect.monitoring.scan.interface import Finding, Scanner, ScannerSpec
from safehold.errors import UsageError
from safehold.exchange.views import views
from safehold.guard.bundle.load import Pinned, SignedBy, load_bundle
from safehold.guard.bundle.signing import load_public_key
from safehold.guard.bundle.stock import stock_bundle
from safehold.guard.interface import Block, DeliveryMode, Escalation, Failed, SessionPolicy
from safehold.guard.ledger.joined import Joined
from safehold.guard.scorers.similar import KnownAttack, KnownAttacks
from safehold.guard.session.batching import InlineStage2
from safehold.guard.session.decoding import ViewDecoder
from safehold.guard.session.flow import drive
from safehold.guard.session.session import Guard

_AUDIT = SessionPolicy(mode=DeliveryMode.AUDIT)


class SessionScanner:
    """The whole guard once more, with a bundle that may have more recall than the served one."""

    def __init__(self, options: Mapping[str, str]) -> None:
        """Load the bundle: a stock one by name, a folder with `sha256` or `key`."""
        name = options.get("bundle", "homebrewing")
        if not Path(name).is_dir():
            folder, trust = stock_bundle(name)
            bundle = load_bundle(folder, trust)
        elif "sha256" in options:
            bundle = load_bundle(Path(name), Pinned(sha256=options["sha256"]))
        elif "key" in options:
            bundle = load_bundle(Path(name), SignedBy((load_public_key(Path(options["key"])),)))
        else:
            raise UsageError("a bundle folder needs trust: give sha256=DIGEST or key=FILE")
        self._guard = Guard(bundle.cascade, ViewDecoder())
        self._stage2 = _no_stage2 if bundle.stage2 is None else InlineStage2(bundle.stage2)
        self.digest = f"session:{bundle.digest}"

    def scan(self, one: Joined) -> Finding:
        """Judge the prompt and every delivered lane as the gateway would."""
        if one.exchange is None:
            return Finding(value=None, label="unscorable", reason="NoExchange")
        session = self._guard.session(one.exchange, _AUDIT)
        verdict = drive(session.judge_prompt(), self._stage2)
        for lane in one.final.delivered:
            drive(session.feed(lane.lane, lane.text), self._stage2)
        drive(session.finish(), self._stage2)
        report = session.report()
        blocked = verdict if isinstance(verdict, Block) else session.would_block
        score = max(report.prompt_score, report.reply_score)
        if report.bypasses:
            return Finding(value=None, label="unscorable", reason=report.bypasses[0])
        return Finding(
            value=min(1.0, max(0.0, score)),
            label="allow" if blocked is None else "would_block",
            clause=None if blocked is None else blocked.clause,
        )


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

    def scan(self, one: Joined) -> Finding:
        """Look into the prompt's texts and the reply's."""
        hit = any(self._known.search(text) is not None for text in texts(one))
        return Finding(value=float(hit), label="would_fire" if hit else "silent")


class DecodedScanner:
    """Which exchanges hold text that had to be decoded: base64, leet, morse and the like."""

    def __init__(self, options: Mapping[str, str]) -> None:
        """Take no option."""
        del options
        self.digest = "decoded:1"

    def scan(self, one: Joined) -> Finding:
        """Count the readings beside the text itself."""
        found = sum(len(views(text)) > 1 for text in texts(one))
        return Finding(value=float(found > 0), label="decoded" if found else "plain")


SCANNERS: dict[str, Callable[[Mapping[str, str]], Scanner]] = {
    "session": SessionScanner,
    "known": KnownScanner,
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


def _no_stage2(request: Escalation) -> Failed:
    del request
    return Failed(reason="NoStage2")
