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
from hypothesis import given
from hypothesis import strategies as st

from safehold.canonical import canonical
from safehold.errors import TrustError
from safehold.testing.trust import Enclave, SoftSsh, ssh_public_of
from safehold.trust.grants.approval_text import in_words, laid_out
from safehold.trust.grants.details import Facts
from safehold.trust.grants.events import Founding, Requested
from safehold.trust.grants.interface import SignedRequest
from safehold.trust.log.dsse import sign_envelope
from safehold.trust.log.log_entries import statement_of
from safehold.trust.people.interface import EMPTY_ROSTER
from safehold.trust.people.sshsig import private_key_text
from safehold.trust.people.statement import Act
from safehold.trust.text import Line, Name

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
    # Marks that are piled up over other lines, strike a letter through, or enclose it.
    "x" + "\u0301" * 5,
    "x" + "\u0e47" * 30,
    "x" + "\u0300\u0316" * 20,
    "1\u03360\u0336",
    "1\u20dd",
)
# The same signs as people write them.
WRITTEN = (
    "e\u0301\u0323",
    "\u0e17\u0e35\u0e48",
    "\u05d1\u05bc\u05b0",
    "\u0915\u094d\u0937\u093f",
)


def shown(root: Path, *words: str, wide: int = WIDE) -> list[str]:
    """Run a command on a terminal of its own, and return the lines that stand on its screen."""
    screen = pyte.Screen(wide, HIGH)
    stream = pyte.ByteStream(screen)
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", HIGH, wide, 0, 0))
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


@pytest.mark.parametrize("wide", [80, 120])
@pytest.mark.parametrize("filler", [" ", ".", "\u3000", "\u732b"])
def test_no_long_text_goes_on_where_our_labels_stand(
    enclave: Enclave, wide: int, filler: str
) -> None:
    """A purpose that fills its line does not go on in the first column, as a line of ours."""
    forged = "Bytes that may be read:     1,000"
    cells = 2 if filler in {"\u3000", "\u732b"} else 1
    asked = enclave.ask(purpose="repair" + filler * ((wide - 28 - 6) // cells) + forged)
    enclave.file(asked)
    words = ("grant", "show", asked.sha256, "--log", str(enclave.root))
    lines = shown(enclave.root.parent, *words, wide=wide)
    beginning = [line for line in lines if line.startswith("Bytes that may be read:")]
    assert beginning == [f"Bytes that may be read:     {asked.byte_budget:,}"]
    labels = {label for label, _ in in_words(asked, enclave.desk.state.roster)}
    labels |= {"Approved by", "Now"}
    begin = [line.partition(":")[0] for line in lines if not line.startswith(" ")]
    assert set(begin) <= labels
    assert len(begin) == len(set(begin))
    assert forged.replace(" ", "") in "".join(lines).replace(" ", "")


def test_no_policy_text_draws_a_line_of_the_founding(enclave: Enclave, tmp_path: Path) -> None:
    """A founder reads lines of the policy under their own label only, long and short ones."""
    del enclave
    forged = "Person:                     eve (p-0000000000000000), a human"
    founding = Founding(
        origin="log.test/x", roster=EMPTY_ROSTER, policy_text=f"a\n{forged}\n{'#' * 52}{forged}"
    )
    document = tmp_path / "founding.json"
    document.write_bytes(canonical(founding))
    key = tmp_path / "key"
    key.write_bytes(private_key_text(SoftSsh(b"ada").private))
    key.chmod(0o600)
    (tmp_path / "key.pub").write_text(ssh_public_of(SoftSsh(b"ada")) + "\n")
    words = ("people", "sign", str(document), "--ssh-key", str(key))
    lines = shown(tmp_path, *words, wide=80)
    assert any(line.startswith("Founding (SHA-256):") for line in lines), lines
    assert not any(line.startswith("Person:") for line in lines)
    assert sum("Person:" in line for line in lines) == 2


@given(
    text=st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), max_size=200),
    label=st.sampled_from(["Why", "Policy (SHA-256)", "At least, requests an hour, of one"]),
    columns=st.integers(41, 300),
)
def test_every_line_after_the_label_is_indented(text: str, label: str, columns: int) -> None:
    """Any text at any width: nothing but the label begins left, and every character is there."""
    first, *rest = laid_out(label, text, indent=28, columns=columns).split("\n")
    assert first.startswith(f"{label}:")
    assert all(line.startswith(" " * 28) for line in rest)
    assert "".join([first[28:], *(line[28:] for line in rest)]).endswith(text)


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


@pytest.mark.parametrize("text", WRITTEN, ids=ascii)
def test_letters_with_their_marks_are_taken(text: str) -> None:
    """Vietnamese, Thai, Hebrew and Hindi are written with marks, and may be."""
    assert msgspec.convert(text, Line) == text
    assert msgspec.convert(text, Name) == text
