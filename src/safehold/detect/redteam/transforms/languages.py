"""Language games and other scripts."""

import re

from safehold.detect.redteam.transforms.interface import Family, Transform

_WORD = re.compile(r"[A-Za-z]+")
_VOWELS = re.compile(r"[aeiouAEIOU]+")
_GREEK = str.maketrans("abcdefghijklmnopqrstuvwxyz", "αβκδεφγηιζκλμνοπκρστυβωξυζ")
_RUSSIAN = str.maketrans("abcdefghijklmnopqrstuvwxyz", "абцдефгхийклмнопкрстуввхыз")
_RUNES = str.maketrans("abcdefghijklmnopqrstuvwxyz", "ᚨᛒᚲᛞᛖᚠᚷᚺᛁᛃᚲᛚᛗᚾᛟᛈᚲᚱᛊᛏᚢᚹᚹᚲᛃᛉ")
_ARABIZI = (
    ("sh", "sh"),
    ("th", "8"),
    ("kh", "5"),
    ("a", "2a"),
    ("h", "7"),
    ("q", "9"),
    ("gh", "3'"),
)
_EMOJI = {
    "apple": "🍎",
    "apples": "🍎🍎",
    "bottle": "🍾",
    "bottles": "🍾🍾",
    "honey": "🍯",
    "grapes": "🍇",
    "water": "💧",
    "beer": "🍺",
    "wine": "🍷",
    "hot": "🔥",
    "cold": "🧊",
    "time": "⏰",
    "house": "🏠",
    "home": "🏠",
    "how": "❓",
    "what": "❓",
    "i": "🙋",
    "and": "\u2795",
    "temperature": "🌡️",
    "days": "📅",
    "pear": "🍐",
    "pears": "🍐🍐",
}
_SLANG = {
    "how": "how's one meant to",
    "what": "wot",
    "my": "me",
    "should": "oughta",
    "going": "goin",
    "want": "wanna",
    "to": "ta",
    "the": "da",
    "you": "ya",
    "before": "afore",
    "for": "fer",
    "and": "an'",
    "make": "knock up",
    "much": "much, like,",
    "is": "be",
    "of": "o'",
    "with": "wi'",
}


def _pig_latin(text: str) -> str:
    def turn(match: re.Match[str]) -> str:
        word = match[0]
        start = re.match(r"[^aeiouAEIOU]+", word)
        return f"{word}way" if start is None else f"{word[start.end() :]}{start[0]}ay"

    return _WORD.sub(turn, text)


def _robber(text: str) -> str:
    """Rövarspråket: each consonant doubled around an o."""
    return re.sub(r"([b-df-hj-np-tv-zB-DF-HJ-NP-TV-Z])", lambda m: f"{m[1]}o{m[1].lower()}", text)


def _ubbi_dubbi(text: str) -> str:
    return _VOWELS.sub(lambda match: f"ub{match[0]}", text)


def _spoonerised(text: str) -> str:
    """Exchange the first letters of neighbouring words."""
    words = text.split()
    for at in range(0, len(words) - 1, 2):
        one, two = words[at], words[at + 1]
        words[at], words[at + 1] = two[:1] + one[1:], one[:1] + two[1:]
    return " ".join(words)


def _arabizi(text: str) -> str:
    text = text.lower()
    for plain, written in _ARABIZI:
        text = text.replace(plain, written)
    return text


def _with_emoji(text: str) -> str:
    return _WORD.sub(lambda match: _EMOJI.get(match[0].lower(), match[0]), text)


def _slang(text: str) -> str:
    return _WORD.sub(lambda match: _SLANG.get(match[0].lower(), match[0]), text)


def _caveman(text: str) -> str:
    return re.sub(
        r"\b(?:the|a|an|is|are|do|does|to|of|my|i|should|would|could)\b ?", "", text.lower()
    )


def _archaic(text: str) -> str:
    plain = {"you": "thou", "your": "thy", "do": "dost", "does": "doth", "my": "mine", "are": "art"}
    body = _WORD.sub(lambda match: plain.get(match[0].lower(), match[0]), text)
    return f"Prithee, good fellow: {body}"


_G = Family.LANGUAGE
LANGUAGE: tuple[Transform, ...] = (
    Transform("pig-latin", _G, _pig_latin, "", None, 1.4),
    Transform("robber-language", _G, _robber, "Rövarspråket", None, 2.2),
    Transform("ubbi-dubbi", _G, _ubbi_dubbi, "Ubbi Dubbi", None, 1.7),
    Transform("spoonerisms", _G, _spoonerised),
    Transform("greek-letters", _G, lambda text: text.lower().translate(_GREEK)),
    Transform("cyrillic-letters", _G, lambda text: text.lower().translate(_RUSSIAN)),
    Transform("runes", _G, lambda text: text.lower().translate(_RUNES), "runes"),
    Transform("arabizi", _G, _arabizi, "", None, 1.2),
    Transform("emoji-words", _G, _with_emoji),
    Transform("slang", _G, _slang, "", None, 1.1),
    Transform("caveman", _G, _caveman),
    Transform("archaic", _G, _archaic, "", None, 1.2),
)
