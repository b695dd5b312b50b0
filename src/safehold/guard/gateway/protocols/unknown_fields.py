"""What a dialect adds beyond its protocol: strained by principle, not by a list of vendors.

A body that fits its protocol is read at once. One that does not is read as plain JSON, put into
the protocol's own form, and strained by the shape of the wire values: an unknown field is dropped
and counted, a count that is no number is dropped, and only then is the body read again. So a field
of a vendor's bookkeeping costs no answer, and nothing unread reaches a client or a model.
"""

import json
import re
from collections.abc import Callable, Container
from functools import cache
from typing import Any, TypeVar

import msgspec
from msgspec import inspect

from safehold.guard.gateway.interface import Rules, UnknownReplyError, UnsupportedError
from safehold.guard.gateway.protocols.json_border import (
    MAX_DEPTH,
    decode_reply,
    decode_request,
    encode,
    text_of,
)
from safehold.guard.gateway.protocols.passed_fields import Field, only_text
from safehold.guard.gateway.protocols.safe_fields import OPENS_A_CHANNEL, SAFE
from safehold.guard.gateway.protocols.sealed_fields import names_of, only_sealed, without_sealed

T = TypeVar("T")
Mend = Callable[[Any], None]
Path = tuple[str | int, ...]
_SURROGATES = re.compile("[\ud800-\udfff]")
_BEYOND_JSON = {"-Infinity": -9999.0, "Infinity": 9999.0}
"""Numbers for what JSON has none for; OpenAI gives -9999 for a token that can't be. NaN is null."""
_NUMERIC = (inspect.IntType, inspect.FloatType, inspect.BoolType, inspect.NoneType)


class Strainer:
    """What one exchange met that its protocol does not know.

    `dropped` counts fields that were read and not passed on, in both directions. `extras` are the
    request's fields that go on beside the known ones; `passed` are those of what was read last of
    the answer.
    """

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self.dropped = 0
        self.extras: list[Field] = []
        self.passed: list[Field] = []

    # -- requests ------------------------------------------------------------------------------

    def request(self, decoder: "msgspec.json.Decoder[T]", body: bytes, at: Path = ()) -> T:
        """Read a client's body; `at` is its place in the body that goes upstream.

        Raises:
            UnsupportedError: A field opens a channel that nobody scores, or the policy refuses it.
            WireError: The body is no JSON of the expected shape.
        """
        try:
            return decoder.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            value = _plain(body)
        if value is None or self._rules.unknown_request_fields == "refuse":
            return decode_request(decoder, body if value is None else encode(value))
        return decode_request(decoder, encode(self._strain(decoder.type, value, at, self._asked)))

    def _asked(self, struct: str, at: Path, value: Any) -> None:
        """Pass, drop or refuse one unknown field of a request."""
        name = str(at[-1])
        if value is None:
            return
        if name in OPENS_A_CHANNEL:
            raise UnsupportedError(
                f"`{name}` opens a channel that this gateway does not score: "
                f"{OPENS_A_CHANNEL[name]}"
            )
        safe = self._rules.unknown_request_fields == "pass" or name in SAFE.get(struct, ())
        readable, count = without_sealed({name: value})
        if count and self._rules.opaque_reasoning == "refuse":
            raise UnsupportedError(f"expected readable reasoning, came a sealed one in `{name}`")
        scored = readable.get(name) if safe else None
        if count and self._rules.opaque_reasoning == "pass":
            kept = value if safe else (only_sealed({name: value}) or {}).get(name)
        else:
            kept = scored
            self.dropped += count if safe else 0
        if kept is None:
            self.dropped += 1
        else:
            said = list(names_of(kept)) if count else []
            said += [name] if name not in SAFE.get(struct, ()) else []
            self.extras.append(Field(at[:-1], name, kept, [*said, scored]))

    def texts(self) -> list[str]:
        """Return the strings of the fields that go on: the model may read them."""
        return [text for field in self.extras if (text := text_of(field.scored))]

    def woven(self, body: bytes) -> bytes:
        """Return a request's body with the passed fields back in their places."""
        if not self.extras:
            return body
        whole = msgspec.json.decode(body)
        for field in self.extras:
            place = whole
            for step in field.place:
                place = place[step]
            place[field.name] = field.value
        return encode(whole)

    # -- replies -------------------------------------------------------------------------------

    def reply(self, decoder: "msgspec.json.Decoder[T]", body: bytes, mend: Mend | None = None) -> T:
        """Read an upstream's body or event; `mend` puts a dialect into the protocol's form.

        Raises:
            UnknownReplyError: Content of an unknown kind, or a field that the policy refuses.
            BrokenReplyError: It is no JSON of the expected shape.
        """
        try:
            return decoder.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            value = _plain(body)
        if value is None:
            return decode_reply(decoder, body)
        if mend is not None:
            mend(value)
        if self._rules.unknown_reply_fields != "refuse":
            value = self._strain(decoder.type, value, (), self._told)
        return decode_reply(decoder, encode(value))

    def drops_event(self, event: bytes, known: Container[str]) -> bool:
        """Whether an event is of a type that the protocol does not know, and is dropped unread."""
        value = _plain(event)
        if self._rules.unknown_reply_fields == "refuse" or not isinstance(value, dict):
            return False
        kind = value.get("type")
        if not isinstance(kind, str) or kind in known:
            return False
        self.dropped += 1
        return True

    def _told(self, struct: str, at: Path, value: Any) -> None:
        """Pass or drop one unknown field of an answer; a null says nothing, and is dropped."""
        del struct
        name = str(at[-1])
        readable, count = without_sealed({name: value})
        opaque, scored, kept = self._rules.opaque_reasoning, None, None
        if count and opaque == "refuse":
            raise UnknownReplyError("upstream: encrypted reasoning can't be scored")
        if self._rules.unknown_reply_fields == "pass":
            scored, left = only_text(readable.get(name))
            kept = only_text(value)[0] if count and opaque == "pass" else scored
            self.dropped += left - (kept is None)
        elif count and opaque == "pass":
            kept = (only_sealed({name: value}) or {}).get(name)
        if kept is None:
            self.dropped += 1
        else:
            self.passed.append(Field(at[:-1], name, kept, scored))

    def drop(self, count: int) -> None:
        """Count fields that were read and have no place in what goes on."""
        self.dropped += count

    def taken(self) -> list[Field]:
        """Return the fields that were read since the last call and go on, and forget them."""
        passed, self.passed = self.passed, []
        return passed

    # -- both ----------------------------------------------------------------------------------

    def _strain(
        self,
        kind: Any,
        value: Any,
        at: Path,
        unknown: Callable[[str, Path, Any], None],
    ) -> Any:
        return _walk(_shape(kind), value, at, unknown)


@cache
def _shape(kind: Any) -> inspect.Type:
    return inspect.type_info(kind)


def _plain(body: bytes) -> Any:
    """Return a JSON object as plain values, halves of surrogate pairs as U+FFFD; None if none."""
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        value = _as_python_reads(body)
    return value if isinstance(value, dict) else None


def _as_python_reads(body: bytes) -> Any:
    """Read what Python's servers write beyond JSON: halves of pairs, NaN and infinities."""
    try:
        value = json.loads(body.decode(), parse_constant=_BEYOND_JSON.get)
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
        return msgspec.json.decode(_SURROGATES.sub("\ufffd", text))
    except (ValueError, RecursionError):
        return None


def _walk(
    kind: inspect.Type,
    value: Any,
    at: Path,
    unknown: Callable[[str, Path, Any], None],
) -> Any:
    """Return `value` without what `kind` does not know; each such field is given to `unknown`."""
    kind = _member(kind, value)
    if len(at) > MAX_DEPTH:
        return value
    if isinstance(kind, inspect.ListType) and isinstance(value, list):
        return [
            _walk(kind.item_type, item, (*at, index), unknown) for index, item in enumerate(value)
        ]
    if isinstance(kind, inspect.IntType) and isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(kind, inspect.DictType) and isinstance(value, dict) and _counts(kind):
        return {name: item for name, item in value.items() if _fits(kind.value_type, item)}
    if not isinstance(kind, inspect.StructType) or not isinstance(value, dict):
        return value
    fields = {field.encode_name: field for field in kind.fields}
    kept: dict[str, Any] = {}
    for name, item in value.items():
        field = fields.get(name)
        if field is None:
            if name == kind.tag_field:
                kept[name] = item
            elif kind.forbid_unknown_fields:
                unknown(kind.cls.__name__, (*at, name), item)
            continue
        strained = _walk(field.type, item, (*at, name), unknown)
        if not field.required and _counts(field.type) and not _fits(field.type, strained):
            unknown("", (*at, name), None)
        else:
            kept[name] = strained
    return kept


def _member(kind: inspect.Type, value: Any) -> inspect.Type:
    """Return the member of a union that a value is meant to be."""
    if not isinstance(kind, inspect.UnionType):
        return kind
    if isinstance(value, dict):
        structs = [one for one in kind.types if isinstance(one, inspect.StructType)]
        for one in structs:
            if one.tag_field is None or value.get(one.tag_field) == one.tag:
                return one
        wanted: type = inspect.DictType
    else:
        wanted = inspect.ListType if isinstance(value, list) else inspect.IntType
    return next((one for one in kind.types if isinstance(one, wanted)), kind)


def _counts(kind: inspect.Type) -> bool:
    """Whether a shape holds numbers and switches only, so that it can carry no text."""
    match kind:
        case inspect.UnionType(types=types):
            return any(not isinstance(one, inspect.NoneType) for one in types) and all(
                _counts(one) for one in types
            )
        case inspect.DictType(value_type=inner):
            return _counts(inner)
        case inspect.StructType(fields=fields):
            return all(_counts(field.type) for field in fields)
        case _:
            return isinstance(kind, _NUMERIC)


def _fits(kind: inspect.Type, value: Any) -> bool:
    match kind:
        case inspect.UnionType(types=types):
            return any(_fits(one, value) for one in types)
        case inspect.BoolType():
            return isinstance(value, bool)
        case inspect.IntType():
            return isinstance(value, int) and not isinstance(value, bool)
        case inspect.FloatType():
            return isinstance(value, int | float) and not isinstance(value, bool)
        case inspect.NoneType():
            return value is None
        case inspect.DictType(value_type=inner):
            return isinstance(value, dict) and all(_fits(inner, item) for item in value.values())
        case inspect.StructType():
            return isinstance(value, dict)
        case _:
            return False
