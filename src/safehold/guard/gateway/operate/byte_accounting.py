"""The seam through which the gateway says what it sent, so that egress can explain those bytes.

The guard knows nothing of who listens; `cli/serve.py` wires a writer of signed rows.
"""

from typing import Protocol


class OutgoingBytes(Protocol):
    """Is told of every byte that was handed to clients."""

    def reply(
        self,
        *,
        count: int,
        account: str,
        tokens: int,
        started: float,
        ended: float,
        reply_id: str,
        last: bool,
    ) -> None:
        """Take note of `count` bytes as written to the socket, HTTP framing included.

        Open replies are told of about once a second, so that a long stream is explained while it
        runs; `tokens` come with the `last` part, 0 before. `account` is `tenant/key`, empty
        without keys; times are Unix seconds. Must return at once and never raise.
        """
        ...

    def flush(self) -> None:
        """Make what was told durable; called on a thread, about once a second and at the end.

        Raises:
            SafeholdError: It can't be kept now; the next call tries again.
        """
        ...


class Unexplained:
    """Nobody asks what was sent."""

    def reply(
        self,
        *,
        count: int,
        account: str,
        tokens: int,
        started: float,
        ended: float,
        reply_id: str,
        last: bool,
    ) -> None:
        """Forget it."""

    def flush(self) -> None:
        """Nothing was kept."""
