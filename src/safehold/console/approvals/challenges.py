"""Challenges of enrolments: each is given for one person, serves once, and lasts five minutes.

The person stands in the challenge itself, behind its 32 random bytes: whoever finds the challenge
in the store knows for whom it was given.
"""

import secrets
import threading
from collections.abc import Callable
from typing import Protocol

from safehold.errors import TrustError
from safehold.trust.people.interface import SignatureError
from safehold.trust.people.passkey import b64url, unb64url

LIFE_S = 300.0
MOST = 1000
MOST_EACH = 8
"""Open challenges of one person: a further one takes the place of the oldest."""
_RANDOM_BYTES = 32


class EnrolmentChallenges(Protocol):
    """Where the challenges stand that are given and not spent yet."""

    def give(self, person: str) -> str:
        """Return a fresh challenge for a person.

        Raises:
            TrustError: too many are open.
        """
        ...

    def spend(self, challenge: str) -> str:
        """Take a challenge away; return the person that it was given for.

        Raises:
            SignatureError: it was not given here within five minutes, or was spent.
        """
        ...


def fresh(person: str) -> str:
    """Return a challenge for a person that was never given before."""
    return b64url(secrets.token_bytes(_RANDOM_BYTES) + person.encode())


def person_of(challenge: str) -> str:
    """Return the person that a challenge names, whoever made it.

    Raises:
        SignatureError: it is none of ours.
    """
    try:
        return unb64url(challenge)[_RANDOM_BYTES:].decode()
    except ValueError as error:
        raise unknown() from error


def too_many() -> TrustError:
    """Return the error of a store that is full."""
    return TrustError("too many enrolments at once; wait five minutes")


def unknown() -> SignatureError:
    """Return the error of a challenge that does not stand in the store."""
    return SignatureError("expected a challenge that was given here within five minutes")


class OwnChallenges:
    """Challenges of one process; they end with it."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """Take a clock in seconds."""
        self._clock = clock
        self._lock = threading.Lock()
        self._open: dict[str, float] = {}

    def give(self, person: str) -> str:
        """Return a fresh challenge for a person."""
        now, challenge = self._clock(), fresh(person)
        with self._lock:
            self._open = {one: at for one, at in self._open.items() if at > now - LIFE_S}
            mine = [one for one in self._open if person_of(one) == person]
            for one in mine[: max(0, len(mine) - MOST_EACH + 1)]:
                del self._open[one]
            if len(self._open) >= MOST:
                raise too_many()
            self._open[challenge] = now
        return challenge

    def spend(self, challenge: str) -> str:
        """Take a challenge away; return the person that it was given for."""
        with self._lock:
            at = self._open.pop(challenge, None)
        if at is None or at <= self._clock() - LIFE_S:
            raise unknown()
        return person_of(challenge)
