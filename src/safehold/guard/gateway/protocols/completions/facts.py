"""What the reader of a completion stream learnt and its writer needs."""

from dataclasses import dataclass, field

from safehold.guard.gateway.protocols.chat.wire import ChatUsage


@dataclass(slots=True)
class CompletionFacts:
    """The id, the model's name, ends and counts of one answer."""

    model: str
    created: int
    response_id: str | None = None
    finish: dict[int, str] = field(default_factory=dict)
    usage: ChatUsage | None = None
