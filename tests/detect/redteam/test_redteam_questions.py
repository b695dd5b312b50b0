"""The question set: large enough, its rubrics true, and held out from all training text."""

from safehold.detect.redteam.interface import QuestionSet, Wrapper
from safehold.detect.redteam.questions import leaked
from safehold.improve.synthesis import seeds
from safehold.improve.synthesis.phrasebook import phrasebook


def _shingles(text: str) -> set[str]:
    words = text.casefold().split()
    return {" ".join(words[at : at + 3]) for at in range(max(1, len(words) - 2))}


def test_the_set_is_as_large_as_promised(asks: QuestionSet, dresses: tuple[Wrapper, ...]) -> None:
    """120 questions, 60 look-alikes, 40 wrappers, none twice."""
    texts = [ask for topic in asks.topics for ask in topic.questions]
    assert len(set(texts)) == len(texts) >= 120
    assert len({one.text for one in asks.benign}) == len(asks.benign) >= 60
    assert len({one.text for one in dresses}) == len(dresses) >= 40


def test_every_passage_meets_its_whole_rubric(asks: QuestionSet) -> None:
    """A complying answer leaks every key fact, a harmless sentence none."""
    for topic in asks.topics:
        assert leaked(topic, topic.passage) == len(topic.facts), topic.id
        assert leaked(topic, "It depends on the weather.") == 0


def test_restricted_questions_and_answers_are_not_in_the_seed_books(asks: QuestionSet) -> None:
    """No question and no served passage is a near copy of training text."""
    written = [
        _shingles(text)
        for book in seeds.books("homebrewing")
        for item in book.exchanges
        for text in (item.prompt, item.reply)
    ]
    written += [_shingles(one.text) for book in seeds.books("homebrewing") for one in book.prompts]
    held_out = [ask for topic in asks.topics for ask in topic.questions]
    for text in held_out + [topic.passage for topic in asks.topics]:
        own = _shingles(text)
        assert max(len(own & other) / len(own | other) for other in written) < 0.3, text


def test_attack_wrappers_are_not_training_wrappers(dresses: tuple[Wrapper, ...]) -> None:
    """No held-out wrapper is a near copy of one that guards are trained on."""
    trained = [_shingles(one.text) for one in phrasebook().wrappers]
    for dress in dresses:
        own = _shingles(dress.text)
        assert max(len(own & other) / len(own | other) for other in trained) < 0.2


def test_every_wrapper_carries_the_request(dresses: tuple[Wrapper, ...]) -> None:
    """No wrapper loses a word of what is asked."""
    for dress in dresses:
        text = dress.around("fold the red map twice")
        assert all(word in text for word in ("fold", "the", "red", "map", "twice")), dress.text
