"""How interpreters are started, and what they open as code: from the process's own arguments."""

import os
import stat
from collections.abc import Container
from contextlib import suppress

from safehold.secure.endpoint.invocation import (
    LANGUAGES,
    CodeSource,
    Invocation,
    Language,
    carries_code,
    invocation,
)
from safehold.secure.endpoint.processes import readlink, there, words

_SUFFIXES = tuple(suffix for language in LANGUAGES for suffix in language.suffixes)
_MOST_LINKS = 40


def started_with(pid: int, language: Language, processes: Container[int]) -> Invocation:
    """Return where an interpreter takes its code from; asked at its first open.

    Its arguments are execve's then. `processes` are the devices of `/proc`.
    """
    how = invocation(language, words(pid, "cmdline"))
    if how.source is CodeSource.FILE and how.path and not leads_to_file(pid, how.path, processes):
        how = Invocation(CodeSource.STDIN)
    if carries_code(language, words(pid, "environ")):
        how = Invocation(CodeSource.ARGUMENT)
    return how


def opens_as_code(pid: int, language: Language, handle: int, found: os.stat_result) -> bool:
    """Tell whether an interpreter opens this as code: by suffix, first line or argument."""
    if not found.st_size:
        return False
    name = os.readlink(f"/proc/self/fd/{handle}")
    if name.endswith(_SUFFIXES) or os.pread(handle, 2, 0) == b"#!":
        return True
    # Data files are arguments too; code is what the interpreter takes as such.
    how = invocation(language, words(pid, "cmdline"))
    for word in (how.path, *how.also):
        with suppress(OSError, ValueError):
            one = os.stat(there(pid, word))
            if word and (one.st_dev, one.st_ino) == (found.st_dev, found.st_ino):
                return True
    return False


def leads_to_file(pid: int, path: str, processes: Container[int]) -> bool:
    """Tell whether an interpreter's argument leads to a file, by the process's own links.

    A way through any `/proc` (devices: `processes`) is none: `/dev/stdin` is a descriptor, and
    looked up by us it would be one of ours.
    """
    root = f"/proc/{pid}/root"
    if not path.startswith("/"):
        path = f"{readlink(f'/proc/{pid}/cwd')}/{path}"
    left = path.split("/")[::-1]
    here: list[str] = []
    links = 0
    while left:
        part = left.pop()
        if part in {"", "."}:
            continue
        if part == "..":
            del here[-1:]
            continue
        place = f"{root}/{'/'.join([*here, part])}"
        try:
            found = os.lstat(place)
            if found.st_dev in processes:
                return False
            if not stat.S_ISLNK(found.st_mode):
                here.append(part)
                continue
            target = os.readlink(place)
        except (OSError, ValueError):
            return True  # the interpreter will not find it either
        links += 1
        if links > _MOST_LINKS:
            return False
        if target.startswith("/"):
            here = []
        left += target.split("/")[::-1]
    try:
        found = os.lstat(f"{root}/{'/'.join(here)}")
    except OSError:
        return True
    return stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)
