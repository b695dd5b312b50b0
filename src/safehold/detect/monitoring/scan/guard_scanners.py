"""Scanners that run the guard once more: each exchange, a whole conversation, new rules, a day."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from safehold.constitution.steps import steps_of
from safehold.detect.monitoring.account_book import Joiner
from safehold.detect.monitoring.accounts import DayScores
from safehold.detect.monitoring.scan.interface import ScanFinding, unscorable
from safehold.detect.monitoring.scan.stages import StageReader, StagesScanner, stage_reader
from safehold.errors import UsageError
from safehold.exchange import Channel, Exchange, Lane, Role, user_says
from safehold.guard.bundle.load import Bundle, PinnedDigest, SignedBy, load_bundle
from safehold.guard.bundle.signing import load_public_key
from safehold.guard.bundle.stock import stock_bundle
from safehold.guard.gateway.bundles.loading import RulesLoader
from safehold.guard.interface import Block, DeliveryMode, Escalation, Failed, SessionPolicy
from safehold.guard.ledger.interface import Delivered
from safehold.guard.ledger.joined import Joined
from safehold.guard.session.batching import InlineStage2
from safehold.guard.session.decoding import ViewDecoder
from safehold.guard.session.drivers import Answer, drive
from safehold.guard.session.session import Guard

_ONE_EXCHANGE = 2
"""A question with its answer."""

_AUDIT = SessionPolicy(mode=DeliveryMode.AUDIT)
_MOST_CHARS = 12_000


class GuardJudgement(msgspec.Struct, frozen=True):
    """What a guard says of a prompt and a reply: the higher score, and the block if any.

    `asked` and `got` are the scores of the side that it would stop, else 0.
    """

    score: float
    clause: str | None
    bypass: str | None = None
    asked: float = 0.0
    got: float = 0.0

    @property
    def stops(self) -> bool:
        """Whether it would block."""
        return self.clause is not None


class OfflineGuard:
    """A guard that only looks: a bundle by name or folder, played as the gateway plays it."""

    def __init__(self, options: Mapping[str, str]) -> None:
        """Load the bundle: a stock one by name, a folder with `sha256` or `key`."""
        bundle = self.bundle = _bundle(options)
        self._guard = Guard(bundle.cascade, ViewDecoder())
        self._stage2 = no_stage2 if bundle.stage2 is None else InlineStage2(bundle.stage2)
        self.digest = bundle.digest

    def judge(self, exchange: Exchange, delivered: Sequence[Delivered]) -> GuardJudgement:
        """Judge a prompt and every delivered lane."""
        session = self._guard.session(exchange, _AUDIT)
        verdict = drive(session.judge_prompt(), self._stage2)
        for lane in delivered:
            drive(session.feed(lane.lane, lane.text), self._stage2)
        drive(session.finish(), self._stage2)
        report = session.report()
        blocked = verdict if isinstance(verdict, Block) else session.would_block
        asked, got = (min(1.0, max(0.0, s)) for s in (report.prompt_score, report.reply_score))
        clause = None if blocked is None else blocked.clause
        bypass = report.bypasses[0] if report.bypasses else None
        return GuardJudgement(
            max(asked, got),
            clause,
            bypass,
            asked=asked if isinstance(verdict, Block) else 0.0,
            got=0.0 if session.would_block is None else got,
        )

    def joined(self, asked: Sequence[str], got: Sequence[str]) -> GuardJudgement:
        """Judge several texts as if they were one: what was asked, and what was delivered."""
        prompt, reply = " ".join(asked)[-_MOST_CHARS:], " ".join(got)[-_MOST_CHARS:]
        lane = Delivered(Lane(choice=0, channel=Channel.TEXT), reply)
        return self.judge(user_says(prompt), [lane] if reply else [])


def day_joiner(options: Mapping[str, str]) -> Joiner:
    """Return what judges an account's day as if it were one exchange."""
    return _joins(OfflineGuard(options))


def day_watch(options: Mapping[str, str]) -> tuple[Joiner, StageReader | None]:
    """Return what judges an account's day as one exchange, and what reads its stages.

    The second is None where no steps are written for what the bundle guards.
    """
    guard = OfflineGuard(options)
    known = steps_of(guard.bundle.manifest.constitution)
    return _joins(guard), stage_reader(guard.bundle, options) if known else None


def stages_scanner(options: Mapping[str, str]) -> StagesScanner:
    """Return the scanner of delivered stages; `constitution` and `steps` name one's own files."""
    return StagesScanner(stage_reader(_bundle(options), options))


def _joins(guard: OfflineGuard) -> Joiner:
    def judged(asked: Sequence[str], got: Sequence[str]) -> DayScores:
        found = guard.joined(asked, got)
        return DayScores(asked=found.asked, got=found.got)

    return judged


class SessionScanner:
    """The whole guard once more, with a bundle that may have more recall than the served one."""

    def __init__(self, options: Mapping[str, str]) -> None:
        """Load the bundle."""
        self._guard = OfflineGuard(options)
        self.digest = f"session:{self._guard.digest}"

    def scan(self, one: Joined) -> ScanFinding:
        """Judge the prompt and every delivered lane as the gateway would."""
        if one.exchange is None:
            return unscorable("NoExchange")
        return _finding(self._guard.judge(one.exchange, one.final.delivered))


class WorkflowScanner:
    """A whole conversation as one text: pieces of a workflow that say little one by one."""

    def __init__(self, options: Mapping[str, str]) -> None:
        """Load the bundle."""
        self._guard = OfflineGuard(options)
        self.digest = f"workflow:1:{self._guard.digest}"

    def scan(self, one: Joined) -> ScanFinding:
        """Judge all turns and the reply together; a single turn is left to `session`."""
        if one.exchange is None:
            return unscorable("NoExchange")
        asked = [part.text for part in one.exchange.texts(Role.USER)]
        got = [part.text for part in one.exchange.texts(Role.ASSISTANT, Role.TOOL)]
        got += [lane.text for lane in one.final.delivered]
        if len(asked) + len(got) <= _ONE_EXCHANGE:
            return ScanFinding(value=0.0, label="one_turn")
        return _finding(self._guard.joined(asked, got))


class RulesScanner:
    """New rules over old traffic: would they have fired?"""

    def __init__(self, options: Mapping[str, str]) -> None:
        """Take `file`: a file of rules as `serve --bundle` takes it."""
        if "file" not in options:
            raise UsageError("the scanner rules needs file=PATH of a file of rules (.yaml)")
        held = RulesLoader()(Path(options["file"])).held
        self._guard = held.guard
        self.digest = f"rules:{held.digest}"

    def scan(self, one: Joined) -> ScanFinding:
        """Play the exchange against the rules alone."""
        if one.exchange is None:
            return unscorable("NoExchange")
        session = self._guard.session(one.exchange, _AUDIT)
        verdict = drive(session.judge_prompt(), no_stage2)
        for lane in one.final.delivered:
            drive(session.feed(lane.lane, lane.text), no_stage2)
        drive(session.finish(), no_stage2)
        blocked = verdict if isinstance(verdict, Block) else session.would_block
        if blocked is None:
            return ScanFinding(value=0.0, label="silent")
        return ScanFinding(value=1.0, label="would_fire", clause=blocked.clause)


def _finding(judged: GuardJudgement) -> ScanFinding:
    if judged.bypass is not None:
        return unscorable(judged.bypass)
    label = "would_block" if judged.stops else "allow"
    return ScanFinding(value=judged.score, label=label, clause=judged.clause)


def _bundle(options: Mapping[str, str]) -> Bundle:
    name = options.get("bundle", "homebrewing")
    if not Path(name).is_dir():
        folder, trust = stock_bundle(name)
        return load_bundle(folder, trust)
    if "sha256" in options:
        return load_bundle(Path(name), PinnedDigest(sha256=options["sha256"]))
    if "key" in options:
        return load_bundle(Path(name), SignedBy((load_public_key(Path(options["key"])),)))
    raise UsageError("a bundle folder needs trust: give sha256=DIGEST or key=FILE")


def no_stage2(request: Escalation) -> Answer:
    """Answer for a guard without a stage 2."""
    del request
    return Failed(reason="NoStage2")
