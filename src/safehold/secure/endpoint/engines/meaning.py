"""What several compilers ask of a policy: allowed items, places, and the kinds of blind spots."""

import datetime as dt
from collections.abc import Sequence

from safehold.secure.endpoint.engines.interface import Blind, CompileError
from safehold.secure.endpoint.interface import Allowed, Ask, CodeKind, ExecSubject, Target
from safehold.secure.endpoint.inventory.book import Item
from safehold.secure.endpoint.policy import (
    AllowRow,
    DenyRow,
    EndpointPolicy,
    PolicyRow,
    decide,
    matches,
)

ANYBODY = ExecSubject(2**32 - 2, "/nobody", "/nobody")
"""A subject that no row can name on purpose: what it may run, everybody may."""
FOREVER = dt.date(1, 1, 1)


def target_of(item: Item, kind: CodeKind) -> Target:
    """Return an inventory's item as the guard sees it; items are of folders that root owns."""
    return Target(kind, item.path, item.sha256, True, item.package, frozenset({"*"}))


def with_signers(policy: EndpointPolicy, target: Target) -> Target:
    """Return the target vouched for by every signer of the policy's inventories."""
    signers = frozenset(source.signer for source in policy.inventory)
    return Target(target.kind, target.path, target.sha256, target.owned, target.package, signers)


def can_be(item: Item, kind: CodeKind) -> bool:
    """Tell whether content of this kind can be run in that form: a text is never ELF."""
    return (item.kind is CodeKind.SCRIPT) == (kind is CodeKind.SCRIPT)


def has_subject(row: PolicyRow) -> bool:
    """Tell whether a row is for some subjects only."""
    return bool(row.uids or row.exes or row.units)


def allowed_items(
    policy: EndpointPolicy, items: Sequence[Item], kind: CodeKind, today: dt.date
) -> list[Item]:
    """Return the items that everybody may run in this form, of those that can take it."""
    found = []
    for item in items:
        if not can_be(item, kind):
            continue
        target = with_signers(policy, target_of(item, kind))
        if isinstance(decide(policy, Ask(ANYBODY, target), today), Allowed):
            found.append(item)
    return found


def places(policy: EndpointPolicy, kind: CodeKind) -> list[str]:
    """Return the path patterns whose rows are for everybody and this kind."""
    return [
        glob
        for row in policy.allow
        if kind in row.kinds and not has_subject(row)
        for glob in row.path
    ]


def tree(glob: str) -> str:
    """Return the folder of a pattern `/folder/**`; the whole host for `/**`.

    Raises:
        CompileError: the pattern is of another form.
    """
    if not glob.endswith("/**") or "*" in glob[:-3]:
        raise CompileError(f"{glob}: expected a folder and everything below it (/folder/**)")
    return glob[:-3] or "/"


def below(folder: str, path: str) -> bool:
    """Tell whether a path is below a folder."""
    return folder == "/" or path.startswith(folder.rstrip("/") + "/")


# ---- kinds of blind spots ---------------------------------------------------------------------


def _means(row: PolicyRow, target: Target) -> bool:
    """Tell whether a row's identity is the target's, in whatever form."""
    return (
        target.sha256 in row.sha256
        or (bool(target.package) and target.package in row.package)
        or bool(target.signers & set(row.signer))
        or any(matches(glob, target.path) for glob in row.path)
    )


def _by_row(policy: EndpointPolicy, ask: Ask, rows: Sequence[PolicyRow]) -> bool:
    del policy
    return any(ask.target.kind in row.kinds and _means(row, ask.target) for row in rows)


def one_form(*forms: CodeKind) -> Blind:
    """Return the blind spot of an engine that treats these forms alike."""

    def meets(policy: EndpointPolicy, items: Sequence[Item], ask: Ask) -> bool:
        del items
        return ask.target.kind in forms and any(
            0 < len(set(forms) & set(row.kinds)) < len(forms) and _means(row, ask.target)
            for row in (*policy.allow, *policy.deny)
        )

    return Blind("rows for one form only", f"{' and '.join(forms)} are one to it", meets)


def _subject_rows(policy: EndpointPolicy, items: Sequence[Item], ask: Ask) -> bool:
    del items
    rows: list[PolicyRow] = [row for row in (*policy.allow, *policy.deny) if has_subject(row)]
    return _by_row(policy, ask, rows)


def _unit_rows(policy: EndpointPolicy, items: Sequence[Item], ask: Ask) -> bool:
    del items
    rows: list[PolicyRow] = [
        row
        for row in (*policy.allow, *policy.deny)
        if row.units or any("*" in exe for exe in row.exes)
    ]
    return _by_row(policy, ask, rows)


def _content_rows(policy: EndpointPolicy, items: Sequence[Item], ask: Ask) -> bool:
    del items
    rows: list[PolicyRow] = [row for row in (*policy.allow, *policy.deny) if not row.path]
    return _by_row(policy, ask, rows)


def _deny_rows(policy: EndpointPolicy, items: Sequence[Item], ask: Ask) -> bool:
    del items
    return _by_row(policy, ask, policy.deny)


def _not_listed(policy: EndpointPolicy, items: Sequence[Item], ask: Ask) -> bool:
    del policy
    target = ask.target
    return not any((item.path, item.sha256) == (target.path, target.sha256) for item in items)


def _not_owned(policy: EndpointPolicy, items: Sequence[Item], ask: Ask) -> bool:
    del policy, items
    return not ask.target.owned


def kinds_unseen(*kinds: CodeKind, reason: str) -> Blind:
    """Return the blind spot of kinds that an engine does not see."""
    return Blind(f"kinds: {', '.join(kinds)}", reason, lambda _, __, ask: ask.target.kind in kinds)


BY_SUBJECT = Blind(
    "rows for some subjects", "it has no subjects: it holds for a service or a host", _subject_rows
)
BY_UNIT = Blind("rows by unit or pattern", "its rules name no cgroup and no pattern", _unit_rows)
BY_CONTENT = Blind("rows by content", "it goes by place alone", _content_rows)
BY_DENY = Blind("deny rows", "what a folder allows can't be taken back below it", _deny_rows)
NOT_LISTED = Blind(
    "what no inventory lists", "it knows files by its list alone: others are refused", _not_listed
)
NOT_OWNED = Blind("who can write the file", "it does not look at owners", _not_owned)


def subjects(row: AllowRow | DenyRow) -> list[tuple[int | None, str]]:
    """Return user and program of a row, each pair once; None and empty mean all.

    Raises:
        CompileError: the row names a unit or a pattern.
    """
    if row.units or any("*" in exe for exe in row.exes):
        raise CompileError(f"row {row.name}: expected users and programs by full path")
    uids: list[int | None] = list(row.uids) or [None]
    return [(uid, exe) for uid in uids for exe in (list(row.exes) or [""])]
