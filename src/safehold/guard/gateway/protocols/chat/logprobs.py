"""Log probabilities under the `chosen` rule: numbers for released tokens, no alternatives.

An alternative token is text that nobody scored, so it never leaves. A chosen token leaves when all
of its characters have been released as text.
"""

import math
from collections import deque
from typing import Any

from safehold.exchange import Lane


class ChosenTokens:
    """Keeps, per lane, the log probabilities of tokens whose text is still withheld."""

    def __init__(self) -> None:
        self._waiting: dict[Lane, deque[tuple[str, float]]] = {}
        self._released: dict[Lane, str] = {}

    def add(self, lane: Lane, text: str, tokens: list[tuple[str, float]]) -> None:
        """Take the tokens of a delta; tokens that do not spell its text are dropped for good."""
        queue = self._waiting.setdefault(lane, deque())
        if "".join(token for token, _ in tokens) == text:
            queue.extend(tokens)
        elif text:
            queue.append((text, float("nan")))

    def take(self, lane: Lane, text: str) -> list[dict[str, Any]]:
        """Return the entries of the tokens that `text` completes."""
        queue = self._waiting.get(lane)
        if queue is None:
            return []
        rest = self._released.get(lane, "") + text
        entries: list[dict[str, Any]] = []
        while queue and rest.startswith(queue[0][0]):
            token, logprob = queue.popleft()
            rest = rest[len(token) :]
            if not math.isnan(logprob):
                entries.append(
                    {"token": token, "logprob": logprob, "bytes": None, "top_logprobs": []}
                )
        self._released[lane] = rest
        return entries
