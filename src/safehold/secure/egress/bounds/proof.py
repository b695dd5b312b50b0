"""The proof document: what the compiled rules guarantee, in words and numbers to check."""

from safehold.secure.egress.bounds.budget import Proof, total_leak
from safehold.secure.egress.declare.plan import EgressPlan, describe
from safehold.secure.egress.declare.register import Flow
from safehold.secure.egress.units import human_bytes

_HORIZONS = (("1 hour", 3_600), ("1 day", 86_400), ("1 week", 604_800), ("30 days", 2_592_000))


def proof_markdown(proof: Proof, flows: tuple[Flow, ...], plan: EgressPlan) -> str:
    """Return the proof document as Markdown."""
    bound = plan.bound
    lines = [
        "# Egress proof",
        "",
        f"Bound: {describe(bound)}.",
        "",
        "| Assumption | Worst leak per incident | Time to steal |",
        "| --- | --- | --- |",
        (
            f"| senders of reconciled flows are honest | {human_bytes(proof.honest_incident_leak)} "
            f"of {human_bytes(proof.incident_bytes)} allowed | {proof.honest_steal_days:.4g} d "
            f"(wanted {bound.steal_days:g} d) |"
        ),
        (
            f"| the thief owns every sender | {human_bytes(proof.owned_incident_leak)} "
            f"| {proof.owned_steal_days:.4g} d |"
        ),
        "",
        (
            f"Residual line: {human_bytes(proof.residual_line)} of unexplained bytes block "
            f"everything (an eighth more can pass in place of what TCP sends again); "
            f"{human_bytes(proof.lag_bytes)} more can pass within the accounting lag of "
            f"{plan.accounting_lag_s:g} s, and {human_bytes(proof.slack_bytes)} can hide in an "
            f"error of {plan.overhead_slack:.3%} of the learned overhead between two reviews "
            f"({bound.review_days:g} days apart at least)."
        ),
        "",
        "Time to steal when the thief owns every sender, by compression: "
        + ", ".join(
            f"c = {c}: {days:.4g} d" for c, days in proof.owned_steal_days_by_compression.items()
        )
        + ".",
        "",
        "## Worst case of the kernel's budgets in any interval",
        "",
        "| Interval | All flows | " + " | ".join(flow.id for flow in flows) + " |",
        "| --- | --- |" + " --- |" * len(flows),
    ]
    for name, seconds in _HORIZONS:
        each = (human_bytes(total_leak([flow], plan, seconds)) for flow in flows)
        total = human_bytes(total_leak(flows, plan, seconds))
        lines.append(f"| {name} | {total} | " + " | ".join(each) + " |")
    lines += [
        "",
        (
            "Windows slide: no interval of a window's length carries more than its budget plus "
            "one packet (64 KiB). An interval of H carries at most ceil(H / W) budgets of every "
            "window W, and at most burst + rate * H through the shaper; the least holds. Bytes are "
            "those of IP packets before segmentation: headers that offloading adds on the wire "
            "are not counted."
        ),
        "",
    ]
    return "\n".join(lines)
