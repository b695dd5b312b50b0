"""Images and files on their way to a scorer of the operator's: nothing passes without a score."""

import asyncio
import base64
import math
from collections.abc import Sequence
from typing import Any

import aiohttp
import msgspec

from safehold.errors import ScorerError
from safehold.guard.gateway.interface import Media, TooLargeError, UnsupportedError
from safehold.guard.gateway.media_settings import MediaScorer
from safehold.guard.gateway.upstreams.http import read_key
from safehold.guard.interface import Allow, Block, Stage, Verdict

_MOST_ANSWER_BYTES = 1 << 20
_OK = 200


class _Plain(msgspec.Struct):
    score: float


class _Result(msgspec.Struct):
    category_scores: dict[str, float | None] = {}
    categories: dict[str, bool | None] = {}
    flagged: bool | None = None


class _Moderated(msgspec.Struct):
    results: list[_Result]


_PLAIN = msgspec.json.Decoder(_Plain)
_MODERATED = msgspec.json.Decoder(_Moderated)


class MediaScored(msgspec.Struct, frozen=True):
    """What the scorer said of one item; `score` is None where it failed."""

    media: Media
    score: float | None


class MediaJudge:
    """Asks the configured scorer. Shared by all requests of a worker."""

    def __init__(self, settings: MediaScorer) -> None:
        """Take the settings.

        Raises:
            ConfigError: The key's file can't be read.
        """
        self._settings = settings
        self._key = read_key(settings.api_key_file)
        self._session: aiohttp.ClientSession | None = None

    def check(self, media: Sequence[Media]) -> None:
        """Refuse what the scorer can't read.

        Raises:
            UnsupportedError: An item is of another type.
            TooLargeError: There are too many items.
        """
        most, known = self._settings.max_items, self._settings.media_types
        if len(media) > most:
            raise TooLargeError(f"expected at most {most} images and files, came more")
        for one in media:
            if not one.media_type.startswith(known):
                raise UnsupportedError(
                    "came an image or file of a type that the media scorer does not read "
                    "(setting media_scorer.media_types)"
                )

    async def scores(self, media: Sequence[Media]) -> list[MediaScored]:
        """Return a score for each item, in order; None where the scorer failed."""
        found = await asyncio.gather(*(self._score(one) for one in media))
        return [MediaScored(one, score) for one, score in zip(media, found, strict=True)]

    def verdict(self, scored: Sequence[MediaScored]) -> Verdict:
        """Return what scores mean.

        Raises:
            ScorerError: One item has no score, and none is reason enough to block.
        """
        highest = max((one.score for one in scored if one.score is not None), default=0.0)
        if highest >= self._settings.threshold:
            return Block(clause=self._settings.clause, score=highest, stage=Stage.MEDIA)
        if any(one.score is None for one in scored):
            raise ScorerError("an image or a file could not be scored")
        return Allow(score=highest)

    async def _score(self, media: Media) -> float | None:
        try:
            async with asyncio.timeout(self._settings.timeout_s):
                score = self._read(await self._ask(media))
        except (TimeoutError, aiohttp.ClientError, OSError, ValueError):
            return None  # msgspec's errors are ValueErrors
        return score if math.isfinite(score) and 0 <= score <= 1 else None

    async def _ask(self, media: Media) -> bytes:
        if self._session is None:
            self._session = aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar())
        settings = self._settings
        data = base64.b64encode(media.data).decode()
        url, body = settings.url, {"media_type": media.media_type, "sha256": media.sha256}
        sent: dict[str, Any] = body | {"data": data}
        if settings.form == "moderations":
            url = f"{settings.url.rstrip('/')}/moderations"
            image = {"url": f"data:{media.media_type};base64,{data}"}
            sent = {"model": settings.model, "input": [{"type": "image_url", "image_url": image}]}
        headers = {} if self._key is None else {"authorization": f"Bearer {self._key}"}
        async with self._session.post(
            url, json=sent, headers=headers, allow_redirects=False
        ) as answer:
            if answer.status != _OK:
                raise ValueError("expected status 200")
            return await _whole(answer)

    def _read(self, body: bytes) -> float:
        if self._settings.form == "plain":
            return _PLAIN.decode(body).score
        results = _MODERATED.decode(body).results
        if len(results) != 1:
            raise ValueError("expected one result")
        result, named = results[0], self._settings.categories
        scores = result.category_scores
        wanted = [scores.get(name) for name in named] if named else list(scores.values())
        flags = [result.categories.get(name) for name in named] if named else [result.flagged]
        if any(flags):
            return 1.0
        if not wanted or None in wanted:
            raise ValueError("expected a score of each category")
        known = [score for score in wanted if score is not None]
        if not all(math.isfinite(score) and 0 <= score <= 1 for score in known):
            raise ValueError("expected scores from 0 to 1")
        return max(known)

    async def close(self) -> None:
        """Drop all connections."""
        if self._session is not None:
            await self._session.close()


async def _whole(answer: aiohttp.ClientResponse) -> bytes:
    """Return a body of a bounded length.

    Raises:
        ValueError: It is longer.
    """
    body = await answer.content.read(_MOST_ANSWER_BYTES + 1)
    while len(body) <= _MOST_ANSWER_BYTES:
        more = await answer.content.read(_MOST_ANSWER_BYTES + 1 - len(body))
        if not more:
            return body
        body += more
    raise ValueError("expected a shorter answer")
