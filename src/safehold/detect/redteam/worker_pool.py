"""Attempts in several processes: an attempt is a pure function of the guard and itself."""

import multiprocessing
from collections.abc import Callable, Iterator, Sequence

from safehold.detect.redteam.interface import Attempt, AttemptResult
from safehold.detect.redteam.run import Attacker

_CHUNK = 8
_LIFE = 4000
"""Attempts of a process; what its word caches have grown to goes with it."""

_attacker: Attacker | None = None


class Crew:
    """Several processes, each with a guard of its own."""

    def __init__(self, make: Callable[[], Attacker], processes: int) -> None:
        """Take what builds an attacker (it is sent to the processes) and how many there are."""
        self._make = make
        self._processes = processes

    def play_all(self, attempts: Sequence[Attempt]) -> Iterator[AttemptResult]:
        """Yield what came of each attempt as it comes, in any order."""
        context = multiprocessing.get_context("spawn")
        with context.Pool(self._processes, _begin, (self._make,), _LIFE) as pool:
            yield from pool.imap_unordered(_play, attempts, _CHUNK)


def _begin(make: Callable[[], Attacker]) -> None:
    global _attacker  # noqa: PLW0603 - a process has one attacker
    _attacker = make()


def _play(attempt: Attempt) -> AttemptResult:
    if _attacker is None:
        raise RuntimeError("the process was not begun")
    return _attacker.play(attempt)
