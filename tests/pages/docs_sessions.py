"""Plays a page of the documentation: its blocks as one shell session.

A `Session` says what the reader has before (`before`), which words of a printed line stand for
something of theirs (`own`), and who types a line (`others`). Every such saying must match a line of
the page: one that no longer does is an error, so that page and test change together.
"""

import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Session:
    """How one page is played.

    Attributes:
        before: Shell text: what the reader has when the page begins.
        own: Printed words -> the words of this reader, each with exactly one meaning on the page.
        others: A printed line's beginning -> the folder in whose HOME another person types it, and
            says yes.
        after: A printed line's beginning -> shell text that happens before the next line.
        until: A printed line's beginning -> the exit status that the page says it has.
        left: A printed line's beginning -> why it is not played here.
        alone: Whether it is played in a network and a view of the disk of its own (needs root).
    """

    before: str = ""
    own: dict[str, str] = field(default_factory=dict)
    others: dict[str, str] = field(default_factory=dict)
    after: dict[str, str] = field(default_factory=dict)
    until: dict[str, int] = field(default_factory=dict)
    left: dict[str, str] = field(default_factory=dict)
    alone: bool = False


_SERVERS = re.compile(
    r"safehold (serve|console|redteam target|intel serve|egress run|"
    r"endpoint guard(?!.*--dry-run))\b"
)


_ALONE = ("unshare", "--net", "--mount", "--propagation", "private")


def lines(page: Path) -> list[str]:
    """Return the lines of the blocks that hold a command of ours, continued ones joined."""
    text = page.read_text("utf-8")
    found: list[str] = []
    for kind, block in re.findall(r"^```([a-z]*)\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        if kind not in {"", "sh", "bash"} or not re.search(
            r"^(?:\w+=\$\()?safehold ", block, re.MULTILINE
        ):
            continue
        joined = re.sub(r" *\\\n\s*", " ", block)
        found += [one for raw in joined.splitlines() if (one := _bare(raw))]
    return found


def _bare(line: str) -> str:
    return re.sub(r"\s+#.*$", "", line).strip().removeprefix("$ ")


def script(page: Path, session: Session) -> str:
    """Return the page as one shell script.

    Raises:
        AssertionError: A saying of the session matches no line of the page.
    """
    used: set[str] = set()
    out = ['. "$ROOT/tests/pages/readers.sh"', session.before]
    for line in lines(page):
        out += _played(line, session, used)
    sayings = [*session.own, *session.others, *session.after, *session.until, *session.left]
    assert sorted(set(sayings) - used) == [], f"{page.name} no longer says"
    return "\n".join(out) + "\n"


def _saying(table: dict[str, str] | dict[str, int], line: str, used: set[str]) -> str | None:
    found = next((start for start in table if line.startswith(start)), None)
    if found is not None:
        used.add(found)
    return found


def _played(line: str, session: Session, used: set[str]) -> list[str]:
    """Return what the shell does for one printed line."""
    if (why := _saying(session.left, line, used)) is not None:
        return [f": {session.left[why]!r}"]
    if line.startswith("pip install"):
        return []
    said = line
    for word, mine in session.own.items():
        if word in said:
            used.add(word)
            said = said.replace(word, mine)
    if (start := _saying(session.until, line, used)) is not None:
        said = f"exits {session.until[start]} {said}"
    elif _SERVERS.match(said):
        said = f"serves {said}"
    if (start := _saying(session.others, line, used)) is not None:
        said = f'HOME="$PWD/{session.others[start]}"; echo y | {said}; HOME="$PWD"'
    out = [f"echo {shlex.quote(f'+ {line}')}", said]
    if (start := _saying(session.after, line, used)) is not None:
        out.append(session.after[start])
    return out


def play(page: Path, session: Session, folder: Path, *, seconds: int = 900) -> None:
    """Play a page in a folder.

    Raises:
        AssertionError: A line failed; the message ends with what was printed last.
    """
    programs = folder / ".bin"
    programs.mkdir(parents=True)
    ours = programs / "safehold"
    ours.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m safehold "$@"\n', "utf-8")
    ours.chmod(0o755)
    text = script(page, session)
    (folder / ".page.sh").write_text(text, "utf-8")
    done = subprocess.run(
        [*_ALONE, "bash", ".page.sh"] if session.alone else ["bash", ".page.sh"],
        cwd=folder,
        env={
            "PATH": f"{programs}:{Path(sys.executable).parent}:{os.environ['PATH']}",
            "HOME": str(folder),
            "ROOT": str(ROOT),
            "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
            "LANG": "C.UTF-8",
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
    assert done.returncode == 0, (
        f"{done.stdout[-1500:]}\n--- exit {done.returncode}\n{done.stderr[-2500:]}"
    )
