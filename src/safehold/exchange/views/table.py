"""Every decoder, in the order in which their views are given. A new one is one line here."""

from typing import NamedTuple

from safehold.exchange.views.decoders import (
    accents,
    backwards,
    base_16,
    base_32,
    base_64,
    base_85,
    braille,
    char_codes,
    doubled,
    emoji,
    escapes,
    exchanged,
    initials,
    inserted,
    invisible,
    leet,
    letter_codes,
    morse,
    nato,
    pig_latin,
    rotation,
    spaced,
    transliterated,
    unspaced,
    upside_down,
    uu,
)
from safehold.exchange.views.interface import Find


class Decoder(NamedTuple):
    """A named decoder; a `raw` one reads text before it is normalised, the others after."""

    name: str
    find: Find
    raw: bool = False


DECODERS: tuple[Decoder, ...] = (
    Decoder("invisible", invisible.find, raw=True),
    Decoder("bidi", backwards.find_bidi, raw=True),
    Decoder("upside-down", upside_down.find),
    Decoder("regional", emoji.find),
    Decoder("base64", base_64.find),
    Decoder("base32", base_32.find),
    Decoder("base16", base_16.find),
    Decoder("base85", base_85.find),
    Decoder("uu", uu.find),
    Decoder("url", escapes.find_url),
    Decoder("html", escapes.find_html),
    Decoder("quoted-printable", escapes.find_quoted_printable),
    Decoder("unicode-escapes", escapes.find_unicode),
    Decoder("char-codes", char_codes.find),
    Decoder("binary", char_codes.find_binary),
    Decoder("letter-codes", letter_codes.find),
    Decoder("braille", braille.find),
    Decoder("morse", morse.find),
    Decoder("nato", nato.find),
    Decoder("spaced", spaced.find),
    Decoder("leet", leet.find),
    Decoder("pig-latin", pig_latin.find),
    Decoder("rotation", rotation.find),
    Decoder("rot47", rotation.find_rot47),
    Decoder("reversed", backwards.find),
    Decoder("accents", accents.find),
    Decoder("transliterated", transliterated.find),
    Decoder("unspaced", unspaced.find),
    Decoder("doubled", doubled.find),
    Decoder("exchanged", exchanged.find),
    Decoder("inserted", inserted.find),
    Decoder("initials", initials.find),
)
