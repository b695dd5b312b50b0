"""What a second class behind a gateway costs: CPU time of the same exchanges with one and with two.

The second class is a bundle as large as the first, by default the stock bundle again. So the two
escalate the same text, which no second class of another subject does. `SAFEHOLD_BENCH_SECOND` names
another bundle for it. The text is benign prose: a question as the prompt, a text as the streamed
reply. All contestants take turns on each exchange, in one process; the CPU time of all its threads
is counted.
"""

import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
from bench.guard import deltas, opened, prose
from bench.tables import Table

from safehold.exchange import Exchange, Lane, user_says
from safehold.guard.bundle.load import Bundle, UnsafeUnsigned, load_bundle
from safehold.guard.gateway.bundles.active_guard import Held, Session
from safehold.guard.gateway.bundles.classes import Classes, ExchangeAsked
from safehold.guard.gateway.class_settings import GuardClass
from safehold.guard.gateway.interface import Surface
from safehold.guard.interface import Block, Escalation, SessionPolicy
from safehold.guard.overlay.live import no_hot_rules
from safehold.guard.session.batching import InlineStage2
from safehold.guard.session.decoding import ViewDecoder
from safehold.guard.session.drivers import Answer, drive
from safehold.guard.session.session import Guard
from safehold.testing.ledger import MemoryLedger

SECOND = GuardClass(bundle="second")
_REPLY_CHARS = 1_500


class Quiet:
    """Counts nothing."""

    def alarm(self, kind: str) -> None:
        """Do nothing."""
        del kind

    def class_at(self, name: str, state: str) -> None:
        """Do nothing."""
        del name, state


class Contestant(msgspec.Struct):
    """One way to guard the exchanges, and what each cost."""

    name: str
    begin: Callable[[Exchange], Session]
    stage2: dict[str | None, InlineStage2]
    spent: list[float] = []
    asked: dict[str | None, int] = {}
    blocked: int = 0

    def answer(self, request: Escalation) -> Answer:
        """Answer an escalation of either class."""
        self.asked[request.guard_class] = self.asked.get(request.guard_class, 0) + 1
        return self.stage2[request.guard_class](request)

    def play(self, prompt: str, reply: str) -> None:
        """Guard one exchange, and note its CPU time."""
        began = time.process_time()
        self.blocked += self._stopped(self.begin(user_says(prompt)), reply)
        self.spent.append(time.process_time() - began)

    def _stopped(self, session: Session, reply: str) -> bool:
        """Guard until something is stopped, as the gateway does."""
        if isinstance(drive(session.judge_prompt(), self.answer), Block):
            return True
        for delta in deltas(reply):
            if isinstance(drive(session.feed(Lane(), delta), self.answer), Block):
                return True
        ends = drive(session.finish(), self.answer)
        return any(isinstance(step, Block) for _, step in ends)


def second(first: Bundle) -> Bundle:
    """Return the second class's bundle."""
    named = os.environ.get("SAFEHOLD_BENCH_SECOND")
    return load_bundle(Path(named), UnsafeUnsigned()) if named else first


def joined(guards: tuple[Guard, Guard], one: GuardClass) -> Callable[[Exchange], Session]:
    """Return what begins an exchange of both classes."""
    first, other = Held(guards[0]), Held(guards[1])
    classes = Classes(
        {"second": one},
        {"second": other},
        counts=Quiet(),
        ledger=MemoryLedger(),
        clock=time.time,
    )

    def begin(exchange: Exchange) -> Session:
        asked = ExchangeAsked(
            exchange=exchange,
            surface=Surface.CHAT,
            tenant=None,
            policy=SessionPolicy(),
            hot=no_hot_rules,
            memory=None,
            account="",
            exempt=lambda _clause, _name: False,
        )
        return classes.join(first, asked, lambda session: session).session

    return begin


def run(quick: bool) -> list[Table]:  # noqa: FBT001 - the runner's interface
    """Measure; `quick` takes fewer exchanges."""
    bundle = opened()
    other = second(bundle)
    guards = (
        Guard(bundle.cascade, ViewDecoder()),
        Guard(msgspec.structs.replace(other.cascade, digest="2" * 64), ViewDecoder()),
    )
    stage2: dict[str | None, InlineStage2] = {}
    for name, one in ((None, bundle), ("second", other)):
        if one.stage2 is not None:
            stage2[name] = InlineStage2(one.stage2)
    shapes = {
        "second in shadow": SECOND,
        "second acts": msgspec.structs.replace(SECOND, rollout="on"),
        "second acts, reads every request": msgspec.structs.replace(
            SECOND, rollout="on", reads="every-request"
        ),
    }
    contestants = [
        Contestant("one class", lambda e: guards[0].session(e, SessionPolicy()), stage2),
        *(Contestant(name, joined(guards, shape), stage2) for name, shape in shapes.items()),
    ]
    texts = prose(12 if quick else 60)
    for number, text in enumerate(texts):
        prompt = f"Please tell me more about this: {text[:160]}"
        order = contestants[number % len(contestants) :] + contestants[: number % len(contestants)]
        for one in order:
            one.play(prompt, text[:_REPLY_CHARS])
    alone = statistics.fmean(contestants[0].spent)
    rows = []
    for one in contestants:
        each = statistics.fmean(one.spent)
        ratios = [a / b for a, b in zip(one.spent, contestants[0].spent, strict=True)]
        rows.append(
            (
                one.name,
                f"{each * 1000:.1f}",
                f"{each / alone:.2f}",
                f"{statistics.median(ratios):.2f}",
                f"{one.blocked}",
                f"{one.asked.get(None, 0)}",
                f"{one.asked.get('second', 0)}",
            )
        )
    return [
        Table(
            title="A second class behind one gateway",
            columns=(
                "",
                "CPU ms an exchange",
                "of one class",
                "median of the exchanges' ratios",
                "blocked",
                "stage 2 asked, first",
                "stage 2 asked, second",
            ),
            rows=tuple(rows),
            note=(
                f"{len(texts)} benign exchanges; the second class is "
                f"{'another bundle' if other is not bundle else 'the first bundle again'}."
            ),
        )
    ]
