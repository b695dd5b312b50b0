"""Leaves of every type, changed in every place by what breaks code that reads a stranger's bytes.

Structure-aware: a lawful leaf of each type is taken apart into its JSON tree, one place of it gets
a hostile value (another type, a huge or nested one, a poisoned signature, certificate or client
data), and the holder of the log's key signs and appends the result.
"""

import base64
import copy
import json
import random
from collections.abc import Iterator
from typing import Any

import msgspec
from quorum_history import FIRST, FOUNDING, FOUNDING_SHA256, START, Signer, founded

from safehold.canonical import canonical
from safehold.testing.trust import SoftPasskey, SoftSsh, SoftSshSk, held, person_id
from safehold.trust.grants.details import AddKey, EnrolPerson, Facts, NoDetails
from safehold.trust.grants.events import (
    Alarm,
    Approved,
    BrokeGlass,
    DecisionNote,
    Denied,
    Ended,
    GrantIssued,
    RefusedUse,
    Released,
    Requested,
    Reviewed,
    Revoked,
    Used,
)
from safehold.trust.grants.interface import GrantRequest, Resource, SignedRequest
from safehold.trust.log.dsse import PAYLOAD_TYPE, Envelope, Signed, pae
from safehold.trust.log.log_entries import EVENTS, Leaf, Record, kind_of, statement_of
from safehold.trust.log.note import SigningKey
from safehold.trust.people.interface import Kind, Person
from safehold.trust.people.statement import Act

SIGNER = Signer()
PASSKEY = SoftPasskey(b"fuzz")
_NESTED = "[" * 3000 + "]" * 3000
_DEEP_CBOR = b"\x81" * 5000 + b"\x00"


def _url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


POISON: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2**53, 2**63, -(2**63), 10**18, 1.5, "", " ", "\n", "x\n"),
    *([], {}, [[]], [None], {"": ""}, {"type": []}, [1] * 2000, "a" * 9000),
    *("\x1b[2K", "\u202e", "\u200b", "\ud7ff", "\U000e0041", "NaN", "0" * 64, "f" * 64 + "\n"),
    *("SHA256:" + "A" * 43, "p-" + "0" * 16, "t-everybody", "ssh-ed25519 AAAA", "sk-ssh"),
    *(_url(b""), _url(b"\x00" * 37), _url(b"\xff" * 300), _url(_DEEP_CBOR), "AA==", "A"),
    _url(json.dumps({"type": "webauthn.get", "crossOrigin": []}).encode()),
    _url(json.dumps({"type": {}, "challenge": [], "origin": {}}).encode()),
    _url(_NESTED.encode()),
    _url(b'{"a":' * 2000 + b"1" + b"}" * 2000),
    _url(bytes.fromhex("a401020326200121582000")),
    _url(bytes.fromhex("bf01")),
    _url(bytes.fromhex("a1a10101")),
    _url(b"\xfb\x7f\xf8\x00\x00\x00\x00\x00\x00"),
    base64.b64encode(b"SSHSIG\x00\x00\x00\x01" + b"\xff\xff\xff\xff").decode(),
    base64.b64encode(b"SSHSIG" + bytes(200)).decode(),
)


def request(name: str = "dev-one", **changes: Any) -> GrantRequest:
    """Return a lawful request."""
    made = GrantRequest(
        enclave=FOUNDING_SHA256,
        requester=person_id(name),
        purpose="fuzz",
        ticket="F-1",
        operation="weights.load",
        resource=Resource("model", "brewer", "1", ("*",)),
        host="gpu-1",
        workload_sha256="ab" * 32,
        byte_budget=0,
        uses=1,
        not_before=START,
        expires=START + 3600,
        nonce="0" * 32,
        policy_version=1,
        policy_sha256=msgspec.to_builtins(FOUNDING)["policy_text"][:0] or "0" * 64,
        details=NoDetails(),
    )
    return msgspec.structs.replace(made, **changes)


def lawful() -> list[Leaf]:
    """Return one leaf of every type, and of every kind of key and of details."""
    asked = request()
    digest = asked.sha256
    note = DecisionNote(digest, "fuzz")
    approvals = [
        Approved(START, digest, key.sign(Act.APPROVE, asked))
        for key in (FIRST["dev-two"], SoftSshSk(b"sk"), PASSKEY)
    ]
    person = Person(person_id("new"), "new", Kind.HUMAN, (), ("t-everybody",), (PASSKEY.key,))
    changes = [
        request(
            operation="people.enrol", details=held(FOUNDING_SHA256, EnrolPerson(person), PASSKEY)
        ),
        request(
            operation="people.add-key",
            details=held(FOUNDING_SHA256, AddKey(person_id("dev-one"), PASSKEY.key), PASSKEY),
        ),
        request(operation="egress.raise", details=Facts({"plan": "p"})),
    ]
    filed = [
        Requested(START, SignedRequest(one, FIRST["dev-one"].sign(Act.REQUEST, one)))
        for one in (asked, *changes)
    ]
    keys = {name: FIRST[name] for name in ("dev-two", "sec-one")}

    def by(name: str, act: Act) -> Any:
        return keys[name].sign(act, note)

    return [
        founded(SIGNER),
        *filed,
        *approvals,
        Denied(START, note, by("dev-two", Act.DENY)),
        GrantIssued(START, digest, (person_id("dev-two"),), START + 9),
        Used(START, digest, "gpu-1", "ab" * 32),
        Released(START, digest, "gpu-1", "0" * 64, "x"),
        Ended(START, note, None),
        Ended(START, note, by("dev-two", Act.END)),
        Revoked(START, note, by("sec-one", Act.REVOKE)),
        BrokeGlass(START, digest, FIRST["sec-one"].sign(Act.BREAK_GLASS, asked), "x"),
        Reviewed(START, note, by("dev-two", Act.REVIEW)),
        RefusedUse(START, digest, "quorum", "gpu-1"),
        Alarm(START, "s", "k", "d"),
        Record(START, "note", {"text": "x"}, {"file": "0" * 64}),
    ]


def all_types(leaves: list[Leaf]) -> bool:
    """Tell whether every type of leaf is there."""
    return {type(one) for one in leaves} == {*EVENTS, Record}


def places(tree: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of every value of a JSON tree."""
    if path:
        yield path
    items: Any = ()
    if isinstance(tree, dict):
        items = tree.items()
    elif isinstance(tree, list):
        items = enumerate(tree)
    for name, value in items:
        yield from places(value, (*path, name))


def altered(tree: Any, lot: random.Random) -> Any:
    """Return the tree with one or two places changed: replaced, removed, doubled or added to."""
    tree = json.loads(json.dumps(tree))  # copies: a second change must not alter a poison
    for _ in range(lot.choice((1, 1, 1, 2))):
        found = list(places(tree))
        if not found:
            return tree
        path = lot.choice(found)
        home = tree
        for step in path[:-1]:
            home = home[step]
        match lot.randrange(6):
            case 0:
                del home[path[-1]]
            case 1 if isinstance(home, list):
                home.insert(path[-1], home[path[-1]])
            case 2 if isinstance(home, dict):
                name = lot.choice(("type", "extra", "time", "crossOrigin"))
                home[name] = copy.deepcopy(lot.choice(POISON))
            case 3 if isinstance(home[path[-1]], str) and home[path[-1]]:
                text = home[path[-1]]
                at = lot.randrange(len(text))
                home[path[-1]] = text[:at] + chr(lot.choice((65, 48, 10, 0x202E, 43))) + text[at:]
            case _:
                home[path[-1]] = copy.deepcopy(lot.choice(POISON))
    return tree


def entry(statement: Any, key: SigningKey) -> bytes:
    """Return the signed envelope of a statement, whatever it is: canonical, or just JSON."""
    try:
        payload = canonical(statement)
    except (TypeError, ValueError, RecursionError):
        payload = json.dumps(statement).encode()
    except Exception as error:
        if type(error).__module__.partition(".")[0] != "safehold":
            raise
        payload = json.dumps(statement).encode()
    signature = key.sign(pae(PAYLOAD_TYPE, payload))
    return canonical(
        Envelope(
            payload=base64.b64encode(payload).decode(),
            payload_type=PAYLOAD_TYPE,
            signatures=(
                Signed(keyid=key.verifier.label, sig=base64.b64encode(signature).decode()),
            ),
        )
    )


def poisoned(lot: random.Random, leaves: list[Leaf], key: SigningKey) -> tuple[str, bytes]:
    """Return the kind and the entry of a changed leaf."""
    leaf = lot.choice(leaves)
    statement = msgspec.to_builtins(statement_of(leaf), str_keys=True)
    if lot.random() < 0.15:
        return kind_of(leaf), entry(altered(statement, lot), key)
    statement["predicate"] = altered(statement["predicate"], lot)
    if lot.random() < 0.5 and isinstance(statement["predicate"], dict):
        # The subject and form as a reader computes them, where a typed leaf can still be made.
        try:
            typed: Leaf = msgspec.convert(statement["predicate"], type(leaf))
            statement = msgspec.to_builtins(statement_of(typed), str_keys=True)
        except (msgspec.ValidationError, ValueError, TypeError):
            pass
        except Exception as error:
            if type(error).__module__.partition(".")[0] != "safehold":
                raise
    return kind_of(leaf), entry(statement, key)


KEYS = (SoftSsh(b"a"), PASSKEY)
