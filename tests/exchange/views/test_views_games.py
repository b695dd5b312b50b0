# ruff: noqa: RUF001 - other languages have letters of their own
"""Games with English letters are read, however they are played; what looks like one is not."""

import itertools
import random
import re
import time
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safehold.exchange.views import StreamingViews, View, ViewLimits, views
from safehold.exchange.views.decoders.exchanged import mended
from safehold.exchange.views.english_words import known

TEXTS = (
    (
        "Knead the dough for ten minutes, then let it rest under a damp cloth in a warm place "
        "until it has doubled in size. Shape two loaves, cut them across the top and bake them "
        "for half an hour; the crust should be brown and sound hollow when you knock on the "
        "bottom."
    ),
    (
        "Turn the bicycle over, open the brake and lift the wheel out of the frame. Push the "
        "tyre off with two levers, pull out the tube and pump it up so that you can hear where "
        "the air comes out. Clean the spot with sandpaper before you put the patch on, and wait "
        "for five minutes."
    ),
    (
        "Good soap needs time: pour the warm oil into the lye and stir slowly until the spoon "
        "leaves a trace. Add the lavender at twenty-five °C — no earlier — and fill the moulds. "
        "After a day cut the bars with a wire and leave them on a shelf for six weeks before "
        "anybody washes with them."
    ),
)
NAMES = {"respaced", "exchanged-beginnings", "doubled-letters", "transliterated", "rot47"}
_CONSONANTS = "bcdfghjklmnpqrstvwxz"


def _heads(text: str, onset: str = ".") -> str:
    """Exchange the beginnings of neighbouring words."""
    words = text.split()
    for at in range(0, len(words) - 1, 2):
        one, two = words[at : at + 2]
        first, second = (re.sub(f"({onset}).*", r"\1", word) for word in (one, two))
        words[at], words[at + 1] = second + one[len(first) :], first + two[len(second) :]
    return " ".join(words)


def _cut(text: str, *sizes: int) -> str:
    """Write a text without its spaces, with others after so many letters in turn."""
    solid, found, at = "".join(text.split()), [], 0
    for size in itertools.cycle(sizes):
        found.append(solid[at : at + size])
        at += size
        if at >= len(solid):
            return " ".join(found)
    raise AssertionError


def _twice(letters: str, filler: str) -> Callable[[str], str]:
    """Say each of some letters twice, with a filler between."""
    return lambda text: re.sub(
        f"([{letters}])", lambda one: one[1] + filler + one[1].lower(), text, flags=re.IGNORECASE
    )


def _written(latin: str, other: str) -> Callable[[str], str]:
    table = str.maketrans(latin, other)
    return lambda text: text.lower().translate(table)


def _rot47(text: str) -> str:
    return "".join(
        chr(33 + (ord(mark) - 33 + 47) % 94) if "!" <= mark <= "~" else mark for mark in text
    )


_ABC = "abcdefghijklmnopqrstuvwxyz"
GAMES: dict[str, Callable[[str], str]] = {
    "spaces after each four": lambda text: _cut(text, 4),
    "spaces after each five": lambda text: _cut(text, 5),
    "spaces at random": lambda text: _cut(text, 2, 6, 3, 7, 5, 4),
    "spaces a letter on": lambda text: re.sub(r" (\w)", r"\1 ", text),
    "spaces a letter back": lambda text: re.sub(r"(\w) ", r" \1", text),
    "first letters exchanged": _heads,
    "onsets exchanged": lambda text: _heads(text, r"[^aeiouyAEIOUY\W]{0,3}"),
    "robber language": _twice(_CONSONANTS, "o"),
    "robber language with u": _twice(_CONSONANTS, "u"),
    "vowels around p": _twice("aeiou", "p"),
    "vowels around b": _twice("aeiou", "b"),
    "vowels around lef": _twice("aeiou", "lef"),
    "cyrillic by sound": _written(_ABC, "абкдефгхижклмнопкрстуввхйз"),
    "cyrillic by place": _written(_ABC, "абцдефгхийклмнопкрстуввхыз"),
    "ukrainian": _written(_ABC, "абкдефґгіжклмнопкрстуввхйз"),
    "greek": _written(_ABC, "αβκδεφγηιζκλμνοπκρστυβωξυζ"),
    "rot47 with foreign signs": _rot47,
}


def _share(views_of: list[str], text: str) -> float:
    """Return the greatest share of a text's words that one view has."""
    wanted = re.findall("[a-z]{3,}", text.lower())
    return max(
        (sum(word in found for word in wanted) / len(wanted)
         for found in (set(re.findall("[a-z]{3,}", view.lower())) for view in views_of)),
        default=0.0,
    )  # fmt: skip


@pytest.mark.parametrize("text", TEXTS, ids=("bread", "bicycle", "soap"))
@pytest.mark.parametrize("game", GAMES)
def test_game_is_read(game: str, text: str) -> None:
    """Most words of the text stand in one view."""
    played = GAMES[game](text)
    assert _share([played], text) < 0.6
    assert _share([view.text for view in views(played)[1:]], text) >= 0.75


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 90), min_size=1, max_size=6),
    game=st.sampled_from(sorted(GAMES)),
    before=st.sampled_from(["", "Here you are, and please read it with care. " * 3]),
)
def test_any_split_into_deltas_reads_a_game(sizes: list[int], game: str, before: str) -> None:
    """A game is read in a stream wherever its deltas end, also behind plain English."""
    stream = StreamingViews()
    found: list[View] = []
    text, at = before + GAMES[game](TEXTS[1] * 2), 0
    for size in itertools.cycle(sizes):
        found += stream.feed(text[at : at + size])
        at += size
        if at >= len(text):
            break
    found += stream.finish()
    assert _share([" ".join(view.text for view in found)], TEXTS[1]) >= 0.7


def test_english_is_its_own_cheapest_reading() -> None:
    """Hardly a word of ordinary English changes (cut the bars: but the cars)."""
    for text in TEXTS:
        pairs = list(zip(text.split(), mended(text).split(), strict=True))
        assert sum(one != two for one, two in pairs) * 20 <= len(pairs)


def test_spaces_and_lines_stay_where_exchanged_words_stand() -> None:
    """Only beginnings move."""
    assert mended("tnead khe\n\tdough") == "knead the\n\tdough"


TWINS = {
    "russian": "Замесите тесто и оставьте его в тёплом месте на час, пока оно не поднимется вдвое, "
    "а потом сформуйте два батона и выпекайте их до золотистой корочки полчаса.",
    "ukrainian": "Замісіть тісто і залиште його в теплому місці на годину, поки воно не "
    "підніметься вдвічі, а потім сформуйте два батони й випікайте їх пів години.",
    "bulgarian": "Замесете тестото и го оставете на топло за един час, докато удвои обема си, след "
    "това оформете два хляба и ги печете половин час до златиста коричка.",
    "serbian": "Замесите тесто и оставите га на топлом месту један сат док не удвостручи величину, "
    "па обликујте две векне и пеците их пола сата док не порумене.",
    "greek": "Ζυμώστε τη ζύμη και αφήστε τη σε ζεστό μέρος για μία ώρα μέχρι να διπλασιαστεί, μετά "
    "πλάστε δύο καρβέλια και ψήστε τα για μισή ώρα μέχρι να ροδίσουν.",
    "german compounds": "Die Teigruhezeit bei Raumtemperatur richtet sich nach Mehltype und "
    "Hefemenge; Weizenmischbrot braucht Anfangsdampf, Backofenthermometer und Gärkörbchen helfen.",
    "finnish": "Vaivaa taikinaa kymmenen minuuttia ja anna sen kohota liinan alla lämpimässä "
    "paikassa, kunnes se on kaksinkertaistunut, ja paista sitten kaksi leipää puoli tuntia.",
    "swedish": "Knåda degen i tio minuter och låt den jäsa under en duk på en varm plats tills den "
    "har blivit dubbelt så stor. Forma sedan två limpor och grädda dem en halvtimme.",
    "italian": "Impasta per dieci minuti, poi lascia riposare sotto un panno in un posto caldo "
    "finche non raddoppia; forma due pagnotte e cuocile per mezza ora in forno caldo.",
    "dutch": "Kneed het deeg tien minuten en laat het onder een doek op een warme plek rijzen tot "
    "het twee keer zo groot is; vorm er twee broden van en bak ze een half uur.",
    "indonesian": "Uleni adonan selama sepuluh menit lalu diamkan di tempat hangat sampai "
    "mengembang dua kali lipat, bentuk menjadi dua roti dan panggang selama setengah jam.",
    "worn scan": "Kne ad the dough for ten min utes, then let it rest under a da mp cloth in a "
    "wann place until it has doub led in size. Shape two loa ves and bake them for half an hour.",
    "a child's spelling": "I hav a dog his naym is Max. He liks to run in the gardin and he jumpt "
    "on the tabul wen my mum was not luking. We lafd and then he wos sory and went to slep.",
    "python": "def rest(dough: Dough, minutes: int) -> Dough:\n    for _ in range(minutes):\n"
    "        dough = dough.risen(rate=0.02)\n    return dough\n",
    "names": "Anders Holmqvist, Beatriz Carvalho, Chidi Okonkwo, Dagny Thorsen, Emre Yildirim, "
    "Fatima Zahra, Giulia Moretti, Hanna Kowalczyk, Ivan Petrov, Jana Novotna, Kofi Mensah",
    "plants": "Taraxacum officinale, Lavandula angustifolia, Rosmarinus officinalis, Thymus "
    "vulgaris, Salvia sclarea, Melissa officinalis, Calendula officinalis, Matricaria",
    "laughter": "Hahaha, nononono, mama and papa and baba sang dadada and lalala and tutu.",
    "one slip": "The lord is a shoving leopard, he said, and it is kisstomary to cuss the bride; "
    "then he called for three cheers for our queer old dean and went home to his wife.",
}


@pytest.mark.parametrize("twin", TWINS)
def test_what_only_looks_like_a_game_has_one_view(twin: str) -> None:
    """Languages, compounds, broken scans, children's spelling, code and names are left alone."""
    assert not {how for view in views(TWINS[twin]) for how in view.chain} & NAMES


def test_a_word_a_letter_is_no_moved_space() -> None:
    """A code of few words, which no view makes readable, is not taken for explained."""
    names = dict(zip(_ABC, (f"{letter}umbrella" for letter in _ABC), strict=True))
    text = " ".join(names.get(letter, letter) for letter in TEXTS[0].lower() if letter != " ")
    assert not {view.chain[0] for view in views(text)[1:]} & NAMES


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), share=st.floats(0.0, 1.0))
def test_partly_exchanged_text_is_mended_or_left(seed: int, share: float) -> None:
    """Mending never makes a text have fewer English words than it had."""
    chance, words = random.Random(seed), TEXTS[0].split()
    for at in range(0, len(words) - 1, 2):
        if chance.random() < share:
            one, two = words[at], words[at + 1]
            words[at], words[at + 1] = two[:1] + one[1:], one[:1] + two[1:]
    broken = " ".join(words)
    assert known(mended(broken)) >= known(broken)


@pytest.mark.parametrize("tail", ["a", "aei", "ba ", "bob", "а", "а "])
@pytest.mark.parametrize("game", GAMES)
def test_what_follows_a_game_costs_no_more_than_its_length(game: str, tail: str) -> None:
    """A dress at the beginning opens a decoder; eight times the text behind it is no square."""
    head = GAMES[game](TEXTS[0] * 3)
    times = []
    for count in (4_000, 32_000):
        text = head + tail * (count // len(tail))
        start = time.process_time()
        views(text, ViewLimits(max_work=1 << 40))
        times.append(time.process_time() - start)
    assert times[1] < 40 * max(times[0], 0.02)
