"""The words of working steps: what they match, and what the shipped ones cover."""

import pytest

from safehold.constitution.lexicon import lexicon_of
from safehold.constitution.library import load
from safehold.constitution.steps import StepWords, WorkflowStep, check_steps, read_steps, steps_of
from safehold.errors import ConfigError

STEPS = StepWords(
    [
        WorkflowStep("warm", ("heating",), {"en": ("warm",), "de": ("erwärm",)}),
        WorkflowStep("set", ("setting",), {"en": ("set$",), "ja": ("固め",)}),
    ]
)


@pytest.mark.parametrize(
    ("text", "stages"),
    [
        ("Warming the milk", {"heating"}),
        ("Die Milch ERWÄRMEN", {"heating"}),
        ("Let it set.", {"setting"}),
        ("牛乳を固める", {"setting"}),
        ("\uff37\uff21\uff32\uff2d it", {"heating"}),
        ("a swarm of settlers", set()),
        ("", set()),
    ],
)
def test_words_begin_where_their_step_says(text: str, stages: set[str]) -> None:
    """Beginnings, whole words, other scripts and wide letters; never the middle of a word."""
    assert STEPS.stages(text) == stages


def test_the_shipped_steps_cover_stages_and_languages() -> None:
    """Each stage has a step, each language of the lexicon words for at least six of them."""
    constitution, steps = load("homebrewing"), steps_of("homebrewing")
    lexicon = lexicon_of("homebrewing")
    assert lexicon is not None
    check_steps(steps, constitution)
    assert {one.id for one in constitution.stages} == {name for one in steps for name in one.stages}
    for language in lexicon.languages:
        assert sum(language in one.words for one in steps) >= 6, language


def test_a_domain_without_steps_has_none() -> None:
    """Another stand-in ships none, and a step without words is an error."""
    assert steps_of("soap") == ()
    with pytest.raises(ConfigError, match="expected words"):
        read_steps(b"- {step: a, stages: [b], words: {en: ['$']}}", source="x")
