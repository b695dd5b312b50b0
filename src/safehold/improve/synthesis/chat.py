"""One chat model behind the OpenAI wire format: retries, and answers that are kept once paid.

How long a call is waited for, and how many are made at once, is the pace's (`pace.py`).
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

import aiohttp
import msgspec

from safehold.errors import DataError, UpstreamError
from safehold.http_words import wait_asked_s, why_no_answer
from safehold.improve.synthesis.calls import CallStore, GeneratorAnswer, GeneratorCall
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

    async def ask(self, call: GeneratorCall) -> GeneratorAnswer:
        """Return the model's answer, from the book if it is there.

        Raises:
            UpstreamError: The server failed every time, or it refuses us altogether.
        """
        found = self._book.find(call)
        if found is not None:
            return found
        answer = await self._tried(call)
        self._book.keep(call, answer)
        return answer

    async def _tried(self, call: GeneratorCall) -> GeneratorAnswer:
        settings = self._settings
        problem = "no try was made"
        asked_to_wait = 0.0
        hung = tried = 0
        while tried <= settings.retries and hung <= settings.hangs:
            if tried:
                backoff = settings.backoff_s * 2 ** (tried - 1)
                await self._pause(max(backoff, asked_to_wait))
            ticket = await self._enter()
            try:
                reply = await self._patiently(ticket, call)
                asked_to_wait = reply.wait_s
                answer = self._answered(ticket, reply)
                if answer is not None:
                    return answer
                problem = f"HTTP {reply.status}{said_in(reply.body, settings.key)}"
            except _TakenBackError:
                continue
            except TimeoutError:
                problem = f"no answer within {self._pace.patience_s:.3g} s"
                hung += 1
            except (aiohttp.ClientError, OSError) as error:
                problem = why_no_answer(error)
            except DataError as error:
                problem = str(error)
            finally:
                self._leave(ticket)
            tried += 1
            self._pace.repeated += tried <= settings.retries and hung <= settings.hangs
        raise UpstreamError(f"{settings.url} failed {tried} times: {problem}; {_KEPT}")

    def _answered(self, ticket: int, reply: "HttpReply") -> GeneratorAnswer | None:
        """Return what a server answered; None where it is to be asked again."""
        _refuse_final(self._settings.url, reply, self._settings.key)
        if reply.status in _BUSY:
            self._pace.busy(ticket, reply.status)
        if reply.status != _OK and reply.status not in _DECLINED:
            return None
        refused = GeneratorAnswer(text="", finish="refused", refused=reply.status)
        answer = _read(reply.body, self._settings.key) if reply.status == _OK else refused
        self._pace.answer(ticket, answer.completion_tokens)
        return answer

    async def _enter(self) -> int:
        """Wait until one more call may be made, and return its ticket."""
        while self._pace.under_way >= self._pace.width:
            waiting = asyncio.get_running_loop().create_future()
            self._waiting.append(waiting)
            await waiting
        return self._pace.begin()

    def _leave(self, ticket: int) -> None:
        self._pace.end(ticket)
        waiting, self._waiting = self._waiting, []
        for one in waiting:
            if not one.done():
                one.set_result(None)

    async def _patiently(self, ticket: int, call: GeneratorCall) -> "HttpReply":
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
                        raise UpstreamError(f"{self._settings.url}: {self._pace.hung()}; {_KEPT}")
                    case CallFate.WAIT:
                        pass
        finally:
            if not posting.done():
                posting.cancel()
                await asyncio.wait({posting})

    async def _post(self, call: GeneratorCall) -> "HttpReply":
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


class HttpReply(msgspec.Struct, frozen=True):
    """What a server answered; `wait_s` is how long a busy one asks to wait."""

    status: int
    body: bytes
    wait_s: float = 0.0
    leads_to: str = ""
    """The host that a redirect names."""


class _TakenBackError(Exception):
    """Too many calls were under way; this one is made again later, and that is no fault of it."""


def session_for(settings: ChatSettings) -> aiohttp.ClientSession:
    """Return a session for a `Chat`, whose pace alone decides how long an answer may take."""
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=settings.timeout_s)
    return aiohttp.ClientSession(timeout=timeout)


_KEPT = "what was answered is kept, so start the same command again"
_OK = 200
_BUSY = frozenset({408, 429, 503, 504, 524, 529})
"""A server, or a proxy before it, that has more to do than it can."""
_LONGEST_WAIT_S = 120.0
_FINAL = {
    401: "the key is missing or wrong: set SAFEHOLD_SYNTH_KEY",
    403: "the key has no right to this model",
    404: "there is no such model or address: expected a base URL that ends in /v1",
    405: "this is no chat completions address: expected a base URL that ends in /v1",
}
_DECLINED = frozenset({400, 413, 422})
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_MOST_BYTES = 16 * 1024 * 1024
_LONGEST_SAID = 200
"""Characters of a server's own message that a line of ours repeats."""


class _Message(msgspec.Struct):
    content: str | None = None


class _Choice(msgspec.Struct):
    message: _Message
    finish_reason: str | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int | None = 0
    completion_tokens: int | None = 0


class _Completion(msgspec.Struct):
    choices: list[_Choice]
    usage: _Usage | None = None


class _Models(msgspec.Struct):
    data: list[dict[str, object]]


class _Said(msgspec.Struct):
    message: str = ""


class _Failed(msgspec.Struct):
    error: _Said | str


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


def _refuse_final(url: str, reply: HttpReply, key: str) -> None:
    """Raise for what no second try would change."""
    status = reply.status
    if status in _REDIRECTS:
        raise UpstreamError(
            f"{url}: expected an answer, got a redirect to {reply.leads_to or 'another path'} "
            f"(HTTP {status}), which is not followed, since the key would go with it: name the "
            "address that it leads to"
        )
    if status in _FINAL:
        said = said_in(reply.body, key)
        raise UpstreamError(f"{url}: {_FINAL[status]} (HTTP {status}{said})")


def said_in(body: bytes, key: str = "") -> str:
    """Return `: ` and the message of a server's error, in one short line; empty where it has none.

    The key is taken out: some servers repeat it.
    """
    try:
        failed = msgspec.json.decode(body, type=_Failed).error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ""
    text = failed if isinstance(failed, str) else failed.message
    if key:
        text = text.replace(key, "***")
    text = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    return f": {text[:_LONGEST_SAID]}" if text else ""


def _read(body: bytes, key: str = "") -> GeneratorAnswer:
    try:
        completion = msgspec.json.decode(body, type=_Completion)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        said = said_in(body, key)
        if said:
            raise DataError(f"expected a chat completion, got an error{said}") from error
        kind = "HTML" if body.lstrip()[:1] == b"<" else "something else"
        raise DataError(f"expected a chat completion, got {kind}") from error
    if not completion.choices:
        raise DataError("expected a chat completion, got one without choices")
    choice = completion.choices[0]
    usage = completion.usage or _Usage()
    return GeneratorAnswer(
        text=choice.message.content or "",
        finish=choice.finish_reason or "",
        prompt_tokens=usage.prompt_tokens or 0,
        completion_tokens=usage.completion_tokens or 0,
    )


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
    _refuse_final(url, reply, settings.key)
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
