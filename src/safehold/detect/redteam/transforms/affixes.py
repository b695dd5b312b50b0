"""The same marks or words around every word: a reader skips them, a scorer may not."""

import json

from safehold.detect.redteam.transforms.interface import Family, Transform

_F = Family.AFFIX


class _Around:
    """Writes each word into a pattern."""

    def __init__(self, pattern: str) -> None:
        self._pattern = pattern

    def __call__(self, text: str) -> str:
        """Return the text with every word inside the pattern."""
        return " ".join(self._pattern.replace("WORD", word) for word in text.split())


def _json_each(text: str) -> str:
    return "\n".join(json.dumps({"t": word}) for word in text.split())


def _second(text: str) -> str:
    return " ".join(f"`{word}`" if at % 2 else word for at, word in enumerate(text.split()))


AFFIXES: tuple[Transform, ...] = (
    Transform("word-code", _F, _Around("`WORD`"), growth=1.5),
    Transform("word-link", _F, _Around("[WORD](x)"), growth=2),
    Transform("word-bold", _F, _Around("**WORD**"), growth=2),
    Transform("word-struck", _F, _Around("~~WORD~~"), growth=2),
    Transform("word-equals", _F, _Around("WORD=WORD"), growth=2),
    Transform("word-colour", _F, _Around("\x1b[1mWORD\x1b[0m"), growth=2.5),
    Transform("word-guillemets", _F, _Around("\u00abWORD\u00bb"), growth=1.5),
    Transform("word-brackets", _F, _Around("[WORD]"), growth=1.5),
    Transform("word-call", _F, _Around("print('WORD')"), growth=3),
    Transform("word-object", _F, _json_each, growth=3),
    Transform("second-word-code", _F, _second, growth=1.3),
    Transform("filler-words", _F, _Around("WORD (ok)"), "plain words with fillers", growth=2),
)
