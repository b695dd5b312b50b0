"""Orders, needs and the chain of releases: what is not sure counts as weaker, or is refused."""

import datetime as dt
import math
from enum import Enum
from pathlib import Path

import msgspec
import pytest

from safehold.errors import ConfigError
from safehold.trust.release.comparison import compared, golden_of
from safehold.trust.release.interface import (
    Artefact,
    ArtefactKind,
    Behaviour,
    Release,
    ReleaseError,
    Seen,
)
from safehold.trust.release.needed import permits, release_changes
from safehold.trust.release.orders import (
    Fewer,
    Free,
    GuardDirection,
    Higher,
    Lower,
    More,
    NarrowerNetworks,
    Order,
    Part,
    Pinned,
    Ranked,
    Rows,
    rows_of,
)
from safehold.trust.release.weaker import changes, settings_document, weakens
from safehold.trust.released.interface import read_release_settings
from safehold.trust.released.memory import begin_memory, read_memory, write_memory

S, E, W = GuardDirection.STRONGER, GuardDirection.EQUAL, GuardDirection.WEAKER


@pytest.mark.parametrize(
    ("order", "old", "new", "found"),
    [
        (Lower(), 2, 1, S),
        (Lower(), 1, 1.0, E),
        (Lower(), 1, 2, W),
        (Lower(), None, 5, S),
        (Lower(), 5, None, W),
        (Lower(), 1, math.nan, W),
        (Lower(), 1, "1", W),
        (Lower(), "2027-01-02", "2027-01-01", S),
        (Lower(), "2027-01-01", "2027-01-02", W),
        (Lower(), "2027-01-01", "tomorrow", W),
        (Higher(), 1, 2, S),
        (Higher(), False, True, S),
        (Higher(), 2, 1, W),
        (Higher(), 1, None, W),
        (Higher(), None, 1, W),
        (Higher(), 1, math.inf, S),
        (Ranked(("hold", "audit")), "audit", "hold", S),
        (Ranked(("hold", "audit")), "hold", "audit", W),
        (Ranked(("hold", "audit")), "hold", "else", W),
        (Fewer(), ["a", "b"], ["a"], S),
        (Fewer(), ["a"], ["a", "b"], W),
        (Fewer(), ["a"], ["b"], W),
        (Fewer(), ["a", "b"], ["b", "a"], E),
        (Fewer(), ["a"], None, W),
        (Fewer(), [["a"]], ["a"], W),
        (Fewer(), "a", ["a"], W),
        (Fewer(empty_is_all=True), [], ["a"], S),
        (Fewer(empty_is_all=True), ["a"], [], W),
        (More(), ["a"], ["a", "b"], S),
        (More(), ["a", "b"], ["a"], W),
        (More(), ["a"], 1, W),
        (NarrowerNetworks(), ["10.0.0.0/8"], ["10.1.0.0/16"], S),
        (NarrowerNetworks(), ["10.1.0.0/16"], ["10.0.0.0/8"], W),
        (NarrowerNetworks(), ["10.0.0.0/9", "10.128.0.0/9"], ["10.128.0.0/9", "10.0.0.0/9"], E),
        (NarrowerNetworks(), ["::/0"], ["fe80::/10"], S),
        (NarrowerNetworks(), ["::/0"], ["10.0.0.0/8"], W),
        (NarrowerNetworks(), ["10.0.0.0/8"], ["10.0.0.1/8"], W),
        (NarrowerNetworks(), ["10.0.0.0/8"], [None], W),
        (Free(), 1, "any", E),
        (Pinned(), 1, 1.0, W),
        (Part(S, W), None, {}, S),
        (Part(S, W), {}, None, W),
        (Part(S, W), None, 1, W),
        (Rows(S, W), [], {}, W),
    ],
)
def test_what_an_order_says(order: Order, old: object, new: object, found: GuardDirection) -> None:
    """The better value is stronger; what can't be placed is weaker, never equal."""
    assert order.compare(old, new) is found


def test_rows_have_distinct_names_or_are_none() -> None:
    """A mapping is rows by its keys; a list needs a name in each row."""
    assert rows_of({"a": 1}, "id") == {"a": 1}
    assert rows_of([{"id": "a"}, {"id": "b"}], "id") == {"a": {"id": "a"}, "b": {"id": "b"}}
    for value in ("ab", 5, [1], [{"id": 1}], [{"x": "a"}], [{"id": "a"}, {"id": "a"}]):
        assert rows_of(value, "id") is None


class _Colour(Enum):
    RED = "red"


class _Inner(msgspec.Struct):
    day: dt.date
    colours: frozenset[_Colour]


def test_settings_become_plain_values_with_their_defaults() -> None:
    """Each kind of value has one plain form; what no settings have is refused."""
    value = _Inner(dt.date(2027, 1, 2), frozenset({_Colour.RED}))
    assert settings_document({"a": value, 1: (None, True, 1.5)}) == {
        "a": {"day": "2027-01-02", "colours": ["red"]},
        "1": [None, True, 1.5],
    }
    with pytest.raises(TypeError, match="a value of settings, got bytes"):
        settings_document(b"x")


TABLE: dict[str, Order] = {
    "k.low": Lower(),
    "k.part": Part(S, W),
    "k.rows": Rows(added=W, removed=S),
    "k.rows.*.low": Lower(),
}


@pytest.mark.parametrize(
    ("old", "new", "found"),
    [
        (None, None, []),
        (None, {}, [("k", W)]),
        ({}, None, [("k", W)]),
        ({"low": 2}, {"low": 1}, [("k.low", S)]),
        ({"low": 1}, {"low": True}, [("k.low", E)]),
        ({}, {"low": 1}, [("k.low", W)]),
        ({"low": 1}, {}, [("k.low", W)]),
        ({"new": 1}, {"new": 2}, [("k.new", W)]),
        ({"deep": {"low": 1}}, {"deep": {"low": 2}}, [("k.deep.low", W)]),
        ({"part": None}, {"part": {"x": 1}}, [("k.part", S)]),
        ({"part": {"x": 1}}, {"part": {"x": 2}}, [("k.part.x", W)]),
        ({"rows": [{"id": "a"}]}, {"rows": [{"id": "b"}]}, [("k.rows[a]", S), ("k.rows[b]", W)]),
        ({"rows": {"a": {"low": 2}}}, {"rows": {"a": {"low": 1}}}, [("k.rows[a].low", S)]),
        ({"rows": [1]}, {"rows": [2]}, [("k.rows", W)]),
        ({"x": [1]}, {"x": [True]}, [("k.x", W)]),
    ],
)
def test_every_difference_is_told_with_its_path(
    old: object, new: object, found: list[tuple[str, GuardDirection]]
) -> None:
    """Fields and rows that came, went or changed; equal values of other kinds are no equals."""
    told = changes("k", old, new, TABLE)
    assert [(one.path, one.direction) for one in told] == found
    assert weakens(told) is any(one is W for _, one in found)


def artefact(kind: ArtefactKind, sha: str, document: object = None, path: str = "x") -> Artefact:
    """Return an artefact of one digit's digest."""
    return Artefact(path=path, kind=kind, sha256=sha * 64, document=document)


def release(*artefacts: Artefact, **more: object) -> Release:
    """Return a release of these artefacts."""
    return msgspec.structs.replace(
        Release(channel="c", version=1, previous="", artefacts=artefacts, not_before=0, expires=9),
        **more,
    )


BUNDLE, PRODUCT, GATEWAY = ArtefactKind.BUNDLE, ArtefactKind.PRODUCT, ArtefactKind.GATEWAY


GOLDEN = artefact(ArtefactKind.GOLDEN, "5", path="golden")


def behaviour(lost: tuple[str, ...] = ()) -> Behaviour:
    """Return a comparison of bundle 1 with bundle 2."""
    fields = {one.name: one for one in msgspec.structs.fields(Behaviour)}
    given: dict[str, object] = {
        "old": "1" * 64, "new": "2" * 64, "lost": list(lost), "items": 50,
    }  # fmt: skip
    for name, one in fields.items():
        if name not in given and one.required:
            given[name] = "3" * 64 if one.type is not int else 0
    return msgspec.convert(given, Behaviour)


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        (None, release(), "a first release"),
        (release(artefact(BUNDLE, "1")), release(), "gone"),
        (release(), release(artefact(BUNDLE, "1")), "was not there"),
        (release(artefact(BUNDLE, "1")), release(artefact(PRODUCT, "1")), "another kind"),
        (release(artefact(BUNDLE, "1")), release(artefact(BUNDLE, "2")), "no comparison"),
        (
            release(artefact(BUNDLE, "1")),
            release(artefact(BUNDLE, "2"), behaviour=(behaviour(),)),
            "no golden set",
        ),
        (
            release(artefact(BUNDLE, "1"), GOLDEN),
            release(artefact(BUNDLE, "2"), GOLDEN, behaviour=(behaviour(),)),
            "two did not sign",
        ),
        (release(artefact(PRODUCT, "1")), release(artefact(PRODUCT, "2")), "no provenance"),
        (
            release(artefact(PRODUCT, "1")),
            release(artefact(PRODUCT, "2"), provenance={"x": "4" * 64}),
            "two did not sign",
        ),
        (release(artefact(GATEWAY, "1")), release(artefact(GATEWAY, "2")), "without their"),
    ],
)
def test_a_change_that_nobody_can_vouch_for_needs_the_highest_quorum(
    old: Release | None, new: Release, why: str
) -> None:
    """First, gone, new, of another kind, not compared, worse, not rebuilt, without a document."""
    told = release_changes(old, new)
    assert [one.direction for one in told] == [W]
    assert why in told[0].why
    assert permits("release.weaken", old, new)
    assert not permits("release.publish", old, new)
    assert not permits("release.emergency", old, new)


def test_a_change_that_is_vouched_for_needs_two() -> None:
    """A compared bundle, a rebuilt product, and nothing changed at all."""
    bundle = release(artefact(BUNDLE, "1"), GOLDEN)
    for told, enough in ((behaviour(), True), (behaviour(("i1", "i2")), False)):
        new = release(artefact(BUNDLE, "2"), GOLDEN, behaviour=(told,))
        golden = golden_of(bundle)
        assert golden is not None
        signed = {(told.report_sha256, compared(told, golden).sha256)}
        assert permits("release.publish", bundle, new, signed) is enough
    assert "2 items" in release_changes(bundle, new, signed)[-1].why
    product = release(artefact(PRODUCT, "1"))
    rebuilt = release(artefact(PRODUCT, "2"), provenance={"x": "4" * 64})
    assert permits("release.publish", product, rebuilt, {("4" * 64, "2" * 64)})
    assert not permits("release.other", product, product)
    for same in (bundle, product, release(artefact(GATEWAY, "1", {}))):
        assert release_changes(same, same) == ()
        assert permits("release.emergency", same, same)


def test_a_memory_begins_once_and_its_loss_is_told(tmp_path: Path) -> None:
    """A second beginning, a lost one, a damaged one and a disk that refuses."""
    path = tmp_path / "memory.json"
    with pytest.raises(ReleaseError, match="is lost"):
        read_memory(path)
    begin_memory(path, origin="o", channel="c")
    assert read_memory(path) == Seen("o", "c", 0, 0, "")
    with pytest.raises(ReleaseError, match="already"):
        begin_memory(path, origin="o", channel="c")
    path.write_bytes(b"{")
    with pytest.raises(ReleaseError, match="damaged"):
        read_memory(path)
    with pytest.raises(ReleaseError, match="can't be written"):
        write_memory(tmp_path / "none" / "memory.json", Seen("o", "c", 0, 0, ""))


SETTINGS = 'log="l"\nlog_keys="k"\nchannel="c"\ndocuments="d"\nmemory="m"\n'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "No such file"),
        (b"\xff", "releases.toml"),
        (b"= 1", "releases.toml"),
        (b'log = "x"', "releases.toml"),
        (SETTINGS.encode() + b"other = 1", "releases.toml"),
        (SETTINGS.encode() + b"max_age_s = 0", "max_age_s"),
    ],
)
def test_settings_of_releases_that_are_none_are_refused(
    tmp_path: Path, text: bytes | None, said: str
) -> None:
    """Gone, no TOML, a member that lacks, one that is unknown, an age out of range."""
    path = tmp_path / "releases.toml"
    if text is not None:
        path.write_bytes(text)
    with pytest.raises(ConfigError, match=said):
        read_release_settings(path)
    path.write_text(SETTINGS)
    assert read_release_settings(path).log == str(tmp_path / "l")
