"""The phrase banks of a domain: several files, one bank; every clause known; no request twice."""

from collections import Counter

import pytest

from safehold.constitution import load
from safehold.errors import DataError
from safehold.improve.synthesis import phrasebook
from safehold.improve.synthesis.phrasebook import Bank, languages


def test_the_files_of_a_domain_are_one_bank() -> None:
    """Numbered files lie behind the first one, whose lines keep their places."""
    names = phrasebook._bank_files("homebrewing")
    assert names[0] == "languages-homebrewing.yaml"
    assert len(names) >= 2
    assert languages("homebrewing")["de"].restricted[0][1].startswith("Wie maische ich 4 kg")
    assert languages("no-such-domain") == {}
    assert phrasebook._bank_files("home") == []


def test_every_line_names_a_clause_of_its_side() -> None:
    """A restricted line has a restricted clause, a permitted line a permitted one."""
    constitution = load("homebrewing")
    restricted = {clause.id for clause in constitution.restricted}
    permitted = {clause.id for clause in constitution.permitted}
    for language, bank in languages("homebrewing").items():
        assert {clause for clause, _ in bank.restricted} <= restricted, language
        assert {clause for clause, _ in bank.permitted} <= permitted, language


def test_a_text_stands_once_in_all_languages() -> None:
    """A request that two languages share word for word would be learnt twice or on both sides."""
    texts = Counter(
        text.casefold()
        for bank in languages("homebrewing").values()
        for _, text in bank.restricted + bank.permitted
    )
    assert [text for text, times in texts.items() if times > 1] == []


def test_a_request_written_twice_is_refused() -> None:
    """The same words on both sides of a language are a mistake, and the error names the place."""
    first = Bank(restricted=(("beer-production", "mash in"),), permitted=())
    second = Bank(restricted=(), permitted=(("general", "mash in"),))
    with pytest.raises(DataError, match=r"phrases/x\.yaml: en: .*'mash in'"):
        phrasebook._joined(first, second, "phrases/x.yaml: en")
    assert phrasebook._joined(first, Bank((), (("general", "mash"),)), "x").restricted
