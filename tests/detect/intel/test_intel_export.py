"""What leaves: valid forms, the same bytes each time, and never five words of a source."""

import json
import random
import re

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from safehold.detect.intel.describe import LEAST_CHARS, likeness, refuse_content, told_words
from safehold.detect.intel.misp import misp_event
from safehold.detect.intel.stix import EXTENSION, bundle, objects
from safehold.errors import DataError, UsageError
from safehold.testing.intel import SHARER, SOURCE, technique

_POOL = (
    "a jailbreak technique its descriptors stand in the extension how often attack was seen "
    "the digest of folded template and sketch under group key what belongs to one incident "
    "operator safeguards around language model lighthouse letter base64 example lab high "
    "guard update bundle or rules file by"
)
_WORDS = st.lists(st.sampled_from(_POOL.split()), min_size=5, max_size=120)


def test_no_five_words_of_the_source_are_in_any_export() -> None:
    """STIX, TAXII's objects and MISP, by the same search that `add` runs before it keeps."""
    found = [technique()]
    for exported in (
        bundle(found, SHARER),
        misp_event(found, SHARER),
        json.dumps(objects(found, SHARER)).encode(),
    ):
        assert told_words(exported, [SOURCE]) == 0
        for word in ("lighthouse who", "nephew", "household", "Sign the letter"):
            assert word not in exported.decode()


@given(st.text(max_size=600))
def test_whatever_the_source_is_nothing_of_it_leaves(text: str) -> None:
    """Any text: the export holds neither five words in a row nor the text."""
    found = [technique(text)]
    out = bundle(found, SHARER) + misp_event(found, SHARER)
    refuse_content(bundle(found, SHARER), [text])
    words = re.findall(r"[^\W\d_]{4,}", text)
    assert len(words) < 5 or " ".join(words[:5]) not in out.decode()


@given(_WORDS)
def test_an_export_depends_on_its_source_by_digests_alone(words: list[str]) -> None:
    """Two sources of one length: the exports differ in hex digits only."""
    one, other = " ".join(words), " ".join(reversed(words))

    def plain(text: str) -> str:
        out = bundle([technique(text)], SHARER) + misp_event([technique(text)], SHARER)
        return re.sub(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9a-f]{64,}", "#", out.decode())

    assert plain(one) == plain(other)


def test_a_leaking_export_is_refused() -> None:
    """The search finds five words whatever stands between them."""
    with pytest.raises(DataError, match="1 runs of five words"):
        refuse_content(b'{"a": "Sign, the", "b": "LETTER of-mine"}', ["sign the letter of mine"])
    refuse_content(b'{"a": "sign the letter of"}', ["sign the letter of mine"])


@pytest.mark.parametrize(
    "changes",
    [
        {"family": "ignore-all-previous-instructions-now"},
        {"family": "Ignore all previous"},
        {"family": ""},
        {"family": "x" * 21},
        {"chain": ("say this",)},
        {"atlas": ("AML.T0054 and a sentence",)},
        {"atlas": ()},
        {"band": "awful"},
        {"fixes": ("a sentence",)},
    ],
)
def test_no_field_takes_a_sentence(changes: dict[str, object]) -> None:
    """Content can't leave in the place of a name."""
    with pytest.raises(UsageError):
        technique(**changes)


def test_bytes_are_stable() -> None:
    """Equal techniques, equal bytes, in any process; an update keeps ids and moves `modified`."""
    one, other = technique(), technique()
    assert bundle([one], SHARER) == bundle([other], SHARER)
    assert misp_event([one], SHARER) == misp_event([other], SHARER)
    later = technique(updated=1_795_700_000)
    before = {obj["id"]: obj.get("modified") for obj in objects([one], SHARER)}
    after = {obj["id"]: obj.get("modified") for obj in objects([later], SHARER)}
    assert before.keys() == after.keys()
    assert before != after


def test_short_templates_give_no_digest_and_no_sketch() -> None:
    """They could be found by guessing."""
    short = technique("x" * (LEAST_CHARS - 1))
    assert short.template_sha256 is None
    assert short.sketch == ""
    kinds = {obj["type"] for obj in objects([short], SHARER)}
    assert "indicator" not in kinds
    assert "attack-pattern" in kinds
    assert technique("x" * LEAST_CHARS).template_sha256 is not None


def test_sketches_find_edited_templates_under_one_key_alone() -> None:
    """A few words changed: alike. Another group's key, or another text: not."""
    words = SOURCE.split()
    chance = random.Random(1)
    for index in chance.sample(range(len(words)), 4):
        words[index] = "other"
    edited = technique(" ".join(words)).sketch
    mine = technique().sketch
    assert likeness(mine, mine) == 1.0
    assert likeness(mine, edited) > 0.4
    assert likeness(mine, technique(group_key=b"k" * 32).sketch) < 0.1
    assert likeness(mine, technique("An unlike text. " * 30).sketch) < 0.1
    with pytest.raises(UsageError, match="32 bytes"):
        technique(group_key=b"short")


def test_each_object_is_marked_and_referred_to_objects_are_there() -> None:
    """TLP 2 on everything; no reference leads nowhere; no definition in a collection."""
    whole = msgspec.json.decode(bundle([technique()], SHARER))["objects"]
    ids = {one["id"] for one in whole}
    assert EXTENSION in ids
    for one in whole:
        if one["type"] != "marking-definition":
            assert set(one["object_marking_refs"]) <= ids
        for name, value in one.items():
            if name.endswith("_ref"):
                assert value in ids
    kinds = [one["type"] for one in objects([technique()], SHARER)]
    assert "extension-definition" not in kinds
    assert kinds.count("relationship") == 2
    sighting = next(one for one in whole if one["type"] == "sighting")
    assert sighting["count"] == 4


def test_a_misp_event_holds_every_attribute() -> None:
    """Family, chain, severity, sightings, template, sketch, fix."""
    event = msgspec.json.decode(misp_event([technique()], SHARER))["Event"]
    assert [one["comment"] for one in event["Attribute"]] == [
        "family",
        "chain",
        "severity",
        "sightings",
        "template",
        "sketch",
        "fix",
    ]
    assert {"name": "tlp:amber+strict"} in event["Tag"]
    assert len({one["uuid"] for one in event["Attribute"]}) == 7
