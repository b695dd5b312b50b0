"""What the reader of a response stream learnt and its writer needs."""

from dataclasses import dataclass, field

from safehold.exchange import Lane
from safehold.guard.gateway.protocols.passed_fields import PassedFields
from safehold.guard.gateway.protocols.responses import wire as w
from safehold.guard.gateway.protocols.responses.items import ClientItem, ItemText
from safehold.guard.gateway.protocols.responses.response_object import Settled


@dataclass(slots=True)
class ResponsesFacts:
    """Ids, what the response echoes, and where each lane's text belongs.

    `begun`: the client was told the id and the model's name, so they stand.
    """

    settled: Settled
    response_id: str = "resp_safehold"
    by_lane: dict[Lane, ItemText] = field(default_factory=dict)
    by_name: dict[Lane, ClientItem] = field(default_factory=dict)
    final: w.Response | None = None
    begun: bool = False
    fields: PassedFields = field(default_factory=PassedFields)
