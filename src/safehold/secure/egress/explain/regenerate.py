"""A sampled reply generated again by the upstream that served it.

The upstream speaks chat completions with `seed`, log-probabilities and assistant turns to go on
with (`continue_final_message`, as vLLM and SGLang have it). It generates from the reply's beginning
until it says otherwise; then the reply's own token is put in place and it goes on from there. Each
token that came out otherwise counts with the choices that the sampler had.

The count is never too low: a token that the list of likely ones does not show counts with the whole
vocabulary, one in a list that is cut off with as many as can have the chance that counts, and a
seed that can't be resumed in mid-reply makes honest replies look chosen.
"""

import http.client
import math
import urllib.parse
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Annotated, Any

import msgspec

from safehold.secure.egress.explain.tokens import Rescored
from safehold.secure.egress.interface import ExplainedRowError

PLAUSIBLE = 0.001
"""A token with at least this chance is one of the sampler's choices."""
LIKELY = 20
"""How many likely tokens an upstream is asked for at each place; no API gives more."""
_MOST = round(1 / PLAUSIBLE)
_TOKENS_AT_ONCE = 512
_TIMEOUT_S = 300.0
_MAX_BYTES = 16 * 2**20


class DrawnToken(msgspec.Struct, frozen=True):
    """One token that the upstream gave, and the logarithms of the chances of likely ones there."""

    text: str
    likely: Mapping[str, float]


Draw = Callable[[str], Sequence[DrawnToken]]
"""Goes on after the beginning of a reply; returns nothing when the upstream ends it there."""


def traced(
    draw: Draw, reply: str, *, vocabulary: int, temperature: float, most_asked: int = 200
) -> Rescored:
    """Generate a reply again and say where it was given otherwise.

    What is left after `most_asked` questions counts as chosen freely, one token a character.
    """
    at = agreed = 0
    choices: list[int] = []
    for _ in range(most_asked):
        if at >= len(reply):
            break
        drawn = draw(reply[:at])
        for one in drawn:
            if one.text and reply.startswith(one.text, at):
                agreed += 1
                at += len(one.text)
                if at >= len(reply):
                    break
                continue
            own = _own(one.likely, reply, at)
            choices.append(_choices(one.likely, own, vocabulary, temperature))
            at += len(own) or 1
            break
        if not drawn:
            choices.append(vocabulary)
            at += 1
    choices += [vocabulary] * max(0, len(reply) - at)
    return Rescored(agreed + len(choices), agreed, tuple(choices))


def _own(likely: Mapping[str, float], reply: str, at: int) -> str:
    """The longest likely token that the reply has here; empty when it has none of them."""
    return max(
        (text for text in likely if text and reply.startswith(text, at)), key=len, default=""
    )


def _choices(likely: Mapping[str, float], own: str, vocabulary: int, temperature: float) -> int:
    line = math.log(PLAUSIBLE)
    if not own or not likely[own] >= line:  # Not a number is no chance.
        return vocabulary
    plausible = sum(value >= line for value in likely.values())
    # A list that ends above the line is cut off, and heat lifts what is below it.
    if temperature > 1:
        return vocabulary
    return max(2, plausible) if plausible < len(likely) else min(_MOST, vocabulary)


class _Chance(msgspec.Struct, frozen=True):
    token: str
    logprob: float


class _Token(msgspec.Struct, frozen=True):
    token: str
    top_logprobs: tuple[_Chance, ...]


class _Logprobs(msgspec.Struct, frozen=True):
    content: tuple[_Token, ...] | None


class _Choice(msgspec.Struct, frozen=True):
    logprobs: _Logprobs


class _Answer(msgspec.Struct, frozen=True):
    """The part of a chat completion that is read."""

    choices: Annotated[tuple[_Choice, ...], msgspec.Meta(min_length=1)]


class UpstreamSampling(msgspec.Struct, frozen=True):
    """What the sampler was given."""

    seed: int
    temperature: float
    top_p: float


class UpstreamTracer:
    """Generates sampled replies again at an OpenAI-compatible server."""

    def __init__(self, url: str, model: str, *, vocabulary: int, key: str = "") -> None:
        """`url` is the base that ends in `/v1`.

        Raises:
            ExplainedRowError: It is no http or https URL.
        """
        self._parts = urllib.parse.urlsplit(url)
        if self._parts.scheme not in {"http", "https"} or not self._parts.hostname:
            raise ExplainedRowError(f"expected an http or https URL, got {url[:60]!r}")
        self._model, self._vocabulary, self._key = model, vocabulary, key

    def traced(
        self, messages: Sequence[Mapping[str, str]], reply: str, sampling: UpstreamSampling
    ) -> Rescored:
        """Generate one reply again.

        Raises:
            ExplainedRowError: The upstream did not answer, or gave no log-probabilities.
        """
        return traced(
            lambda begun: self._draw(messages, begun, sampling),
            reply,
            vocabulary=self._vocabulary,
            temperature=sampling.temperature,
        )

    def _draw(
        self, messages: Sequence[Mapping[str, str]], begun: str, sampling: UpstreamSampling
    ) -> list[DrawnToken]:
        asked: dict[str, Any] = {
            "model": self._model,
            "messages": [*messages],
            "seed": sampling.seed,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "logprobs": True,
            "top_logprobs": LIKELY,
            "max_tokens": _TOKENS_AT_ONCE,
        }
        if begun:
            asked["messages"].append({"role": "assistant", "content": begun})
            asked |= {"continue_final_message": True, "add_generation_prompt": False}
        content = self._asked(msgspec.json.encode(asked))
        try:
            answer = msgspec.json.decode(content, type=_Answer)
        except (msgspec.DecodeError, msgspec.ValidationError) as error:
            raise ExplainedRowError(
                "the upstream gave no log-probabilities: expected choices[0].logprobs.content with "
                "top_logprobs; serve with them on, or use --model"
            ) from error
        return [
            DrawnToken(one.token, {other.token: other.logprob for other in one.top_logprobs})
            for one in answer.choices[0].logprobs.content or ()
        ]

    def _asked(self, body: bytes) -> bytes:
        kind = (
            http.client.HTTPSConnection
            if self._parts.scheme == "https"
            else http.client.HTTPConnection
        )
        link = kind(str(self._parts.hostname), self._parts.port, timeout=_TIMEOUT_S)
        head = {"Content-Type": "application/json"}
        if self._key:
            head["Authorization"] = f"Bearer {self._key}"
        try:
            link.request("POST", f"{self._parts.path.rstrip('/')}/chat/completions", body, head)
            answer = link.getresponse()
            content = answer.read(_MAX_BYTES)
        except (OSError, http.client.HTTPException) as error:
            raise ExplainedRowError(f"the upstream did not answer: {error}") from error
        finally:
            link.close()
        if answer.status != HTTPStatus.OK:
            raise ExplainedRowError(f"the upstream answered {answer.status}: {content[:120]!r}")
        return content
