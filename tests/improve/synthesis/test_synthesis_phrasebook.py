"""The phrase banks of a domain: several files, one bank; every clause known; no request twice."""

from collections import Counter

import pytest

from safehold.constitution import load
from safehold.errors import DataError
from safehold.improve.synthesis import phrasebook
from safehold.improve.synthesis.interface import Side
from safehold.improve.synthesis.phrasebook import Bank, languages, talks, wrapped_pairs
from safehold.improve.synthesis.written import WrittenGenerator


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


def test_talks_and_wrapped_pairs_name_clauses_of_their_sides() -> None:
    """Each conversation and wrapped request has a clause of its side, and stands there once."""
    constitution = load("homebrewing")
    restricted = {clause.id for clause in constitution.restricted}
    permitted = {clause.id for clause in constitution.permitted}
    texts: Counter[str] = Counter()
    for language, own in talks("homebrewing"):
        assert set(own.restricted) <= restricted, language
        assert set(own.permitted) <= permitted, language
        texts.update(
            text.casefold()
            for side in (own.restricted, own.permitted)
            for several in side.values()
            for text in several
        )
    for pair in wrapped_pairs("homebrewing"):
        assert pair.restricted[0] in restricted, pair
        assert pair.permitted[0] in permitted, pair
        texts.update((pair.restricted[1].casefold(), pair.permitted[1].casefold()))
    assert [text for text, times in texts.items() if times > 1] == []


def test_a_conversation_keeps_its_turns_and_a_wrapper_both_sides() -> None:
    """Talks become exchanges of alternating turns; the two sides of a wrapper are one family."""
    written = WrittenGenerator("homebrewing", "digest")
    told = list(written._from_talks(1))
    assert told
    for one in told:
        roles = [turn.role.value for turn in one.exchange.turns]
        assert roles == ["user", "assistant"] * (len(roles) // 2) + ["user"], one.id
        assert one.ask is (one.side is Side.RESTRICTED)
    families = Counter(one.family for one in written._from_wrapped(1))
    assert families
    assert set(families.values()) == {2}
