"""The interpreters of this host by content: under another name they are still interpreters."""

import os

from safehold.secure.endpoint.facts import digest
from safehold.secure.endpoint.invocation import Language, language_of
from safehold.secure.fanotify.interface import FanotifyError


def known_interpreters(folders: tuple[str, ...]) -> dict[str, Language]:
    """Return the digests of the interpreters in these folders: read before the first mark."""
    found: dict[str, Language] = {}
    for folder in folders:
        try:
            names = sorted(os.listdir(folder))
        except OSError:
            continue
        for name in names:
            language = language_of(name)
            path = os.path.join(folder, name)
            if language is None or not os.path.isfile(path):
                continue
            try:
                handle = os.open(path, os.O_RDONLY)
                try:
                    found[digest(handle)] = language
                finally:
                    os.close(handle)
            except (OSError, FanotifyError):
                continue
    return found
