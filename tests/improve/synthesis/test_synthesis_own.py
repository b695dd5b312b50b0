"""Where the text of an operator's own class comes from: the constitution, and general text."""

from pathlib import Path

import msgspec
import pytest

from safehold.constitution import ClauseRole, load
from safehold.errors import DataError
from safehold.improve.synthesis.families import told_by_user
from safehold.improve.synthesis.interface import Side
from safehold.improve.synthesis.own import ConstitutionText, GeneralText
from safehold.improve.synthesis.subject import SubjectWords

_CLASSES = Path(__file__).parents[3] / "examples" / "classes"


@pytest.mark.parametrize("name", ["bread", "bicycle-repair", "soap"])
def test_every_name_stands_on_both_sides(name: str) -> None:
    """A name of the lexicon comes in messages of both sides, so that it decides nothing."""
    constitution = load(_CLASSES / f"{name}.yaml")
    found = list(ConstitutionText(constitution).generate(seed=1))
    assert len({one.id for one in found}) == len(found)
    for entry in constitution.lexicon:
        for word in entry.names:
            sides = {one.side for one in found if word in told_by_user(one)}
            assert sides == set(Side), word
    asks = {ask for clause in constitution.restricted for ask in clause.asks}
    assert asks <= {told_by_user(one) for one in found if one.side is Side.RESTRICTED}


def test_general_text_never_contradicts_the_class() -> None:
    """What names the subject is left out and counted; procedures of other classes are kept."""
    constitution = load(_CLASSES / "bread.yaml")
    general = GeneralText(constitution)
    found = list(general.generate(seed=1))
    subject = SubjectWords(constitution)
    assert general.left_out > 0
    assert not [one.id for one in found if subject.touches(f"{told_by_user(one)}\n{one.reply}")]
    assert {one.clause for one in found} == {"general"}
    assert {one.side for one in found} == {Side.PERMITTED}
    assert any(one.id.startswith("general/homebrewing/restricted") for one in found)
    assert any(one.id.startswith("general/soap/restricted") for one in found)


def test_a_class_is_not_its_own_neighbour() -> None:
    """The soap class is not trained to permit what the package's soap books restrict."""
    found = GeneralText(load(_CLASSES / "soap.yaml")).generate(seed=1)
    assert not any(one.id.startswith("general/soap/") for one in found)


def test_a_class_without_a_general_clause_is_refused() -> None:
    """Ordinary use must have a place: the error names the role."""
    constitution = load(_CLASSES / "bread.yaml")
    bare = tuple(one for one in constitution.permitted if one.role is not ClauseRole.GENERAL)
    with pytest.raises(DataError, match="role: general"):
        GeneralText(msgspec.structs.replace(constitution, permitted=bare))


def test_a_name_is_found_as_a_word_in_any_script() -> None:
    """A name counts at the beginning of a word, in scripts without spaces anywhere."""
    constitution = load(_CLASSES / "bicycle-repair.yaml")
    entry = msgspec.structs.replace(constitution.lexicon[0], language="ja", names=("自転車",))
    subject = SubjectWords(
        msgspec.structs.replace(constitution, lexicon=(*constitution.lexicon, entry))
    )
    assert subject.touches("私の自転車は古い")
    assert subject.touches("Two bikes, one HUB.")
    assert not subject.touches("The club met at Dunhubbard and it was fine.")
    assert subject.holds("自転車", "bicycle-mending", None, "ja")
    assert not subject.holds("天気がいい", "bicycle-mending", None, "ja")
