"""Plays a page of the documentation: its blocks as one shell session, in a folder of the reader's own.

A `Session` says what the reader has before (`before`), which words of a printed line stand for
something of theirs (`own`), and who types a line (`others`). Every such saying must match a line of
the page: one that no longer does is an error, so that page and test change together.
"""

import os
import re
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]

_TOOLS = r"""
set -euo pipefail
# A server is started, seen to be up, ended by SIGTERM, and its end is judged.
serves() {
    "$@" >served.log 2>&1 & local it=$! end=0
    for _ in $(seq 1200); do
        if grep -Eq 'https?://|ready|watching|listening|guarding|holds' served.log; then break; fi
        if ! kill -0 $it 2>/dev/null; then wait $it || end=$?; cat served.log >&2; return $((end + 100)); fi
        sleep 0.1
    done
    sleep 0.2; kill -TERM $it; wait $it || end=$?
    if [ $end -ne 0 ] && [ $end -ne 143 ]; then cat served.log >&2; return $end; fi
}
kit() { python "$ROOT/tests/pages/docs_kit.py" "$@"; }
# A model at an address of its own until the session ends: `model`, then $MODEL.
model() {
    python "$ROOT/tests/pages/docs_kit.py" upstream model.url & trap "kill $!" EXIT
    while [ ! -s model.url ]; do sleep 0.1; done
    MODEL=$(cat model.url)
}
# A command whose exit status says something: `exits 1 safehold grant status`.
exits() { local want=$1 end=0; shift; "$@" || end=$?; [ $end -eq "$want" ] || { echo "exit $end, expected $want" >&2; return 1; }; }
"""


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
    """

    before: str = ""
    own: dict[str, str] = field(default_factory=dict)
    others: dict[str, str] = field(default_factory=dict)
    after: dict[str, str] = field(default_factory=dict)
    until: dict[str, int] = field(default_factory=dict)
    left: dict[str, str] = field(default_factory=dict)


_SERVERS = re.compile(
    r"safehold (serve|console|redteam target|intel serve|egress run|endpoint guard(?!.*--dry-run))\b"
)


def lines(page: Path) -> list[str]:
    """Return the shell lines of a page's blocks that hold a command of ours, continued ones joined."""
    text = page.read_text("utf-8")
    found: list[str] = []
    for kind, block in re.findall(r"^```([a-z]*)\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        if kind not in {"", "sh", "bash"} or not re.search(r"^(?:\w+=\$\()?safehold ", block, re.M):
            continue
        joined = re.sub(r" *\\\n\s*", " ", block)
        found += [one for raw in joined.splitlines() if (one := _bare(raw))]
    return found


def _bare(line: str) -> str:
    return re.sub(r"\s+#.*$", "", line).strip().removeprefix("$ ")


def script(page: Path, session: Session) -> str:
    """Return the page as one shell script.

    Raises:
        AssertionError: A saying of the session matches no line, or more than one meaning.
    """
    used: set[str] = set()

    def saying(table: dict[str, str] | dict[str, int], line: str) -> str | None:
        found = next((start for start in table if line.startswith(start)), None)
        if found is not None:
            used.add(found)
        return found

    out = [_TOOLS, session.before]
    for line in lines(page):
        if (why := saying(session.left, line)) is not None:
            out.append(f": {session.left[why]!r}")
            continue
        said = line
        for word, mine in session.own.items():
            if word in said:
                used.add(word)
                said = said.replace(word, mine)
        if said.startswith("pip install"):
            continue
        if _SERVERS.match(said) and saying(session.until, line) is None:
            said = f"serves {said}"
        elif (start := saying(session.until, line)) is not None:
            said = f"exits {session.until[start]} {said}"
        if (start := saying(session.others, line)) is not None:
            said = f'HOME="$PWD/{session.others[start]}"; echo y | {said}; HOME="$PWD"'
        out += [f"echo '+ '{line!r}" if "'" not in line else f'echo "+ {line[:30]}"', said]
        if (start := saying(session.after, line)) is not None:
            out.append(session.after[start])
    sayings = [*session.own, *session.others, *session.after, *session.until, *session.left]
    assert sorted(set(sayings) - used) == [], f"{page.name} no longer says"
    return "\n".join(out) + "\n"


def play(page: Path, session: Session, folder: Path, *, seconds: int = 300) -> None:
    """Play a page in a folder.

    Raises:
        AssertionError: A line failed; the message ends with what was printed last.
    """
    programs = folder / ".bin"
    programs.mkdir()
    ours = programs / "safehold"
    ours.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m safehold "$@"\n', "utf-8")
    ours.chmod(0o755)
    text = script(page, session)
    (folder / ".page.sh").write_text(text, "utf-8")
    done = subprocess.run(
        ["bash", ".page.sh"],
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
    assert done.returncode == 0, f"{done.stdout[-1500:]}\n--- exit {done.returncode}\n{done.stderr[-2500:]}"
