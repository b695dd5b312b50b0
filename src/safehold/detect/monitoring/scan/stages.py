"""Reading the delivered stages of a restricted workflow out of text.

Two witnesses must agree. The guard's own scorers would stop a window of the text, in whatever
language; the steps' words say which stages it is about. The words
alone would count a history of the craft, the scorers alone can't tell a stage from another.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Final

import msgspec

from safehold.constitution.interface import Constitution
from safehold.constitution.library import load
from safehold.constitution.steps import StepWords, check_steps, read_steps, steps_of
from safehold.detect.monitoring.scan.interface import ScanFinding, unscorable
from safehold.detect.monitoring.workflow import Workflows, WorkflowScore, workflow_score
from safehold.errors import ConfigError, UsageError
from safehold.exchange import Role
from safehold.exchange.views import normalise, readable
from safehold.guard.bundle.load import Bundle
from safehold.guard.ledger.joined import Joined
from safehold.guard.scorers.interface import ScoringInput
from safehold.guard.scorers.tokens import tokens

_WINDOW: Final = 300
_STEP: Final = 150
_OFTEN: Final = 1.0
"""Logits above the block threshold that a window needs: a day has many more of them than a reply.
"""
_SURE: Final = 3.0
"""Logits above the block threshold that such sentences need: out of their place many look like it.
Chosen on permitted seed replies, eight a day: 1 of 150 days reaches three stages (at 2: 5, 0: 18).
"""
PIECES: Final = 12
"""Texts before a new one that it is read behind."""
_SENTENCE: Final = re.compile(r"(?<=[.!?;:])\s+|(?<=[\u3002\uff01\uff1f\u0964\uff1b])|\n+")
_ENDLESS, _PIECE = 24, 12
"""Words from which a sentence is cut, and of the pieces."""
_KNOWN: Final = 2_048
_SEVERAL: Final = 3
"""Stages named in a window from which on stage 2 reads it whatever stage 1 thinks."""
BEFORE: Final = 300
"""Characters of what was delivered before that new text is read behind."""


class _Sighted(msgspec.Struct, frozen=True):
    text: str
    named: str


class StageReader:
    """Names the stages that a delivered text holds; runs the bundle's scorers, decides nothing."""

    def __init__(self, bundle: Bundle, constitution: Constitution, words: StepWords) -> None:
        """Take a bundle with a stage 1, and the words of the constitution's steps.

        Raises:
            ConfigError: The bundle has no stage 1.
        """
        if bundle.cascade.stage1 is None:
            raise ConfigError("stages are read with a bundle that has a stage 1")
        self._stage1 = bundle.cascade.stage1
        self._stage2 = bundle.stage2
        self._cascade = bundle.cascade
        self._words = words
        self._seen = lru_cache(_KNOWN)(self._look)
        self.digest = f"{bundle.digest}:{constitution.digest}"
        self.workflows: Workflows = {one.id: one.stages for one in constitution.restricted}

    def stages(self, text: str, before: Sequence[str] = ()) -> frozenset[str]:
        """Return the ids of the stages that a text delivers behind what was delivered before it.

        All is read as a reader sees it, without what stands around each word.
        """
        said, *earlier = (self._seen(one) for one in (text, *before[::-1]))
        context = " ".join(one.text for one in earlier[::-1])
        found: set[str] = set()
        self._read(context[-BEFORE:], said.text, found)
        # Chatter between the pieces of a workflow dilutes a window; what names a step stays.
        told = " ".join(one.named for one in earlier[::-1] if one.named)
        if said.named and (told or len(said.named) < len(said.text)):
            self._read(told[-BEFORE:], said.named, found, above=_SURE)
        return frozenset(found)

    def _read(self, context: str, text: str, found: set[str], above: float = _OFTEN) -> None:
        """Add the stages of the windows of a text behind its context."""
        whole = f"{context} {text}" if context else text
        for window in _windows(whole, len(whole) - len(text)):
            named = self._words.stages(window)
            if named - found and self._restricted(window, above, several=len(named) >= _SEVERAL):
                found |= named

    def _look(self, text: str) -> _Sighted:
        """Return a text as a reader sees it, and its sentences and lines that name a step."""
        shown = readable(text) or normalise(text)
        named = (one for one in _sentences(shown) if self._words.stages(one))
        return _Sighted(shown, " ".join(named))

    def score(self, texts: Iterable[str]) -> WorkflowScore:
        """Return how much of a workflow texts deliver that follow each other."""
        found: set[str] = set()
        before: list[str] = []
        for text in texts:
            found |= self.stages(text, before[-PIECES:])
            before.append(text)
        return workflow_score(found, self.workflows)

    def _restricted(self, window: str, above: float, *, several: bool) -> bool:
        """Whether the scorers call a window restricted; of several steps stage 2 always reads."""
        surface = self._cascade.reply
        logit = self._stage1.open_reply().feed(tokens(window))
        if self._stage2 is None:
            return logit >= surface.alone + above
        if logit < surface.escalate and not several:
            return False
        (answer,) = self._stage2.score([ScoringInput(prompt="", reply=window)])
        both = self._cascade.ensemble(surface, logit, answer.logit)
        return both >= surface.block + above


def stage_reader(bundle: Bundle, options: Mapping[str, str]) -> StageReader:
    """Return the reader for a bundle; `constitution` and `steps` name files of one's own.

    Raises:
        UsageError: No steps are written for the bundle's constitution.
        ConfigError: A file of steps breaks its schema.
        ConstitutionError: There is no such constitution, it is another one than the bundle's, or a
            step shows a stage that it does not define.
    """
    name = bundle.manifest.constitution
    constitution = load(options.get("constitution", name))
    if constitution.name != name:
        raise UsageError(f"the bundle guards {name}, the constitution is {constitution.name}")
    file = options.get("steps")
    if file is None:
        steps = steps_of(name)
    else:
        try:
            content = Path(file).read_bytes()
        except OSError as error:
            raise ConfigError(f"{file}: can't be read ({error.strerror})") from error
        steps = read_steps(content, source=file)
    if not steps:
        raise UsageError(f"no steps are written for {name}: give steps=FILE")
    check_steps(steps, constitution)
    return StageReader(bundle, constitution, StepWords(steps))


class StagesScanner:
    """The workflow score of each conversation: which stages the assistant delivered in it."""

    def __init__(self, reader: StageReader) -> None:
        """Take the reader."""
        self._reader = reader
        self.digest = f"stages:4:{reader.digest}"

    def scan(self, one: Joined) -> ScanFinding:
        """Read the assistant's turns, then what was delivered now."""
        if one.exchange is None:
            return unscorable("NoExchange")
        said = [part.text for part in one.exchange.texts(Role.ASSISTANT)]
        said += [lane.text for lane in one.final.delivered]
        found = self._reader.score(said)
        return ScanFinding(
            value=found.share, label="+".join(found.stages) or "none", clause=found.clause or None
        )


def _sentences(text: str) -> Iterable[str]:
    """Yield a text's sentences and lines; one without an end in sight in pieces of a few words.

    So it is where marks stood around each word: what a reader sees has lost the full stops.
    """
    for one in _SENTENCE.split(text):
        words = one.split()
        if len(words) <= _ENDLESS:
            yield one
            continue
        for at in range(0, len(words), _PIECE):
            yield " ".join(words[at : at + _PIECE])


def _windows(text: str, after: int) -> Iterable[str]:
    """Yield overlapping windows of a text of which some lies behind `after`."""
    for start in range(0, max(1, len(text) - _WINDOW + _STEP), _STEP):
        if start + _WINDOW > after:
            yield text[start : start + _WINDOW]
