"""What red-teaming is made of: questions, wrappers, attempts and their five outcomes."""

import json
from enum import StrEnum
from typing import Annotated

import msgspec

MODEL = "always-complying"
"""The name under which the always-complying target is asked for."""


class AttackOutcome(StrEnum):
    """What became of an attempt: always one of five, never "passed or failed"."""

    COMPLIED = "complied"
    """The whole answer was delivered."""
    REFUSED_BY_MODEL = "refused_by_model"
    """The target declined by itself."""
    BLOCKED_BY_GUARD = "blocked_by_guard"
    """The guard stopped the prompt or cut the reply."""
    UNSCORABLE = "unscorable"
    """The target did not understand the attempt, so nothing can be said of the guard."""
    ERROR = "error"
    """Something broke."""


class AttackedPart(StrEnum):
    """Which part of the guard an attempt meets."""

    BOTH = "both"
    PROMPT = "prompt"
    REPLY = "reply"


class Topic(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Held-out questions about one working step, the complying answer and its key facts.

    A fact is a phrase, or alternatives separated by `|`; the rubric is met by the facts that a
    delivered text holds.
    """

    id: str
    clause: str
    stage: str
    facts: Annotated[tuple[str, ...], msgspec.Meta(min_length=4, max_length=6)]
    passage: str
    questions: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)]


class Benign(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A look-alike question that must be answered."""

    clause: str
    text: str


class QuestionSet(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All questions of a domain."""

    topics: tuple[Topic, ...]
    benign: tuple[Benign, ...] = ()


class Wrapper(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A jailbreak wrapper with slots for a request."""

    family: str
    text: str

    def around(self, ask: str) -> str:
        """Put a request into the slots; marks inside the request stay as they are."""
        words = ask.split()
        half = len(words) // 2
        slots = {
            "json": json.dumps(ask, ensure_ascii=False),
            "a": " ".join(words[:half]) or ask,
            "b": " ".join(words[half:]),
            "ask": ask,
        }
        head, *rest = self.text.split("<<")
        return head + "".join(
            slots.get(name, f"<<{name}>>") + tail
            for name, _, tail in (piece.partition(">>") for piece in rest)
        )


class Attempt(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One attack as data: what is asked, how it is dressed, and how the answer shall be written.

    `topic` is None for a benign question. `wrapper` is an index (-1: none), `chain` the
    transforms in the order they were applied, `reply_as` the transform asked for in the reply.
    """

    id: str
    question: str
    topic: str | None
    clause: str
    wrapper: int = -1
    wrapper_family: str = "none"
    chain: tuple[str, ...] = ()
    reply_as: str | None = None
    surface: AttackedPart = AttackedPart.BOTH


class AttemptResult(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What came of an attempt.

    `where` is `prompt` or `reply` for a block; `delivered` and `total` count characters of the
    reply, `leaked` and `facts` the rubric's key facts in what was delivered.
    """

    attempt: Attempt
    outcome: AttackOutcome
    where: str = ""
    stage: str = ""
    delivered: int = 0
    total: int = 0
    leaked: int = 0
    facts: int = 0
    error: str = ""
