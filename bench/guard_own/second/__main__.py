"""Scores a bundle on the second set of the guard: text that nobody trains on or tunes to.

`python -m bench.guard_own.second` scores the stock bundle, `--bundle DIR` another. It is meant to
be run once for each released bundle: `--record FILE` keeps the figures with the digests and the
number of the look. `--apart` says instead how near the set is to the training text, in counts.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
from bench.tables import Table

from safehold.guard.bundle.load import UnsafeUnsigned
from safehold.guard.bundle.stock import stock_bundle

from .apart import Nearness, apart
from .play import Line, Named, Served, lines, play
from .rows import HERE, Row, digest, rows, slice_of


class Look(msgspec.Struct, frozen=True):
    """The figures of one bundle; `look` counts the looks at this data that a record has."""

    bundle: str
    data: str
    look: int
    limit: int | None
    lines: tuple[Line, ...]


def load(bundle: Path | None) -> Served:
    """Load a bundle's folder, trusting its manifest, or the stock bundle."""
    return Served(bundle, UnsafeUnsigned()) if bundle else Served(*stock_bundle())


def main(argv: list[str], loader: Callable[[Path | None], Named] = load) -> None:
    """Score a bundle and print its figures."""
    given = _parser().parse_args(argv)
    if given.apart:
        found = apart(given.data)
        print(msgspec.json.encode(found).decode() if given.json else _apart(found).markdown())
        return
    if given.write:
        _write(given.write, rows(given.data))
        return
    served = loader(given.bundle)
    chosen = slice_of(rows(given.data), given.limit)
    played = []
    for number, row in enumerate(chosen, start=1):
        played.append((row, play(row, served)))
        if number % 100 == 0:
            print(f"{number} of {len(chosen)} rows", file=sys.stderr)
    known: list[Look] = []
    if given.record and given.record.exists():
        known = msgspec.json.decode(given.record.read_bytes(), type=list[Look])
    data = digest(given.data)
    count = 1 + sum(one.data == data for one in known)
    look = Look(served.digest, data, count, given.limit, tuple(lines(played)))
    if given.record:
        told = msgspec.json.format(msgspec.json.encode([*known, look]))
        given.record.write_bytes(told + b"\n")
    print(msgspec.json.encode(look).decode() if given.json else _table(look).markdown())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.guard_own.second", description=__doc__)
    parser.add_argument("--bundle", type=Path, help="a bundle's folder; its manifest is trusted")
    parser.add_argument("--data", type=Path, default=HERE, help="another folder of this layout")
    parser.add_argument("--limit", type=int, help="at most so many rows of each group")
    parser.add_argument("--record", type=Path, help="add the figures to this JSON file")
    parser.add_argument("--apart", action="store_true", help="compare with the training text")
    parser.add_argument("--write", type=Path, help="write JSONL that `safehold eval` reads instead")
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser


def _table(look: Look) -> Table:
    told = tuple(
        (
            f"{line.group} ({line.surface})", line.of, line.what, f"{line.events} of {line.n}",
            f"{line.rate:.1%}", f"{line.at} {line.bound:.1%}", str(line.broken),
        )
        for line in look.lines
    )  # fmt: skip
    return Table(
        f"Bundle {look.bundle[:8]} on the second set {look.data[:8]}",
        ("rows", "of", "what", "events", "rate", "bound (95 %, one-sided)", "unscorable"),
        told,
        note=f"Look {look.look}. Unscorable rows count neither as stopped nor as passed.",
    )


def _apart(found: list[Nearness]) -> Table:
    return Table(
        "Rows of the second set that are the same as other text, or near it (Jaccard > 0.5)",
        ("compared with", "texts", "same", "near", "highest"),
        tuple(
            (one.origin, str(one.texts), str(one.same), str(one.near), f"{one.highest:.2f}")
            for one in found
        ),
    )


def _write(out: Path, found: list[Row]) -> None:
    """Write each group as JSONL; a conversation is one row, judged at its end."""
    out.mkdir(parents=True, exist_ok=True)
    kinds: dict[str, list[str]] = {}
    for row in found:
        said: dict[str, object] = {"text": row.turns[0][1]}
        if len(row.turns) > 1:
            said = {"messages": [{"role": role, "content": text} for role, text in row.turns]}
        name = row.group.replace(" ", "_")
        told = {
            "label": "restricted" if row.restricted else "benign",
            "dataset": f"second_{name}",
            "source": "second",
            "category": row.category,
            "lang": row.language,
            **said,
        }
        line = msgspec.json.encode(told).decode()
        if line not in kinds.setdefault(name, []):
            kinds[name].append(line)
    for name, some in kinds.items():
        (out / f"{name}.jsonl").write_text("\n".join(some) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
