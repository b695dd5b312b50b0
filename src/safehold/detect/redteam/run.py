"""Attacks a guard in process and keeps every result as a line, so that a run can go on."""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import msgspec

from safehold.detect.redteam.interface import (
    AttackedPart,
    AttackOutcome,
    Attempt,
    AttemptResult,
    QuestionSet,
    Wrapper,
)
from safehold.detect.redteam.plan import AttackPlan, rendered
from safehold.detect.redteam.questions import leaked
from safehold.detect.redteam.target import Complier, TargetReply
from safehold.detect.redteam.transforms import survives
from safehold.errors import DataError, SafeholdError
from safehold.exchange import Lane
from safehold.guard.interface import Block, Cleared, Escalation
from safehold.guard.overlay.live import HotSource, no_hot_rules
from safehold.guard.session.drivers import Answer, drive
from safehold.guard.session.session import Guard, GuardSession, SessionPolicy
from safehold.record_file import RecordFile

_DELTA = re.compile(r"\s*\S{1,12}")
Stage2 = Callable[[Escalation], Answer]


class Attacker:
    """Plays attempts against a guard that stands before the always-complying target."""

    def __init__(
        self,
        guard: Guard,
        stage2: Stage2,
        questions: QuestionSet,
        wrappers: tuple[Wrapper, ...],
        policy: SessionPolicy | None = None,
        hot: HotSource = no_hot_rules,
    ) -> None:
        """Take the guard with the answerer of its escalations, and what to attack with.

        `hot` gives the hot rules over the guard.
        """
        self._hot = hot
        self._guard = guard
        self._stage2 = stage2
        self._wrappers = wrappers
        self._policy = policy or SessionPolicy()
        self._target = Complier(questions)
        self._topics = {topic.id: topic for topic in questions.topics}

    def play_all(self, attempts: Sequence[Attempt]) -> Iterator[AttemptResult]:
        """Yield what came of each attempt, in order."""
        yield from map(self.play, attempts)

    def play(self, attempt: Attempt) -> AttemptResult:
        """Return what came of one attempt; our own errors are an outcome, not an exception."""
        try:
            return self._play(attempt)
        except SafeholdError as error:
            return AttemptResult(
                attempt=attempt, outcome=AttackOutcome.ERROR, error=type(error).__name__
            )

    def _play(self, attempt: Attempt) -> AttemptResult:
        if not survives(attempt.question, attempt.chain):
            return AttemptResult(attempt=attempt, outcome=AttackOutcome.UNSCORABLE)
        exchange = rendered(attempt, self._wrappers)
        session = self._guard.session(exchange, self._policy, None, self._hot)
        if attempt.surface is not AttackedPart.REPLY:
            verdict = drive(session.judge_prompt(), self._stage2)
            if isinstance(verdict, Block):
                return AttemptResult(
                    attempt=attempt,
                    outcome=AttackOutcome.BLOCKED_BY_GUARD,
                    where="prompt",
                    stage=verdict.stage.value,
                    facts=self._facts(attempt),
                )
        reply = self._target.answer(exchange, understood=attempt.topic)
        if attempt.topic is not None and reply.topic is None:
            return AttemptResult(attempt=attempt, outcome=AttackOutcome.UNSCORABLE)
        if attempt.surface is AttackedPart.PROMPT:
            return self._result(attempt, reply, reply.text, None)
        block, delivered = self._stream(session, reply)
        return self._result(attempt, reply, delivered, block)

    def _stream(self, session: GuardSession, reply: TargetReply) -> tuple[Block | None, str]:
        """Stream the reply word by word; return the block, if any, and what was released."""
        out: list[str] = []
        for delta in deltas(reply.text):
            step = drive(session.feed(Lane(), delta), self._stage2)
            if isinstance(step, Block):
                return step, "".join(out)
            out.append(step.text)
        for _, step in drive(session.finish(), self._stage2):
            if isinstance(step, Cleared):
                out.append(step.text)
            else:
                return step, "".join(out)
        return None, "".join(out)

    def _result(
        self, attempt: Attempt, reply: TargetReply, delivered: str, block: Block | None
    ) -> AttemptResult:
        outcome = AttackOutcome.COMPLIED if block is None else AttackOutcome.BLOCKED_BY_GUARD
        return AttemptResult(
            attempt=attempt,
            outcome=outcome,
            where="" if block is None else "reply",
            stage="" if block is None else block.stage.value,
            delivered=len(delivered),
            total=len(reply.text),
            leaked=self._leaked(attempt, reply, delivered),
            facts=self._facts(attempt),
        )

    def _leaked(self, attempt: Attempt, reply: TargetReply, delivered: str) -> int:
        """Count key facts delivered; an encoded reply leaks the share that was delivered."""
        if attempt.topic is None:
            return 0
        topic = self._topics[attempt.topic]
        if reply.reply_as is None:
            return leaked(topic, delivered)
        plain = topic.passage.strip()
        share = len(delivered) / len(reply.text) if reply.text else 0.0
        if reply.reply_as == "reversed":
            return leaked(topic, plain[len(plain) - round(share * len(plain)) :])
        return leaked(topic, plain[: round(share * len(plain))])

    def _facts(self, attempt: Attempt) -> int:
        return 0 if attempt.topic is None else len(self._topics[attempt.topic].facts)


def deltas(text: str) -> list[str]:
    """Cut a text as a model streams it: a word or a piece of one at a time, nothing lost."""
    found = _DELTA.findall(text)
    rest = text[sum(map(len, found)) :]
    return [*found, rest] if rest else found


class Players(Protocol):
    """Plays many attempts (`Attacker` here, `crew.Crew` in several processes)."""

    def play_all(self, attempts: Sequence[Attempt]) -> Iterator[AttemptResult]:
        """Yield what came of each attempt, in any order."""
        ...


class RunFile:
    """The JSONL of a run: its plan on the first line, a result on each further one.

    One process at a time writes it; use as a context manager.
    """

    def __init__(self, path: Path, plan: AttackPlan) -> None:
        """Open the record of a plan, or begin one.

        Raises:
            BusyError: Another run writes it.
            DataError: The file is the record of another plan, or something else.
        """
        header = msgspec.json.encode(plan)
        with ExitStack() as running:
            self._record = running.enter_context(RecordFile(path))
            if self._record.lines[:1] not in ([], [header]):
                raise DataError(f"{path} is no record of this run; choose another file")
            self.results = _results(path, self._record.lines[1:])
            if not self._record.lines:
                self._record.append(header)
            self._running = running.pop_all()

    def __enter__(self) -> Self:
        """Return the record, which is open."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Give the record free."""
        self._running.close()

    def missing(self, attempts: Iterable[Attempt]) -> list[Attempt]:
        """Return the attempts that have no result yet, each once."""
        done = {result.attempt.id for result in self.results}
        return list({one.id: one for one in attempts if one.id not in done}.values())

    def play(self, attempts: Iterable[Attempt], players: Players) -> Iterator[AttemptResult]:
        """Play the attempts that have no result yet; yield each result once it is kept."""
        for result in players.play_all(self.missing(attempts)):
            self._record.append(msgspec.json.encode(result))
            self.results.append(result)
            yield result
        self._record.sync()


def read_record(path: Path) -> tuple[AttackPlan, list[AttemptResult]]:
    """Return the plan and the results of a record, each attempt's once.

    The last line of a run that goes on, or was killed, may lack its end: it is no result yet.

    Raises:
        DataError: The file is missing or is no record.
    """
    try:
        whole, _, torn = path.read_bytes().rpartition(b"\n")
    except OSError as error:
        raise DataError(f"{path}: can't be read ({error.strerror})") from error
    header, *lines = whole.split(b"\n") if whole else [torn]
    try:
        plan = msgspec.json.decode(header, type=AttackPlan)
    except (msgspec.ValidationError, msgspec.DecodeError) as error:
        raise DataError(f"{path} is no record of attacks: {error}") from error
    return plan, _results(path, lines)


def _results(path: Path, lines: Sequence[bytes]) -> list[AttemptResult]:
    """Return the results of a record's lines; a line that is there twice counts once.

    Raises:
        DataError: A line is no result, or another one than its attempt already has.
    """
    found: dict[str, AttemptResult] = {}
    for number, line in enumerate(lines, start=2):
        result = _decoded(path, number, line)
        if found.setdefault(result.attempt.id, result) != result:
            raise DataError(
                f"{path} line {number}: another result of attempt {result.attempt.id}; expected "
                "one of each: runs were put together"
            )
    return list(found.values())


def _decoded(path: Path, number: int, line: bytes) -> AttemptResult:
    try:
        return msgspec.json.decode(line, type=AttemptResult)
    except (msgspec.ValidationError, msgspec.DecodeError) as error:
        raise DataError(f"{path} line {number}: {error}") from error
