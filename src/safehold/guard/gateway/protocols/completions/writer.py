"""The event stream of OpenAI Completions, written anew around text that was cleared."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from safehold.exchange import Lane
from safehold.guard.gateway.interface import REFUSAL, Notice, Told
from safehold.guard.gateway.protocols.chat.wire import ChatUsage
from safehold.guard.gateway.protocols.completions.facts import CompletionFacts
from safehold.guard.gateway.protocols.completions.wire import choice_of, head_of
from safehold.guard.gateway.protocols.json_border import encode
from safehold.guard.gateway.protocols.openai_endings import (
    DONE,
    FILTERED,
    detected,
    error_frames,
    filtered,
)
from safehold.guard.gateway.protocols.sse import frame


class CompletionWriter:
    """Writes one streamed answer for the client."""

    response_id: str | None = None
    items: Mapping[str, bytes] = MappingProxyType({})

    def __init__(self, facts: CompletionFacts, *, choices: int, usage: bool) -> None:
        self._facts = facts
        self._choices = choices
        self._want_usage = usage

    def begin(self) -> bytes:
        """Return nothing: a piece of text is the first frame."""
        return b""

    def release(self, lane: Lane, text: str) -> bytes:
        """Return the frames that carry cleared text of a lane."""
        return self._frame([choice_of(lane.choice, text, None)])

    def close(self, lane: Lane) -> bytes:
        """Return nothing: the ends of all choices come last."""
        del lane
        return b""

    def end(self, mark: Notice | None = None) -> bytes:
        """Return the final frames; `mark` says what an audit would have blocked."""
        more = detected(mark)
        ends = [
            choice_of(index, "", self._facts.finish.get(index)) | more for index in self._indices
        ]
        usage = {} if self._facts.usage is None else {"usage": self._facts.usage.counts()}
        frames = [self._frame([end]) for end in ends[:-1]]
        frames += [self._frame(ends[-1:], **({} if self._want_usage else usage))]
        if self._want_usage and usage:
            frames.append(self._frame([], **usage))
        return b"".join((*frames, DONE))

    def block(self, notice: Notice) -> bytes:
        """Return the frames that end every choice with the refusal."""
        usage = (self._facts.usage or ChatUsage()).counts()
        told = {"safehold": {"decision_id": notice.decision_id}, "usage": usage}
        frames = []
        for index in self._indices:
            end = choice_of(index, REFUSAL, FILTERED) | filtered(notice)
            frames.append(self._frame([end], **told))
        return b"".join((*frames, DONE))

    def fail(self, message: str, decision_id: str, told: Told | None = None) -> bytes:
        """Return the frames that end the stream with an error."""
        return error_frames(message, decision_id, told)

    @property
    def _indices(self) -> range:
        return range(self._choices)

    def _frame(self, choices: list[dict[str, Any]], **more: Any) -> bytes:
        head = head_of(
            self._facts.response_id or "cmpl-safehold", self._facts.created, self._facts.model
        )
        return frame(encode(head | {"choices": choices} | more))
