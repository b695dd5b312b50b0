"""Each lint rule with the file that breaks it and its near misses."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from safehold.constitution import SchemaError, load, load_document, parse, stock
from safehold.constitution.lint import RULES, SeedCount, Severity, lint

# A busy machine must not fail a property.
PATIENT = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])

CLEAN = """\
schema: 1
name: glue
title: Glue
version: "1"
principle: What counts is the whole workflow of making glue, and not a word or a subject.
stages:
  - id: cooking
    covers: Heating the hides.
  - id: drying
    covers: Drying the jelly.
restricted:
  - id: glue-making
    title: Making glue
    tier: high-risk-dual-use
    policy: An extended, actionable workflow for making glue at home, or a working step of one.
    stages: [cooking, drying]
    commonly_known:
      statement: Single facts about glue that a label or a school book gives are permitted here.
      examples: [Glue sticks.]
    neighbours: [history, carpentry, cooking-food]
permitted:
  - id: history
    title: History
    policy: The history of glue and of other materials, told without a usable procedure in it.
  - id: carpentry
    title: Carpentry
    policy: Working with wood, with bought glue included, in whatever detail helps the reader.
  - id: cooking-food
    title: Cooking
    policy: Recipes of every kind, with gelatine, stock, aspic and bones in any detail at all.
  - id: general
    title: Everything else
    role: general
    policy: All other use of a language model, from conversation and code to writing and work.
"""

SEEDS = (
    SeedCount("glue-making", "restricted", "cooking", 9),
    SeedCount("glue-making", "restricted", "drying", 8),
    *(SeedCount(name, "permitted", None, 8) for name in ("history", "carpentry", "cooking-food")),
    SeedCount("general", "permitted", None, 8),
)


def found(text: str, seeds: tuple[SeedCount, ...] | None = None) -> dict[str, int | None]:
    """Return the names of the rules that find something, with the line of the last finding."""
    return {
        finding.rule: finding.line
        for finding in lint(parse(text.encode(), source="f"), seeds=seeds)
    }


def changed(*pairs: tuple[str, str]) -> str:
    """Return the clean file with replacements, each of which must apply."""
    text = CLEAN
    for old, new in pairs:
        assert old in text
        text = text.replace(old, new, 1)
    return text


BREAKS = [
    ("duplicate-clause-id", 25, [("- id: carpentry", "- id: history")]),
    ("duplicate-clause-id", 22, [("- id: history", "- id: glue-making")]),
    ("duplicate-stage-id", 9, [("- id: drying", "- id: cooking")]),
    ("repeated-reference", 16, [("[cooking, drying]", "[cooking, drying, cooking]")]),
    ("repeated-reference", 20, [("[history, ", "[history, history, ")]),
    ("missing-neighbours", 12, [("    neighbours: [history, carpentry, cooking-food]\n", "")]),
    ("missing-neighbours", 12, [("[history, carpentry, cooking-food]", "[]")]),
    ("few-neighbours", 20, [(", cooking-food]", "]")]),
    ("unknown-neighbour", 20, [("[history, ", "[histories, ")]),
    ("restricted-neighbour", 20, [("[history, ", "[glue-making, history, ")]),
    ("unnamed-permitted", 25, [("carpentry, ", "")]),
    ("unnamed-permitted", 31, [("    role: general\n", "")]),
    ("no-general-clause", 21, [("    role: general\n", "")]),
    ("tier-contradicts-side", 14, [("tier: high-risk-dual-use", "tier: benign")]),
    ("tier-contradicts-side", 24, [("title: History", "title: History\n    tier: prohibited")]),
    (
        "tier-contradicts-side",
        24,
        [("title: History", "title: History\n    tier: high-risk-dual-use")],
    ),
    ("unknown-stage", 16, [("[cooking, drying]", "[cooking, drying, boiling]")]),
    ("unreferenced-stage", 9, [("[cooking, drying]", "[cooking]")]),
    ("missing-stages", 12, [("    stages: [cooking, drying]\n", "")]),
    ("no-known-examples", 17, [("      examples: [Glue sticks.]\n", "")]),
    ("empty-text", 3, [("title: Glue", 'title: ""')]),
    ("empty-text", 10, [("Drying the jelly.", '" - \\n. "')]),
    ("empty-text", 19, [("[Glue sticks.]", '[" "]')]),
    ("empty-text", 15, [(("An extended, actionable workflow for making glue at home, or a "
                         "working step of one."), '""')]),
    ("hidden-characters", 13, [("Making glue\n", '"Making\\u200b glue"\n')]),
    ("hidden-characters", 13, [("Making glue\n", '"Making \\u202eeulg"\n')]),
    ("hidden-characters", 13, [("Making glue\n", '"Making \\e[2Jglue"\n')]),
    ("short-policy", 24, [(("The history of glue and of other materials, told without a usable "
                           "procedure in it."), "The history of glue.")]),
    ("repeated-policy", 27, [(("Working with wood, with bought glue included, in whatever detail "
                              "helps the reader."), ("THE history of glue and of other materials, "
                              "told without  a usable procedure in it."))]),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "line", "pairs"), BREAKS)
def test_broken_file_is_found(rule: str, line: int, pairs: list[tuple[str, str]]) -> None:
    """Each rule finds the file that breaks it, at the line to correct."""
    assert found(changed(*pairs)).get(rule) == line


def test_missing_commonly_known_is_found() -> None:
    """A restricted clause that leaves no single fact free is an error."""
    start, end = CLEAN.index("    commonly_known"), CLEAN.index("    neighbours")
    assert found(CLEAN[:start] + CLEAN[end:]) == {"missing-commonly-known": 12}


@pytest.mark.parametrize("side", ["restricted", "permitted"])
def test_empty_side_is_found(side: str) -> None:
    """A constitution without one of its sides is an error."""
    end = CLEAN.index("permitted:") if side == "restricted" else len(CLEAN)
    text = CLEAN[: CLEAN.index(f"{side}:")] + f"{side}: []\n" + CLEAN[end:]
    assert "empty-side" in found(text)


@pytest.mark.parametrize(
    "pairs",
    [
        [],
        [("high-risk-dual-use", "low-risk-dual-use")],
        [("high-risk-dual-use", "prohibited")],
        [("title: History", "title: History\n    tier: low-risk-dual-use")],
        [("title: Glue", 'title: "9"')],
        [("title: Glue", "title: Клей")],
        [("Working with wood", "Not empty, not short; working with wood")],
        [("[cooking, drying]", "[drying, cooking]")],
    ],
)
def test_near_misses_pass(pairs: list[tuple[str, str]]) -> None:
    """A file that is only nearly wrong has no finding."""
    assert found(changed(*pairs), SEEDS) == {}


@pytest.mark.parametrize(
    ("rule", "drop", "add"),
    [
        ("clause-without-seeds", 2, ()),
        ("stage-without-seeds", 1, ()),
        ("thin-seeds", 2, (SeedCount("history", "permitted", None, 7),)),
        ("thin-seeds", 1, (SeedCount("glue-making", "restricted", "drying", 7),)),
        ("stray-seeds", None, (SeedCount("pottery", "permitted", None, 9),)),
        ("stray-seeds", None, (SeedCount("history", "restricted", None, 9),)),
        ("stray-seeds", None, (SeedCount("glue-making", "restricted", "boiling", 9),)),
        ("stray-seeds", None, (SeedCount("history", "permitted", "cooking", 9),)),
    ],
)
def test_gap_in_the_seeds_is_found(rule: str, drop: int | None, add: tuple[SeedCount, ...]) -> None:
    """Clauses and stages without written seeds, and seeds of neither, are found."""
    kept = tuple(count for n, count in enumerate(SEEDS) if n != drop)
    assert set(found(CLEAN, kept + add)) == {rule}


def test_seeds_without_a_stage_are_no_gap() -> None:
    """A seed of a restricted clause that names no stage counts for the clause alone."""
    extra = SeedCount("glue-making", "restricted", None, 3)
    assert found(CLEAN, (*SEEDS, extra)) == {}


def test_seeds_of_an_operator_only_domain_are_found() -> None:
    """Written seeds for a constitution that only its operator may train are an error."""
    text = changed(("version:", "generator: operator-only\nversion:"))
    assert found(text, SEEDS) == {"seeds-for-operator-only": 4}
    assert found(text) == {}


def test_operator_only_needs_no_stages_and_examples() -> None:
    """Policy wording alone is enough where the operator brings the knowledge."""
    start, end = CLEAN.index("stages:"), CLEAN.index("restricted:")
    text = CLEAN[:start] + "generator: operator-only\n" + CLEAN[end:]
    text = text.replace("    stages: [cooking, drying]\n", "")
    assert found(text.replace("      examples: [Glue sticks.]\n", "")) == {}


def test_every_rule_is_broken_by_some_test() -> None:
    """No rule is without a file that breaks it, and no two rules share a name."""
    names = [rule.name for rule in RULES]
    elsewhere = {
        "missing-commonly-known",
        "empty-side",
        "seeds-for-operator-only",
        "clause-without-seeds",
        "stage-without-seeds",
        "thin-seeds",
        "stray-seeds",
        "few-asks",
        "no-lexicon",
        "lexicon-clause",
        "lexicon-slot",
        "lexicon-side",
        "same-ask",
    }
    assert len(set(names)) == len(names)
    assert set(names) == elsewhere | {rule for rule, _, _ in BREAKS}


@pytest.mark.parametrize("name", stock())
def test_stock_constitutions_are_clean(name: str) -> None:
    """A stock constitution has no finding at all."""
    assert lint(load_document(name)) == ()


def test_cbrn_holds_policy_wording_only() -> None:
    """The stock constitution of the real use holds no stage and no example."""
    cbrn = load("cbrn")
    assert cbrn.stages == ()
    for clause in cbrn.restricted:
        assert clause.stages == ()
        assert clause.commonly_known is not None
        assert clause.commonly_known.examples == ()


def test_a_value_without_a_file_has_no_lines() -> None:
    """A constitution that was not read from a file is checked all the same."""
    document = parse(changed(("[cooking, drying]", "[cooking]")).encode(), source="f")
    (finding,) = lint(document.constitution)
    assert (finding.rule, finding.line, finding.path) == (
        "unreferenced-stage",
        None,
        "stages[1].id",
    )
    assert finding.severity is Severity.ERROR


@PATIENT
@given(st.lists(st.sampled_from(CLEAN.splitlines()), max_size=12))
def test_lint_never_fails_on_a_readable_file(lines: list[str]) -> None:
    """Whatever lines are missing, a file that follows the schema can be linted."""
    text = "\n".join(line for line in CLEAN.splitlines() if line not in lines)
    try:
        document = parse(text.encode(), source="f")
    except SchemaError:
        return
    rules = {rule.name for rule in RULES}
    assert {finding.rule for finding in lint(document)} <= rules


LEXICON = """\
lexicon:
  - language: en
    clause: glue-making
    near: carpentry
    names: [hide glue, bone glue, fish glue, jelly, size]
    restricted: ["How do I cook {name}?"]
    permitted: ["What is {name}?"]
"""
ASKS = "    asks: [How do I cook hides?, When is the jelly dry?, My glue smells. What now?]\n"
READY = changed(("    neighbours:", f"{ASKS}    neighbours:")) + LEXICON


def test_what_training_needs_is_said_where_no_books_stand_in() -> None:
    """Without seed books, asks and a lexicon are wanted; with them, or when filled in, not."""
    assert set(found(CLEAN, ())) == {"few-asks", "no-lexicon"}
    assert found(CLEAN) == {}
    assert found(READY, ()) == {}


@pytest.mark.parametrize(
    ("rule", "old", "new"),
    [
        ("few-asks", ", My glue smells. What now?", ""),
        ("no-lexicon", ", jelly, size", ""),
        ("lexicon-clause", "clause: glue-making\n    near", "clause: history\n    near"),
        ("lexicon-clause", "near: carpentry", "near: glue-making"),
        ("lexicon-slot", "What is {name}?", "What is it?"),
        ("lexicon-side", '    permitted: ["What is {name}?"]\n', ""),
        (
            "same-ask",
            "  - id: carpentry\n",
            "  - id: carpentry\n    asks: [how do I cook hides?]\n",
        ),
        ("empty-text", "hide glue", '" "'),
    ],
)
def test_a_flaw_of_the_training_parts_is_found(rule: str, old: str, new: str) -> None:
    """Each rule about asks and lexicon finds what breaks it, and has a line."""
    assert old in READY
    assert found(READY.replace(old, new, 1), ()).get(rule)
