# ruff: noqa: RUF001 - other languages have letters of their own
"""Ordinary text has one view: itself. Each line is a near miss of some decoder."""

import pytest

from safehold.exchange.views import views

ORDINARY = (
    "How is malt made, and why is the grain dried before it is milled?",
    "See https://www.example.com/brewing/history?utm_source=mail&id=12345 for the article.",
    "sha256 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "commit 3f2504e04f8911d39a0c0305e82c3301 and 550e8400-e29b-41d4-a716-446655440000",
    "AKIAIOSFODNN7 is not a real key, and internationalization is a long word.",
    "def mash(temp: float) -> float:\n    return temp * 1.8 + 32  # Fahrenheit\n",
    "for (int i = 0; i < n; i++) { sum += a[i] * b[i]; } // inner product",
    "SELECT name, abv FROM beers WHERE abv > 4.5 AND country = 'BE' ORDER BY name;",
    "| beer | abv |\n| --- | --- |\n| stout | 4.2 |\n| bock | 6.5 |\n",
    "Prices were 80, 85, 90, 95, 100 and 110 in the years 1999, 2001, 2005, 2010, 2015.",
    "3 4 5 5 5 6 7 8 8 9",
    "0.5, 1.0, 1.5, 2.0, 2.5, 3.0",
    "Call 555 0123 4567 or 020 7946 0958 between 9 and 17.",
    "My mp3 player, the h264 codec, the B52s and an R2D2 toy.",
    "The 1st, 2nd, 3rd and 4th rounds, 60min each, were on the M25.",
    "Alpha and beta versions; we met Mike and Charlie at the hotel in India in November.",
    "Today, yesterday and Sunday we say stay away and play.",
    "A. B. C. or D. is the answer to I. or II.",
    "Der schnelle braune Fuchs springt über den faulen Hund und läuft zurück in den Wald.",
    "Le renard brun saute par-dessus le chien paresseux et retourne dans la forêt voisine.",
    "Szybki brązowy lis przeskakuje nad leniwym psem i wraca do lasu przed nocą.",
    "Быстрая коричневая лиса прыгает через ленивую собаку и возвращается в лес.",
    "Η γρήγορη καφέ αλεπού πηδά πάνω από το τεμπέλικο σκυλί.",
    "敏捷的棕色狐狸跳过懒狗,然后回到森林里。",
    "素早い茶色の狐がのろまな犬を飛び越えて、森に帰っていく。",
    "الثعلب البني السريع يقفز فوق الكلب الكسول ويعود إلى الغابة.",
    "Hızlı kahverengi tilki tembel köpeğin üzerinden atlar ve ormana döner.",
    "Nopea ruskea kettu hyppää laiskan koiran yli ja palaa metsään illalla.",
    "Flags of the finalists: \U0001f1e9\U0001f1ea \U0001f1eb\U0001f1f7 \U0001f1ea\U0001f1f8",
    "Cheers! 🍺🍻🥂 See you at 8 :-) ... --- or not?",
    "Dash - dash - dash . . . and so on - or . not",
    "x = a & b | c ^ d; y = ~x << 2; z = (x != y) ? 1 : 0;",
    "%d items, %s left, 100% of 50% is 50%",
    "Fish &amp; chips at the pub.",
    "Dr. Brown said: “no”. Mr. Smith, B.Sc., agreed at 10:30 a.m.",
    "C:\\Users\\me\\Documents\\notes.txt and /usr/local/bin/python3",
    "TTTTTTTTAAAAGGGGCCCCATATATATCGCGCG is a made-up sequence.",
    "WeightGrants, PygmentsStyle, camelCaseNames and snake_case_names.",
    "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
    "----------------------------------------",
)


@pytest.mark.parametrize("text", ORDINARY, ids=range(len(ORDINARY)))
def test_ordinary_text_has_one_view(text: str) -> None:
    """Nothing is 'decoded' out of it."""
    assert [view.chain for view in views(text)] == [()]
