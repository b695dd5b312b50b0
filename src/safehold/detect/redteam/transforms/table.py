"""The one table of transforms; adding one is one line in its family's file."""

from safehold.detect.redteam.transforms.affixes import AFFIXES
from safehold.detect.redteam.transforms.ciphers import CIPHERS
from safehold.detect.redteam.transforms.encodings import ENCODINGS
from safehold.detect.redteam.transforms.interface import Transform
from safehold.detect.redteam.transforms.languages import LANGUAGE
from safehold.detect.redteam.transforms.layout import LAYOUT
from safehold.detect.redteam.transforms.letters import LETTERS
from safehold.detect.redteam.transforms.structure import STRUCTURE
from safehold.detect.redteam.transforms.typos import TYPING
from safehold.detect.redteam.transforms.unicode import UNICODE
from safehold.errors import UsageError

TRANSFORMS: tuple[Transform, ...] = (
    *ENCODINGS,
    *CIPHERS,
    *UNICODE,
    *LAYOUT,
    *TYPING,
    *LANGUAGE,
    *STRUCTURE,
    *AFFIXES,
    *LETTERS,
)


def transform(name: str) -> Transform:
    """Return a transform by its name.

    Raises:
        UsageError: There is none of this name.
    """
    for one in TRANSFORMS:
        if one.name == name:
            return one
    raise UsageError(f"no transform is called {name!r}; safehold redteam list transforms shows all")
