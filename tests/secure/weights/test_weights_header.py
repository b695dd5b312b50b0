"""The header: signed, one spelling, no rollback of its revision; what a shredded one says."""

import json
from typing import Any

import msgspec
import pytest

from safehold.canonical import canonical
from safehold.errors import WeightsError
from safehold.secure.weights.header import (
    content_id,
    covers,
    header_bytes,
    open_header,
    sign_header,
)
from safehold.secure.weights.interface import SealedFormatError, SealTamperError, Wrapped
from safehold.secure.weights.keys import unwrap_data_key
from safehold.secure.weights.rewrap import rewrapped, store_header, tombstone, wrap_anew
from safehold.secure.weights.signer import SealSigner
from safehold.testing.weights import MemoryProvider, Publisher


@pytest.mark.parametrize(
    ("field", "value"),
    [("model", "other"), ("version", "2"), ("chunk_bytes", 8192), ("revision", 7)],
)
def test_changed_header_is_refused(publisher: Publisher, field: str, value: object) -> None:
    """Any changed member breaks the signature."""
    publisher.seal()
    document: dict[str, Any] = json.loads((publisher.root / "sealed/header.json").read_bytes())
    document["header"][field] = value
    with pytest.raises(SealTamperError, match="signature"):
        open_header(canonical(document), publisher.signer.verifier)


def test_header_of_another_publisher_is_refused(publisher: Publisher) -> None:
    """A header signed by a stranger is refused, whatever it says."""
    header = publisher.seal()
    data = sign_header(header, SealSigner.generate())
    with pytest.raises(SealTamperError, match="signed by key"):
        open_header(data, publisher.signer.verifier)


def test_second_spelling_is_refused(publisher: Publisher) -> None:
    """White space makes it another document: two readers never see two headers of one hash."""
    publisher.seal()
    data = (publisher.root / "sealed/header.json").read_bytes()
    with pytest.raises(SealedFormatError):
        open_header(data + b"\n", publisher.signer.verifier)


def test_fast_form_is_the_canonical_form(publisher: Publisher) -> None:
    """The header's bytes are exactly RFC 8785's, with names beyond ASCII too."""
    header = msgspec.structs.replace(publisher.seal(), model='Bräu \u20ac \U0001f37a / "x" \\')
    assert header_bytes(header) == canonical(header)


def test_two_shards_of_one_name_are_refused(publisher: Publisher) -> None:
    """Names that differ only in case would be one file on some disks."""
    header = publisher.seal()
    twin = msgspec.structs.replace(header.shards[0], name=header.shards[0].name.upper())
    doubled = msgspec.structs.replace(header, shards=(*header.shards, twin))
    with pytest.raises(SealedFormatError, match="distinct"):
        sign_header(doubled, publisher.signer)


@pytest.mark.parametrize("name", ["../up.json", "/etc/x.json", ".hidden.json", "a//b.json", ""])
def test_shard_names_cannot_leave_the_folder(publisher: Publisher, name: str) -> None:
    """A signed header with a path that climbs is still refused."""
    header = publisher.seal()
    bad = msgspec.structs.replace(
        header, shards=(msgspec.structs.replace(header.shards[0], name=name),)
    )
    with pytest.raises(SealedFormatError):
        open_header(sign_header(bad, publisher.signer), publisher.signer.verifier)


def test_no_part_covers_nothing(publisher: Publisher) -> None:
    """An empty list of parts is an error, not every shard or none."""
    header = publisher.seal()
    with pytest.raises(WeightsError):
        covers(header, ())
    with pytest.raises(WeightsError):
        covers(header, ("*", header.shards[0].name))
    assert len(covers(header, ("*",))) == 3


def test_rewrap_changes_the_header_and_nothing_else(publisher: Publisher) -> None:
    """After a rewrap the new provider opens the model, with the same content id and data."""
    header = publisher.seal()
    before = {
        path.name: path.stat().st_mtime_ns
        for path in (publisher.root / "sealed").iterdir()
        if path.name != "header.json"
    }
    data_key, _ = unwrap_data_key(header, [publisher.provider])
    other = MemoryProvider("other")
    new = rewrapped(header, wrap_anew(header, data_key, [other]))
    store_header(publisher.root / "sealed", new, publisher.signer)
    data = (publisher.root / "sealed" / "header.json").read_bytes()
    found = open_header(data, publisher.signer.verifier)
    assert unwrap_data_key(found, [other])[0] == data_key
    assert content_id(found) == content_id(header)
    assert before == {
        path.name: path.stat().st_mtime_ns
        for path in (publisher.root / "sealed").iterdir()
        if path.name != "header.json"
    }


def test_old_revision_is_not_put_back(publisher: Publisher) -> None:
    """A header that is not the next revision does not replace the one that is there."""
    header = publisher.seal()
    store_header(publisher.root / "sealed", rewrapped(header, header.wrapped), publisher.signer)
    with pytest.raises(WeightsError, match="next revision"):
        store_header(publisher.root / "sealed", rewrapped(header, header.wrapped), publisher.signer)


def test_content_id_follows_the_content(publisher: Publisher) -> None:
    """Another sealing of the same files, or another digest, is other content."""
    header = publisher.seal()
    other = publisher.seal("other")
    assert content_id(header) != content_id(other)


def test_tombstone_opens_nothing(publisher: Publisher) -> None:
    """A shredded model's header names no key, and keeps its content id."""
    header = publisher.seal()
    dead = tombstone(header)
    assert content_id(dead) == content_id(header)
    with pytest.raises(WeightsError, match="shredded"):
        unwrap_data_key(dead, [publisher.provider])
    with pytest.raises(WeightsError, match="shredded"):
        rewrapped(dead, header.wrapped)


def test_wrapped_key_of_another_model_is_refused(publisher: Publisher) -> None:
    """A wrapped key is bound to its sealing: moved to another header it does not open."""
    one, two = publisher.seal("one"), publisher.seal("two")
    moved = msgspec.structs.replace(
        one,
        wrapped=(
            Wrapped(
                provider="memory",
                reference=two.wrapped[0].reference,
                blob=two.wrapped[0].blob,
            ),
        ),
    )
    with pytest.raises(WeightsError):
        unwrap_data_key(moved, [publisher.provider])
