"""One chat model behind the OpenAI wire format: retries, and answers that are kept once paid.

How long a call is waited for, and how many are made at once, is the pace's (`pace.py`).
"""

import asyncio
from collections.abc import Awaitable, Callable

import aiohttp
import msgspec

from safehold.errors import DataError, UpstreamError
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
                status, body, asked_to_wait = await self._patiently(ticket, call)
                answer = self._answered(ticket, status, body)
                if answer is not None:
                    return answer
                problem = f"HTTP {status}"
            except _TakenBackError:
                continue
            except TimeoutError:
                problem = f"no answer within {self._pace.patience_s:.3g} s"
                hung += 1
            except aiohttp.ClientError as error:
                problem = type(error).__name__
            except DataError as error:
                problem = str(error)
            finally:
                self._leave(ticket)
            tried += 1
            self._pace.repeated += tried <= settings.retries and hung <= settings.hangs
        raise UpstreamError(f"{settings.url} failed {tried} times: {problem}; {_KEPT}")

    def _answered(self, ticket: int, status: int, body: bytes) -> GeneratorAnswer | None:
        """Return what a server answered; None where it is to be asked again."""
        if status in _FINAL:
            raise UpstreamError(f"{self._settings.url}: {_FINAL[status]} (HTTP {status})")
        if status in _BUSY:
            self._pace.busy(ticket, status)
        if status != _OK and status not in _DECLINED:
            return None
        refused = GeneratorAnswer(text="", finish="refused", refused=status)
        answer = _read(body) if status == _OK else refused
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

    async def _patiently(self, ticket: int, call: GeneratorCall) -> tuple[int, bytes, float]:
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

    async def _post(self, call: GeneratorCall) -> tuple[int, bytes, float]:
        """Return status, body and the seconds that a busy server asks to wait."""
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
        async with self._session.post(url, json=body, headers=headers) as response:
            wait = response.headers.get("retry-after", "")
            seconds = min(float(wait), _LONGEST_WAIT_S) if wait.isdecimal() else 0.0
            return response.status, await response.read(), seconds


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


def _read(body: bytes) -> GeneratorAnswer:
    try:
        completion = msgspec.json.decode(body, type=_Completion)
    except (msgspec.ValidationError, msgspec.DecodeError) as error:
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
            session.get(url, headers=headers) as response,
        ):
            if response.status in _FINAL:
                raise UpstreamError(f"{url}: {_FINAL[response.status]} (HTTP {response.status})")
            body = await response.read()
    except (aiohttp.ClientError, TimeoutError) as error:
        raise UpstreamError(f"{url}: no answer ({type(error).__name__}); is it serving?") from error
    try:
        found = [str(one.get("id")) for one in msgspec.json.decode(body, type=_Models).data]
    except (msgspec.ValidationError, msgspec.DecodeError) as error:
        raise UpstreamError(f"{url}: expected a list of models, got something else") from error
    if len(found) != 1:
        raise UpstreamError(
            f"{url} serves {len(found)} models ({', '.join(found[:5])}): name one with "
            "--generator-model"
        )
    return found[0]
