"""The judge as a scorer: any OpenAI-compatible model behind the interface of stage 2."""

import asyncio
import secrets
from collections.abc import Sequence
from typing import Any

import aiohttp
import msgspec

from safehold.constitution import Constitution
from safehold.errors import ConfigError, ScorerError, UsageError
from safehold.guard.scorers.interface import ExchangeScore, ScoringInput
from safehold.guard.scorers.judge.framing import Framing
from safehold.http_ask import checked_address

_OK = 200
_ABOUT_THE_REQUEST = frozenset({400, 413, 422})
"""Statuses that a server gives to one request, and not to all of them."""
_MOST_BYTES = 1 << 20


class JudgeAwayError(ScorerError):
    """The judge's server is away, busy, no model server, or refuses everybody: ask later."""


class JudgeSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which model judges, and how long it may take.

    `url` is the base URL with its version. `timeout_s` bounds one answer with all its tries.
    `structured` asks the server to hold the model to the answer's schema.
    """

    url: str
    model: str
    key: str = ""
    timeout_s: float = 60.0
    tries: int = 2
    parallel: int = 4
    most_tokens: int = 200
    structured: bool = True

    def __post_init__(self) -> None:
        """Refuse settings that can't work.

        Raises:
            ConfigError: The URL is not http or https, or a number is below 1.
        """
        try:
            checked_address(self.url)
        except UsageError as error:
            raise ConfigError(f"judge: {error}") from error
        if min(self.tries, self.parallel, self.most_tokens) < 1 or not self.timeout_s > 0:
            raise ConfigError("judge: tries, parallel, most_tokens and timeout_s must be above 0")


class _JudgeMessage(msgspec.Struct):
    content: str | None = None


class _JudgeChoice(msgspec.Struct):
    message: _JudgeMessage


class _JudgeCompletion(msgspec.Struct):
    choices: list[_JudgeChoice]


class PromptedJudge:
    """An exchange scorer that asks a model. Slow: for offline use, or behind an escalation.

    A judge that fails raises; the fail mode of its stage decides what that means, and offline the
    item counts as unscorable. It must not be called from a running event loop.
    """

    name = "judge"

    def __init__(
        self, constitution: Constitution, settings: JudgeSettings, key: bytes | None = None
    ) -> None:
        """Take the constitution and the model; `key` makes the ids repeat (for tests)."""
        self.framing = Framing(constitution, key or secrets.token_bytes(16))
        self._settings = settings

    def score(self, batch: Sequence[ScoringInput]) -> list[ExchangeScore]:
        """Score every input of a batch, in order.

        Raises:
            ScorerError: The model failed, took too long or gave no verdict on one of them.
        """
        scores: list[ExchangeScore] = []
        for answer in self.answers(batch):
            if isinstance(answer, ScorerError):
                raise answer
            scores.append(answer)
        return scores

    def answers(self, batch: Sequence[ScoringInput]) -> list[ExchangeScore | ScorerError]:
        """Return the score or the failure of every input, in order."""
        return asyncio.run(self._all(batch))

    async def _all(self, batch: Sequence[ScoringInput]) -> list[ExchangeScore | ScorerError]:
        gate = asyncio.Semaphore(self._settings.parallel)
        async with aiohttp.ClientSession() as session:
            return list(await asyncio.gather(*(self._one(session, gate, one) for one in batch)))

    async def _one(
        self, session: aiohttp.ClientSession, gate: asyncio.Semaphore, given: ScoringInput
    ) -> ExchangeScore | ScorerError:
        failure = ScorerError("judge: no try was made")
        async with gate:
            try:
                async with asyncio.timeout(self._settings.timeout_s):
                    for _ in range(self._settings.tries):
                        try:
                            return self.framing.read(await self._ask(session, given), given)
                        except ScorerError as error:
                            failure = error
            except TimeoutError:
                return JudgeAwayError("judge: no answer in time")
        return failure

    async def _ask(self, session: aiohttp.ClientSession, given: ScoringInput) -> str:
        settings = self._settings
        body: dict[str, Any] = {
            "model": settings.model,
            "messages": self.framing.messages(given),
            "temperature": 0,
            "max_tokens": settings.most_tokens,
        }
        if settings.structured:
            schema = {"name": "verdict", "strict": True, "schema": self.framing.schema()}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        headers = {"authorization": f"Bearer {settings.key}"} if settings.key else {}
        url = f"{settings.url.rstrip('/')}/chat/completions"
        try:
            async with session.post(
                url, json=body, headers=headers, allow_redirects=False
            ) as response:
                if response.status != _OK:
                    said = f"judge: expected status 200, came {response.status}"
                    if response.status in _ABOUT_THE_REQUEST:
                        raise ScorerError(said)
                    raise JudgeAwayError(said)
                content = b""
                while part := await response.content.readany():
                    content += part
                    if len(content) > _MOST_BYTES:
                        raise ScorerError(f"judge: expected at most {_MOST_BYTES} bytes")
        except (aiohttp.ClientError, OSError) as error:
            raise JudgeAwayError("judge: can't be reached") from error
        try:
            choices = msgspec.json.decode(content, type=_JudgeCompletion).choices
        except msgspec.DecodeError as error:
            raise JudgeAwayError("judge: expected a chat completion") from error
        if not choices or not choices[0].message.content:
            raise ScorerError("judge: the answer is empty")
        return choices[0].message.content
