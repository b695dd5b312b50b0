"""The script of a character, as coarsely as the model needs a threshold of its own."""

from typing import Final

import numpy as np
import numpy.typing as npt

from safehold.exchange.views.legibility.model import Codes

NAMES: Final = (
    "none", "latin", "cyrillic", "greek", "hebrew", "arabic", "indic", "thai", "georgian",
    "armenian", "ethiopic", "kana", "han", "hangul", "marks", "pictures", "other",
)  # fmt: skip
"""`none` are white space, digits and ASCII signs: they fit into every script."""
NONE: Final = 0
PICTURES: Final = NAMES.index("pictures")
MARKS: Final = NAMES.index("marks")
OTHER: Final = NAMES.index("other")

_RANGES: Final = (
    (0x41, 0x5A, "latin"), (0x61, 0x7A, "latin"), (0xAA, 0xAA, "latin"), (0xBA, 0xBA, "latin"),
    (0xC0, 0x24F, "latin"), (0x1E00, 0x1EFF, "latin"), (0x370, 0x3FF, "greek"),
    (0x1F00, 0x1FFF, "greek"), (0x400, 0x52F, "cyrillic"), (0x530, 0x58F, "armenian"),
    (0x590, 0x5FF, "hebrew"), (0x600, 0x77F, "arabic"), (0xFB50, 0xFDFF, "arabic"),
    (0xFE70, 0xFEFC, "arabic"), (0x900, 0xDFF, "indic"), (0xE00, 0xEFF, "thai"),
    (0x1000, 0x109F, "indic"), (0x1780, 0x17FF, "indic"), (0x10A0, 0x10FF, "georgian"),
    (0x1200, 0x139F, "ethiopic"), (0x3040, 0x30FF, "kana"), (0x31F0, 0x31FF, "kana"),
    (0x3400, 0x9FFF, "han"), (0xF900, 0xFAFF, "han"), (0x20000, 0x2FFFF, "han"),
    (0x1100, 0x11FF, "hangul"), (0x3130, 0x318F, "hangul"), (0xAC00, 0xD7AF, "hangul"),
    (0x80, 0xBF, "none"), (0x300, 0x36F, "none"), (0x2000, 0x206F, "none"),
    (0x3000, 0x303F, "none"), (0xFF00, 0xFF0F, "none"), (0xFE00, 0xFE0F, "none"),
    (0x20A0, 0x20CF, "none"), (0x2070, 0x209F, "none"),
    (0x2100, 0x2BFF, "marks"), (0x1F000, 0x1FAFF, "pictures"),
)  # fmt: skip


def _table() -> npt.NDArray[np.uint8]:
    table = np.full(0x30000, OTHER, np.uint8)
    table[:0x80] = NONE
    for first, last, name in _RANGES:
        for point in (0xAA, 0xBA):
            table[point] = NAMES.index("latin")
        table[first : last + 1] = NAMES.index(name)
    return table


_SCRIPT: Final = _table()


def scripts(points: Codes) -> npt.NDArray[np.uint8]:
    """Return the script of each character as an index into `NAMES`."""
    capped = np.minimum(points, np.uint64(len(_SCRIPT) - 1)).astype(np.int64)
    found: npt.NDArray[np.uint8] = _SCRIPT[capped]
    return found
