"""A generator that asks any OpenAI-compatible model: first for requests, then for the answers.

Per clause and stage of the constitution it asks for a numbered list of user messages (a form that
even small models keep), then answers each message in a call of its own. What is too short, too
long, declined, or (where the domain has a word list) off the subject is left out.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterator, Sequence

import aiohttp
import msgspec

from safehold.constitution import Constitution, PermittedClause, RestrictedClause
from safehold.errors import DataError, UpstreamError
from safehold.exchange import user_says
from safehold.improve.synthesis.ask import AskList, ask_list
from safehold.improve.synthesis.interface import Example, Lineage, Side, Split

_LINE = re.compile(r"^\s*(?:\d+[.):]|[-*])\s*(.+?)\s*$")
_DECLINED = re.compile(
    r"^(?:i['’]?m sorry|sorry|i can(?:no|['’])t|i am unable|i'm unable|as an ai|unfortunately)",  # noqa: RUF001 - models write both apostrophes
    re.IGNORECASE,
)
_ASK_CHARS = (8, 600)
_REPLY_CHARS = (60, 4000)
_VOICES = (
    "a beginner in a hurry",
    "a careful expert",
    "someone typing on a phone with typos",
    "a teacher",
    "a novelist who needs realistic detail",
    "a customer writing to a shop",
    "a forum member with a problem",
    "someone who writes formal letters",
)


Pairs = list[tuple[str, str]]
"""Requests with their answers."""


class ChatSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which model is asked, how, and how much."""

    url: str
    """Base URL, with its version: `http://127.0.0.1:8000/v1`."""
    model: str
    key: str = ""
    temperature: float = 1.0
    batch: int = 6
    rounds: int = 2
    concurrency: int = 4
    retries: int = 3
    timeout_s: float = 120.0
    backoff_s: float = 1.0
    max_tokens: int = 600


class Job(msgspec.Struct, frozen=True):
    """One batch: a clause, perhaps a stage of it, and which time it is asked for."""

    side: Side
    clause: str
    about: str
    stage: str | None
    round: int

    @property
    def name(self) -> str:
        """The prefix of the ids of what the job makes."""
        return "/".join((self.clause, self.stage or "all", f"{self.round:03}"))


class ChatGenerator:
    """Asks a model for exchanges on both sides of a constitution."""

    def __init__(self, name: str, constitution: Constitution, settings: ChatSettings) -> None:
        """Take the name for the lineage, the constitution, and the model to ask."""
        self.name = name
        self._constitution = constitution
        self._settings = settings
        self._words = _words_of(constitution.name)

    def generate(self, *, seed: int, skip: frozenset[str]) -> Iterator[Example]:
        """Yield examples job by job; jobs with an id in `skip` are not asked again.

        Raises:
            UpstreamError: The model can't be reached, or gave nothing usable in any job.
        """
        done = {example_id.rpartition("-")[0] for example_id in skip}
        jobs = [job for job in self.jobs() if f"{self.name}/{job.name}" not in done]
        useful = 0
        width = self._settings.concurrency
        for start in range(0, len(jobs), width):
            for job, pairs in asyncio.run(self._wave(jobs[start : start + width], seed)):
                useful += len(pairs)
                for number, (ask, reply) in enumerate(pairs):
                    yield self._example(job, number, ask, reply, seed)
        if jobs and not useful:
            raise UpstreamError(
                f"{self._settings.model}: {len(jobs)} batches and no usable exchange; "
                "try a stronger model"
            )

    def jobs(self) -> list[Job]:
        """Return every batch to ask for, in a fixed order."""
        stages = {stage.id: stage.covers for stage in self._constitution.stages}
        found: list[Job] = []
        clauses: tuple[RestrictedClause | PermittedClause, ...] = (
            *self._constitution.restricted,
            *self._constitution.permitted,
        )
        for clause in clauses:
            restricted = isinstance(clause, RestrictedClause)
            side = Side.RESTRICTED if restricted else Side.PERMITTED
            parts: Sequence[str | None] = (
                clause.stages if isinstance(clause, RestrictedClause) and clause.stages else (None,)
            )
            for part in parts:
                about = f"{clause.title}. {clause.policy}"
                if part is not None:
                    about += f" The working step in question: {stages.get(part, part)}"
                found += [
                    Job(side, clause.id, about, part, number)
                    for number in range(self._settings.rounds)
                ]
        return found

    async def _wave(
        self, jobs: Sequence[Job], seed: int
    ) -> list[tuple[Job, list[tuple[str, str]]]]:
        timeout = aiohttp.ClientTimeout(total=self._settings.timeout_s)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            chat = Chat(session, self._settings)
            found = await asyncio.gather(*(self._run(chat, job, seed) for job in jobs))
            return list(zip(jobs, found, strict=True))

    async def _run(self, chat: "Chat", job: Job, seed: int) -> Pairs:
        voice = _VOICES[(seed + job.round) % len(_VOICES)]
        listing = await chat.complete(_request_for_asks(job, voice, self._settings.batch), seed)
        asks = [ask for ask in listed(listing) if self._good_ask(job, ask)]
        pairs: Pairs = []
        for ask in asks[: self._settings.batch]:
            reply = (await chat.complete(_request_for_reply(job, ask), seed)).strip()
            low, high = _REPLY_CHARS
            if len(reply) >= low and not _DECLINED.match(reply):
                pairs.append((ask, reply[:high]))
        return pairs

    def _good_ask(self, job: Job, ask: str) -> bool:
        low, high = _ASK_CHARS
        if not low <= len(ask) <= high:
            return False
        return job.side is Side.PERMITTED or self._words is None or self._words.asks("", ask)

    def _example(self, job: Job, number: int, ask: str, reply: str, seed: int) -> Example:
        prefix = f"{self.name}/{job.name}"
        return Example(
            id=f"{prefix}-{number:02}",
            family=prefix,
            split=Split.TRAIN,
            side=job.side,
            clause=job.clause,
            exchange=user_says(ask),
            reply=reply,
            ask=job.side is Side.RESTRICTED,
            lineage=Lineage(
                constitution=self._constitution.digest,
                generator=self.name,
                seed=seed,
                chain=(f"model:{self._settings.model}",),
            ),
            stage=job.stage,
        )


def listed(text: str) -> list[str]:
    """Return the items of a numbered or bulleted list, quotes taken off, each once."""
    found = [match[1].strip('"“” ') for line in text.splitlines() if (match := _LINE.match(line))]
    return list(dict.fromkeys(found))


class Chat:
    """One chat model behind the OpenAI wire format, with retries."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        settings: ChatSettings,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """Take the HTTP session and which model to ask; `pause` waits between tries."""
        self._session = session
        self._settings = settings
        self._pause = pause

    async def complete(self, messages: list[dict[str, str]], seed: int) -> str:
        """Return the model's answer.

        Raises:
            UpstreamError: It failed every time, refused the request or answered nonsense.
        """
        settings = self._settings
        problem = "no try was made"
        for attempt in range(settings.retries + 1):
            if attempt:
                await self._pause(settings.backoff_s * 2 ** (attempt - 1))
            body = {
                "model": settings.model,
                "messages": messages,
                "temperature": settings.temperature,
                "max_tokens": settings.max_tokens,
                "seed": seed + attempt,
            }
            headers = {"authorization": f"Bearer {settings.key}"} if settings.key else {}
            try:
                async with self._session.post(
                    f"{settings.url.rstrip('/')}/chat/completions", json=body, headers=headers
                ) as response:
                    if response.status in _FINAL:
                        raise UpstreamError(
                            f"the model server refused the request: HTTP {response.status}"
                        )
                    if response.status == _OK:
                        return _content(await response.read())
                    problem = f"HTTP {response.status}"
            except (aiohttp.ClientError, TimeoutError, DataError) as error:
                problem = str(error) if isinstance(error, DataError) else type(error).__name__
        raise UpstreamError(f"the model server failed {settings.retries + 1} times: {problem}")


_OK = 200
_FINAL = frozenset({400, 401, 403, 404, 405, 413, 422})


class _Message(msgspec.Struct):
    content: str | None = None


class _Choice(msgspec.Struct):
    message: _Message


class _Completion(msgspec.Struct):
    choices: list[_Choice]


def _content(body: bytes) -> str:
    try:
        choices = msgspec.json.decode(body, type=_Completion).choices
    except (msgspec.ValidationError, msgspec.DecodeError) as error:
        raise DataError("the answer is no chat completion") from error
    if not choices or not choices[0].message.content:
        raise DataError("the answer is empty")
    return choices[0].message.content


def _request_for_asks(job: Job, voice: str, count: int) -> list[dict[str, str]]:
    wish = (
        "messages in which users ask for exactly such help, in detail"
        if job.side is Side.RESTRICTED
        else "messages in which users ask for help of this harmless kind"
    )
    return [
        {
            "role": "system",
            "content": "You write realistic test data for a text classifier. Each item differs "
            "from the others in wording, length and detail.",
        },
        {
            "role": "user",
            "content": f"Subject: {job.about}\n\nWrite a numbered list of {count} {wish}. "
            f"One message a line, in the voice of {voice}. Only the list.",
        },
    ]


def _request_for_reply(job: Job, ask: str) -> list[dict[str, str]]:
    manner = (
        "Answer with a complete practical passage: quantities, temperatures, times, order."
        if job.side is Side.RESTRICTED
        else "Answer helpfully in one to three paragraphs."
    )
    return [{"role": "system", "content": manner}, {"role": "user", "content": ask}]


def _words_of(domain: str) -> AskList | None:
    try:
        return ask_list(domain)
    except DataError:
        return None
