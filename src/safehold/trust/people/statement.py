"""What a person signs: an act, and the canonical document that it is about."""

import hashlib
from enum import StrEnum

from safehold.canonical import canonical

NAMESPACE = "safehold-act"
"""The SSHSIG namespace (`ssh-keygen -Y sign -n safehold-act`)."""


class Act(StrEnum):
    """What a signature does; a signature for one act is worthless for another."""

    REQUEST = "request"
    APPROVE = "approve"
    DENY = "deny"
    REVOKE = "revoke"
    END = "end"
    BREAK_GLASS = "break-glass"
    REVIEW = "review"
    FOUND = "found"
    HOLD = "hold-key"


def statement(act: Act, document: object) -> bytes:
    """Return `safehold-<act>/1`, a zero byte, and the RFC 8785 form of the document."""
    return f"safehold-{act.value}/1".encode() + b"\0" + canonical(document)


def challenge(act: Act, document: object) -> bytes:
    """Return the 32 bytes that a WebAuthn authenticator signs: SHA-256 of the statement."""
    return hashlib.sha256(statement(act, document)).digest()


def ssh_message(act: Act, document: object) -> bytes:
    """Return what an SSH key signs: the challenge in hexadecimal and a newline."""
    return challenge(act, document).hex().encode() + b"\n"
