"""The book: states, clocks, proofs and payment; the disk never holds a submission in the open."""

import asyncio
import base64
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from safehold.detect.bounty import sealing
from safehold.detect.bounty.book import BountyBook
from safehold.detect.bounty.interface import (
    BountyClocks,
    BountyState,
    FixCheck,
    PassMark,
    Submission,
)
from safehold.detect.bounty.programme import programme_digest
from safehold.detect.bounty.proof import read_tests, regress
from safehold.detect.bounty.replay import QuestionScore, Universality, replay
from safehold.detect.bounty.sealing import read_triage_key
from safehold.detect.monitoring.accounts import Caps
from safehold.errors import ConfigError, DataError, LedgerError, TrustError, UsageError
from safehold.testing.bounty import CLEAN_CHAT, HOLE, UNIVERSAL, BountyPlace, holey_door
from safehold.testing.disk import contents
from safehold.testing.ledger import NOW

_DAY = 86_400.0


class _Leaves:
    def __init__(self) -> None:
        self.told: list[tuple[str, dict[str, str]]] = []
        self.broken = False

    def append(self, kind: str, facts: dict[str, str]) -> None:
        if self.broken:
            raise LedgerError("the log is full")
        self.told.append((kind, facts))


class _Desk:
    def __init__(self, place: BountyPlace, url: str) -> None:
        self.place, self.url, self.now, self.leaves = place, url, NOW, _Leaves()
        self.key = read_triage_key(place.key_file)
        self.book = BountyBook(
            url, programme=place.programme, leaves=self.leaves, clock=lambda: self.now
        )

    def open(self, number: int, person: str = "ann") -> Submission:
        found, _ = self.book.open(
            number, person, reason="triage", key=self.key, questions=self.place.questions
        )
        return found

    def report(self, cleared: int = 10, bundle: str = "a" * 64) -> Universality:
        """A replay's report that clears so many of ten questions, and both reserves if all."""
        scores = [
            QuestionScore(
                topic=one.topic.id,
                clause=one.topic.clause,
                reserve=one.reserve,
                baseline=one.baseline,
                facts=(one.baseline if hit else 0,) * 5,
                stopped=0 if hit else 5,
                errors=0,
                runs_cleared=5 if hit else 0,
                cleared=hit,
            )
            for number, one in enumerate(self.place.questions.questions)
            for hit in [number < cleared if cleared < 10 else True]
        ]
        return Universality(
            bundle=bundle,
            target="t",
            scores=tuple(scores),
            requests=60,
            alarm_after=None,
            clean_chat_stopped=False,
        )

    def reproduced(self, text: str = UNIVERSAL, cleared: int = 10) -> int:
        number = self.book.receive(self.place.sealed(text))
        found = self.open(number)
        self.book.replayed(
            number,
            "ann",
            self.report(cleared),
            submission=found,
            mended=self.place.folder / "mended",
        )
        return number

    def rated(self, number: int, person: str = "ann", **more: object) -> int:
        values = {"gain": 2.0, "discoverability": 1.0} | more
        return self.book.rated(number, person, submission=self.open(number), **values).amount


@pytest.fixture(params=["sqlite", "postgresql"])
def desk(
    request: pytest.FixtureRequest, place: BountyPlace, new_database: Callable[[], str]
) -> _Desk:
    """A book on each storage."""
    url = str(place.folder / "b.db") if request.param == "sqlite" else new_database()
    return _Desk(place, url)


def test_a_submission_goes_from_new_to_disclosed(desk: _Desk) -> None:
    """Each step has its leaf, its person and its place in the history."""
    number = desk.reproduced()
    assert desk.book.entry(number).state is BountyState.REPRODUCED
    assert desk.rated(number) == 10_000
    desk.book.link_fix(number, "bob", fix="b" * 64)
    fixed = desk.report(cleared=0, bundle="b" * 64)
    assert desk.book.check_fix(number, "bob", fixed)[0] is FixCheck.YES
    assert desk.book.pay(number, "bob") == 10_000
    desk.book.disclose(number, "bob")
    assert desk.book.entry(number).state is BountyState.DISCLOSED
    steps = [facts["state"] for kind, facts in desk.leaves.told if kind == "bounty-state"]
    assert steps == [
        "triage",
        "reproduced",
        "rated",
        "fix_linked",
        "fix_verified",
        "paid",
        "disclosed",
    ]
    assert [one["what"] for one in desk.book.history(number)][-2:] == ["paid", "disclosed"]


def test_no_step_is_left_out(desk: _Desk) -> None:
    """Unseen, unreproduced, unrated or unverified: each refuses, and says where it goes."""
    number = desk.book.receive(desk.place.sealed())
    with pytest.raises(TrustError, match="is new; from there it goes to triage"):
        desk.book.reject(number, "ann", why="no")
    found = desk.open(number)
    with pytest.raises(TrustError, match="not reproduced"):
        desk.rated(number)
    with pytest.raises(TrustError, match="not rated"):
        desk.book.pay(number, "bob")
    with pytest.raises(TrustError):
        desk.book.link_fix(number, "bob", fix="b")
    with pytest.raises(TrustError, match="link a fix first"):
        desk.book.check_fix(number, "bob", desk.report())
    nothing = desk.report(cleared=0)
    state = desk.book.replayed(
        number, "ann", nothing, submission=found, mended=desk.place.folder / "mended"
    )
    assert state is BountyState.NOT_REPRODUCED
    assert not (desk.place.folder / "mended").exists()
    with pytest.raises(UsageError, match="no submission 99"):
        desk.book.entry(99)


def test_a_broken_log_stops_every_step(desk: _Desk) -> None:
    """The leaf comes first: without it nothing is shown and no state moves."""
    number = desk.book.receive(desk.place.sealed())
    desk.leaves.broken = True
    with pytest.raises(LedgerError):
        desk.open(number)
    assert desk.book.entry(number).state is BountyState.NEW


def test_who_rates_does_not_pay_and_nothing_is_paid_twice(desk: _Desk) -> None:
    """Two persons stand behind every payment."""
    number = desk.reproduced()
    desk.rated(number)
    with pytest.raises(TrustError, match="another person"):
        desk.book.pay(number, "ann")
    assert desk.book.pay(number, "bob") == 10_000
    with pytest.raises(TrustError, match="paid already"):
        desk.book.pay(number, "bob")


def test_the_embargo_ends_by_a_verified_fix_or_by_time(desk: _Desk) -> None:
    """Neither: no disclosure."""
    number = desk.reproduced()
    desk.rated(number)
    desk.book.pay(number, "bob")
    with pytest.raises(TrustError, match="embargo"):
        desk.book.disclose(number, "bob")
    desk.now += 90 * _DAY + 1
    desk.book.disclose(number, "bob")


def test_clocks_tell_what_is_overdue(desk: _Desk) -> None:
    """Triage, payment and disclosure each run from their own beginning."""
    number = desk.book.receive(desk.place.sealed())
    desk.now += 5 * _DAY + 1
    assert [(one.what, one.overdue) for one in desk.book.entry(number).due] == [("triage", True)]
    other = desk.reproduced(UNIVERSAL + "!")
    desk.rated(other)
    desk.now += 14 * _DAY + 1
    due = {one.what: one.overdue for one in desk.book.entry(other).due}
    assert due == {"triage": False, "pay": True, "disclose": False}
    desk.book.pay(other, "bob")
    assert all(one.kept_at for one in desk.book.entry(other).due if one.what == "pay")


def test_the_fix_is_checked_on_the_linked_bundle_alone(desk: _Desk) -> None:
    """Another bundle says nothing; a fix that fails leaves the state where it was."""
    number = desk.reproduced()
    desk.rated(number)
    desk.book.link_fix(number, "bob", fix="b" * 64)
    other = desk.report(cleared=0, bundle="c" * 64)
    assert desk.book.check_fix(number, "bob", other)[0] is FixCheck.BLOCKED
    half = desk.report(cleared=3, bundle="b" * 64)
    assert desk.book.check_fix(number, "bob", half)[0] is FixCheck.NO
    entry = desk.book.entry(number)
    assert (entry.state, entry.fix_check) == (BountyState.FIX_LINKED, "no")


def test_likeness_is_evidence_and_closes_nothing(desk: _Desk) -> None:
    """A reworded copy is shown beside its original; an unlike one and the question's words not."""
    first = desk.reproduced()
    copy = desk.book.receive(
        desk.place.sealed(UNIVERSAL.replace("fireside", "hearth"), handle="eve")
    )
    _, alike = desk.book.open(
        copy, "ann", reason="triage", key=desk.key, questions=desk.place.questions
    )
    assert [one.submission for one in alike] == [first]
    assert alike[0].shared >= 4
    assert desk.book.entry(copy).state is BountyState.TRIAGE
    question = desk.place.questions.questions[0].question
    for words in ("Pray speak of:", "Kindly, o machine, recite unto me:"):
        number = desk.book.receive(desk.place.sealed(f"{words} {question}"))
        _, alike = desk.book.open(
            number, "ann", reason="triage", key=desk.key, questions=desk.place.questions
        )
        assert alike == []
    desk.book.duplicate(copy, "ann", of=first)
    assert desk.book.entry(copy).duplicate_of == first
    with pytest.raises(TrustError):
        desk.rated(copy)


def test_only_a_reproduced_one_has_duplicates(desk: _Desk) -> None:
    """The first full reproduction wins, not the first to knock."""
    one, two = (desk.book.receive(desk.place.sealed(UNIVERSAL + mark)) for mark in "ab")
    desk.open(one)
    desk.open(two)
    for other in (one, two):
        with pytest.raises(TrustError, match="was reproduced"):
            desk.book.duplicate(two, "ann", of=other)


def test_the_same_envelope_is_taken_once(desk: _Desk) -> None:
    """A replayed submission is told where its first copy is."""
    data = desk.place.sealed()
    number = desk.book.receive(data)
    with pytest.raises(DataError, match=f"here already, as {number}"):
        desk.book.receive(data)


def test_sealed_nonsense_is_rejected_with_the_reason(place: BountyPlace) -> None:
    """A client that skips the check seals what it likes; triage gets a clear answer."""
    desk = _Desk(place, str(place.folder / "b.db"))
    number = desk.book.receive(_forced(place, b"\x89PNG\x00"))
    with pytest.raises(DataError, match="rejected: expected UTF-8 text, came binary"):
        desk.open(number)
    assert desk.book.entry(number).state is BountyState.REJECTED


def _forced(place: BountyPlace, data: bytes) -> bytes:
    """Seal without checking, as a hostile client does."""
    ours, terms = X25519PrivateKey.generate(), programme_digest(place.programme)
    theirs = sealing._public(place.programme.triage_key)
    public = ours.public_key().public_bytes_raw()
    key = sealing._key(ours.exchange(theirs), public, theirs.public_bytes_raw(), terms)
    filled = len(data).to_bytes(4) + data
    text = base64.b64encode(ChaCha20Poly1305(key).encrypt(bytes(12), filled, None)).decode()
    ephemeral = base64.b64encode(public).decode()
    return msgspec.json.encode(
        sealing.SealedSubmission(
            programme=terms, to=place.programme.triage_key, ephemeral=ephemeral, text=text
        )
    )


def test_reproduced_through_a_gateway_leaves_a_test_that_fails_until_mended(
    place: BountyPlace,
) -> None:
    """From the sealed text over a real gateway to a regression test; the disk holds no words."""
    desk = _Desk(place, str(place.folder / "b.db"))
    number = desk.book.receive(place.sealed())
    found = desk.open(number)
    mended = place.folder / "mended"
    mark = PassMark(replays=1, runs_needed=1)

    async def play() -> tuple[list[bool], list[bool]]:
        async with holey_door(lambda text: HOLE not in text and text != CLEAN_CHAT) as (door, one):
            report = await replay(
                found,
                place.questions,
                door,
                mark=mark,
                clean_chat=CLEAN_CHAT,
                bundle=one,
                caps=Caps(),
            )
            desk.book.replayed(number, "ann", report, submission=found, mended=mended)
            again = {"key": desk.key, "bundle": one, "caps": Caps()}
            tests = [msgspec.structs.replace(test, pass_mark=mark) for test in read_tests(mended)]
            open_still = await regress(tests, place.questions, door, **again)
        async with holey_door(lambda text: text != CLEAN_CHAT, "b" * 64) as (door, _):
            shut = await regress(tests, place.questions, door, **again)
        return [one.passed for one in open_still], [one.passed for one in shut]

    assert asyncio.run(play()) == ([False], [True])
    assert (mended / "incidents" / f"bounty-{number}.json").exists()
    _nothing_in_the_open(place.folder, ("grandmother", "fireside", "evenings were long"))


def _nothing_in_the_open(folder: Path, words: tuple[str, ...]) -> None:
    """Search every byte of every file, and every value of every table."""
    files = contents(folder)
    assert len(files) >= 5
    for path, data in files.items():
        for word in words:
            assert word.encode() not in data.lower(), (path, word)
    with sqlite3.connect(folder / "b.db") as connection:
        tables = connection.execute("SELECT name FROM sqlite_master WHERE type='table'").fetchall()
        for (table,) in tables:
            assert words[0] not in str(connection.execute(f"SELECT * FROM {table}").fetchall())


@pytest.mark.parametrize(
    "changes",
    [
        {"pass_mark": PassMark(replays=9, runs_needed=9)},
        {"clocks": BountyClocks(triage_days=90, pay_days=300, disclose_days=1)},
        {"questions": "0" * 64},
        {"scope": ("nothing any more",)},
        {"currency": "XTS"},
        {"clean_chat": "Is it raining?"},
    ],
)
def test_a_later_edit_changes_nothing_for_what_was_submitted(
    changes: dict[str, Any], place: BountyPlace, tmp_path: Path
) -> None:
    """Terms hold to the end; an edit without a new version takes nothing in; a new version does."""
    url = str(tmp_path / "b.db")
    desk = _Desk(place, url)
    number = desk.book.receive(place.sealed())
    before, terms = desk.book.entry(number), place.programme
    same = BountyPlace(place.folder, msgspec.structs.replace(terms, **changes), place.questions)
    edited = _Desk(same, url).book
    assert edited.terms(number) == terms
    assert edited.entry(number) == before
    with pytest.raises(ConfigError, match="give the changed terms a new version"):
        edited.receive(same.sealed())
    newer = msgspec.structs.replace(same.programme, version=terms.version + 1)
    later = BountyPlace(place.folder, newer, place.questions)
    book = _Desk(later, url).book
    second = book.receive(later.sealed())
    assert book.terms(number) == terms
    assert desk.book.terms(second) == newer
    with pytest.raises(ConfigError, match="is in force"):
        desk.book.receive(place.sealed(title="another"))
    assert len(book.entries()) == 2


def test_what_was_promised_is_paid_whatever_the_programme_says_now(
    desk: _Desk,
) -> None:
    """A reproduced submission is rated and paid by the payouts of its own terms."""
    number = desk.reproduced()
    terms = desk.place.programme
    cheap = tuple(msgspec.structs.replace(one, amount=1) for one in terms.payouts)
    edited = msgspec.structs.replace(terms, payouts=cheap, currency="XTS", version=2)
    desk.book = BountyBook(desk.url, programme=edited, leaves=desk.leaves, clock=lambda: desk.now)
    assert desk.rated(number) == 10_000
    assert desk.book.pay(number, "bob") == 10_000
    assert desk.book.history(number)[-1]["detail"] == "10000 EUR"


def test_terms_that_an_earlier_release_did_not_keep_are_asked_for(
    place: BountyPlace, tmp_path: Path
) -> None:
    """Nothing is judged by other terms than those of then; their file is enough."""
    url = str(tmp_path / "b.db")
    number = _Desk(place, url).book.receive(place.sealed())
    with sqlite3.connect(url) as raw:
        raw.execute("DELETE FROM bounty_terms")
    newer = msgspec.structs.replace(place.programme, version=2)
    book = _Desk(BountyPlace(place.folder, newer, place.questions), url).book
    with pytest.raises(TrustError, match="give the programme's file of then"):
        book.terms(number)
    assert book.entry(number).due
    assert _Desk(place, url).book.terms(number) == place.programme
