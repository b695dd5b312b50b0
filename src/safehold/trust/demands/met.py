"""The file of met controls: until when each result holds, signed by who ran the controls.

A signed note (C2SP, signed-note) of three lines: what it is, the SHA-256 of the saved run that it
comes from, and the controls as canonical JSON. Without the key nobody claims a control.
"""

import re

import msgspec

from safehold.canonical import canonical
from safehold.errors import TrustError
from safehold.trust.log.interface import LogError
from safehold.trust.log.note import SigningKey, VerifierKey, parse_note, sign_note

_HEAD = "safehold met controls 1"
_RUN = re.compile(r"run ([0-9a-f]{64})\Z")
_LINES = 3


class MetControls(msgspec.Struct, frozen=True):
    """Until when each control's result holds (POSIX seconds), and the run that showed it."""

    until: dict[str, int]
    run_sha256: str


def met_note(met: MetControls, key: SigningKey) -> bytes:
    """Return the signed file."""
    text = f"{_HEAD}\nrun {met.run_sha256}\n{canonical(met.until).decode()}\n"
    return str(sign_note(text, key)).encode()


def read_met(data: bytes, key: VerifierKey) -> MetControls:
    """Return what the key's holder signed.

    Raises:
        TrustError: it is no such file, or nobody with this key signed it.
    """
    # 1. Signed by the pinned key.
    try:
        note = parse_note(data)
        note.verify([key])
    except LogError as error:
        raise TrustError(f"met controls: expected a file signed by {key.name}: {error}") from error
    # 2. Of this kind: a note of anything else that the key signed is not taken for it.
    lines = note.text.split("\n")[:-1]
    run = _RUN.match(lines[1]) if len(lines) == _LINES and lines[0] == _HEAD else None
    if run is None:
        raise TrustError("met controls: the signed text is something else")
    try:
        return MetControls(msgspec.json.decode(lines[2], type=dict[str, int]), run[1])
    except msgspec.DecodeError as error:
        raise TrustError("met controls: expected a time for each control") from error
