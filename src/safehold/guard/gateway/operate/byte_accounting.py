"""The seam through which the gateway says what it sent, so that egress can explain those bytes.

The guard knows nothing of who listens; `cli/serve.py` wires a writer of signed rows.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterator
from typing import Protocol

from safehold.errors import SafeholdError

_BYTES_PER_TOKEN = 4


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


class SentReply(Protocol):
    """What was handed to one client so far."""

    @property
    def account(self) -> str:
        """Whom it is sent to, as `tenant/key`."""
        ...

    @property
    def tokens(self) -> int | None:
        """How many tokens the upstream says it wrote; None before it did."""
        ...

    @property
    def text_bytes(self) -> int:
        """Bytes of text that were handed over."""
        ...

    def unclaimed(self) -> int:
        """Return the bytes written since the last call."""
        ...


class ReplyMeter:
    """Counts what each reply of a worker sends, while it is open and at its end."""

    def __init__(
        self, outgoing: OutgoingBytes, *, clock: Callable[[], float], log: logging.Logger
    ) -> None:
        """Take who is told."""
        self._outgoing = outgoing
        self._clock = clock
        self._log = log
        self._open: dict[str, tuple[SentReply, float]] = {}

    @contextlib.contextmanager
    def counted(self, decision_id: str, sent: SentReply) -> Iterator[None]:
        """Count a reply from here to the end of the block, however it ends."""
        started = self._clock()
        self._open[decision_id] = (sent, started)
        try:
            yield
        finally:
            self._open.pop(decision_id, None)
            self._tell(decision_id, sent, started, last=True)

    async def tell(self) -> None:
        """Tell of what open replies sent since the last time, and have it kept."""
        for decision_id, (sent, started) in list(self._open.items()):
            self._tell(decision_id, sent, started, last=False)
        try:
            await asyncio.to_thread(self._outgoing.flush)
        except SafeholdError as error:
            self._log.error("explained bytes", extra={"fields": {"error": str(error)}})

    def _tell(self, decision_id: str, sent: SentReply, started: float, *, last: bool) -> None:
        count = sent.unclaimed()
        # A client that hangs up before the usage comes does not escape being counted.
        tokens = -(-sent.text_bytes // _BYTES_PER_TOKEN) if sent.tokens is None else sent.tokens
        if count or last:
            self._outgoing.reply(
                count=count,
                account=sent.account,
                tokens=tokens if last else 0,
                started=started,
                ended=self._clock(),
                reply_id=decision_id,
                last=last,
            )
