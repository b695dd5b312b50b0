"""Reading the delivered stages of a restricted workflow out of text.

Two witnesses must agree. The guard's own scorers would stop a window of the text, in whatever
language; the steps' words say which stages it is about. The words
alone would count a history of the craft, the scorers alone can't tell a stage from another.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from safehold.constitution.interface import Constitution
from safehold.constitution.library import load
from safehold.constitution.steps import StepWords, check_steps, read_steps, steps_of
from safehold.detect.monitoring.scan.interface import ScanFinding, unscorable
from safehold.detect.monitoring.workflow import Workflows, WorkflowScore, workflow_score
from safehold.errors import ConfigError, UsageError
from safehold.exchange import Role
from safehold.guard.bundle.load import Bundle
from safehold.guard.ledger.joined import Joined
from safehold.guard.scorers.interface import ScoringInput
from safehold.guard.scorers.tokens import tokens

_WINDOW: Final = 300
_STEP: Final = 150
_SEVERAL: Final = 3
"""Stages named in a window from which on stage 2 reads it whatever stage 1 thinks."""
BEFORE: Final = 300
"""Characters of what was delivered before that new text is read behind."""


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
        self.digest = f"{bundle.digest}:{constitution.digest}"
        self.workflows: Workflows = {one.id: one.stages for one in constitution.restricted}

    def stages(self, text: str, before: str = "") -> frozenset[str]:
        """Return the ids of the stages that a text delivers behind what was delivered before it."""
        context = before[-BEFORE:]
        whole = f"{context} {text}" if context else text
        found: set[str] = set()
        for window in _windows(whole, len(whole) - len(text)):
            named = self._words.stages(window)
            if named - found and self._restricted(window, several=len(named) >= _SEVERAL):
                found |= named
        return frozenset(found)

    def score(self, texts: Iterable[str]) -> WorkflowScore:
        """Return how much of a workflow texts deliver that follow each other."""
        found: set[str] = set()
        before = ""
        for text in texts:
            found |= self.stages(text, before)
            before = f"{before} {text}"[-BEFORE:]
        return workflow_score(found, self.workflows)

    def _restricted(self, window: str, *, several: bool) -> bool:
        """Whether the scorers call a window restricted; of several steps stage 2 always reads."""
        surface = self._cascade.reply
        logit = self._stage1.open_reply().feed(tokens(window))
        if self._stage2 is None:
            return logit >= surface.alone
        if logit < surface.escalate and not several:
            return False
        (answer,) = self._stage2.score([ScoringInput(prompt="", reply=window)])
        both = self._cascade.ensemble(surface, logit, answer.logit)
        return both >= surface.block


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
        self.digest = f"stages:1:{reader.digest}"

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


def _windows(text: str, after: int) -> Iterable[str]:
    """Yield overlapping windows of a text of which some lies behind `after`."""
    for start in range(0, max(1, len(text) - _WINDOW + _STEP), _STEP):
        if start + _WINDOW > after:
            yield text[start : start + _WINDOW]
