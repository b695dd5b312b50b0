"""What an approver sees: the command's own output on an emulated terminal (pyte)."""

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
from pathlib import Path

import msgspec
import pyte
import pytest

from safehold.errors import TrustError
from safehold.testing.trust import Enclave
from safehold.trust.grants.approval_text import in_words
from safehold.trust.grants.details import Facts
from safehold.trust.grants.events import Requested
from safehold.trust.grants.interface import SignedRequest
from safehold.trust.log.dsse import sign_envelope
from safehold.trust.log.log_entries import statement_of
from safehold.trust.people.statement import Act

WIDE, HIGH = 200, 60
# Up a line, to its beginning, clear it, and write another one; and what hides or turns text.
DRAWN = (
    "\x1b[1A\x1b[2K\rBytes that may be read:     1,000",
    "\x9b1A\x9b2K\rBytes that may be read:     1,000",
    "x\rBytes that may be read:     1,000",
    "x\nBytes that may be read:     1,000",
    "x\x08\x08",
    "x\u202e000,1",
    "x\u2066y",
    "\U000e0041",
    "a\u200bb",
)


def shown(root: Path, *words: str) -> list[str]:
    """Run a command on a terminal of its own, and return the lines that stand on its screen."""
    screen = pyte.Screen(WIDE, HIGH)
    stream = pyte.ByteStream(screen)
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", HIGH, WIDE, 0, 0))
    child = subprocess.Popen(
        [sys.executable, "-m", "safehold", *words],
        cwd=root,
        env={**os.environ, "TERM": "xterm", "COLUMNS": str(WIDE)},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    while True:
        try:
            data = os.read(ours, 65536)
        except OSError:
            break
        if not data:
            break
        stream.feed(data)
    os.close(ours)
    child.wait(60)
    return [line.rstrip() for line in screen.display if line.strip()]


@pytest.fixture
def enclave(tmp_path: Path) -> Enclave:
    """Return an enclave whose log the command line can open."""
    made = Enclave(tmp_path / "log")
    folder = tmp_path / "log.keys"
    folder.mkdir(mode=0o700)
    for name, key in (("log", made.log_key), ("emitter", made.emitter)):
        path = folder / f"{name}.key"
        path.write_text(key.text())
        path.chmod(0o600)
    return made


def test_what_stands_on_the_screen_is_what_is_signed(enclave: Enclave) -> None:
    """Each member of a request is on an emulated terminal as it was signed, once."""
    asked = enclave.ask(byte_budget=8 * 10**11, details=Facts({"note": "on the second host"}))
    asked = msgspec.structs.replace(asked, operation="egress.raise")
    enclave.file(asked)
    lines = shown(enclave.root.parent, "grant", "show", asked.sha256, "--log", str(enclave.root))
    for label, text in in_words(asked, enclave.desk.state.roster):
        assert any(line.startswith(f"{label}:") and text in line for line in lines), label
    assert sum(line.startswith("Bytes that may be read:") for line in lines) == 1


@pytest.mark.parametrize("text", DRAWN, ids=ascii)
def test_no_text_of_a_requester_draws_on_an_approvers_screen(enclave: Enclave, text: str) -> None:
    """A fact, purpose or ticket that would draw is taken by no desk, and void where it is forced.

    The holder of the log's keys appends it all the same: the approver's terminal shows no such
    request then.
    """
    plain = enclave.ask(operation="egress.raise", byte_budget=8 * 10**11)
    for change in ({"details": Facts({"note": text})}, {"purpose": text}, {"ticket": text}):
        asked = msgspec.structs.replace(plain, **change)
        proof = enclave.keys["dev-one"].sign(Act.REQUEST, asked)
        leaf = Requested(enclave.time, SignedRequest(asked, proof))
        with pytest.raises(TrustError):
            enclave.desk.record(leaf)
        with enclave.desk.store.exclusive():
            enclave.desk.store.append([sign_envelope(statement_of(leaf), enclave.emitter)])
            enclave.desk.store.publish()
    words = ("grant", "list", "--all", "--log", str(enclave.root))
    lines = shown(enclave.root.parent, *words)
    assert lines == [], "a void request stands on the screen"
