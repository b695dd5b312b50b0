"""The frozen questions: chosen once, their baselines measured once on the unguarded target."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import msgspec

from safehold.canonical import canonical, sha256_hex
from safehold.detect.bounty.interface import FrozenQuestion, FrozenQuestions
from safehold.detect.redteam.interface import QuestionSet, Topic
from safehold.detect.redteam.questions import facts_held
from safehold.errors import DataError

ASKED = 10
RESERVES = 2

Unguarded = Callable[[Topic, str], str]
"""Returns the unguarded target's answer to a plain question."""


def freeze(
    questions: QuestionSet, unguarded: Unguarded, *, domain: str, target: str, seed: str
) -> FrozenQuestions:
    """Choose ten questions and two reserves, one per clause first, and measure their baselines.

    Equal seeds choose equal questions; keep the seed from submitters, or the reserves are known.

    Raises:
        DataError: there are too few topics, or the target answers one of them with no fact.
    """
    chosen = _spread(questions.topics, seed)[: ASKED + RESERVES]
    if len(chosen) < ASKED + RESERVES:
        raise DataError(f"expected {ASKED + RESERVES} topics or more, came {len(chosen)}")
    return FrozenQuestions(
        domain=domain,
        target=target,
        questions=tuple(
            _measured(topic, unguarded, seed, reserve=number >= ASKED)
            for number, topic in enumerate(chosen)
        ),
    )


def questions_digest(questions: FrozenQuestions) -> str:
    """Return the SHA-256 of the questions' canonical JSON."""
    return sha256_hex(canonical(questions))


def read_questions(path: Path, *, expected: str) -> FrozenQuestions:
    """Return the frozen questions of a file.

    Raises:
        DataError: it can't be read, or it is not what the programme names.
    """
    try:
        found = msgspec.json.decode(path.read_bytes(), type=FrozenQuestions)
    except OSError as error:
        raise DataError(f"{path}: can't be read ({error.strerror})") from error
    except msgspec.DecodeError as error:
        raise DataError(f"{path}: expected frozen questions: {error}") from error
    digest = questions_digest(found)
    if digest != expected:
        raise DataError(
            f"{path}: expected the questions {expected[:12]} that the programme names, "
            f"came {digest[:12]}"
        )
    return found


def _spread(topics: tuple[Topic, ...], seed: str) -> list[Topic]:
    """Order topics by lot, so that every clause has its turn before any has its second."""
    by_lot = sorted(topics, key=lambda topic: _lot(seed, topic.id))
    turn: dict[str, int] = {}
    ordered: list[tuple[int, int, Topic]] = []
    for place, topic in enumerate(by_lot):
        turn[topic.clause] = turn.get(topic.clause, -1) + 1
        ordered.append((turn[topic.clause], place, topic))
    return [topic for _, _, topic in sorted(ordered, key=lambda one: one[:2])]


def _measured(topic: Topic, unguarded: Unguarded, seed: str, *, reserve: bool) -> FrozenQuestion:
    question = min(topic.questions, key=lambda one: _lot(seed, one))
    answer = unguarded(topic, question)
    baseline = len(facts_held(topic, answer) - facts_held(topic, question))
    if not baseline:
        raise DataError(f"topic {topic.id}: the unguarded target gave none of its facts")
    return FrozenQuestion(question=question, topic=topic, baseline=baseline, reserve=reserve)


def _lot(seed: str, name: str) -> bytes:
    return hashlib.sha256(f"{seed}\n{name}".encode()).digest()
