"""Make the character model of legibility from text that is on this machine.

Catalogues of translations (gettext), source code, data and documentation of installed packages,
and the project's own texts about other crafts. Folders are dealt to a training and a test part by
a hash of their names. Prints the digest of what was read; writes counts only.
"""

import argparse
import gettext
import hashlib
import random
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from safehold.exchange.views.legibility.model import BITS, CONTEXT, ORDERS, SCALE, codes, rows

_LOCALES = Path("/usr/share/locale")
_CAPS = {
    ".py": 3_000_000, ".js": 1_500_000, ".h": 1_000_000, ".c": 600_000, ".json": 800_000,
    ".yaml": 400_000, ".yml": 300_000, ".css": 300_000, ".html": 500_000, ".md": 2_500_000,
    ".rst": 2_500_000, ".txt": 2_000_000, ".sh": 400_000, ".pl": 400_000, ".pm": 800_000,
    ".xml": 400_000, ".csv": 300_000, ".ts": 600_000, ".go": 500_000, ".rs": 500_000,
    ".toml": 200_000, ".cfg": 100_000, ".ini": 100_000, ".sql": 200_000, ".tex": 300_000,
    ".svg": 200_000, ".pod": 1_500_000,
}  # fmt: skip
_LANGUAGE_CAP = 400_000
_FILE_CAP = 40_000
_TEST = 180  # of 256
_RARE = {3: 2, 4: 6}  # counts of these orders below this are left out


def catalogues(folder: Path, chooser: random.Random) -> list[str]:
    """Return the translated messages of one language."""
    files = sorted(folder.glob("LC_MESSAGES/*.mo"))
    chooser.shuffle(files)
    found: list[str] = []
    size = 0
    for file in files:
        try:
            with file.open("rb") as stream:
                catalogue = gettext.GNUTranslations(stream)._catalog  # type: ignore[attr-defined]
        except (OSError, ValueError, LookupError):
            continue
        texts = [text for key, text in catalogue.items() if key and isinstance(text, str)]
        found += [text for text in texts if len(text) > 15]
        size = sum(map(len, found))
        if size > _LANGUAGE_CAP:
            break
    return found


def sources(roots: list[Path], *, test: bool) -> Iterator[tuple[str, list[str]]]:
    """Yield, for each suffix, the beginnings of files of one part."""
    chosen: dict[str, list[Path]] = {suffix: [] for suffix in _CAPS}
    for root in roots:
        for path in root.rglob("*"):
            if path.suffix in chosen and path.is_file():
                digest = hashlib.sha256(str(path.parent.relative_to(root)).encode()).digest()
                if (digest[0] >= _TEST) is test:
                    chosen[path.suffix].append(path)
    for suffix, paths in chosen.items():
        chooser = random.Random(suffix)  # noqa: S311 - a sample, no secret
        paths.sort()
        chooser.shuffle(paths)
        texts: list[str] = []
        size = 0
        for path in paths:
            try:
                text = path.read_text(encoding="utf-8")[:_FILE_CAP]
            except (OSError, UnicodeDecodeError):
                continue
            texts.append(text)
            size += len(text)
            if size > _CAPS[suffix]:
                break
        yield suffix, texts


def counted(batches: Iterator[list[str]]) -> tuple[list["np.ndarray"], int, str]:  # type: ignore[type-arg]
    """Return the counts by order over all texts, the characters, and a digest of the text."""
    tables = [np.zeros(1 << (BITS + 2), np.uint32) for _ in range(ORDERS)]
    digest = hashlib.sha256()
    total = 0
    for batch in batches:
        for at in range(0, len(batch), 400):
            text = "\n" * CONTEXT + "\n".join(batch[at : at + 400])
            digest.update(text.encode("utf-8", "replace"))
            total += len(text)
            for table, where in zip(tables, rows(codes(text), BITS + 2), strict=True):
                np.add(table, np.bincount(where, minlength=len(table)).astype(np.uint32), out=table)
    return tables, total, digest.hexdigest()


def main() -> None:
    """Count, shrink and write."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--root", type=Path, action="append", default=[])
    parser.add_argument("--more", type=Path, action="append", default=[], help="folders of .txt")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    roots = given.root or [Path("/usr/share"), Path("/usr/lib"), Path("/usr/include")]

    def batches() -> Iterator[list[str]]:
        chooser = random.Random(3)  # noqa: S311 - a sample, no secret
        for folder in sorted(_LOCALES.iterdir()):
            yield catalogues(folder, chooser)
        for _, texts in sources(roots, test=False):
            yield texts
        for folder in given.more:
            for path in sorted(folder.rglob("*.txt")):
                text = path.read_text(encoding="utf-8")
                yield [text[at : at + _FILE_CAP] for at in range(0, len(text), _FILE_CAP)]

    tables, total, digest = counted(batches())
    packed = []
    for order, table in enumerate(tables, 1):
        table[table < _RARE.get(order, 0)] = 0
        folded = table.reshape(-1, 1 << BITS).max(axis=0).astype(np.float64)
        packed.append(np.round(np.log2(1 + folded) * SCALE).clip(0, 255).astype(np.uint8))
    np.savez_compressed(given.out, tables=np.stack(packed), total=np.float64(total))
    sys.stdout.write(f"{total} characters, text sha256 {digest}\n")


if __name__ == "__main__":
    main()
