"""The lexicon and the crafts: many languages, both sides, and nothing left to fill in."""

import re

from safehold.constitution import load
from safehold.constitution.lexicon import lexicon_of
from safehold.improve.synthesis.crafts import crafts
from safehold.improve.synthesis.interface import Side
from safehold.improve.synthesis.written import WrittenGenerator


def test_the_lexicon_names_clauses_of_its_constitution() -> None:
    """Each drink's clause is a restricted one, and the permitted asks' clause is permitted."""
    constitution, lexicon = load("homebrewing"), lexicon_of("homebrewing")
    assert lexicon is not None
    restricted = {clause.id for clause in constitution.restricted}
    named = {clause for words in lexicon.languages.values() for _, clause in words.drinks}
    assert named == restricted
    assert lexicon.permitted_clause in {clause.id for clause in constitution.permitted}


def test_every_name_stands_on_both_sides() -> None:
    """In each of twenty languages and more a drink's name is asked about both ways."""
    made = [
        example
        for example in WrittenGenerator("homebrewing", "digest").generate(seed=1)
        if example.id.startswith("lexicon/")
    ]
    sides = {(example.language, example.side) for example in made}
    languages = {language for language, _ in sides}
    assert len(languages) >= 20
    assert all((language, side) in sides for language in languages for side in Side)
    said = [part.text for example in made for part in example.exchange.texts()]
    assert not [text for text in said if re.search(r"\{[dn]\}", text)]


def test_crafts_draw_their_numbers_inside_the_ranges() -> None:
    """No range is left over, the same seed tells the same, and twenty languages are there."""
    made = list(crafts(5))
    assert made == list(crafts(5))
    assert len({craft.language for craft in made}) >= 20
    assert not [craft.text for craft in made if re.search(r"\[\d+-\d+\]", craft.text)]


def test_a_domain_without_a_lexicon_has_none() -> None:
    """Other domains go on without one."""
    assert lexicon_of("soap") is None
