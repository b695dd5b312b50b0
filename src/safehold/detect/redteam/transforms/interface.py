"""A transform: a deterministic rewriting of a request, its family, and its way back if any."""

from collections.abc import Callable
from enum import StrEnum

import msgspec


class Family(StrEnum):
    """The kinds of transforms; rates are given by family."""

    ENCODING = "encoding"
    CIPHER = "cipher"
    UNICODE = "unicode"
    LAYOUT = "layout"
    TYPING = "typing"
    LANGUAGE = "language-like"
    STRUCTURE = "structure"
    AFFIX = "affix"
    LETTERS = "letters"


class Transform(msgspec.Struct, frozen=True):
    """One rewriting.

    `told` says to a model how to read the text; empty where a reader needs no telling. `growth` is
    roughly how many times longer the text gets, so that chains can be kept to a bounded size.
    """

    name: str
    family: Family
    encode: Callable[[str], str]
    told: str = ""
    decode: Callable[[str], str] | None = None
    growth: float = 1.0
