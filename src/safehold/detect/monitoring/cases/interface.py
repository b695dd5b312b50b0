"""A case: what happened, how bad it is, what shows it, and what to do about it."""

from enum import StrEnum

import msgspec


class Finding(StrEnum):
    """What opens a case."""

    ACCOUNT_LABEL = "account-label"
    CAMPAIGN = "campaign"
    GATEWAY_ALARM = "gateway-alarm"
    EGRESS = "egress"
    DENIALS = "endpoint-denials"
    DECOY = "decoy-touched"
    INCIDENT = "incident"
    TRUST_ALARM = "trust-alarm"
    LOG_FORK = "log-fork"


class MonitorCase(msgspec.Struct, frozen=True, kw_only=True):
    """One case. `key` is the same for the same thing, so that it opens once.

    `severity` is 1 (look at it this week) to 4 (get somebody up). `facts` hold no content of
    exchanges; `evidence` are decision ids or places in the transparency log.
    """

    key: str
    kind: Finding
    title: str
    severity: int
    opened_at: float
    facts: dict[str, str] = {}
    evidence: tuple[str, ...] = ()
    closed_at: float | None = None
    closed_by: str | None = None

    @property
    def playbook(self) -> tuple[str, ...]:
        """What to do, in order."""
        return PLAYBOOKS[self.kind]


PLAYBOOKS: dict[Finding, tuple[str, ...]] = {
    Finding.ACCOUNT_LABEL: (
        "Read the evidence in the review queue; two people read it where a suspension may follow.",
        "See which step the account is on: safehold monitor ladder show.",
        "Decide the case: overturn (ladder lift), or step up, limit or suspend by a grant.",
        "Look for the same wording elsewhere: safehold monitor campaigns.",
    ),
    Finding.CAMPAIGN: (
        "Read three texts of different accounts; name what they have in common.",
        "Open an incident from one of them: safehold respond open.",
        "Scan old traffic for it: safehold monitor scan --scanner sketch.",
        "Label the accounts that took part; look at those that got through first.",
    ),
    Finding.GATEWAY_ALARM: (
        "Read the alarm's reason in safehold ledger tail and in the gateway's metrics.",
        "If a signed file was refused: compare it with the one that its writer keeps.",
        "If coverage or a canary failed: close the surface until the reason is known.",
    ),
    Finding.EGRESS: (
        "See which flow was closed and by what: safehold egress status.",
        "Keep the host as it is; take the rows of the sender that was over its budget.",
        "Open the flow only by a grant, after the bytes are explained.",
    ),
    Finding.DENIALS: (
        "Read which programs were refused: safehold endpoint denials.",
        "Ask the host's owner; an unknown program is a break-in until shown otherwise.",
        "Rebuild the host from a vouched image where a program ran that nobody knows.",
    ),
    Finding.DECOY: (
        "Take the host off the network now; a false file has no honest reader.",
        "Revoke the grants and keys of the user that read it.",
        "Keep memory and disk for those who investigate.",
    ),
    Finding.INCIDENT: (
        "Read the leaf and its digest's document.",
        "Ask whoever wrote it; decide whether it is an incident of the standard's kind.",
    ),
    Finding.TRUST_ALARM: (
        "Read the alarm: safehold log show.",
        "Do what its kind asks: renew or end an exemption, review a broken glass.",
    ),
    Finding.LOG_FORK: (
        "Trust no grant that is newer than the last good checkpoint.",
        "Compare checkpoints with every witness and copy: safehold log verify.",
        "Treat the log's key as stolen until it is known how the two logs came to be.",
    ),
}
