"""Images and files on their way to a scorer of the operator's: nothing passes without a score."""

import asyncio
import base64
import math
from collections.abc import AsyncIterator, Sequence
from types import SimpleNamespace
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
_AT_ONCE = 32
"""Questions of a worker that are on their way; others wait, and their time runs."""
_PIECE_BYTES = 3 << 14
"""Sent in one go: a multiple of 3, so that the pieces' base64 is that of the whole."""
_HERE = "<here>"
_UNREADABLE = "answered no JSON of the form that is set (media_scorer.form)"


class _UnusableAnswerError(ValueError):
    """What came is no score; the text is ours, never the scorer's."""


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
    """What the scorer said of one item; `score` is None where it failed, and `failed` says why.

    The reason is for the operator: it says what the scorer did, in no words of its own.
    """

    media: Media
    score: float | None
    failed: str = ""


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
        """Return a score for each item, in order; None, and why, where the scorer failed."""
        return await asyncio.gather(*(self._score(one) for one in media))

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

    async def _score(self, media: Media) -> MediaScored:
        try:
            async with asyncio.timeout(self._settings.timeout_s):
                score = self._read(await self._asked(media))
        except TimeoutError:
            failed = f"gave no answer within {self._settings.timeout_s:g} s"
        except (aiohttp.ClientError, OSError) as error:
            failed = _unreached(error)
        except _UnusableAnswerError as error:
            failed = str(error)
        except (ValueError, RecursionError):  # msgspec's errors are ValueErrors
            failed = _UNREADABLE
        else:
            if math.isfinite(score) and 0 <= score <= 1:
                return MediaScored(media, score)
            failed = "answered a score that is not from 0 to 1"
        return MediaScored(media, None, failed)

    async def _asked(self, media: Media) -> bytes:
        """Ask, and again where a kept connection had ended: to score twice does no harm.

        It may end before, while or after the question is sent, so each error of it counts; but a
        connection that was made for the question is asked once.
        """
        while True:
            over = _Connection()
            try:
                return await self._ask(media, over)
            except (aiohttp.ClientConnectionError, ConnectionError):
                if not over.kept:
                    raise

    async def _ask(self, media: Media, over: "_Connection") -> bytes:
        if self._session is None:
            noting = aiohttp.TraceConfig()
            noting.on_connection_reuseconn.append(_note_kept)
            self._session = aiohttp.ClientSession(
                trace_configs=[noting],
                connector=aiohttp.TCPConnector(limit=_AT_ONCE),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=None),  # ours is the one that is set
                auto_decompress=False,  # a short answer could become a long one
            )
        settings = self._settings
        url, body = settings.url, {"media_type": media.media_type, "sha256": media.sha256}
        sent: dict[str, Any] = body | {"data": _HERE}
        if settings.form == "moderations":
            url = f"{settings.url.rstrip('/')}/moderations"
            image = {"url": f"data:{media.media_type};base64,{_HERE}"}
            sent = {"model": settings.model, "input": [{"type": "image_url", "image_url": image}]}
        before, _, after = msgspec.json.encode(sent).rpartition(_HERE.encode())
        length = len(before) + 4 * math.ceil(len(media.data) / 3) + len(after)
        headers = {
            "content-type": "application/json",
            "content-length": str(length),
            "accept-encoding": "identity",
        }
        if self._key is not None:
            headers["authorization"] = f"Bearer {self._key}"
        async with self._session.post(
            url,
            data=_pieces(before, media.data, after),
            headers=headers,
            allow_redirects=False,
            trace_request_ctx=over,
        ) as answer:
            if answer.status != _OK:
                raise _UnusableAnswerError(f"answered status {answer.status}")
            if answer.headers.get("content-encoding", "identity").lower() != "identity":
                raise _UnusableAnswerError("answered an encoded body; expected a plain one")
            return await _whole(answer)

    def _read(self, body: bytes) -> float:
        body.decode()  # JSON is UTF-8 throughout, in members that nobody reads too
        if self._settings.form == "plain":
            return _PLAIN.decode(body).score
        results = _MODERATED.decode(body).results
        if len(results) != 1:
            raise _UnusableAnswerError(f"answered {len(results)} results; expected one")
        result, named = results[0], self._settings.categories
        scores = result.category_scores
        wanted = [scores.get(name) for name in named] if named else list(scores.values())
        flags = [result.categories.get(name) for name in named] if named else [result.flagged]
        if any(flags):
            return 1.0
        if not wanted or None in wanted:
            raise _UnusableAnswerError("answered no score of a category (media_scorer.categories)")
        known = [score for score in wanted if score is not None]
        if not all(math.isfinite(score) and 0 <= score <= 1 for score in known):
            raise _UnusableAnswerError("answered a score that is not from 0 to 1")
        return max(known)

    async def close(self) -> None:
        """Drop all connections."""
        if self._session is not None:
            await self._session.close()


class _Connection:
    """Whether a question went over a connection that was kept from an earlier one."""

    kept = False


async def _note_kept(_session: object, context: SimpleNamespace, _found: object) -> None:
    context.trace_request_ctx.kept = True


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
    raise _UnusableAnswerError(f"answered more than {_MOST_ANSWER_BYTES} bytes")


async def _pieces(before: bytes, data: bytes, after: bytes) -> AsyncIterator[bytes]:
    """Yield a body with data in base64: neither a copy of it, nor a long moment for the others."""
    yield before
    whole = memoryview(data)
    for start in range(0, len(data), _PIECE_BYTES):
        yield base64.b64encode(whole[start : start + _PIECE_BYTES])
    yield after


def _unreached(error: aiohttp.ClientError | OSError) -> str:
    """Say why there is no answer; the operator finds the scorer's address in the settings."""
    match error:
        case aiohttp.ClientConnectorDNSError():
            return "was not found: its name is unknown (media_scorer.url)"
        case aiohttp.ClientSSLError():
            return "was not reached: its TLS certificate or handshake is not good"
        case aiohttp.ClientConnectorError():
            return f"was not reached ({error.strerror or 'no connection'})"
        case aiohttp.ClientResponseError():
            return "answered something that is not HTTP"
        case _:
            return "closed the connection before its answer was whole"
