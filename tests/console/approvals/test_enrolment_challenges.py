"""Challenges of enrolments: one use, five minutes, one person, in whichever process they began."""

from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import create_engine

from safehold.console.approvals.challenges import (
    LIFE_S,
    MOST_EACH,
    EnrolmentChallenges,
    OwnChallenges,
    fresh,
)
from safehold.console.shell.logins import Logins
from safehold.errors import TrustError
from safehold.trust.people.interface import SignatureError


class Clock:
    """Seconds, moved by hand."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        """Return what it shows."""
        return self.now


@pytest.fixture
def clock() -> Clock:
    """A clock."""
    return Clock()


@pytest.fixture
def started(tmp_path: Path, clock: Clock) -> Callable[[], Logins]:
    """Return what starts one more console process on the same database."""
    return lambda: Logins(create_engine(f"sqlite:///{tmp_path / 'console.db'}"), clock)


@pytest.fixture(params=["one process", "database"])
def challenges(
    request: pytest.FixtureRequest, clock: Clock, started: Callable[[], Logins]
) -> EnrolmentChallenges:
    """Each of the two stores."""
    return OwnChallenges(clock) if request.param == "one process" else started().enrolments()


def test_a_challenge_serves_its_person_once(challenges: EnrolmentChallenges) -> None:
    """It names its person, and is worth nothing a second time; no two are equal."""
    first, second = challenges.give("p-ada"), challenges.give("p-ada")
    assert first != second
    assert challenges.spend(first) == "p-ada"
    for spent in (first, fresh("p-ada"), "", "%%%", "AAAA", "é"):
        with pytest.raises(SignatureError):
            challenges.spend(spent)
    assert challenges.spend(second) == "p-ada"


def test_a_challenge_ends_after_five_minutes(challenges: EnrolmentChallenges, clock: Clock) -> None:
    """A second before it holds; then it does not."""
    early, late = challenges.give("p-ada"), challenges.give("p-ada")
    clock.now += LIFE_S - 1
    assert challenges.spend(early) == "p-ada"
    clock.now += 1
    with pytest.raises(SignatureError, match="within five minutes"):
        challenges.spend(late)


def test_a_crowd_of_one_person_takes_nobody_elses(
    challenges: EnrolmentChallenges, clock: Clock
) -> None:
    """A further challenge of a person takes the place of that person's oldest one."""
    other = challenges.give("p-ad")  # whose name begins like the other's
    asked = []
    for _ in range(MOST_EACH + 3):
        clock.now += 1
        asked.append(challenges.give("p-ada"))
    for gone in asked[:3]:
        with pytest.raises(SignatureError):
            challenges.spend(gone)
    assert {challenges.spend(one) for one in asked[3:]} == {"p-ada"}
    assert challenges.spend(other) == "p-ad"


def test_another_process_ends_what_one_began(started: Callable[[], Logins]) -> None:
    """After a restart, or in a second console, the challenge holds, and once over all of them."""
    challenge = started().enrolments().give("p-ada")
    assert started().enrolments().spend(challenge) == "p-ada"
    with pytest.raises(SignatureError):
        started().enrolments().spend(challenge)


def test_challenges_of_logins_and_enrolments_are_apart(started: Callable[[], Logins]) -> None:
    """Neither is spent as the other, by its own text or by the name it stands under."""
    logins = started()
    challenge, nonce = logins.enrolments().give("p-ada"), logins.challenge()
    for said in (challenge, f"enrolment:{b'p-ada'.hex()}:{challenge}"):
        with pytest.raises(TrustError):
            logins.spend(said)
    with pytest.raises(SignatureError):
        logins.enrolments().spend(nonce)
    logins.spend(nonce)
    assert logins.enrolments().spend(challenge) == "p-ada"
