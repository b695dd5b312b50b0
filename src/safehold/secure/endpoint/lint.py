"""Rows that do not do what their author meant: each finding has a code, the row, and what to do."""

import datetime as dt
import difflib
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import msgspec

from safehold.secure.endpoint.facts import is_owned
from safehold.secure.endpoint.interface import CodeKind
from safehold.secure.endpoint.inventory.book import Item
from safehold.secure.endpoint.invocation import language_of
from safehold.secure.endpoint.policy import (
    AllowRow,
    DenyRow,
    EndpointPolicy,
    Mode,
    PolicyRow,
    matches,
)

_TOP_FOLDER = re.compile(r"/[^/]*/\*")
"""All that lies right in a folder of the root, as `/usr/*`."""

_SOON_DAYS, _FAR_DAYS = 14, 366
_EMPTY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
_PLACES = ("/tmp", "/var/tmp", "/dev/shm", "/home", "/run/user", "/proc")
_ODD = re.compile(r"//|/\.\.?(/|$)|/$|\*\*\*")


class PolicyFinding(msgspec.Struct, frozen=True):
    """One thing about one row; a `serious` one makes `lint` fail."""

    row: str
    code: str
    message: str
    serious: bool = True


def lint(
    policy: EndpointPolicy, items: Sequence[Item], today: dt.date, *, host: bool = True
) -> list[PolicyFinding]:
    """Return the findings, in the order of the rows.

    Args:
        policy: What to look at.
        items: The rows of its verified inventories.
        today: The day on which rows are expired.
        host: Whether this is the policy's host, so that paths can be looked up.
    """
    found: list[PolicyFinding] = []
    known = sorted({item.package for item in items if item.package})
    if policy.mode is not Mode.ENFORCE:
        found.append(
            PolicyFinding("", "not-enforced", f"mode {policy.mode} stops nothing", serious=False)
        )
    found += [
        PolicyFinding("", "reader-interpreter", f"{reader} would load any library")
        for reader in policy.readers
        if language_of(reader) is not None
    ]
    for row in (*policy.allow, *policy.deny):
        found += _paths(row, host=host)
        found += _identities(row, policy, known)
        found += _subjects(row, host=host)
        if isinstance(row, AllowRow):
            found += _life(row, today)
        if items:
            found += _against(row, items)
    found += _pairs(policy)
    return found


def _paths(row: PolicyRow, *, host: bool) -> Iterator[PolicyFinding]:
    for glob in row.path:
        base = glob.split("*", maxsplit=1)[0]
        place = base if base == glob else os.path.dirname(base)
        if _ODD.search(glob):
            yield PolicyFinding(row.name, "never-matches", f"{glob}: the kernel gives no such path")
            continue
        if isinstance(row, AllowRow):
            if place == "/":
                yield PolicyFinding(row.name, "everything", f"{glob} allows the whole host")
            if any(place == one or place.startswith(one + "/") for one in _PLACES):
                yield PolicyFinding(row.name, "writable-place", f"{glob}: others write there")
        if not glob.endswith("**") and _TOP_FOLDER.fullmatch(glob):
            yield PolicyFinding(
                row.name,
                "one-folder",
                f"{glob} means no file below its folders; /** does",
                serious=False,
            )
        if host:
            yield from _on_host(row, glob, place)


def _on_host(row: PolicyRow, glob: str, place: str) -> Iterator[PolicyFinding]:
    real = os.path.realpath(place)
    if not Path(place).exists():
        yield PolicyFinding(row.name, "no-such-path", f"{glob}: nothing is there", serious=False)
    elif real != place:
        yield PolicyFinding(row.name, "through-link", f"{glob}: the kernel says {real}")
    elif isinstance(row, AllowRow) and not is_owned(place):
        yield PolicyFinding(row.name, "not-owned", f"{glob}: others than root can change it")


def _identities(
    row: PolicyRow, policy: EndpointPolicy, known: Sequence[str]
) -> Iterator[PolicyFinding]:
    if _EMPTY in row.sha256:
        yield PolicyFinding(row.name, "empty-file", "the digest is that of an empty file")
    signers = [source.signer for source in policy.inventory]
    for signer in row.signer:
        if signer not in signers:
            yield PolicyFinding(row.name, "unknown-signer", f"{signer}{_near(signer, signers)}")
    for package in row.package:
        if not policy.inventory:
            yield PolicyFinding(
                row.name, "no-inventory", f"{package}: no inventory says what is in it"
            )
        elif ":" in package:
            yield PolicyFinding(row.name, "qualified", f"{package}: names have no architecture")
        elif package not in known:
            yield PolicyFinding(row.name, "unknown-package", f"{package}{_near(package, known)}")


def _near(name: str, names: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, names, 1, 0.75)
    return f" is in no inventory; {close[0]} is" if close else " is in no inventory"


def _subjects(row: PolicyRow, *, host: bool) -> Iterator[PolicyFinding]:
    nobody = not (row.uids or row.exes or row.units)
    if isinstance(row, AllowRow) and nobody:
        if CodeKind.INLINE in row.kinds:
            yield PolicyFinding(row.name, "inline-to-all", "inline code for every user and program")
        for glob in row.path:
            if CodeKind.ELF in row.kinds and "*" not in glob and language_of(glob) is not None:
                yield PolicyFinding(
                    row.name,
                    "interpreter-to-all",
                    f"{glob}: say which subjects may run it",
                    serious=False,
                )
    if CodeKind.INLINE in row.kinds and (row.package or row.signer) and isinstance(row, AllowRow):
        yield PolicyFinding(
            row.name, "inline-by-origin", "inline code has no origin; name the interpreter"
        )
    for exe in row.exes:
        if "*" not in exe and host and os.path.realpath(exe) != exe:
            yield PolicyFinding(
                row.name, "through-link", f"{exe}: the kernel says {os.path.realpath(exe)}"
            )
    for unit in row.units:
        if unit.endswith(".service") and unit.count("/") == 1 and "*" not in unit:
            yield PolicyFinding(
                row.name, "unit-path", f"{unit}: expected a cgroup's path, /system.slice/..."
            )


def _life(row: AllowRow, today: dt.date) -> Iterator[PolicyFinding]:
    if row.expires is None:
        return
    left = (row.expires - today).days
    if left < 0:
        yield PolicyFinding(row.name, "expired", f"since {row.expires}")
    elif left <= _SOON_DAYS:
        yield PolicyFinding(row.name, "expires-soon", f"on {row.expires}", serious=False)
    elif left > _FAR_DAYS:
        yield PolicyFinding(
            row.name, "expires-late", f"on {row.expires}: look at it once a year", serious=False
        )


def _against(row: PolicyRow, items: Iterable[Item]) -> Iterator[PolicyFinding]:
    kinds: set[CodeKind] = set()
    for item in items:
        if (
            item.sha256 in row.sha256
            or (item.package and item.package in row.package)
            or any(matches(glob, item.path) for glob in row.path)
        ):
            kinds.add(item.kind)
    if not kinds and (row.sha256 or row.path) and CodeKind.INLINE not in row.kinds:
        yield PolicyFinding(
            row.name, "meets-nothing", "no file of the inventories is meant", serious=False
        )
    elif kinds and kinds.isdisjoint(row.kinds) and CodeKind.INLINE not in row.kinds:
        # A program that the loader opens is a library then.
        if CodeKind.LIBRARY in row.kinds and CodeKind.ELF in kinds:
            return
        said = ", ".join(sorted(kinds))
        yield PolicyFinding(
            row.name, "other-kind", f"what it means is {said}, not {', '.join(row.kinds)}"
        )


def _pairs(policy: EndpointPolicy) -> Iterator[PolicyFinding]:
    digests: dict[tuple[str, CodeKind], str] = {}
    for row in policy.allow:
        for sha256 in row.sha256:
            for kind in row.kinds:
                other = digests.setdefault((sha256, kind), row.name)
                if other != row.name:
                    yield PolicyFinding(
                        row.name, "twice", f"{sha256[:12]} is also in {other}", serious=False
                    )
        for deny in policy.deny:
            if _covers(deny, row):
                yield PolicyFinding(
                    row.name, "never-applies", f"the deny row {deny.name} wins over all of it"
                )


def _covers(deny: DenyRow, row: AllowRow) -> bool:
    if deny.uids or deny.exes or deny.units or not set(row.kinds) <= set(deny.kinds):
        return False
    for one in ("sha256", "package", "signer"):
        given = set(getattr(row, one))
        if given and given <= set(getattr(deny, one)):
            return True
    return bool(row.path) and all(
        any(_within(path, glob) for glob in deny.path) for path in row.path
    )


def _within(path: str, glob: str) -> bool:
    return path == glob or (glob.endswith("/**") and path.startswith(glob[:-2]))
