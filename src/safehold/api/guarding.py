"""A guard for programs: verdicts on whole exchanges, and cleared text while a model writes.

The same sessions that the gateway serves: a verdict and the place where a reply is cut depend on
the text alone, not on how it was split or on what else runs.
"""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from safehold.errors import BlockedError, DataError, WireError
from safehold.exchange import Exchange, Lane, user_says
from safehold.guard.bundle.find import open_bundle
from safehold.guard.bundle.load import Bundle
from safehold.guard.gateway.interface import Rules
from safehold.guard.gateway.protocols.chat.codec import ChatCodec
from safehold.guard.interface import (
    Allow,
    Block,
    Cleared,
    DeliveryMode,
    Escalation,
    Failed,
    ScoringFlow,
    SessionPolicy,
    Step,
    Verdict,
)
from safehold.guard.session.batching import InlineStage2
from safehold.guard.session.decoding import ViewDecoder
from safehold.guard.session.drivers import Answer, StageTwo, drive, run_flow
from safehold.guard.session.session import Guard, GuardSession

Prompt = str | Sequence[Mapping[str, Any]] | Exchange
"""A user's text, messages in the form of Chat Completions, or an exchange."""

_LANE = Lane()
_WHOLE = SessionPolicy(mode=DeliveryMode.FULL)


class _Inline:
    """Stage 2 in the caller's thread, or in a thread beside the event loop."""

    def __init__(self, bundle: Bundle) -> None:
        self._scorer = None if bundle.stage2 is None else InlineStage2(bundle.stage2)

    def now(self, request: Escalation) -> Answer:
        return Failed(reason="NoStage2") if self._scorer is None else self._scorer(request)

    async def beside(self, request: Escalation) -> Answer:
        return await asyncio.to_thread(self.now, request)


class OpenReply:
    """One reply while it is written, for an engine that pushes tokens.

    >>> import safehold
    >>> reply = safehold.load_guard().open_reply("Name a fruit.")
    >>> out = reply.feed("An apple is one.")  # what may leave by now; the end stays back
    >>> out + reply.finish()
    'An apple is one.'
    """

    def __init__(self, session: GuardSession, stage2: _Inline) -> None:
        self._session = session
        self._stage2 = stage2
        self.verdict: Verdict = Allow(score=0.0)
        """What is known so far; final after `finish`, or when `BlockedError` was raised."""

    def feed(self, text: str) -> str:
        """Take the next text of the reply; return the text that may leave now.

        Raises:
            BlockedError: The guard stops the reply here; nothing more of it may leave.
        """
        return self._cleared(drive(self._session.feed(_LANE, text), self._stage2.now))

    def finish(self) -> str:
        """Score the end of the reply; return the rest that may leave.

        Raises:
            BlockedError: The guard stops the reply at its end.
        """
        return self._ended(drive(self._session.finish(), self._stage2.now))

    def _cleared(self, step: Step) -> str:
        if isinstance(step, Block):
            self.verdict = step
            raise BlockedError(step.clause)
        return step.text

    def _ended(self, steps: tuple[tuple[Lane, Step], ...]) -> str:
        text = "".join(self._cleared(step) for _, step in steps)
        report = self._session.report()
        score = max(report.prompt_score, report.reply_score)
        self.verdict = self._session.would_block or Allow(score=score)
        return text


class AsyncReply(OpenReply):
    """One reply while it is written, on an event loop: stage 2 runs in a thread beside it."""

    async def afeed(self, text: str) -> str:
        """Take the next text of the reply; return the text that may leave now.

        Raises:
            BlockedError: The guard stops the reply here; nothing more of it may leave.
        """
        return self._cleared(await run_flow(self._session.feed(_LANE, text), self._stage2.beside))

    async def afinish(self) -> str:
        """Score the end of the reply; return the rest that may leave.

        Raises:
            BlockedError: The guard stops the reply at its end.
        """
        return self._ended(await run_flow(self._session.finish(), self._stage2.beside))


class LoadedGuard:
    """A verified bundle, ready to judge. It holds no state of an exchange: share it freely."""

    def __init__(self, bundle: Bundle) -> None:
        self._guard = Guard(bundle.cascade, ViewDecoder())
        self._stage2 = _Inline(bundle)
        self.digest = bundle.digest
        """SHA-256 of the bundle's manifest: names the guard in every record."""

    def check_prompt(self, prompt: Prompt) -> Verdict:
        """Judge a request before the model sees it.

        Raises:
            DataError: The messages can't be read, or hold what no scorer reads.
        """
        return self._judge(self._session(prompt, _WHOLE))

    async def acheck_prompt(self, prompt: Prompt) -> Verdict:
        """Judge a request without holding up the event loop. Raises as `check_prompt`."""
        session = self._session(prompt, _WHOLE)
        return await run_flow(session.judge_prompt(), self._stage2.beside, offload=True)

    def check(self, prompt: Prompt, reply: str) -> Verdict:
        """Judge a whole exchange: the request, and the reply in its light.

        Raises:
            DataError: The messages can't be read, or hold what no scorer reads.
        """
        session = self._session(prompt, _WHOLE)
        verdict = self._judge(session)
        return verdict if isinstance(verdict, Block) else drive(_read(session, reply), self._now)

    async def acheck(self, prompt: Prompt, reply: str) -> Verdict:
        """Judge a whole exchange without holding up the event loop. Raises as `check`."""
        session = self._session(prompt, _WHOLE)
        stage2 = self._stage2.beside
        verdict = await run_flow(session.judge_prompt(), stage2, offload=True)
        if isinstance(verdict, Block):
            return verdict
        return await run_flow(_read(session, reply), stage2, offload=True)

    def stream(
        self, prompt: Prompt, reply: Iterable[str], *, policy: SessionPolicy | None = None
    ) -> Iterator[str]:
        """Yield a reply's text as it is cleared. The request is judged before `reply` is begun.

        Raises:
            BlockedError: The guard stops the request or the reply.
            DataError: The messages can't be read, or hold what no scorer reads.
        """
        opened = self.open_reply(prompt, policy=policy)
        for text in reply:
            if cleared := opened.feed(text):
                yield cleared
        if cleared := opened.finish():
            yield cleared

    async def astream(
        self, prompt: Prompt, reply: AsyncIterable[str], *, policy: SessionPolicy | None = None
    ) -> AsyncIterator[str]:
        """Yield a reply's text as it is cleared, on an event loop. Raises as `stream`."""
        opened = await self.aopen_reply(prompt, policy=policy)
        async for text in reply:
            if cleared := await opened.afeed(text):
                yield cleared
        if cleared := await opened.afinish():
            yield cleared

    def open_reply(self, prompt: Prompt, *, policy: SessionPolicy | None = None) -> OpenReply:
        """Judge a request; return what guards its reply.

        Raises:
            BlockedError: The guard stops the request.
            DataError: The messages can't be read, or hold what no scorer reads.
        """
        session = self._session(prompt, policy or SessionPolicy())
        _let_pass(self._judge(session))
        return OpenReply(session, self._stage2)

    async def aopen_reply(
        self, prompt: Prompt, *, policy: SessionPolicy | None = None
    ) -> AsyncReply:
        """Judge a request on an event loop. Raises as `open_reply`."""
        session = self._session(prompt, policy or SessionPolicy())
        _let_pass(await run_flow(session.judge_prompt(), self._beside, offload=True))
        return AsyncReply(session, self._stage2)

    @property
    def _beside(self) -> StageTwo:
        return self._stage2.beside

    def _now(self, request: Escalation) -> Answer:
        return self._stage2.now(request)

    def _judge(self, session: GuardSession) -> Verdict:
        return drive(session.judge_prompt(), self._stage2.now)

    def _session(self, prompt: Prompt, policy: SessionPolicy) -> GuardSession:
        return self._guard.session(_exchange(prompt), policy)


def load_guard(
    bundle: str | Path = "homebrewing",
    *,
    key: str | Path | Sequence[str | Path] = (),
    sha256: str | None = None,
    unsafe_unsigned: bool = False,
) -> LoadedGuard:
    """Load a guard after verifying every byte of its bundle.

    Args:
        bundle: The name of a stock bundle, or the folder of one of your own.
        key: File (or files) of the public keys that may have signed it. Without one, the key that
            `safehold train` made for you is meant.
        sha256: The digest of the only manifest that is accepted.
        unsafe_unsigned: Accept any manifest whose files fit it. For experiments.

    Raises:
        BundleError: It is missing, unsigned, altered (`TamperError`) or of another schema.
        DependencyError: It needs an extra, such as `safehold[stage2]`.
    """
    keys = (key,) if isinstance(key, str | Path) else tuple(key)
    names = tuple(str(one) for one in keys)
    return LoadedGuard(open_bundle(str(bundle), names, sha256, unsigned=unsafe_unsigned))


def _let_pass(verdict: Verdict) -> None:
    if isinstance(verdict, Block):
        raise BlockedError(verdict.clause)


def _read(session: GuardSession, reply: str) -> ScoringFlow[Verdict]:
    """Score a whole reply."""
    step = yield from session.feed(_LANE, reply)
    steps = ((_LANE, step),) if isinstance(step, Block) else (yield from session.finish())
    for _, one in steps:
        if not isinstance(one, Cleared):
            return one
    report = session.report()
    return Allow(score=max(report.prompt_score, report.reply_score))


def _exchange(prompt: Prompt) -> Exchange:
    if isinstance(prompt, Exchange):
        return prompt
    if isinstance(prompt, str):
        return user_says(prompt)
    try:
        body = msgspec.json.encode({"model": "", "messages": list(prompt)})
        return ChatCodec().parse(body, Rules()).exchange
    except (WireError, TypeError) as error:
        raise DataError(f"the messages: {error}") from error
