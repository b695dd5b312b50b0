"""Words spread over a structure, one a place: records, elements, calls, rows, numbered keys.

The form tells nothing of what a text asks, so both sides are shown in forms whose names, numbers
and marks are drawn anew for each text.
"""

import json
import random
from collections.abc import Callable, Sequence

MOST_WORDS = 90
"""Words of a text that are spread; the rest is left out."""
_LONG_WORD = 16
"""Characters a word from which a text is not written in words."""
_NAMES = (
    *("w", "t", "v", "x", "val", "item", "cell", "node", "part", "word", "field", "tok", "entry"),
    *("piece", "label", "data", "li", "b", "say", "put", "push", "emit", "row", "step", "bit"),
)
_KEYS = ("id", "n", "key", "k", "pos", "no", "i", "ref", "at", "seq")
_ENDS = ("\n", " ", "", ", ", ";\n", ",\n")
_MARKS = ("::", "**", "__", "~~", "||", "%%", "//", "^", "==", "<>", "++", "@")
_Form = Callable[[int, str], str]


def structured(text: str, rng: random.Random) -> tuple[str, str]:
    """Put each word of a text in a place of its own, in a form that is drawn for the whole."""
    name, put = rng.choice(_FORMS)
    form = put(rng)
    words = _words(text)[:MOST_WORDS]
    return "".join(form(at, word) for at, word in enumerate(words)).strip(), f"structure:{name}"


def _words(text: str) -> Sequence[str]:
    """Return a text's words; characters by twos where no blanks stand between words."""
    words = text.split()
    if len(words) * _LONG_WORD < len(text):
        return [
            text[at : at + 2].strip() for at in range(0, len(text), 2) if text[at : at + 2].strip()
        ]
    return words


def _counter(rng: random.Random) -> Callable[[int], str]:
    first, step = rng.choice((0, 1, 1, 10, 100, 2001)), rng.choice((1, 1, 1, 5, 10))
    style = rng.choice(("d", "d", "03d", "x"))
    return lambda at: format(first + step * at, style)


def _object(rng: random.Random) -> _Form:
    name, key, number = rng.choice(_NAMES), rng.choice(_KEYS), _counter(rng)
    numbered, end = rng.random() < 0.5, rng.choice((",\n", "\n", " "))

    def form(at: int, word: str) -> str:
        own = {key: number(at), name: word} if numbered else {name: word}
        return json.dumps(own, ensure_ascii=False) + end

    return form


def _element(rng: random.Random) -> _Form:
    name, end = rng.choice(_NAMES), rng.choice(("\n", "", " "))
    number, numbered = _counter(rng), rng.random() < 0.4

    def form(at: int, word: str) -> str:
        tag = f'{name} {_KEYS[0]}="{number(at)}"' if numbered else name
        return f"<{tag}>{word}</{name}>{end}"

    return form


def _attribute(rng: random.Random) -> _Form:
    name, key, end = rng.choice(_NAMES), rng.choice(_NAMES), rng.choice(("\n", "", " "))
    return lambda _, word: f'<{name} {key}="{word}"/>{end}'


def _call(rng: random.Random) -> _Form:
    name, quote = rng.choice(_NAMES), rng.choice(('"', "'", "`", ""))
    end = rng.choice((";\n", "\n", "; "))
    return lambda _, word: f"{name}({quote}{word}{quote}){end}"


def _macro(rng: random.Random) -> _Form:
    name, end = rng.choice(_NAMES), rng.choice(("\n", " ", ""))
    return lambda _, word: f"\\{name}{{{word}}}{end}"


def _list(rng: random.Random) -> _Form:
    name, end = rng.choice(_NAMES), rng.choice((" ", "\n"))
    opening, closing = rng.choice(("()", "[]", "{}"))
    return lambda _, word: f"{opening}{name} {word}{closing}{end}"


def _assigned(rng: random.Random) -> _Form:
    name, number = rng.choice(_NAMES), _counter(rng)
    equals, quote = rng.choice(("=", " = ", ": ", " := ", " -> ")), rng.choice(("", '"', "'"))
    place = rng.choice(("{0}{1}", "{0}[{1}]", "{0}_{1}", "{0}.{1}"))
    return lambda at, word: f"{place.format(name, number(at))}{equals}{quote}{word}{quote}\n"


def _numbered(rng: random.Random) -> _Form:
    number = _counter(rng)
    form = rng.choice(("{0}. {1}\n", "{0}) {1}\n", "#{0} {1}\n", "[{0}] {1} ", "{0}: {1}\n"))
    return lambda at, word: form.format(number(at), word)


def _row(rng: random.Random) -> _Form:
    number, end = _counter(rng), "\n"
    form = rng.choice(
        ("{0},{1}", "{0};{1};", "{0}\t{1}", "| {0} | {1} |", "{1},{0}", "('{1}', {0}),")
    )
    return lambda at, word: form.format(number(at), word) + end


def _marked(rng: random.Random) -> _Form:
    mark, end = rng.choice(_MARKS), rng.choice(_ENDS)
    return lambda _, word: f"{mark}{word}{mark}{end}"


def _lead(rng: random.Random) -> _Form:
    name = rng.choice(_NAMES)
    form = rng.choice(("- {0}: {1}\n", "{0} {1}\n", "* {1} ({0})\n", "SET {0} {1}\n", "@{0} {1}\n"))
    return lambda _, word: form.format(name, word)


_FORMS: tuple[tuple[str, Callable[[random.Random], _Form]], ...] = (
    ("object", _object),
    ("element", _element),
    ("attribute", _attribute),
    ("call", _call),
    ("macro", _macro),
    ("list", _list),
    ("assigned", _assigned),
    ("numbered", _numbered),
    ("row", _row),
    ("marked", _marked),
    ("lead", _lead),
)
