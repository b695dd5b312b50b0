"""A hot rule, the file that holds all of them, and what a session notes of them."""

from enum import StrEnum
from typing import Annotated

import msgspec

from safehold.canonical import canonical, sha256_hex
from safehold.errors import BundleError

MOST_RULES = 20_000
DAY_S = 86_400
MOST_DAYS = 30
"""Days that a rule may last: a rule bridges the time until a bundle knows the attack."""
BROKEN_GLASS_S = DAY_S
"""Seconds that a rule may last which one person alone lets act."""


class OverlayError(BundleError):
    """A file of hot rules can't be used; the rules in force stay."""


class RuleState(StrEnum):
    """What a hot rule does."""

    SHADOW = "shadow"
    """It is searched and counted; it stops nothing."""
    ACTING = "acting"
    """It blocks."""


Name = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}\Z")]


class BenignCost(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a rule hit among benign texts before it acted: `hits` of `n`, and of which texts.

    `sources` maps the name of each file of texts to its SHA-256.
    """

    hits: int
    n: int
    sources: dict[str, str]


class HotRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One rule: a pattern (RE2) or a known text, what it does, whose it is and when it ends.

    `created` and `expires` are seconds since the epoch, UTC. `incident` names what it answers.
    `cost` is what it hit among the operator's own benign texts; a rule can't act without one.
    """

    id: Name
    clause: Name
    owner: Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
    incident: Name
    created: int
    expires: int
    pattern: str = ""
    text: str = ""
    at_least: float = 0.5
    cost: BenignCost | None = None

    @property
    def digest(self) -> str:
        """The digest that an approval is of: of everything the rule is."""
        return sha256_hex(canonical(msgspec.to_builtins(self)))


class RuleApproval(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One person's signature under one rule: it may act."""

    person: str
    key: str
    signature: str


class PlacedRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A rule as it stands in the file: what it does, and who let it act.

    `broken_glass`: one person alone let it act, for a day at most; a review follows. `grant` is the
    request in the log that lets it act, where the gateway reads a log.
    """

    rule: HotRule
    state: RuleState = RuleState.SHADOW
    approvals: tuple[RuleApproval, ...] = ()
    broken_glass: bool = False
    grant: str = ""


class OverlayContent(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All hot rules. A file with a lower `serial` than one seen before is an old one: refused."""

    serial: Annotated[int, msgspec.Meta(ge=1)]
    at: int
    rules: tuple[PlacedRule, ...] = ()


class HotHit(msgspec.Struct, frozen=True):
    """A hot rule that matched in an exchange; `acted` says that it was one that blocks."""

    rule: str
    owner: str
    acted: bool
