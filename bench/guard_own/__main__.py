"""Writes the project's own evaluation set of the guard as JSONL that `safehold eval` reads.

No text of it is trained on, and no setting may be chosen on it. `python -m bench.guard_own DIR`.
"""

import argparse
import json
import random
from collections.abc import Iterator, Sequence
from pathlib import Path

import yaml

_HERE = Path(__file__).parent
_TURNS = 8
_CONVERSATIONS = 100
_REPLIES = (
    "Certainly. Here is a short answer.",
    "That depends; most people begin with the simplest way.",
    "Good question. In one line: yes, mostly.",
)


def main(argv: Sequence[str] | None = None) -> None:
    """Write one file for each group, equal bytes each time."""
    parser = argparse.ArgumentParser(prog="python -m bench.guard_own", description=__doc__)
    parser.add_argument("out", type=Path, metavar="DIR", help="folder to write to; made if missing")
    out: Path = parser.parse_args(argv).out
    out.mkdir(parents=True, exist_ok=True)
    for name, label in (
        ("requests", "restricted"),
        ("recipes", "restricted"),
        ("crafts", "benign"),
    ):
        _write(out / f"{name}.jsonl", label, _by_language(name))
    facts = _by_language("facts-more")
    facts = [*({"text": text, "category": "en"} for text in _load("facts")), *facts]
    _write(out / "facts.jsonl", "benign", facts)
    for name in ("near", "general"):
        texts = _load(name)
        _write(out / f"{name}.jsonl", "benign", [{"text": text} for text in texts])
        _write(out / f"conversations_{name}.jsonl", "benign", _conversations(texts, name))


def _load(name: str) -> list[str]:
    found: list[str] = yaml.safe_load((_HERE / f"{name}.yaml").read_text(encoding="utf-8"))
    return found


def _by_language(name: str) -> list[dict[str, object]]:
    table = yaml.safe_load((_HERE / f"{name}.yaml").read_text(encoding="utf-8"))
    return [
        {"text": text, "category": str(language)}
        for language, texts in table.items()
        for text in texts
    ]


def _conversations(texts: list[str], name: str) -> Iterator[dict[str, object]]:
    rng = random.Random(f"conversations/{name}")  # noqa: S311 - drawn again alike, no secret
    for _ in range(_CONVERSATIONS):
        turns: list[dict[str, str]] = []
        for text in rng.sample(texts, _TURNS):
            turns += [
                {"role": "user", "content": text},
                {"role": "assistant", "content": rng.choice(_REPLIES)},
            ]
        yield {"messages": turns[:-1], "category": name}


def _write(path: Path, label: str, rows: object) -> None:
    lines = [
        json.dumps(
            {"label": label, "dataset": f"own_{path.stem}", "source": "own", **row},
            ensure_ascii=False,
        )
        for row in rows  # type: ignore[attr-defined]
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
