"""The schema and the reader of constitution files: attacks first."""

from pathlib import Path

import msgspec
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from safehold.constitution import (
    Constitution,
    GeneratorRefusedError,
    PermittedClause,
    RestrictedClause,
    SchemaError,
    Tier,
    WorkflowStage,
    admit_generator,
    load,
    load_document,
    parse,
    stock,
)
from safehold.errors import ConstitutionError

GOOD = """\
schema: 1
name: glue
title: Glue
version: "1"
principle: What counts is the whole workflow of making glue, and not the word.
stages:
  - id: cooking
    covers: Heating the hides.
restricted:
  - id: glue-making
    title: Making glue
    tier: high-risk-dual-use
    policy: An extended, actionable workflow for making glue at home.
    stages: [cooking]
    commonly_known:
      statement: Single facts about glue.
      examples: [Glue sticks.]
    neighbours: [history]
permitted:
  - id: history
    title: History
    policy: The history of glue.
"""


def refusal(text: str | bytes) -> SchemaError:
    """Return the error with which a file is refused."""
    data = text if isinstance(text, bytes) else text.encode()
    with pytest.raises(SchemaError) as caught:
        parse(data, source="f.yaml")
    return caught.value


def test_alias_bomb_is_refused() -> None:
    """Aliases, which can swell a small file to gigabytes, refuse."""
    error = refusal("a: &a [x, x]\nb: &b [*a, *a]\n")
    assert (error.line, error.problem) == (2, "expected plain YAML, got an alias")


def test_object_tag_is_refused() -> None:
    """A tag that would construct an object refuses."""
    assert "tag" in refusal("name: !!python/object/apply:os.getcwd []\n").problem
    assert "tag" in refusal("name: !!str glue\n").problem


def test_deep_nesting_is_refused() -> None:
    """A hundred thousand brackets are one clear error, not an exhausted stack."""
    deep = refusal("a: " + "[" * 100_000).problem
    assert "levels" in deep or "nesting depth" in deep  # ours, or the parser's own bound
    assert "levels" in refusal("- " * 17 + "x").problem


def test_oversized_file_is_refused() -> None:
    """A file above one mebibyte is not even parsed."""
    assert "bytes" in refusal(GOOD + "#" * (1 << 20)).problem


def test_second_value_of_a_key_is_refused() -> None:
    """A repeated key, of which a reviewer sees one and a parser takes the other, refuses."""
    error = refusal(GOOD.replace("title: Glue\n", "title: Glue\ntitle: Paste\n"))
    assert (error.line, error.column) == (4, 1)
    assert "once" in error.problem


def test_second_document_is_refused() -> None:
    """Text after a document end is not ignored."""
    assert "second" in refusal(GOOD + "---\n" + GOOD).problem


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", "empty file"),
        (b"# nothing\n", "empty file"),
        (b"\xff\xfe\x00", "UTF-8"),
        (b"a: b\nc: \xe9\n", "UTF-8"),
        (b"a: [b\n", "YAML"),
        (b"a: \x01", "YAML"),
        (b"? [a, b]\n: c\n", "text as key"),
        (b"{a: b}: c\n", "text as key"),
        (b'name: "\\ud800"\n', "f.yaml:1:"),
        (b"just words\n", "got `str`"),
        (b"- a\n", "got `array`"),
        (b"12\n", "got `int`"),
    ],
)
def test_what_is_no_mapping_of_text_is_refused(data: bytes, expected: str) -> None:
    """Broken YAML and YAML of another shape give one clear error."""
    assert expected in str(refusal(data))


@pytest.mark.parametrize(
    ("old", "new", "line", "column", "expected"),
    [
        ("schema: 1", "schema: 2", 1, 1, "schema: "),
        ("schema: 1", 'schema: "1"', 1, 1, "schema: "),
        ("name: glue", "name: Glue", 2, 1, "name: "),
        ("name: glue", "name: glue-", 2, 1, "name: "),
        ('version: "1"', "version: 1", 4, 1, "version: expected `str`, got `int`"),
        ("title: Glue\n", "", 1, 1, "missing required field `title`"),
        ("    tier: high", "    tier: very-high", 12, 5, "restricted[0].tier: "),
        ("    stages: [cooking]", "    stages: cooking", 14, 5, "restricted[0].stages: "),
        ("    stages: [cooking]", "    stages: [cooking, 3]", 14, 23, "restricted[0].stages[1]: "),
        ("    neighbours:", "    neighbors:", 18, 5, "restricted[0].neighbors: "),
        ("      examples: [", "      example: [", 17, 7, "commonly_known.example: "),
        ("    policy: The", "    policy:\n    polite: The", 22, 5, "permitted[0]"),
        ("permitted:", "extra: {}\npermitted:", 19, 1, "extra: "),
    ],
)
def test_near_misses_are_located(old: str, new: str, line: int, column: int, expected: str) -> None:
    """One wrong key or value is refused with its line, its column and its path."""
    assert old in GOOD
    error = refusal(GOOD.replace(old, new, 1))
    assert expected in str(error)
    assert (error.line, error.column) == (line, column)
    assert str(error).startswith(f"f.yaml:{line}:{column}: ")


def test_good_file_is_read() -> None:
    """The file that the near misses start from is accepted."""
    read = parse(GOOD.encode(), source="f.yaml")
    assert read.constitution.restricted[0].neighbours == ("history",)
    assert (read.position(("restricted", 0, "tier")).line) == 12


def test_words_of_yaml_1_1_stay_texts() -> None:
    """`no`, `on` and dates are texts here, so a title can't turn into a boolean."""
    text = GOOD.replace("title: Glue\n", "title: no\n").replace('"1"', "2026-11-21")
    read = parse(text.encode(), source="f").constitution
    assert (read.title, read.version) == ("no", "2026-11-21")


def test_layout_does_not_change_the_digest() -> None:
    """Comments, order and line breaks change nothing, and every word does."""
    first = parse(GOOD.encode(), source="f").constitution
    reordered = yaml.safe_dump(yaml.safe_load(GOOD), width=40, sort_keys=True)
    assert parse(reordered.encode(), source="g").constitution.digest == first.digest
    changed = GOOD.replace("Single facts", "Some facts")
    assert parse(changed.encode(), source="h").constitution.digest != first.digest


def test_unknown_name_is_one_clear_error(tmp_path: Path) -> None:
    """A name that is neither stock nor a file says what there is."""
    with pytest.raises(ConstitutionError, match=r"cbrn, homebrewing, soap.*got 'brewing'"):
        load("brewing")
    with pytest.raises(ConstitutionError, match="readable"):
        load(tmp_path)
    with pytest.raises(ConstitutionError, match="got"):
        load("a\0b")


def test_stock_name_wins_over_a_file_of_that_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A planted file can't pose as a stock constitution; `./name` means the file."""
    (tmp_path / "homebrewing").write_text(GOOD)
    monkeypatch.chdir(tmp_path)
    assert load("homebrewing").name == "homebrewing"
    assert load("./homebrewing").name == "glue"
    assert load_document(Path("homebrewing")).source == "homebrewing"


def test_operator_only_refuses_generators_of_the_package() -> None:
    """Nothing of this package makes data from the operator-only constitution."""
    with pytest.raises(GeneratorRefusedError, match=r"operator-only.*your own vetted generator"):
        admit_generator(load("cbrn"), operator_owned=False)
    admit_generator(load("cbrn"), operator_owned=True)
    admit_generator(load("homebrewing"), operator_owned=False)


def test_prohibited_clause_is_never_relaxable() -> None:
    """An exemption may relax dual-use clauses alone."""
    assert load("cbrn").relaxable == {"dual-use-research"}
    assert "beer-production" in load("homebrewing").relaxable


def test_clause_is_found_on_either_side() -> None:
    """A clause is found by id, and an unknown id is an error."""
    soap = load("soap")
    assert isinstance(soap.clause("lye-soap-production"), RestrictedClause)
    assert isinstance(soap.clause("brewing"), PermittedClause)
    with pytest.raises(ConstitutionError, match="no clause"):
        soap.clause("beer-production")


def test_stock_names() -> None:
    """Three constitutions come with the package."""
    assert stock() == ("cbrn", "homebrewing", "soap")


# A busy machine must not fail a property.
PATIENT = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
IDS = st.from_regex("[a-z0-9]{1,5}(-[a-z0-9]{1,5}){0,2}", fullmatch=True)


@st.composite
def constitutions(draw: st.DrawFn) -> Constitution:
    """Any constitution that the schema allows, sensible or not."""
    restricted = st.builds(
        RestrictedClause,
        id=IDS,
        title=TEXTS,
        tier=st.sampled_from(Tier),
        policy=TEXTS,
        stages=st.lists(IDS, max_size=3).map(tuple),
        neighbours=st.lists(IDS, max_size=3).map(tuple),
    )
    permitted = st.builds(PermittedClause, id=IDS, title=TEXTS, policy=TEXTS)
    return Constitution(
        schema=1,
        name=draw(IDS),
        title=draw(TEXTS),
        version=draw(TEXTS),
        principle=draw(TEXTS),
        stages=tuple(draw(st.lists(st.builds(WorkflowStage, id=IDS, covers=TEXTS), max_size=3))),
        restricted=tuple(draw(st.lists(restricted, max_size=3))),
        permitted=tuple(draw(st.lists(permitted, max_size=3))),
    )


@PATIENT
@given(constitutions())
def test_any_constitution_survives_its_file(constitution: Constitution) -> None:
    """What the schema allows is read back the same from YAML, with the same digest."""
    data = msgspec.json.encode(constitution)
    builtins = msgspec.json.decode(data)
    read = parse(yaml.safe_dump(builtins, allow_unicode=False).encode(), source="f").constitution
    assert read == constitution
    assert read.digest == constitution.digest


@PATIENT
@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_arbitrary_bytes_give_one_clear_error(data: bytes) -> None:
    """No input ends in anything but a located schema error."""
    error = refusal(data)
    assert error.line >= 1
    assert error.column >= 1


@PATIENT
@given(st.data())
def test_any_cut_file_is_refused_or_read(data: st.DataObject) -> None:
    """A file cut anywhere, or with bytes written over, never crashes the reader."""
    good = GOOD.encode()
    start = data.draw(st.integers(0, len(good)))
    patch = data.draw(st.binary(max_size=6))
    cut = data.draw(st.integers(0, 30))
    try:
        parse(good[:start] + patch + good[start + cut :], source="f")
    except SchemaError as error:
        said = str(error)
    else:
        said = "f:"
    assert said.startswith("f:")
