"""From what was seen to rows: the narrowest identity that will still hold tomorrow."""

import json
from collections.abc import Iterable

import msgspec

from safehold.secure.endpoint.interface import CodeKind
from safehold.secure.endpoint.policy import AllowRow
from safehold.secure.endpoint.records import Denial


class Duty(msgspec.Struct, frozen=True):
    """Who answers for suggested rows, why, and under which ticket."""

    owner: str
    reason: str
    ticket: str


class _Names:
    """Gives each row a name that no other row has."""

    def __init__(self, taken: frozenset[str]) -> None:
        self._taken = set(taken)

    def new(self, stem: str) -> str:
        number = 1
        while (found := f"{stem}-{number}") in self._taken:
            number += 1
        self._taken.add(found)
        return found


class _Observed:
    """What was seen, sorted by what will name it."""

    def __init__(self, seen: Iterable[Denial]) -> None:
        self.packages: dict[str, set[CodeKind]] = {}
        self.digests: dict[tuple[str, CodeKind], set[str]] = {}
        self.inline: set[tuple[str, str, int]] = set()
        owned: dict[str, bool] = {}
        for one in seen:
            if one.kind is CodeKind.INLINE:
                self.inline.add((one.path, one.exe, one.uid))
            elif one.package:
                self.packages.setdefault(one.package, set()).add(one.kind)
            elif one.sha256:
                self.digests.setdefault((one.path, one.kind), set()).add(one.sha256)
                owned[one.path] = owned.get(one.path, True) and one.owned
        # The same place with several digests, which root alone can write: it changes by design.
        self.moving = {
            place for place, found in self.digests.items() if len(found) > 1 and owned[place[0]]
        }

    def by_kinds(self) -> dict[tuple[CodeKind, ...], tuple[str, ...]]:
        """Return the packages that came in the same kinds."""
        found: dict[tuple[CodeKind, ...], tuple[str, ...]] = {}
        for package, kinds in sorted(self.packages.items()):
            key = tuple(sorted(kinds))
            found[key] = (*found.get(key, ()), package)
        return found

    def fixed(self, kind: CodeKind) -> tuple[str, ...]:
        """Return the digests of files that did not change."""
        return tuple(
            sorted(
                digest
                for place, found in self.digests.items()
                if place[1] is kind and place not in self.moving
                for digest in found
            )
        )


def suggested(
    seen: Iterable[Denial], duty: Duty, taken: frozenset[str] = frozenset()
) -> list[AllowRow]:
    """Return rows for what was refused in learn or audit mode; names in `taken` are not used.

    Package first: it names the origin and holds over updates that are signed. Then the digest.
    A path only where the same place was seen with several digests and root alone can write it.
    Inline code is allowed to the one program and user that ran it.
    """
    observed, names = _Observed(seen), _Names(taken)

    def row(stem: str, kinds: tuple[CodeKind, ...], **identity: object) -> AllowRow:
        common = {"name": names.new(stem), "kinds": kinds, **msgspec.to_builtins(duty)}
        return msgspec.convert({**common, **identity}, AllowRow)

    rows = [
        row("learned-packages", kinds, package=packages)
        for kinds, packages in observed.by_kinds().items()
    ]
    for kind in CodeKind:
        if fixed := observed.fixed(kind):
            rows.append(row(f"learned-{kind}", (kind,), sha256=fixed))
        if paths := sorted(place[0] for place in observed.moving if place[1] is kind):
            rows.append(row(f"learned-{kind}-paths", (kind,), path=paths))
    for path, exe, uid in sorted(observed.inline):
        exes = [exe] if exe else []
        rows.append(row("learned-inline", (CodeKind.INLINE,), path=[path], exes=exes, uids=[uid]))
    return rows


def rows_text(rows: Iterable[AllowRow]) -> str:
    """Return rows as TOML, to be read by a person and put into the policy."""
    parts = []
    for row in rows:
        lines = ["[[allow]]"]
        for field, value in msgspec.to_builtins(row).items():
            if value not in ([], None, ()):
                lines.append(f"{field} = {_toml(value)}")
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n" if parts else ""


def _toml(value: object) -> str:
    # TOML's basic strings are JSON's, but for DEL, which a checked policy does not hold.
    if isinstance(value, list | tuple):
        inner = ",\n    ".join(_toml(one) for one in value)
        return f"[{inner}]" if len(value) == 1 else f"[\n    {inner},\n]"
    return json.dumps(value, ensure_ascii=False)
