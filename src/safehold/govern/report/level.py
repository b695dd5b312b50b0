"""Lowering: what is above a level is taken out before anything is assembled.

`lowered` is the only door. What passes it holds words of the level and constant placeholders; the
assembler and the pages work on nothing else.
"""

import msgspec

from safehold.govern.report.case import REFERENCE
from safehold.govern.report.interface import (
    Audience,
    CaseEvidence,
    CaseSources,
    Figure,
    Good,
    Node,
    SafetyCase,
)

WITHHELD = "[withheld at this level]"
TOO_FEW = "[fewer than are published]"
LEAST_PUBLIC = 10
"""A public rate of fewer items would say something of each of them."""


class LoweredNode(msgspec.Struct, frozen=True):
    """A node's words at a level."""

    node: Node
    text: str
    demand: str


class Lowered(msgspec.Struct, frozen=True):
    """Everything that a level may show of a case and its evidence."""

    level: Audience
    nodes: dict[str, LoweredNode]
    evidence: dict[str, CaseEvidence]
    words: dict[str, dict[str, str]]
    doubts: tuple[str, ...]


def lowered(case: SafetyCase, sources: CaseSources, level: Audience) -> Lowered:
    """Take out what a level may not read; evidence without a readable field is gone."""
    words: dict[str, dict[str, str]] = {}
    evidence: dict[str, CaseEvidence] = {}
    for name, one in sources.evidence.items():
        kept = {key: fig for key, fig in one.fields.items() if level.may_read(fig.audience)}
        words[name] = {key: in_words(fig, level) for key, fig in kept.items()}
        if kept:
            evidence[name] = msgspec.structs.replace(
                one,
                fields={},
                method=one.method if level is Audience.INTERNAL else "",
                bundle=one.bundle,
            )
    nodes = {
        one.id: LoweredNode(_bare(one), _text(one.text, words), _demand(one, words))
        for one in case.node
        if level.may_read(one.audience)
    }
    doubts = tuple(
        f"{one.kind}: {one.text if level.may_read(one.audience) else WITHHELD}"
        for one in sources.doubts
    )
    return Lowered(level, nodes, evidence, words, doubts)


def in_words(figure: Figure, level: Audience) -> str:
    """Say a figure; a rate with its n and its exact bound."""
    rate = figure.rate()
    if rate is not None:
        if level is Audience.PUBLIC and rate.n < LEAST_PUBLIC:
            return TOO_FEW
        return rate.at_most() if figure.good is Good.LOW else rate.at_least()
    if figure.number is not None:
        return f"{figure.number:g} {figure.unit}".strip()
    return figure.text


def _text(text: str, words: dict[str, dict[str, str]]) -> str:
    return REFERENCE.sub(lambda m: words.get(m[1], {}).get(m[2], WITHHELD), text)


def _demand(node: Node, words: dict[str, dict[str, str]]) -> str:
    """Say what a solution demands, when its field may be read."""
    demand = node.predicate
    if demand is None or demand.field not in words.get(node.evidence or "", {}):
        return ""
    value = demand.value if isinstance(demand.value, str) else f"{demand.value:g}"
    return f"{demand.field} {demand.op.value} {value}"


def _bare(node: Node) -> Node:
    """Return the node's place in the case, without any words or demands of it."""
    return msgspec.structs.replace(node, text="-", predicate=None)
