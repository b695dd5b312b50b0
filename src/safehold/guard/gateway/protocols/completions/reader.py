"""The event stream of OpenAI Completions, read from upstream."""

from collections.abc import Sequence

import msgspec

from safehold.exchange import Channel
from safehold.guard.gateway.interface import BrokenReplyError, Closed, Delta, Piece, Tokens
from safehold.guard.gateway.protocols.answer_words import choice_ending
from safehold.guard.gateway.protocols.completions.facts import CompletionFacts
from safehold.guard.gateway.protocols.completions.wire import Completion
from safehold.guard.gateway.protocols.json_border import Lanes, identifier, model_name
from safehold.guard.gateway.protocols.openai_endings import FILTERED
from safehold.guard.gateway.protocols.stream_errors import told_error
from safehold.guard.gateway.protocols.unknown_fields import Strainer

_REPLY = msgspec.json.Decoder(Completion)


class CompletionReader:
    """Reads one streamed answer into texts by lane."""

    again: None = None

    def __init__(self, facts: CompletionFacts, *, choices: int, strainer: Strainer) -> None:
        self._facts = facts
        self._choices = choices
        self._strainer = strainer
        self._lanes = Lanes(choices)
        self.ended = False

    def read(self, event: bytes) -> Sequence[Piece]:
        """Take the data of one upstream event.

        Raises:
            BrokenReplyError: The event does not follow the protocol.
            UnknownReplyError: The event or its content is of an unknown kind.
        """
        if event == b"[DONE]" or self.ended:
            self.ended = True
            return ()
        chunk = self._strainer.reply(_REPLY, event)
        if self._strainer.passed:  # a text has no place for other fields
            self._strainer.drop(len(self._strainer.taken()))
        if chunk.error is not None:
            raise told_error(chunk.error)
        if self._facts.response_id is None and chunk.id:
            self._facts.response_id = identifier(chunk.id, "")
            self._facts.model = model_name(chunk.model, self._facts.model)
            self._facts.created = chunk.created or self._facts.created
        self._facts.usage = chunk.usage or self._facts.usage
        pieces: list[Piece] = []
        for choice in chunk.choices:
            if not 0 <= choice.index < self._choices:
                raise BrokenReplyError("upstream: expected the asked number of choices, came more")
            if choice.index in self._facts.finish and choice.text:
                raise BrokenReplyError("upstream: expected nothing after a choice's finish reason")
            lane = self._lanes.get(choice.index, Channel.TEXT, 0)
            if choice.text:
                pieces.append(Delta(lane, choice.text))
            finish = choice_ending(choice.finish_reason)
            if finish is not None and choice.index not in self._facts.finish:
                self._facts.finish[choice.index] = finish
                pieces.append(Closed(lane))
        return pieces

    @property
    def complete(self) -> bool:
        """Whether every choice was finished; `[DONE]` alone is no finish."""
        return len(self._facts.finish) >= self._choices

    @property
    def tokens(self) -> Tokens:
        """The upstream's token counts so far."""
        usage = self._facts.usage
        return Tokens(usage.prompt_tokens, usage.completion_tokens) if usage else Tokens()

    @property
    def refused(self) -> bool:
        """Whether the model itself refused."""
        return FILTERED in self._facts.finish.values()
