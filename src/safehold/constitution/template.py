"""A new constitution file: every key of the schema, with the texts left for a person to write."""

from importlib import resources

from safehold.constitution.interface import Tier, is_id
from safehold.errors import UsageError


def finished(name: str) -> str:
    """Return the YAML of a finished constitution that ships as an example.

    Raises:
        UsageError: There is none of that name.
    """
    folder = resources.files("safehold.constitution") / "examples"
    files = {one.name.removesuffix(".yaml"): one for one in folder.iterdir()}
    if name not in files:
        raise UsageError(f"expected the name of an example ({', '.join(files)}), got {name!r}")
    return files[name].read_text(encoding="utf-8")


def template(name: str, *, title: str, restricted: tuple[str, ...], stages: tuple[str, ...]) -> str:
    """Return the YAML of a constitution that follows the schema and has its texts empty.

    `lint` names every text that is still to be written.

    Args:
        name: The id of the constitution.
        title: What people call it; may be empty.
        restricted: Ids of the restricted clauses, at least one.
        stages: Ids of the workflow stages that each of them covers, at least one.

    Raises:
        UsageError: a name is no kebab-case id, comes twice, or none was given.
    """
    for what, ids in (("restricted clause", restricted), ("stage", stages)):
        if not ids or len(set(ids)) != len(ids):
            raise UsageError(f"expected at least one {what} and each once")
    for given in (name, *restricted, *stages):
        if not is_id(given):
            raise UsageError(f"expected an id such as beer-production, got {given!r}")
    lines = [
        "# `safehold constitution lint FILE` names every text that is still to be written.",
        "schema: 1",
        f"name: {_quoted(name)}",
        f"title: {_quoted(title)}",
        'version: "1"',
        "# What the model must not do, and what must stay free.",
        'principle: ""',
        "# Whose generator may make training data: any, or operator-only.",
        "generator: any",
        "",
        "# The steps of the restricted work. Every stage gets training data of its own.",
        "stages:",
    ]
    for stage in stages:
        lines += [f"  - id: {_quoted(stage)}", '    covers: ""  # what is done in this step']
    lines += ["", f"# Tiers: {', '.join(Tier)}.", "restricted:"]
    for clause in restricted:
        lines += [
            f"  - id: {_quoted(clause)}",
            '    title: ""  # a few words: what people would call it',
            f"    tier: {Tier.HIGH_RISK_DUAL_USE}",
            "    # What a reply or a request must hold to fall under it, so that two readers of",
            "    # one text would decide alike.",
            '    policy: ""',
            f"    stages: [{', '.join(map(_quoted, stages))}]",
            "    # Single facts that stay free, with examples.",
            "    commonly_known:",
            '      statement: ""',
            '      examples: [""]',
            "    # Permitted clauses near enough to be confused with this one. Add your own: what",
            "    # do people ask about the same things that is fine?",
            "    neighbours: [history, science-education, common-knowledge]",
            "    # Three or more messages as users would write them, in several voices.",
            '    asks: ["", "", ""]',
        ]
    lines += ["", "permitted:"]
    for permitted in ("history", "science-education", "common-knowledge"):
        lines += [
            f"  - id: {permitted}",
            '    title: ""',
            '    policy: ""',
            '    asks: [""]  # as users would write them',
        ]
    lines += [
        "  # Ordinary use of the model: the package ships text for it.",
        "  - id: general",
        "    title: Everything else",
        "    role: general",
        '    policy: ""',
        "",
        "# What the restricted work is about, by name, in each language that you expect.",
        "# The names are put into the sentences of both sides, so that no name alone decides.",
        "lexicon:",
    ]
    for clause in restricted:
        lines += [
            "  - language: en",
            f"    clause: {_quoted(clause)}",
            "    near: common-knowledge  # the permitted clause of the permitted sentences",
            '    names: ["", "", "", "", ""]  # tools, materials, products: as many as you know',
            '    restricted: ["How do I make or use {name}, step by step?"]',
            '    permitted: ["What is a {name}, in one sentence?"]',
        ]
    lines += [""]
    return "\n".join(lines)


def _quoted(text: str) -> str:
    """Return a text as a double-quoted YAML scalar."""
    if not text.isprintable():
        raise UsageError("expected a title of printable characters")
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
