"""One chat model behind the OpenAI wire format: retries, and answers that are kept once paid.

How long a call is waited for, and how many are made at once, is the pace's (`pace.py`).
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import assert_never
from urllib.parse import urlsplit

import aiohttp
import msgspec

from safehold.errors import DataError, SafeholdError, UpstreamError
from safehold.http_words import wait_asked_s, why_no_answer
from safehold.improve.synthesis.calls import CallStore, GeneratorAnswer, GeneratorCall
from safehold.improve.synthesis.http_reply import (
    HttpReply,
    ReplyAnswers,
    ReplyEnds,
    ReplyFails,
    ReplyMeaning,
    ReplyRejects,
    ends,
    meaning,
    said_in,
)
from safehold.improve.synthesis.pace import CallFate, Pace


class ChatSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which model is asked, how, and how much."""

    url: str
    """Base URL, with its version: `http://127.0.0.1:8000/v1`."""
    model: str
    key: str = ""
    temperature: float = 1.0
    batch: int = 6
    """Messages asked for at a time."""
    rounds: int = 2
    """Cells for each clause and stage."""
    languages: tuple[str, ...] = ()
    """Empty: those of the constitution's lexicon."""
    fill: int = 0
    """How often thin groups get as many rounds again."""
    repairs: int = 1
    """How often an unusable answer is asked for again."""
    concurrency: int = 4
    """The most calls at once."""
    retries: int = 3
    hangs: int = 1
    """How often a call that was not answered in time is made again: it may cost, and it waits."""
    timeout_s: float = 120.0
    """Without any answer for so long, fewer calls are made at once; for twice as long: the end."""
    backoff_s: float = 1.0
    max_tokens: int = 600


class Chat:
    """Asks a model; what it answered before comes from the book."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        settings: ChatSettings,
        book: CallStore,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
        pace: Pace | None = None,
    ) -> None:
        """Take the HTTP session, which model to ask, and its book; `pause` waits between tries.

        A `pace` that is given knows the model from earlier calls.
        """
        self._session = session
        self._settings = settings
        self._book = book
        self._pause = pause
        self._pace = pace or Pace(settings.concurrency, settings.timeout_s)
        self._waiting: list[asyncio.Future[None]] = []
        self._ended: SafeholdError | OSError | None = None

    async def ask(self, call: GeneratorCall) -> GeneratorAnswer | ReplyRejects:
        """Return the model's answer, from the book if it is there; else what the server rejects.

        After an error no call begins; those under way are answered and kept all the same.

        Raises:
            UpstreamError: The server failed every time, or it accepts no such request.
            OSError: The answer can't be kept.
        """
        found = self._book.find(call)
        if found is not None:
            self._pace.accepted.add(call.kind)
            return found
        try:
            answer = await self._tried(call)
            if isinstance(answer, GeneratorAnswer):
                self._book.keep(call, answer)
        except (SafeholdError, OSError) as error:
            self._ended = self._ended or error
            raise
        return answer

    async def _tried(self, call: GeneratorCall) -> GeneratorAnswer | ReplyRejects:
        settings = self._settings
        last = ReplyFails("no try was made")
        hung = tried = 0
        while tried <= settings.retries and hung <= settings.hangs:
            if tried:
                backoff = settings.backoff_s * 2 ** (tried - 1)
                await self._pause(max(backoff, last.wait_s))
            ticket = await self._enter()
            told = await self._once(ticket, call)
            match told:
                case ReplyAnswers(answer):
                    return answer
                case ReplyRejects():
                    return await self._rejected(call, told)
                case ReplyEnds(said):
                    raise UpstreamError(f"{settings.url}: {said}; {self._kept()}")
                case ReplyFails():
                    last = told
                    tried += 1
                    hung += told.late
                    again = tried <= settings.retries and hung <= settings.hangs
                    self._pace.repeated += again
                case None:
                    pass
                case _:
                    assert_never(told)
        raise UpstreamError(f"{settings.url} failed {tried} times: {last.said}; {self._kept()}")

    async def _once(self, ticket: int, call: GeneratorCall) -> ReplyMeaning | None:
        """Make a call that has a ticket, and return what came of it; None: it was taken back."""
        try:
            reply = await self._patiently(ticket, call)
            told = meaning(reply, self._settings.key)
            if isinstance(told, ReplyAnswers):
                self._pace.answer(ticket, told.answer.completion_tokens)
                self._pace.accepted.add(call.kind)
            if isinstance(told, ReplyFails) and told.busy:
                self._pace.busy(ticket, reply.status)
        except _TakenBackError:
            return None
        except TimeoutError:
            return ReplyFails(f"no answer within {self._pace.patience_s:.3g} s", late=True)
        except (aiohttp.ClientError, OSError) as error:
            return ReplyFails(why_no_answer(error))
        except DataError as error:  # too long, and it would be as long again
            return ReplyEnds(str(error))
        else:
            return told
        finally:
            self._leave(ticket)

    async def settled(self) -> None:
        """Wait until no call is under way: what was answered is kept then."""
        while self._pace.under_way:
            await self._next_left()

    async def _rejected(self, call: GeneratorCall, told: ReplyRejects) -> ReplyRejects:
        """Return that this call is not accepted, once another one of its kind was.

        Raises:
            UpstreamError: None was, in this run or an earlier one: none will be.
        """
        while call.kind not in self._pace.accepted and self._pace.under_way:
            await self._next_left()
        if call.kind not in self._pace.accepted:
            raise UpstreamError(
                f"{self._settings.url}: the server does not accept our requests ({told.said}); "
                f"it is asked anew when it or the options are set right; {self._kept()}"
            )
        self._pace.rejected(told.said)
        return told

    def _kept(self) -> str:
        """Say what is left of a run that ends."""
        if not self._pace.answered:
            return "nothing was answered in this run"
        return "what it answered before is kept, so start the same command again"

    async def _enter(self) -> int:
        """Wait until one more call may be made, and return its ticket."""
        while self._ended is None and self._pace.under_way >= self._pace.width:
            await self._next_left()
        if self._ended is not None:
            raise self._ended
        return self._pace.begin()

    async def _next_left(self) -> None:
        """Wait until a call is under way no longer."""
        waiting = asyncio.get_running_loop().create_future()
        self._waiting.append(waiting)
        await waiting

    def _leave(self, ticket: int) -> None:
        self._pace.end(ticket)
        waiting, self._waiting = self._waiting, []
        for one in waiting:
            if not one.done():
                one.set_result(None)

    async def _patiently(self, ticket: int, call: GeneratorCall) -> HttpReply:
        """Post a call and wait as long as the pace says."""
        posting = asyncio.create_task(self._post(call))
        try:
            while True:
                done, _ = await asyncio.wait({posting}, timeout=self._pace.look_s)
                if done:
                    return posting.result()
                match self._pace.verdict(ticket):
                    case CallFate.TAKE_BACK:
                        raise _TakenBackError
                    case CallFate.LATE:
                        raise TimeoutError
                    case CallFate.HANGS:
                        raise UpstreamError(
                            f"{self._settings.url}: {self._pace.hung()}; {self._kept()}"
                        )
                    case CallFate.WAIT:
                        pass
        finally:
            if not posting.done():
                posting.cancel()
                await asyncio.wait({posting})

    async def _post(self, call: GeneratorCall) -> HttpReply:
        """Return what a server answered."""
        body = {
            "model": call.model,
            "messages": list(call.messages),
            "temperature": call.temperature,
            "max_tokens": call.max_tokens,
            "seed": call.seed,
        }
        key = self._settings.key
        headers = {"authorization": f"Bearer {key}"} if key else {}
        url = f"{self._settings.url.rstrip('/')}/chat/completions"
        async with self._session.post(
            url, json=body, headers=headers, allow_redirects=False
        ) as response:
            return await _whole(response)


class _TakenBackError(Exception):
    """Too many calls were under way; this one is made again later, and that is no fault of it."""


def session_for(settings: ChatSettings) -> aiohttp.ClientSession:
    """Return a session for a `Chat`, whose pace alone decides how long an answer may take."""
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=settings.timeout_s)
    return aiohttp.ClientSession(timeout=timeout)


_LONGEST_WAIT_S = 120.0
_MOST_BYTES = 16 * 1024 * 1024


class _Models(msgspec.Struct):
    data: list[dict[str, object]]


async def _whole(response: aiohttp.ClientResponse) -> HttpReply:
    """Read an answer to its end.

    Raises:
        DataError: It is longer than any list of messages.
    """
    told = response.headers.get("retry-after")
    wait_s = wait_asked_s(told, now=time.time(), most_s=_LONGEST_WAIT_S) or 0.0
    content = b""
    while part := await response.content.readany():
        content += part
        if len(content) > _MOST_BYTES:
            raise DataError(f"expected an answer of at most {_MOST_BYTES} bytes, got more")
    where = urlsplit(response.headers.get("location", "")).netloc.rpartition("@")[2]
    return HttpReply(response.status, content, wait_s, where)


async def only_model(settings: ChatSettings) -> str:
    """Return the name of the one model that a server serves.

    Raises:
        UpstreamError: It can't be asked, or it serves several.
    """
    headers = {"authorization": f"Bearer {settings.key}"} if settings.key else {}
    url = f"{settings.url.rstrip('/')}/models"
    timeout = aiohttp.ClientTimeout(total=min(settings.timeout_s, 30.0))
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.get(url, headers=headers, allow_redirects=False) as response,
        ):
            reply = await _whole(response)
    except (aiohttp.ClientError, OSError) as error:
        raise UpstreamError(f"{url}: no answer ({why_no_answer(error)}); is it serving?") from error
    except DataError as error:
        raise UpstreamError(f"{url}: {error}") from error
    end = ends(reply, settings.key)
    if end is not None:
        raise UpstreamError(f"{url}: {end.said}")
    try:
        found = [str(one.get("id")) for one in msgspec.json.decode(reply.body, type=_Models).data]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        said = said_in(reply.body, settings.key)
        got = f"an error{said}" if said else "something else"
        raise UpstreamError(
            f"{url}: expected a list of models, got {got} (HTTP {reply.status}); name the model "
            "with --generator-model where the server lists none"
        ) from error
    if len(found) != 1:
        raise UpstreamError(
            f"{url} serves {len(found)} models ({', '.join(found[:5])}): name one with "
            "--generator-model"
        )
    return found[0]
