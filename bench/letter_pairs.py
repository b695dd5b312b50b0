"""Print the letter-pair model of `safehold.exchange.views.english_likeness` anew.

Run `python bench/letter_pairs.py`; it counts the English prose among the permitted seed texts.
"""

from collections.abc import Iterator
from pathlib import Path

import yaml

from safehold.exchange.views.english_likeness import encode_table

_SEEDS = Path(__file__).parents[1] / "src/safehold/improve/synthesis/seeds/homebrewing"
_SHORTEST = 60


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str) and len(value) > _SHORTEST:
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner)


def main() -> None:
    """Count and print."""
    files = [
        file
        for file in sorted(_SEEDS.glob("permitted-*.yaml"))
        if "non-english" not in file.name and "code" not in file.name
    ]
    found = [t for file in files for t in _texts(yaml.safe_load(file.read_text("utf-8")))]
    print(encode_table(found))


if __name__ == "__main__":
    main()
