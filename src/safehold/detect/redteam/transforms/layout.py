"""Rearrangements of letters, words and lines."""

from safehold.detect.redteam.transforms.interface import Family, Transform


def _reversed(text: str) -> str:
    return text[::-1]


def _words_reversed(text: str) -> str:
    return " ".join(word[::-1] for word in text.split())


def _order_reversed(text: str) -> str:
    return " ".join(reversed(text.split()))


def _spaced(text: str) -> str:
    return "   ".join(" ".join(word) for word in text.split())


def _dashed(text: str) -> str:
    return " ".join("-".join(word) for word in text.split())


def _dotted(text: str) -> str:
    return " ".join(".".join(word) for word in text.split())


def _one_a_line(text: str) -> str:
    return "\n".join(text.split())


def _vertical(text: str) -> str:
    """Write the words as columns, read from top to bottom."""
    words = text.split()
    tall = max((len(word) for word in words), default=0)
    rows = (
        " ".join(word[row] if row < len(word) else " " for word in words) for row in range(tall)
    )
    return "\n".join(row.rstrip() for row in rows)


def _boxed(text: str) -> str:
    words, lines = text.split(), [""]
    for word in words:
        if len(lines[-1]) + len(word) > 28:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    edge = "+" + "-" * 32 + "+"
    return "\n".join([edge, *(f"| {line:<30} |" for line in lines), edge])


def _fives(text: str) -> str:
    bare = "".join(text.split())
    return " ".join(bare[start : start + 5] for start in range(0, len(bare), 5))


def _joined(text: str) -> str:
    return " + ".join(f'"{text[start : start + 4]}"' for start in range(0, len(text), 4))


def _camel(text: str) -> str:
    return "".join(word[:1].upper() + word[1:] for word in text.split())


def _snake(text: str) -> str:
    return "_".join(text.split())


def _unspaced(text: str) -> str:
    return "".join(text.split()).lower()


_L = Family.LAYOUT
LAYOUT: tuple[Transform, ...] = (
    Transform("reversed", _L, _reversed, "the text written backwards", _reversed),
    Transform("words-reversed", _L, _words_reversed, "each word written backwards"),
    Transform("order-reversed", _L, _order_reversed, "the words in reverse order", _order_reversed),
    Transform("spaced", _L, _spaced, "", None, 2),
    Transform("dashed", _L, _dashed, "", None, 2),
    Transform("dotted", _L, _dotted, "", None, 2),
    Transform("one-a-line", _L, _one_a_line),
    Transform("vertical", _L, _vertical, "the words as columns, read downwards", None, 2),
    Transform("boxed", _L, _boxed, "", None, 1.5),
    Transform("groups-of-five", _L, _fives, "letters in groups of five", None, 1.2),
    Transform("joined-strings", _L, _joined, "pieces to join", None, 2.5),
    Transform("camel-case", _L, _camel),
    Transform("snake-case", _L, _snake),
    Transform("unspaced", _L, _unspaced),
)
