"""States of claims, computed from full evidence; what comes out holds no value of it."""

from collections.abc import Mapping

from safehold.govern.report.interface import (
    CaseEvidence,
    CaseSources,
    ClaimState,
    Figure,
    Node,
    NodeKind,
    NodeState,
    Operator,
    Predicate,
    SafetyCase,
    Why,
)

_WORST = (ClaimState.SUPPORTED, ClaimState.STALE, ClaimState.UNDERMINED, ClaimState.UNSUPPORTED)


def judge_case(case: SafetyCase, sources: CaseSources) -> Mapping[str, NodeState]:
    """Return the state of every node. A goal is supported only if all below it is."""
    found: dict[str, NodeState] = {}

    def visit(node: Node) -> NodeState:
        if node.id not in found:
            below = [visit(case.find(one)) for one in node.supported_by]
            found[node.id] = _node(node, below, sources)
        return found[node.id]

    for node in case.node:
        visit(node)
    return found


def _node(node: Node, below: list[NodeState], sources: CaseSources) -> NodeState:
    state = max((one.state for one in below), key=_WORST.index, default=ClaimState.SUPPORTED)
    why = [Why.BELOW] if state is not ClaimState.SUPPORTED else []
    if node.kind is NodeKind.SOLUTION:
        own = _solution(node, sources)
        state, why = own.state, list(own.why)
    for doubt in sources.doubts:
        if node.id in doubt.about or (node.evidence or "") in doubt.about:
            why.append(Why.DISSENT if doubt.kind == "dissent" else Why.INCIDENT)
            state = max(state, ClaimState.UNDERMINED, key=_WORST.index)
    return NodeState(state, tuple(why))


def _solution(node: Node, sources: CaseSources) -> NodeState:
    evidence = sources.evidence.get(node.evidence or "")
    if evidence is None or node.predicate is None:
        return NodeState(ClaimState.UNSUPPORTED, (Why.MISSING,))
    if not meets(evidence, node.predicate):
        return NodeState(ClaimState.UNSUPPORTED, (Why.NOT_MET,))
    why = []
    if not evidence.made <= sources.at < evidence.until:
        why.append(Why.EXPIRED)
    if evidence.bundle and evidence.bundle != sources.bundle:
        why.append(Why.OTHER_BUNDLE)
    return NodeState(ClaimState.STALE if why else ClaimState.SUPPORTED, tuple(why))


def meets(evidence: CaseEvidence, demand: Predicate) -> bool:
    """Tell whether evidence shows what is demanded; a field of another kind shows nothing."""
    figure = evidence.fields.get(demand.field)
    if figure is None:
        return False
    if isinstance(demand.value, str):
        return demand.op is Operator.IS and figure.text == demand.value
    measured = _measured(figure, demand.op)
    if measured is None:
        return False
    if demand.op in {Operator.AT_MOST, Operator.UPPER_AT_MOST}:
        return measured <= demand.value
    if demand.op in {Operator.AT_LEAST, Operator.LOWER_AT_LEAST}:
        return measured >= demand.value
    return measured == demand.value


def _measured(figure: Figure, op: Operator) -> float | None:
    rate = figure.rate()
    if op is Operator.UPPER_AT_MOST:
        return rate.upper if rate is not None and rate.events <= rate.n else None
    if op is Operator.LOWER_AT_LEAST:
        return rate.lower if rate is not None and rate.n > 0 and rate.events <= rate.n else None
    return figure.number
