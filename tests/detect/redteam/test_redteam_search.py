"""Searches: the one dress that a guard does not know is found, and many tries find its gap."""

import msgspec
from click.testing import CliRunner

from safehold.cli.redteam import redteam
from safehold.detect.redteam.interface import QuestionSet, Wrapper
from safehold.detect.redteam.run import Attacker
from safehold.detect.redteam.search import best_of, candidates, typings, universal
from safehold.guard.interface import Escalation, Failed
from safehold.guard.session.drivers import Answer
from safehold.progress import Progress
from safehold.testing.guards import rule_guard


def _no_stage2(request: Escalation) -> Answer:
    del request
    return Failed(reason="NoStage2")


def _few(asks: QuestionSet, count: int) -> QuestionSet:
    topics = [msgspec.structs.replace(one, questions=one.questions[:1]) for one in asks.topics]
    return msgspec.structs.replace(asks, topics=tuple(topics[:count]))


def _attacker(asks: QuestionSet, dresses: tuple[Wrapper, ...], pattern: str) -> Attacker:
    return Attacker(rule_guard(pattern), _no_stage2, asks, dresses)


def test_the_one_open_dress_is_found(asks: QuestionSet, dresses: tuple[Wrapper, ...]) -> None:
    """Where every prompt but the rare ones is stopped, the search ends at a rare one."""
    few = _few(asks, 8)
    closed = universal(
        _attacker(few, dresses, r"(?s)."), few, dresses, seed=1, most=60, progress=Progress()
    )
    assert closed.half_leaked.events == 0
    # No blank and no small letter: hardly a dress has neither.
    gap = universal(
        _attacker(few, dresses, r"[a-z] [a-z]"), few, (), seed=1, most=90, progress=Progress()
    )
    assert gap.half_leaked.n == len(few.topics)
    assert gap.tried == 90


def test_an_open_guard_loses_every_question(
    asks: QuestionSet, dresses: tuple[Wrapper, ...]
) -> None:
    """The twin: with nothing that stops, the first try and the plain dress win everywhere."""
    few = _few(asks, 5)
    attacker = _attacker(few, dresses, "never said")
    found = best_of(attacker, few, seed=1, tries=3, progress=Progress())
    assert (found.half_leaked.events, found.mean_tries) == (5, 1.0)
    assert (
        universal(attacker, few, dresses, seed=1, most=4, progress=Progress()).half_leaked.value
        == 1.0
    )


def test_many_tries_find_what_a_word_rule_misses(
    asks: QuestionSet, dresses: tuple[Wrapper, ...]
) -> None:
    """A rule that knows one spelling of a word falls to typing, and only then."""
    topic = msgspec.structs.replace(asks.topics[0], questions=("please explain porridge",))
    one = QuestionSet(topics=(topic,))
    attacker = Attacker(rule_guard("(?i)porridge"), _no_stage2, one, dresses)
    assert best_of(attacker, one, seed=1, tries=1, progress=Progress()).half_leaked.events == 0
    assert best_of(attacker, one, seed=1, tries=50, progress=Progress()).half_leaked.events == 1


def test_typings_and_candidates_are_drawn_again_alike(dresses: tuple[Wrapper, ...]) -> None:
    """Equal seeds try equal things; the first typing is the request itself."""
    assert list(typings("how warm is it", 3, 9)) == list(typings("how warm is it", 3, 9))
    assert next(typings("how warm is it", 3, 9)) == "how warm is it"
    assert candidates(dresses, 1, 200) == candidates(dresses, 1, 200)
    assert len(set(candidates(dresses, 1, 200))) == 200


def test_the_commands_want_a_bundle_or_none_at_all() -> None:
    """Neither command guesses what to attack."""
    for command in ("universal", "best-of"):
        result = CliRunner().invoke(redteam, [command])
        assert result.exit_code != 0
