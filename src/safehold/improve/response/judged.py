"""What a whole guard says of prompts: the sessions that serve, without a gateway around them."""

from collections.abc import Callable, Iterable, Sequence

import msgspec

from safehold.exchange import Lane, user_says
from safehold.guard.bundle.load import Bundle
from safehold.guard.interface import Block, Escalation, Failed
from safehold.guard.overlay.live import HotSource, no_hot_rules
from safehold.guard.session.batching import InlineStage2
from safehold.guard.session.decoding import ViewDecoder
from safehold.guard.session.drivers import Answer, drive
from safehold.guard.session.session import Guard, SessionPolicy

_GREETING = "Good morning."


class PromptOutcome(msgspec.Struct, frozen=True):
    """What became of one prompt: refused or not, shown to stage 2 or not, and its score."""

    blocked: bool
    escalated: bool
    score: float
    stage1: float


class Judge:
    """A bundle's guard, for measuring."""

    def __init__(
        self, bundle: Bundle, hot: HotSource = no_hot_rules, heard: "Heard | None" = None
    ) -> None:
        """Take the bundle, the hot rules over it, and what its stage 2 said of texts before."""
        self.bundle = bundle
        self.guard = Guard(bundle.cascade, ViewDecoder())
        self.hot = hot
        self.stage2: Callable[[Escalation], Answer]
        self.stage2 = _none if bundle.stage2 is None else InlineStage2(bundle.stage2)
        if heard is not None:
            self.stage2 = heard.over(self.stage2)

    def prompt(self, text: str) -> PromptOutcome:
        """Judge one prompt."""
        session = self.guard.session(user_says(text), SessionPolicy(), None, self.hot)
        verdict = drive(session.judge_prompt(), self.stage2)
        report = session.report()
        return PromptOutcome(
            blocked=isinstance(verdict, Block),
            escalated=report.escalations > 0,
            score=report.prompt_score,
            stage1=session.stage1_logits[0],
        )

    def reply(self, text: str) -> PromptOutcome:
        """Judge one reply to a greeting, whole."""
        session = self.guard.session(user_says(_GREETING), SessionPolicy(), None, self.hot)
        drive(session.judge_prompt(), self.stage2)
        lane = Lane()
        step = drive(session.feed(lane, text), self.stage2)
        ends = () if isinstance(step, Block) else drive(session.finish(), self.stage2)
        report = session.report()
        return PromptOutcome(
            blocked=isinstance(step, Block) or any(isinstance(end, Block) for _, end in ends),
            escalated=report.escalations > 0,
            score=report.reply_score,
            stage1=session.stage1_logits[1],
        )

    def prompts(self, texts: Iterable[str]) -> list[PromptOutcome]:
        """Judge prompts, each alone."""
        return [self.prompt(text) for text in texts]

    def stage1(self, texts: Sequence[str]) -> list[float]:
        """Return stage 1's logit of prompts alone, over every view: cheap."""
        cascade = msgspec.structs.replace(self.bundle.cascade, has_stage2=False, probe=None)
        never = msgspec.structs.replace(cascade.prompt, alone=1e9)
        guard = Guard(msgspec.structs.replace(cascade, prompt=never), ViewDecoder())
        found = []
        for text in texts:
            session = guard.session(user_says(text), SessionPolicy())
            drive(session.judge_prompt(), _none)
            found.append(session.stage1_logits[0])
        return found


class Heard:
    """What one stage 2 said of texts: guards that differ in stage 1 alone need not ask again."""

    def __init__(self) -> None:
        """Know nothing yet."""
        self._known: dict[tuple[str, str], Answer] = {}

    def over(self, stage2: Callable[[Escalation], Answer]) -> Callable[[Escalation], Answer]:
        """Return that stage 2, asked once for each text; a failure is asked again."""

        def asked(request: Escalation) -> Answer:
            name = (request.prompt, request.reply)
            answer = self._known.get(name)
            if answer is None:
                answer = stage2(request)
                if not isinstance(answer, Failed):
                    self._known[name] = answer
            return answer

        return asked


class RememberingJudge(Judge):
    """A judge that is asked about the same prompts more than once, and judges each once."""

    def __init__(self, bundle: Bundle, hot: HotSource = no_hot_rules) -> None:
        """Take the bundle and the hot rules over it, which must not change."""
        super().__init__(bundle, hot)
        self._known: dict[str, PromptOutcome] = {}

    def prompt(self, text: str) -> PromptOutcome:
        """Judge one prompt, or remember it."""
        if text not in self._known:
            self._known[text] = super().prompt(text)
        return self._known[text]


def _none(request: Escalation) -> Answer:
    del request
    return Failed(reason="NoStage2")
