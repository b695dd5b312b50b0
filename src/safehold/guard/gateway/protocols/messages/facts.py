"""What the reader of a message stream learnt and its writer needs."""

from dataclasses import dataclass, field

from safehold.guard.gateway.protocols.messages import wire as w
from safehold.guard.gateway.protocols.passed_fields import PassedFields


@dataclass(slots=True)
class MessagesFacts:
    """Ids, the model's name, the end and counts of one message; the rest is kept by block."""

    model: str
    response_id: str = "msg_safehold"
    usage: w.MessagesUsage = field(default_factory=w.MessagesUsage)
    stop: w.StopDelta | None = None
    tools: dict[int, str] = field(default_factory=dict)
    signatures: dict[int, str] = field(default_factory=dict)
    redacted: dict[int, str] = field(default_factory=dict)
    fields: PassedFields = field(default_factory=PassedFields)
