"""The transparency log: its leaves, and for each a proof that the browser checks by itself."""

import base64
import hashlib

import msgspec

from safehold.console.shell.access import PageVisit
from safehold.console.shell.web import NotFoundError
from safehold.console.sources import ConsoleSources
from safehold.trust.grants.events import Requested
from safehold.trust.log.dsse import open_envelope
from safehold.trust.log.log_entries import Leaf, Record, read_leaf

_DIGITS = 17
"""No log counts further, and it fits 64 bits."""

_PAGE = 60


class LeafLine(msgspec.Struct, frozen=True):
    """One leaf in the list."""

    index: int
    at: float
    kind: str
    about: str


class AuditLogScreen(msgspec.Struct, frozen=True, kw_only=True):
    """The newest leaves, and the signed tree they are in."""

    origin: str
    size: int
    root: str
    rows: tuple[LeafLine, ...]
    older: int | None
    voids: int


class LeafPage(msgspec.Struct, frozen=True, kw_only=True):
    """One leaf with its proof: everything that a browser needs to check it; bytes in base64."""

    index: int
    at: float
    kind: str
    predicate: str
    entry: str
    leaf_hash: str
    hashes: tuple[str, ...]
    size: int
    root: str
    checkpoint: str
    key: str


def audit_log(visit: PageVisit[ConsoleSources]) -> AuditLogScreen:
    """Return the newest leaves, or those before a number."""
    store = visit.sources.desk.store
    head = store.checkpoint()
    before = visit.query.get("before", "")
    end = head.size
    if before.isdecimal() and len(before) <= _DIGITS:
        end = min(end, int(before))
    start = max(0, end - _PAGE)
    keys = store.keys.emitter_keys()
    rows = []
    for index, entry in store.entries(start):
        if index >= end:
            break
        leaf = read_leaf(open_envelope(entry, keys)[0])
        rows.append(LeafLine(index, leaf.time, _kind(leaf), _about(leaf)))
    return AuditLogScreen(
        origin=head.origin,
        size=head.size,
        root=base64.b64encode(head.root).decode(),
        rows=tuple(reversed(rows)),
        older=start or None,
        voids=len(visit.sources.desk.state.voids),
    )


def leaf_page(visit: PageVisit[ConsoleSources]) -> LeafPage:
    """Return one leaf with its proof.

    Raises:
        NotFoundError: the signed tree has no such leaf.
    """
    store, text = visit.sources.desk.store, visit.params["index"]
    if not text.isdecimal() or len(text) > _DIGITS or int(text) >= store.checkpoint().size:
        raise NotFoundError("the signed tree has no leaf of that number")
    index = int(text)
    with store.exclusive():
        proof, checkpoint = store.prove(index)
        entry = next(data for at, data in store.entries(index) if at == index)
    leaf = read_leaf(open_envelope(entry, store.keys.emitter_keys())[0])
    note = checkpoint.decode()
    shown = msgspec.json.format(msgspec.json.encode(msgspec.to_builtins(leaf)), indent=2)
    return LeafPage(
        index=index,
        at=leaf.time,
        kind=_kind(leaf),
        predicate=shown.decode(),
        entry=base64.b64encode(entry).decode(),
        leaf_hash=hashlib.sha256(b"\0" + entry).hexdigest(),
        hashes=tuple(base64.b64encode(one).decode() for one in proof.hashes),
        size=proof.size,
        root=note.split("\n")[2],
        checkpoint=note,
        key=store.keys.key,
    )


def _kind(leaf: Leaf) -> str:
    return leaf.kind if isinstance(leaf, Record) else str(leaf.__struct_config__.tag)


def _about(leaf: Leaf) -> str:
    """Return a leaf's facts in one line."""
    if isinstance(leaf, Record):
        return ", ".join(f"{name.replace('-', ' ')} {text}" for name, text in leaf.facts.items())
    if isinstance(leaf, Requested):
        return f"{leaf.signed.request.operation}: {leaf.signed.request.purpose}"
    request = getattr(leaf, "request", "") or getattr(getattr(leaf, "note", None), "request", "")
    return f"request {request[:12]}" if request else ""
