"""The answer on its way through the session: streamed or whole, scored before it leaves."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import Protocol

from safehold.errors import UpstreamError
from safehold.exchange import Lane
from safehold.guard.gateway.interface import (
    BrokenReplyError,
    Delta,
    Piece,
    Stream,
)
from safehold.guard.gateway.policy import Limits
from safehold.guard.gateway.protocols.events_as_whole import is_stream
from safehold.guard.gateway.protocols.sse import EventReader
from safehold.guard.gateway.relaying.crash_journal import Journal
from safehold.guard.gateway.relaying.run_state import RunState
from safehold.guard.gateway.upstreams.http import Answer, read_all
from safehold.guard.interface import Block, DeliveryMode, Step
from safehold.guard.ledger.interface import LedgerVerdict, Outcome
from safehold.guard.session.drivers import StageTwo, go_on, run_flow

_JSON = ("application/json", "text/json")
_STREAM = "text/event-stream"
_UNNAMED = ("text/plain", "application/octet-stream", "binary/octet-stream")
"""What servers call an answer when they do not say what it is: its bytes are asked instead."""
_LAST_BYTES_S = 0.1
_BLANK = b"\xef\xbb\xbf \t\r\n"


def utf8_bytes(text: str) -> int:
    """Return the length of a text in UTF-8."""
    return len(text) if text.isascii() else len(text.encode())


def merged(pieces: Iterable[Piece]) -> list[Piece]:
    """Join neighbouring deltas of one lane: what arrives together is scored together."""
    joined: list[Piece] = []
    run: list[Delta] = []
    for piece in pieces:
        if run and not (type(piece) is Delta and piece.lane is run[0].lane):
            joined.append(_together(run))
            run = []
        if type(piece) is Delta:
            run.append(piece)
        else:
            joined.append(piece)
    if run:
        joined.append(_together(run))
    return joined


def _together(run: list[Delta]) -> Delta:
    if len(run) == 1:
        return run[0]
    text = "".join(piece.text for piece in run)
    heard: list[float] = []
    for piece in run:
        if piece.heard is None:  # a text that nobody heard makes the whole one unheard
            return Delta(run[0].lane, text)
        heard += piece.heard
    return Delta(run[0].lane, text, tuple(heard))


def is_object(data: bytes) -> bool:
    """Whether a body begins as a JSON object, which no event stream that says something does."""
    return data.lstrip(_BLANK).startswith(b"{")


def _pieces(stream: Stream, events: Sequence[bytes]) -> Sequence[Piece]:
    if len(events) == 1:
        return stream.read(events[0])
    return merged(stream.read_all(events))


class KeepFinal(Protocol):
    """Makes the final row durable; raises `LedgerError` where it can't be kept."""

    async def __call__(self, outcome: Outcome, judged: LedgerVerdict) -> None:
        """Keep the row, once."""
        ...


class Delivery:
    """Moves one answer from the upstream through the session to the client."""

    def __init__(
        self,
        state: RunState,
        answer: Answer,
        *,
        gone: "asyncio.Future[None]",
        stage2: StageTwo,
        limits: Limits,
        journal: Journal | None,
        ticks: Callable[[], float],
        keep_final: KeepFinal,
    ) -> None:
        """Take what is known of the request, its answer, and what the relay lends."""
        self._state = state
        self._answer = answer
        self._gone = gone
        self._stage2 = stage2
        self._limits = limits
        self._journal = journal
        self._ticks = ticks
        self._keep_final = keep_final
        self._session = state.session
        self._full = self._session.delivers_whole
        self._withheld: list[Piece] = []
        self._pending: list[tuple[Lane, str]] = []
        self._received = 0
        self._reader = EventReader(limits.max_event_bytes)
        self._whole: list[bytes] = []
        self.events: Stream | None = None

    # -- streamed ------------------------------------------------------------------------------

    async def stream(self) -> None:
        """Relay an event stream.

        Raises:
            UpstreamError: The upstream broke off, fell silent or broke its protocol.
            LedgerError: A row could not be kept.
        """
        state = self._state
        self._check_kind()
        stream = self.events = state.ask.call.stream()
        self._gone.add_done_callback(lambda _: self._answer.abort())
        alive = asyncio.ensure_future(self._keep_alive())
        block: Block | None = None
        chunks = self._answer.chunks()
        try:
            async for data in chunks:
                events = self._arrived(data)
                if self._gone.done():
                    break
                block = await self._score(stream, _pieces(stream, events))
                if block is not None or stream.ended:
                    break
            if self._whole and block is None and not self._gone.done():
                block = await self._score(stream, _pieces(stream, self._at_once()))
        except UpstreamError:
            if not self._gone.done():
                raise
        finally:
            alive.cancel()
        if block is not None:
            await self._block(stream, block)
        elif self._gone.done():
            await self._abandoned()
        elif not stream.complete:  # an event that has not ended is nothing (WHATWG)
            raise BrokenReplyError("upstream: ended its stream in the middle of an answer")
        else:
            await self._finish(stream)
            await self._read_out(stream, chunks)

    async def _read_out(self, stream: Stream, chunks: AsyncIterator[bytes]) -> None:
        """Read what follows a marked end, which is nothing, so that the connection serves again.

        The client has its answer by now; a server that keeps its stream open is left.
        """
        if not stream.ended:
            return
        with contextlib.suppress(UpstreamError, TimeoutError):
            async with asyncio.timeout(_LAST_BYTES_S):
                async for _ in chunks:
                    pass
        self._answer.abort()

    def _check_kind(self) -> None:
        if self._answer.content_type not in (_STREAM, *_JSON, *_UNNAMED):
            raise BrokenReplyError("upstream: expected an event stream, came another content type")

    def _arrived(self, data: bytes) -> Sequence[bytes]:
        """Return the events that a read completes; a whole answer is kept for its end."""
        self._count(len(data))
        if self._received == len(data) and is_object(data):
            self._whole = [data]
            return ()
        if self._whole:
            self._whole.append(data)
            return ()
        return self._reader.feed(data)

    def _at_once(self) -> Sequence[bytes]:
        """Return the events of a server that answered whole."""
        return self._state.ask.call.events(b"".join(self._whole))

    async def _keep_alive(self) -> None:
        """Send a comment, which carries no text, while nothing may be released for long."""
        out = self._state.out
        sent = -1
        while not out.finished:
            await asyncio.sleep(self._limits.keepalive_s)
            if out.sent_bytes == sent or not out.started:
                if out.sending_since is not None or out.finished or out.gone:
                    continue
                await out.write(b": keep-alive\n\n", 0)
            sent = out.sent_bytes

    def _count(self, size: int) -> None:
        self._received += size
        limit = self._limits.max_reply_bytes
        if self._received > limit * 8:  # frames weigh more than the text they carry
            raise BrokenReplyError(f"upstream: expected at most {limit} bytes of answer")

    async def _score(self, stream: Stream, pieces: Sequence[Piece]) -> Block | None:
        """Score pieces in order and send what they clear; a block ends the exchange."""
        frames: list[bytes] = []
        block: Block | None = None
        for piece in pieces:
            if self._full:
                self._withheld.append(piece)
            if type(piece) is Delta:
                self._state.bytes_fed += utf8_bytes(piece.text)
                flow = self._session.feed(piece.lane, piece.text, piece.heard)
            else:
                flow = self._session.close(piece.lane)
            try:  # nearly every delta needs no stage 2
                request = next(flow)
            except StopIteration as stop:
                step: Step = stop.value
            else:
                step = await go_on(flow, request, self._stage2)
            if isinstance(step, Block):
                block = step
                break
            if step.text:
                self._pending.append((piece.lane, step.text))
                frames.append(stream.release(piece.lane, step.text))
            if type(piece) is not Delta and not self._full:
                frames.append(stream.close(piece.lane))
        if frames:
            await self._send(b"".join(frames))
        return block

    async def _send(self, frames: bytes) -> None:
        """Note, journal, then hand over text that was cleared."""
        if not frames and not self._pending:
            return
        state = self._state
        size = 0
        for lane, text in self._pending:
            size += utf8_bytes(text)
            texts = state.texts.get(lane)
            if texts is None:
                texts = state.texts[lane] = []
            texts.append(text)
        if self._journal is not None and self._pending:
            self._journal.write(state.ask.decision_id, self._pending)
        self._pending = []
        if frames:
            if state.timing.first_release_at is None:
                state.timing.first_release_at = self._ticks()
            await state.out.write(frames, size)

    async def _finish(self, stream: Stream) -> None:
        """Score and release every tail, then end; the final row comes first."""
        state = self._state
        frames: list[bytes] = []
        cleared: dict[Lane, int] = {}
        for lane, step in await run_flow(self._session.finish(), self._stage2):
            if isinstance(step, Block):
                await self._send(b"".join(frames))
                await self._block(stream, step)
                return
            cleared[lane] = len(step.text)
            if step.text and not self._full:
                self._pending.append((lane, step.text))
                frames.append(stream.release(lane, step.text))
        for piece in self._withheld:
            if type(piece) is Delta:
                cleared[piece.lane] -= len(piece.text)
                if cleared[piece.lane] < 0:
                    raise BrokenReplyError("the session cleared less text than it was fed")
                self._pending.append((piece.lane, piece.text))
                frames.append(stream.release(piece.lane, piece.text))
            else:
                frames.append(stream.close(piece.lane))
        await self._send(b"".join(frames))
        state.tokens, state.refused = stream.tokens, stream.refused
        state.response_id, state.items = stream.response_id, stream.items
        noted = self._session.would_block
        await self._keep_normal(noted)
        mark = state.notice if noted is not None and self._marks() else None
        await state.out.end(stream.end(mark))

    def _marks(self) -> bool:
        """Whether the client is told what an audit found: never in shadow, nor of an exemption."""
        policy = self._state.ask.policy
        return policy.mode is DeliveryMode.AUDIT and not policy.shadow

    async def _keep_normal(self, noted: Block | None) -> None:
        state = self._state
        outcome = Outcome.REFUSED_BY_MODEL if state.refused else Outcome.COMPLIED
        state.block = noted
        await self._keep_final(
            outcome, LedgerVerdict.ALLOW if noted is None else LedgerVerdict.BLOCK
        )

    async def _block(self, stream: Stream, block: Block) -> None:
        state = self._state
        state.block, state.tokens = block, stream.tokens
        self._answer.abort()
        await self._keep_final(Outcome.BLOCKED_BY_GUARD, LedgerVerdict.BLOCK)
        await state.out.end(stream.block(state.notice))

    async def _abandoned(self) -> None:
        """The client hung up: finish scoring what was read, and record what it got."""
        state = self._state
        self._answer.abort()
        state.error = "ClientGone"
        steps = await run_flow(self._session.finish(), self._stage2)
        blocks = [step for _, step in steps if isinstance(step, Block)]
        state.block = blocks[0] if blocks else self._session.would_block
        judged = LedgerVerdict.ALLOW if state.block is None else LedgerVerdict.BLOCK
        await self._keep_final(Outcome.ERROR, judged)
        state.out.finished = True

    async def _body(self) -> bytes:
        """Return a complete answer's body, from a server that streams unasked too."""
        kind, call = self._answer.content_type, self._state.ask.call
        if kind not in (*_JSON, *_UNNAMED, _STREAM) and not kind.endswith("+json"):
            raise BrokenReplyError("upstream: expected JSON, came another content type")
        data = await read_all(self._answer, self._limits)
        if is_object(data) or not (kind == _STREAM or is_stream(data)):
            return data
        return call.assembled(EventReader(self._limits.max_event_bytes).feed(data))

    # -- whole ---------------------------------------------------------------------------------

    async def whole(self) -> None:
        """Relay a complete answer.

        Raises:
            UpstreamError: The upstream broke off, fell silent or broke its protocol.
            LedgerError: A row could not be kept.
        """
        state = self._state
        reply = state.ask.call.whole(await self._body())
        cleared: dict[Lane, str] = {}
        fed: dict[Lane, str] = {}
        block: Block | None = None
        for piece in reply.pieces():
            state.bytes_fed += utf8_bytes(piece.text)
            fed[piece.lane] = fed.get(piece.lane, "") + piece.text
            step = await run_flow(
                self._session.feed(piece.lane, piece.text, piece.heard), self._stage2
            )
            if isinstance(step, Block):
                block = step
                break
            cleared[piece.lane] = cleared.get(piece.lane, "") + step.text
        if block is None:
            for lane, last in await run_flow(self._session.finish(), self._stage2):
                if isinstance(last, Block):
                    block = last
                    break
                cleared[lane] = cleared.get(lane, "") + last.text
        state.tokens, state.refused = reply.tokens, reply.refused
        state.response_id, state.items = reply.response_id, reply.items
        if block is not None:
            state.block = block
            await self._keep_final(Outcome.BLOCKED_BY_GUARD, LedgerVerdict.BLOCK)
            await state.out.whole(200, state.ask.call.blocked(state.notice))
            return
        if cleared != fed:
            raise BrokenReplyError("the session cleared other text than it was fed")
        body = reply.render()
        state.texts = {lane: [text] for lane, text in fed.items()}
        if self._journal is not None:
            self._journal.write(state.ask.decision_id, list(fed.items()))
        state.timing.first_release_at = self._ticks()
        size = sum(utf8_bytes(text) for text in fed.values())
        state.out.promise(size)
        await self._keep_normal(self._session.would_block)
        await state.out.whole(200, body)
