"""What a leaf of the log may be: the table of typed predicates, and how to read and write them."""

import msgspec

from safehold.canonical import canonical, sha256_hex
from safehold.trust.grants.events import (
    Alarm,
    Approved,
    BrokeGlass,
    Denied,
    Ended,
    Event,
    Founded,
    GrantIssued,
    RefusedUse,
    Released,
    Requested,
    Reviewed,
    Revoked,
    Used,
)
from safehold.trust.grants.interface import Seconds, Sha256
from safehold.trust.log.dsse import STATEMENT_TYPE, Statement, StatementSubject
from safehold.trust.log.interface import LogError
from safehold.trust.people.interface import Label
from safehold.trust.text import Line, in_short


class Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="record"):
    """A leaf of another part: facts in words, and digests of what is kept elsewhere.

    Sensitive text never goes into a fact; its digest does.
    """

    time: Seconds
    kind: Label
    facts: dict[Label, Line]
    digests: dict[Label, Sha256]


Leaf = Event | Record

# Every kind of leaf. A kind of another part is one line here.
EVENTS: tuple[type[Event], ...] = (
    Founded,
    Requested,
    Approved,
    Denied,
    GrantIssued,
    Used,
    Released,
    Ended,
    Revoked,
    BrokeGlass,
    Reviewed,
    RefusedUse,
    Alarm,
)
RECORDS: frozenset[str] = frozenset(
    {
        "bounty-state",
        "budget-change",
        "bundle-release",
        "case-close",
        "change-review",
        "control-result",
        "drill",
        "exec-deny",
        "incident",
        "intel-in",
        "intel-out",
        "note",
        "read-summary",
        "review-open",
        "review-verdict",
        "rewrap",
        "seal",
        "session",
        "shred",
        "unblock",
    }
)
_PREFIX = "urn:safehold:"
_SUFFIX = ":v1"


def kind_of(leaf: Leaf) -> str:
    """Return the name of the leaf's kind."""
    if isinstance(leaf, Record):
        return leaf.kind
    return str(leaf.__struct_config__.tag)


def statement_of(leaf: Leaf) -> Statement:
    """Return the in-toto statement of a leaf; its subject is the request, or the leaf itself.

    Raises:
        LogError: a record of a kind that the table does not have.
    """
    kind = kind_of(leaf)
    if isinstance(leaf, Record) and kind not in RECORDS:
        raise LogError(f"expected a known kind of record, got {kind}")
    predicate = msgspec.to_builtins(leaf, str_keys=True, order="sorted")
    match leaf:
        case Requested():
            digest, name = leaf.signed.request.sha256, "request"
        case Approved() | GrantIssued() | Used() | Released() | BrokeGlass() | RefusedUse():
            digest, name = leaf.request, "request"
        case Denied() | Ended() | Revoked() | Reviewed():
            digest, name = leaf.note.request, "request"
        case Founded():
            digest, name = sha256_hex(canonical(leaf.founding)), "founding"
        case Alarm() | Record():
            digest, name = sha256_hex(canonical(predicate)), kind
    return Statement(
        type=STATEMENT_TYPE,
        subject=(StatementSubject(name=name, digest={"sha256": digest}),),
        predicate_type=f"{_PREFIX}{kind}{_SUFFIX}",
        predicate=predicate,
    )


def read_leaf(statement: Statement) -> Leaf:
    """Return the typed leaf of a statement.

    Raises:
        LogError: an unknown kind, a predicate of another shape, or a subject that is not its own.
    """
    kind = statement.predicate_type.removeprefix(_PREFIX).removesuffix(_SUFFIX)
    known = {str(event.__struct_config__.tag): event for event in EVENTS}
    target: type[Leaf] | None = known.get(kind, Record if kind in RECORDS else None)
    if target is None:
        raise LogError(f"expected a known kind of leaf, got {kind[:60]!r}")
    try:
        leaf: Leaf = msgspec.convert(statement.predicate, target)
    except msgspec.ValidationError as error:
        raise LogError(f"a leaf of kind {kind}: {in_short(error)}") from error
    if canonical(statement_of(leaf)) != canonical(statement):
        raise LogError(f"a leaf of kind {kind}: its subject or form is not its own")
    return leaf
