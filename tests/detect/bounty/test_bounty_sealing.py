"""Sealing and reading: what is wrong gets a clear answer, and only triage's key opens."""

import json
import tempfile
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from safehold.detect.bounty.interface import MAX_SUBMISSION_BYTES
from safehold.detect.bounty.programme import programme_digest
from safehold.detect.bounty.sealing import (
    SealedSubmission,
    new_triage_key,
    opened,
    read_sealed,
    read_submission,
    read_triage_key,
    seal,
)
from safehold.errors import ConfigError, DataError, TrustError
from safehold.testing.bounty import BountyPlace

_TURN = {"role": "user", "text": "<<ask>>"}
_WHOLE = {"title": "t", "handle": "h", "turns": [_TURN]}


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"x" * 10_000_000, "at most 262144 bytes, came 10000000"),
        (b"\x89PNG\r\n\x1a\n\x00\xff", "UTF-8 text, came binary at byte 0"),
        (b"\x00\x01\x02", "expected a submission"),
        (b"", "expected a submission"),
        (b"[]", "Expected `object`"),
        (b'{"title": "\x1b[2J\x1b[31mhi"}', "expected a submission"),
        (json.dumps(_WHOLE | {"title": "\x1b[2Jhi"}).encode(), r"visible characters.*title"),
        (json.dumps(_WHOLE | {"title": "a\u202eb"}).encode(), r"visible characters.*title"),
        (json.dumps({"vulnerability": {"title": "another scheme's"}}).encode(), "submission"),
        (json.dumps(_WHOLE | {"run": "rm"}).encode(), "unknown field `run`"),
        (json.dumps(_WHOLE | {"\x1b[2J": 1}).encode(), "unknown field"),
        (json.dumps(_WHOLE | {"turns": []}).encode(), "length >= 1"),
        (json.dumps(_WHOLE | {"transforms": ["rm -rf"]}).encode(), "rm -rf"),
        (json.dumps(_WHOLE | {"transforms": ["base64"] * 4}).encode(), "length <= 3"),
        (
            json.dumps(_WHOLE | {"turns": [{"role": "assistant", "text": "x"}]}).encode(),
            "last turn",
        ),
        (
            json.dumps(
                _WHOLE | {"turns": [{"role": "user", "text": "x"}], "transforms": ["base64"]}
            ).encode(),
            "no turn has one",
        ),
    ],
)
def test_what_is_no_submission_gets_a_clear_answer(data: bytes, says: str) -> None:
    """One line that a terminal shows as it is, whatever came."""
    with pytest.raises(DataError, match=says) as told:
        read_submission(data)
    assert str(told.value).isprintable()
    assert len(str(told.value)) < 500


def test_an_escape_inside_a_template_is_data(place: BountyPlace) -> None:
    """A template may hold any character: it may be the attack itself."""
    found = read_submission(place.submission("\x1b[2J\u202e<<ask>>"))
    assert found.turns[0].text == "\x1b[2J\u202e<<ask>>"


@given(st.text(min_size=1, max_size=300))
def test_what_is_sealed_comes_out_and_nothing_else_shows(text: str) -> None:
    """The envelope holds neither the text nor its length to the byte."""
    try:
        data = msgspec.json.encode(_WHOLE | {"notes": text})
    except UnicodeEncodeError:  # half of a surrogate pair is no JSON
        return
    with tempfile.TemporaryDirectory() as folder:
        public = new_triage_key(Path(folder) / "k")
        sealed = seal(data, to=public, programme="a" * 64)
        key = read_triage_key(Path(folder) / "k")
    assert opened(read_sealed(sealed, to=public, programme="a" * 64), key) == data
    assert len(sealed) == len(seal(msgspec.json.encode(_WHOLE), to=public, programme="a" * 64))


def test_a_changed_envelope_does_not_open(place: BountyPlace) -> None:
    """Text, key, terms: each is bound to the others."""
    key = read_triage_key(place.key_file)
    sealed = msgspec.json.decode(place.sealed(), type=SealedSubmission)
    other = new_triage_key(place.folder / "other.key")
    flipped = sealed.text[:-8] + ("A" if sealed.text[-8] != "A" else "B") + sealed.text[-7:]
    for changed in (
        msgspec.structs.replace(sealed, text=flipped),
        msgspec.structs.replace(sealed, programme="b" * 64),
        msgspec.structs.replace(sealed, ephemeral=other),
        msgspec.structs.replace(sealed, ephemeral="AAAA"),
        msgspec.structs.replace(sealed, text=""),
    ):
        with pytest.raises(TrustError, match="does not open"):
            opened(changed, key)
    with pytest.raises(TrustError):
        opened(sealed, read_triage_key(place.folder / "other.key"))


def test_an_envelope_for_other_terms_or_another_key_is_refused(place: BountyPlace) -> None:
    """The answer says which of the two it is."""
    terms = programme_digest(place.programme)
    data = place.sealed()
    assert read_sealed(data, to=place.programme.triage_key, programme=terms)
    with pytest.raises(DataError, match="another key"):
        read_sealed(data, to="A" * 43 + "=", programme=terms)
    with pytest.raises(DataError, match="other terms"):
        read_sealed(data, to=place.programme.triage_key, programme="f" * 64)


@pytest.mark.parametrize(
    "data", [b"x" * 10_000_000, b"\xff\xfe", b"{}", b'{"type":"sealed-1"}', b"\x1b[2J"]
)
def test_what_is_no_envelope_gets_a_clear_answer(place: BountyPlace, data: bytes) -> None:
    """The server that can't read submissions still answers."""
    with pytest.raises(DataError, match="sealed") as told:
        read_sealed(data, to=place.programme.triage_key, programme="a" * 64)
    assert str(told.value).isprintable()


def test_a_private_key_that_others_may_read_is_refused(place: BountyPlace) -> None:
    """Triage's key is its owner's alone, and is not written over."""
    place.key_file.chmod(0o640)
    with pytest.raises(ConfigError, match="chmod 600"):
        read_triage_key(place.key_file)
    with pytest.raises(ConfigError, match="can't be made"):
        new_triage_key(place.key_file)


def test_the_largest_submission_is_taken(place: BountyPlace) -> None:
    """256 kB is in, a byte more is out."""
    empty = len(place.submission("<<ask>>", notes=""))
    text = "<<ask>>" + "a" * (MAX_SUBMISSION_BYTES - empty)
    assert read_submission(place.submission(text, notes=""))
    assert place.sealed(text, notes="")
    with pytest.raises(DataError, match="came 262145"):
        read_submission(place.submission(text + "a", notes=""))
