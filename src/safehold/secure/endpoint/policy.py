"""The policy: a set of rows. A deny row wins over every allow row; what no row allows is refused.

There is no first match, so no row can hide another one, and a compiler to an engine with ordered
rules writes the deny rows first.
"""

import datetime as dt
import functools
import re
import tomllib
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import msgspec

from safehold.secure.endpoint.interface import (
    Allowed,
    Ask,
    CodeKind,
    EndpointPolicyError,
    ExecRefused,
    ExecSubject,
    Target,
    Verdict,
)
from safehold.toml_text import parse_toml

Name = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9.-]{0,62}\Z")]
Hex32 = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]
Glob = Annotated[str, msgspec.Meta(pattern=r"^/[^\x00-\x1f]{0,4095}\Z")]
Line = Annotated[str, msgspec.Meta(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f]+\Z")]
Uid = Annotated[int, msgspec.Meta(ge=0, lt=2**32)]


class Mode(StrEnum):
    """What a refusal does."""

    ENFORCE = "enforce"
    """It does not run."""
    AUDIT = "audit"
    """It runs, and the refusal is counted and logged."""
    LEARN = "learn"
    """It runs, and is written down so that rows can be suggested."""


class PolicyRow(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a row speaks of: kinds, exactly one identity, and which subjects (empty: all)."""

    name: Name
    kinds: Annotated[tuple[CodeKind, ...], msgspec.Meta(min_length=1)]
    sha256: tuple[Hex32, ...] = ()
    package: tuple[str, ...] = ()
    """Names of packages, as the inventory has them."""
    path: tuple[Glob, ...] = ()
    """`*` within one folder, `**` below. An allow row takes only what root alone can change."""
    signer: tuple[str, ...] = ()
    """Names of keys whose inventories vouch for the digest."""
    uids: tuple[Uid, ...] = ()
    exes: tuple[Glob, ...] = ()
    units: tuple[Glob, ...] = ()


class AllowRow(PolicyRow, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A row that lets something run, and who answers for it."""

    owner: Line
    reason: Line
    ticket: Line
    expires: dt.date | None = None
    """The last day on which it holds."""


class DenyRow(PolicyRow, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A row that stops something, whatever else allows it."""

    reason: Line


class InventorySource(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One signed inventory: its file, its signer's name and public key (`name+hash+base64`)."""

    file: str
    signer: Name
    key: str
    max_age_days: Annotated[int, msgspec.Meta(ge=1, le=366)] = 30


class EndpointPolicy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`endpoint.toml`."""

    version: Annotated[int, msgspec.Meta(ge=1)]
    mode: Mode
    host: Line
    """The host's name; an inventory for another one is refused."""
    allow: Annotated[tuple[AllowRow, ...], msgspec.Meta(min_length=1)]
    deny: tuple[DenyRow, ...] = ()
    inventory: tuple[InventorySource, ...] = ()
    readers: tuple[Glob, ...] = ()
    """Programs that may read unknown programs as data: backup, scanner, package manager."""
    dated_overlays: bool = False
    """Overlays here lie on a disk file system: their verdicts may be kept by change time."""


def read_policy(path: Path) -> EndpointPolicy:
    """Return the checked policy.

    Raises:
        PolicyError: unreadable, an unknown key, a row without exactly one identity, a name twice.
    """
    try:
        return parse_policy(path.read_text(encoding="utf-8"), path.name)
    except OSError as error:
        raise EndpointPolicyError(f"can't read {path.name}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise EndpointPolicyError(f"{path.name}: expected UTF-8") from error


def parse_policy(text: str, name: str = "endpoint.toml") -> EndpointPolicy:
    """Return the policy of a text.

    Raises:
        PolicyError: as `read_policy`.
    """
    try:
        policy = msgspec.convert(parse_toml(text), EndpointPolicy)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise EndpointPolicyError(f"{name}: {error}") from error
    rows: tuple[PolicyRow, ...] = (*policy.allow, *policy.deny)
    seen: set[str] = set()
    for row in rows:
        if row.name in seen:
            raise EndpointPolicyError(f"{name}: row {row.name}: expected a name of its own")
        seen.add(row.name)
        given = [one for one in ("sha256", "package", "path", "signer") if getattr(row, one)]
        if len(given) != 1:
            raise EndpointPolicyError(
                f"{name}: row {row.name}: expected exactly one of sha256, package, path, signer;"
                f" got {', '.join(given) or 'none'}"
            )
    signers = [one.signer for one in policy.inventory]
    if len(set(signers)) != len(signers):
        raise EndpointPolicyError(f"{name}: expected one inventory for each signer")
    return policy


@functools.lru_cache(maxsize=4096)
def _regex(glob: str) -> re.Pattern[str]:
    parts = re.split(r"(\*\*|\*)", glob)
    table = {"**": ".*", "*": "[^/]*"}
    return re.compile("".join(table.get(part, re.escape(part)) for part in parts), re.DOTALL)


def matches(glob: str, path: str) -> bool:
    """Tell whether a path is meant by a pattern: `*` within one folder, `**` below."""
    return _regex(glob).fullmatch(path) is not None


def speaks_of_subject(row: PolicyRow, subject: ExecSubject) -> bool:
    """Tell whether the row is about this subject."""
    return (
        (not row.uids or subject.uid in row.uids)
        and (not row.exes or any(matches(glob, subject.exe) for glob in row.exes))
        and (not row.units or any(matches(glob, subject.unit) for glob in row.units))
    )


def speaks_of_target(row: PolicyRow, target: Target) -> bool:
    """Tell whether the row's kinds and identity mean this target."""
    if target.kind not in row.kinds:
        return False
    if row.sha256:
        return target.sha256 in row.sha256
    if row.package:
        return bool(target.package) and target.package in row.package
    if row.signer:
        return not target.signers.isdisjoint(row.signer)
    # A deny row needs no owner: what it names is refused wherever it is.
    owned = target.owned or isinstance(row, DenyRow)
    return owned and any(matches(glob, target.path) for glob in row.path)


def decide(policy: EndpointPolicy, ask: Ask, today: dt.date) -> Verdict:
    """Return whether it may run.

    1. A deny row that means it refuses it.
    2. An allow row that means it, and has not expired, allows it.
    3. Everything else is refused.
    """
    for deny in policy.deny:
        if speaks_of_target(deny, ask.target) and speaks_of_subject(deny, ask.subject):
            return ExecRefused(deny.name, deny.reason)
    expired = ""
    for allow in policy.allow:
        if speaks_of_target(allow, ask.target) and speaks_of_subject(allow, ask.subject):
            if allow.expires is None or today <= allow.expires:
                return Allowed(allow.name)
            expired = allow.name
    if expired:
        return ExecRefused(expired, "the row that would allow it has expired")
    return ExecRefused("", "no row allows it")
