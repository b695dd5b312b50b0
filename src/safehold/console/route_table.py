"""The one table of the console: every page and act, and the roles that may open it.

What is not here does not exist; what has no role here is refused.
"""

from safehold.console.screens import (
    accounts,
    approvals,
    audit_log,
    bounty,
    enclave,
    explore,
    incidents,
    monitoring,
    outside,
    overview,
    redteam,
    review,
    rollout,
)
from safehold.console.shell.access import EVERYONE, ConsoleRole, PageAct, Screen
from safehold.console.sources import ConsoleSources

REVIEW = frozenset({ConsoleRole.REVIEWER, ConsoleRole.LEAD})
CASES = REVIEW | {ConsoleRole.RESPONDER, ConsoleRole.AUDITOR}
LEDGER = frozenset(
    {
        ConsoleRole.VIEWER,
        ConsoleRole.LEAD,
        ConsoleRole.RESPONDER,
        ConsoleRole.RELEASER,
        ConsoleRole.AUDITOR,
    }
)
OPEN_CONTENT = frozenset({ConsoleRole.LEAD, ConsoleRole.RESPONDER, ConsoleRole.AUDITOR})
ATTACKS = LEDGER | {ConsoleRole.BOUNTY}
TRIAGE = frozenset({ConsoleRole.BOUNTY, ConsoleRole.LEAD})
PROMOTE = frozenset({ConsoleRole.RELEASER})
ROLL_BACK = frozenset({ConsoleRole.RESPONDER, ConsoleRole.RELEASER, ConsoleRole.LEAD})

SCREENS: tuple[Screen[ConsoleSources], ...] = (
    Screen("/", "Overview", EVERYONE, overview.overview, "overview.html", "Now",
           live=True, answer=overview.Overview),
    Screen("/review", "Review", CASES, review.queue, "review.html", "Detect",
           live=True, answer=review.ReviewQueue),
    Screen("/review/cases/{case}", "Case", CASES, review.case, "case.html",
           hostile=True, answer=review.CasePage),
    Screen("/review/items/{item}", "Exchange", REVIEW, review.item, "item.html",
           hostile=True, answer=review.ItemPage),
    Screen("/accounts", "Accounts", CASES, accounts.accounts, "accounts.html", "Detect",
           answer=accounts.AccountsScreen),
    Screen("/accounts/{tenant}/{key}", "Account", CASES, accounts.account, "account.html",
           answer=accounts.AccountPage),
    Screen("/campaigns", "Campaigns", CASES, accounts.campaigns, "campaigns.html", "Detect",
           answer=accounts.Campaigns),
    Screen("/monitor", "Monitor", CASES, monitoring.monitored, "monitor.html", "Detect",
           answer=monitoring.Monitored),
    Screen("/explore", "Explore", LEDGER, explore.explore, "explore.html", "Detect",
           csv=True, answer=explore.Explored),
    Screen("/explore/{decision_id}", "Decision", LEDGER, explore.decision, "decision.html",
           hostile=True, answer=explore.DecisionScreen),
    Screen("/redteam", "Red team", ATTACKS, redteam.runs, "redteam.html", "Detect",
           answer=redteam.RedteamRuns),
    Screen("/redteam/{run}", "Red-team run", ATTACKS, redteam.run, "redteam_run.html",
           answer=redteam.RedteamRun),
    Screen("/bounty", "Bounty", TRIAGE, bounty.bounty, "bounty.html", "Detect",
           answer=bounty.BountyList),
    Screen("/bounty/{number}", "Submission", TRIAGE, bounty.submission, "bounty_one.html",
           answer=bounty.BountyPage),
    Screen("/intel", "Intel", ATTACKS, outside.intel, "intel.html", "Detect",
           hostile=True, answer=outside.Intel),
    Screen("/rollout", "Rollout", LEDGER, rollout.rollout, "rollout.html", "Improve",
           live=True, answer=rollout.Rollout),
    Screen("/incidents", "Incidents", LEDGER | REVIEW, incidents.incidents, "incidents.html",
           "Improve", live=True, answer=incidents.Incidents),
    Screen("/approvals", "Approvals", EVERYONE, approvals.approvals, "approvals.html", "Trust",
           live=True, answer=approvals.Approvals),
    Screen("/approvals/{request}", "Approval", EVERYONE, approvals.approval, "approval.html",
           hostile=True, answer=approvals.ApprovalScreen),
    Screen("/exemptions", "Exemptions", LEDGER, enclave.exemptions, "exemptions.html", "Trust",
           answer=enclave.ExemptionsScreen),
    Screen("/log", "Audit log", LEDGER, audit_log.audit_log, "log.html", "Trust",
           answer=audit_log.AuditLogScreen),
    Screen("/log/{index}", "Leaf", LEDGER, audit_log.leaf_page, "leaf.html",
           hostile=True, answer=audit_log.LeafPage),
    Screen("/weights", "Weights", LEDGER, enclave.weights, "weights.html", "Secure",
           answer=enclave.Weights),
    Screen("/egress", "Egress", LEDGER, enclave.egress, "egress.html", "Secure",
           answer=enclave.Egress),
    Screen("/endpoint", "Endpoint", LEDGER, outside.endpoint, "endpoint.html", "Secure",
           answer=outside.EndpointScreen),
    Screen("/controls", "Controls", LEDGER, enclave.controls, "controls.html", "Govern",
           answer=enclave.Controls),
    Screen("/standards", "Standards", LEDGER, enclave.standards, "standards.html", "Govern",
           answer=enclave.Standards),
    Screen("/report", "Report", LEDGER, outside.report, "report.html", "Govern",
           answer=outside.ReportPage),
)  # fmt: skip

ACTS: tuple[PageAct[ConsoleSources], ...] = (
    PageAct("/review/next", "Take the next exchange", REVIEW, review.TakeNext, review.take_next),
    PageAct("/review/items/{item}/look", "Look at an exchange", REVIEW, review.LookAt, review.look,
        template="item.html", hostile=True, answer=review.ItemPage),
    PageAct("/review/items/{item}/verdict", "Give a verdict", REVIEW, review.GiveVerdict,
        review.judge),
    PageAct("/review/items/{item}/keep", "Keep an exchange longer", REVIEW, review.TakeNext,
        review.keep),
    PageAct("/review/items/{item}/back", "Give an exchange back", REVIEW, review.TakeNext,
        review.give_back),
    PageAct("/review/cases/{case}/decide", "End a case", frozenset({ConsoleRole.LEAD}),
        review.Decide, review.decide),
    PageAct("/explore/{decision_id}/open", "Open a decision's content", OPEN_CONTENT,
        explore.OpenContent, explore.open_decision, template="decision.html", hostile=True,
        answer=explore.DecisionScreen),
    PageAct("/bounty/{number}/reject", "Reject a submission", TRIAGE, bounty.Reject, bounty.reject),
    PageAct("/bounty/{number}/duplicate", "Mark a duplicate", TRIAGE, bounty.Duplicate,
        bounty.duplicate),
    PageAct("/rollout/back", "Roll back the guard's bundle", ROLL_BACK, rollout.RollBack,
        rollout.roll_back),
    PageAct("/rollout/on", "Promote a released bundle", PROMOTE, rollout.Promote, rollout.promote),
)  # fmt: skip
