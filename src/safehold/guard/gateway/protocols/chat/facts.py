"""What the reader of a chat stream learnt and its writer needs."""

from dataclasses import dataclass, field

from safehold.guard.gateway.protocols.chat.logprobs import ChosenTokens
from safehold.guard.gateway.protocols.chat.wire import ChatUsage
from safehold.guard.gateway.protocols.passed_fields import PassedFields

LEGACY = 65_536
"""The index of a choice's `function_call`, which came before `tool_calls` had indices."""

IN_DELTA = -1
"""Where an unknown field stands: in a choice's delta, not in one of its calls."""


@dataclass(slots=True)
class ChatFacts:
    """Ids, the model's name, ends and counts of one answer; calls are kept by choice and index."""

    model: str
    created: int
    chosen: ChosenTokens | None
    response_id: str | None = None
    finish: dict[int, str] = field(default_factory=dict)
    calls: dict[tuple[int, int], str] = field(default_factory=dict)
    custom: dict[tuple[int, int], bool] = field(default_factory=dict)
    usage: ChatUsage | None = None
    fields: PassedFields = field(default_factory=PassedFields)
