"""Words that are spread over a structure are read in order; data, settings and prose are not."""

import json
import random
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safehold.exchange.views import readable, slotted, spread_over

TEXT = (
    "warm nine cups of milk to 45 degrees stir in one spoon of live culture cover the pot keep it "
    "warm for seven hours then cool it and serve it with honey"
)
WORDS = TEXT.split()
SAID = " ".join(WORDS[-20:])

FORMATS: dict[str, Callable[[int, str], str]] = {
    "an object a word": lambda _, w: json.dumps({"t": w}) + "\n",
    "objects without blanks": lambda _, w: f'{{"t":"{w}"}}',
    "numbered keys": lambda n, w: json.dumps({str(n): w}) + ",\n",
    "records of three fields": lambda n, w: json.dumps({"i": n, "kind": "word", "text": w}) + "\n",
    "an array a word": lambda _, w: f'["{w}"], ',
    "a list": lambda _, w: f"'{w}', ",
    "words as keys": lambda n, w: f'"{w}": {n}, ',
    "calls": lambda _, w: f'w("{w}")\n',
    "chained calls": lambda _, w: f".then({w})",
    "variables": lambda n, w: f'let a{n} = "{w}";\n',
    "pairs of key and value": lambda n, w: f"w{n}={w}\n",
    "quoted pairs": lambda n, w: f'k{n}="{w}" ',
    "an address's query": lambda n, w: f"a{n}={w}&",
    "macros": lambda n, w: f"\\{('textbf', 'emph', 'textit')[n % 3]}{{{w}}} ",
    "lists of symbols": lambda _, w: f"(w {w}) ",
    "attributes": lambda _, w: f'<a w="{w}"/>',
    "elements": lambda n, w: f"<w{n % 3}>{w}</w{n % 3}>\n",
    "styled elements": lambda n, w: f'<span class="c{n}" style="color:red">{w}</span> ',
    "rows of a database": lambda n, w: f"({n}, '{w}'),\n",
    "YAML": lambda n, w: f"- word: {w}\n  n: {n}\n",
    "TOML": lambda _, w: f'[[w]]\ntext = "{w}"\n',
    "lines of two columns": lambda n, w: f"{n},{w}\n",
    "a table": lambda n, w: f"| {n} | {w} |\n",
}


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_a_structure_is_told_from_a_text_with_one_in_it(name: str) -> None:
    """A form that says its reading and nothing else; with a sentence beside it, it is more."""
    form = "".join(FORMATS[name](*one) for one in enumerate(WORDS))
    asked = "Please tell me plainly how anybody dyes wool with onion skins at home"
    for reading in slotted(form):
        assert spread_over(form, reading) or len(reading.split()) < len(WORDS) - 4
    for whole in (f"{asked}\n{form}", f"{form}\n{asked}", f"{form}\n{asked}\n{form}"):
        assert not any(spread_over(whole, reading) for reading in (*slotted(whole), TEXT))


def _read(text: str) -> tuple[str, ...]:
    return (*slotted(text), readable(text) or "")


@pytest.mark.parametrize("name", FORMATS)
def test_words_of_one_place_are_read_in_order(name: str) -> None:
    """Whatever the format, the words behind the first few follow each other in one reading."""
    text = "".join(FORMATS[name](number, word) for number, word in enumerate(WORDS))
    assert any(SAID in one for one in _read(text))


@pytest.mark.parametrize("before", ["Please answer what this says:\n", "Data: ", "```json\n"])
@pytest.mark.parametrize("name", FORMATS)
def test_a_sentence_before_hides_nothing(name: str, before: str) -> None:
    """An instruction or a fence before the data does not end the reading."""
    text = before + "".join(FORMATS[name](number, word) for number, word in enumerate(WORDS))
    assert any(SAID in one for one in _read(text))


@given(
    st.text("{}[]()<>\"'=:|/;#@&", min_size=2, max_size=5),
    st.text("{}[]()<>\"'=:|/;#@&", min_size=1, max_size=5),
)
def test_any_marks_around_each_word_are_a_place(before: str, after: str) -> None:
    """No format is known: marks that nobody ever used have the words read as well (property)."""
    text = " ".join(f"{before}{word}{after}" for word in WORDS)
    assert any(SAID in one for one in _read(text))


PROSE = (
    "It was a fine day, and so on: we walked (slowly), talked, and ate. Then it rained; we left. "
    'She said "no", he said "yes". The well-known rule, however, is: never run, never shout. '
) * 4
SETTINGS = json.dumps(
    {
        "name": "garden-planner", "version": "2.4.1", "private": True, "type": "module",
        "scripts": {"build": "vite build", "test": "vitest run", "lint": "eslint ."},
        "dependencies": {"react": "^18.2.0", "react-dom": "^18.2.0", "zod": "~3.22.4"},
        "devDependencies": {"typescript": "5.3.3", "eslint-config-next": "14.1.0"},
    },
    indent=2,
)  # fmt: skip


def _lock(chance: random.Random) -> str:
    return "".join(
        f'[[package]]\nname = "lib-{chance.randrange(999)}"\nversion = "{chance.randrange(9)}.1"\n'
        f'checksum = "{chance.randbytes(16).hex()}"\n\n'
        for _ in range(30)
    )


ORDERS = json.dumps([
    {"id": n, "sku": f"AB-{n * 37}", "paid": n % 2 == 0, "total": n * 1.25} for n in range(20)
])  # fmt: skip
CODE = """
def area(width: float, height: float) -> float:
    \"\"\"Return the area of a rectangle.\"\"\"
    if width < 0 or height < 0:
        raise ValueError("expected sizes of zero or more")
    return width * height

for size in (1, 2, 3):
    print(area(size, size), end=" ")
"""


@pytest.mark.parametrize(
    "text", [PROSE, SETTINGS, _lock(random.Random(1)), ORDERS, CODE, "", "a", "{}", '"', "=" * 99]
)
def test_ordinary_data_has_no_reading(text: str) -> None:
    """Prose, settings, lock files, orders and code cost no further score (benign twins)."""
    assert slotted(text) == ()


@given(st.text(max_size=400))
def test_any_text_gives_at_most_two_readings(text: str) -> None:
    """Whatever comes, nothing is raised and few readings come back."""
    assert len(slotted(text)) <= 2
