"""What comes in: pinned, quarantined, expiring; a feed that lies is refused, kept and counted."""

import hashlib
import http.server
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from safehold.detect.intel.candidate import candidate, trial
from safehold.detect.intel.inbound import read_object, seconds
from safehold.detect.intel.interface import InboundOutcome, InboundState, Tlp
from safehold.detect.intel.stix import EXTENSION, MARKINGS, objects
from safehold.detect.intel.store import IntelStore
from safehold.detect.intel.taxii_client import HttpsWire, pull
from safehold.errors import ConfigError, DataError, LedgerError, TrustError, UpstreamError
from safehold.testing.intel import SHARER, LyingWire, feed, page, says, technique
from safehold.testing.ledger import NOW


class _Leaves:
    def __init__(self) -> None:
        self.told: list[tuple[str, dict[str, str]]] = []
        self.broken = False

    def append(self, kind: str, facts: dict[str, str]) -> None:
        if self.broken:
            raise LedgerError("the log is full")
        self.told.append((kind, facts))


class _Place:
    def __init__(self, url: str) -> None:
        self.now, self.leaves = NOW, _Leaves()
        self.store = IntelStore(url, leaves=self.leaves, clock=lambda: self.now)


@pytest.fixture(params=["sqlite", "postgresql"])
def place(
    request: pytest.FixtureRequest, tmp_path: Path, new_database: Callable[[], str]
) -> _Place:
    """A store on each storage."""
    return _Place(str(tmp_path / "i.db") if request.param == "sqlite" else new_database())


def test_a_feed_that_changes_what_it_said_is_refused_kept_and_counted(place: _Place) -> None:
    """The same version with other content: the first word stands, the second is evidence."""
    place.store.receive(feed(), [says(1)])
    assert place.store.receive(feed(), [says(1, name="another")]) == {InboundOutcome.CHANGED: 1}
    kept = place.store.quarantined()
    assert [msgspec.json.decode(one.value)["name"] for one in kept] == ["something"]
    assert [one["outcome"] for one in place.store.refused()] == ["changed"]
    assert place.store.counts() == {"partners": {"taken": 1, "changed": 1}}


def test_a_replay_is_counted_and_gives_no_new_life(place: _Place) -> None:
    """The same bytes again neither make a second object nor move its end, even after the purge."""
    place.store.receive(feed(), [says(1), says(1)])
    end = place.store.quarantined()[0].expires_at
    place.now += 80 * 86_400
    assert place.store.receive(feed(), [says(1)]) == {InboundOutcome.REPLAYED: 1}
    assert place.store.quarantined()[0].expires_at == end
    place.now += 11 * 86_400
    assert place.store.quarantined() == []
    assert place.store.purge() == 1
    assert place.store.receive(feed(), [says(1)]) == {InboundOutcome.REPLAYED: 1}
    assert place.store.quarantined() == []


def test_an_older_version_is_refused(place: _Place) -> None:
    """A feed can't take back an update by sending the old word."""
    newer = says(1, modified="2026-11-02T00:00:00.000Z")
    assert place.store.receive(feed(), [newer, says(1)]) == {
        InboundOutcome.TAKEN: 1,
        InboundOutcome.REWOUND: 1,
    }


def test_a_flood_stops_at_the_days_allowance(place: _Place) -> None:
    """Beyond it nothing is taken; what is malformed uses it up too; the next day begins anew."""
    small = feed(objects_per_day=10)
    counts = place.store.receive(small, [says(number) for number in range(25)])
    assert counts == {InboundOutcome.TAKEN: 10, InboundOutcome.FLOODED: 15}
    assert len(place.store.quarantined()) == 10
    place.now += 86_400
    counts = place.store.receive(small, [{"id": n} for n in range(10)] + [says(99)])
    assert counts == {InboundOutcome.MALFORMED: 10, InboundOutcome.FLOODED: 1}
    place.now -= 5 * 86_400
    assert place.store.receive(small, [says(98)]) == {InboundOutcome.FLOODED: 1}


def test_a_pull_stops_asking_a_feed_that_floods(place: _Place) -> None:
    """Pages without end are not read to their end."""
    wire = LyingWire(page([says(n) for n in range(20)], more=True, next="n"))
    counts = pull(feed(objects_per_day=10), place.store, wire)
    assert counts[InboundOutcome.FLOODED] == 10
    assert len(wire.asked) == 1


def test_a_feed_that_pages_in_a_circle_is_an_error(place: _Place) -> None:
    """A page that brings nothing new, or `more` without a `next`, leads nowhere."""
    for wire in (
        LyingWire(page([says(1)], more=True, next="n")),
        LyingWire(page([says(1)], more=True)),
    ):
        with pytest.raises(UpstreamError, match="without end"):
            pull(feed(), place.store, wire)
        assert len(wire.asked) <= 2


def test_a_server_that_keeps_one_next_for_all_pages_is_read_to_its_end(place: _Place) -> None:
    """The benign twin: the same `next`, and each page brings something new."""
    pages = [page([says(number)], more=number < 3, next="n") for number in range(4)]
    assert pull(feed(), place.store, LyingWire(*pages)) == {InboundOutcome.TAKEN: 4}


def test_refusals_are_kept_up_to_a_bound_and_counted_beyond(place: _Place) -> None:
    """Evidence does not fill the disk."""
    wide = feed(objects_per_day=5_000)
    place.store.receive(wide, [{"id": n} for n in range(1_200)])
    assert len(place.store.refused()) == 1_000
    assert place.store.counts()["partners"]["malformed"] == 1_200


def test_a_broken_log_takes_nothing(place: _Place) -> None:
    """The leaf comes first."""
    place.leaves.broken = True
    with pytest.raises(LedgerError):
        place.store.receive(feed(), [says(1)])
    assert place.store.quarantined() == []


def test_a_second_pull_asks_for_what_is_new(place: _Place) -> None:
    """The time of the newest object is remembered only when a pull came to its end."""
    wire = LyingWire(page([says(1)], more=True, next="n"), page([says(2)]))
    assert pull(feed(), place.store, wire) == {InboundOutcome.TAKEN: 2}
    pull(feed(), place.store, wire)
    assert [one.get("added_after") for one in wire.asked] == [
        None,
        None,
        ["2026-11-20T00:00:00.000Z"],
    ]


@pytest.mark.parametrize(
    "data",
    [b"", b"<html>", b"\xff", b'{"objects": 3}', b'{"objects":[' + b"[" * 9000 + b"]" * 9000],
)
def test_an_answer_that_is_none_is_an_error(tmp_path: Path, data: bytes) -> None:
    """HTML, binary, another shape, nesting without end."""
    place = _Place(str(tmp_path / "i.db"))
    with pytest.raises((DataError, UpstreamError)):
        pull(feed(), place.store, LyingWire(data))


def _deep() -> object:
    value: object = 1
    for _ in range(500):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("value", "outcome"),
    [
        (says(1), InboundOutcome.TAKEN),
        (says(1, x_note=1.5), InboundOutcome.TAKEN),
        (says(1, id="indicator--00000000-0000-4000-8000-000000000001"), InboundOutcome.MALFORMED),
        (says(1, id="attack-pattern--1"), InboundOutcome.MALFORMED),
        (says(1, id=3), InboundOutcome.MALFORMED),
        (says(1, spec_version="2.0"), InboundOutcome.MALFORMED),
        (says(1, modified="yesterday"), InboundOutcome.MALFORMED),
        (says(1, modified="2026-02-31T00:00:00Z"), InboundOutcome.MALFORMED),
        (says(1, modified=7), InboundOutcome.MALFORMED),
        (says(1, object_marking_refs="red"), InboundOutcome.MALFORMED),
        (says(1, valid_until="never"), InboundOutcome.MALFORMED),
        (says(1, valid_until="2020-01-01T00:00:00Z"), InboundOutcome.EXPIRED),
        (says(1, big=10**30), InboundOutcome.MALFORMED),
        (says(1, name="x" * 70_000), InboundOutcome.MALFORMED),
        (
            says(1, type="malware", id="malware--00000000-0000-4000-8000-000000000001"),
            InboundOutcome.UNKNOWN,
        ),
        ("text", InboundOutcome.MALFORMED),
        (None, InboundOutcome.MALFORMED),
        ([], InboundOutcome.MALFORMED),
        (_deep(), InboundOutcome.MALFORMED),
    ],
)
def test_each_object_gets_one_outcome(tmp_path: Path, value: object, outcome: object) -> None:
    """Taken, malformed, unknown or expired; nothing raises, all is kept and counted."""
    place = _Place(str(tmp_path / "i.db"))
    assert place.store.receive(feed(), [value]) == {outcome: 1}
    assert len(place.store.refused()) == (outcome is not InboundOutcome.TAKEN)


def test_marks_are_kept_the_strictest_of_them() -> None:
    """An unmarked object has its feed's mark; an unknown mark widens nothing."""

    def tlp(*refs: str) -> Tlp:
        read = read_object(says(1, object_marking_refs=list(refs)), feed(), now=NOW)
        assert not isinstance(read, InboundOutcome)
        return read.tlp

    assert tlp() is Tlp.AMBER_STRICT
    assert tlp(MARKINGS[Tlp.GREEN]) is Tlp.GREEN
    assert tlp(MARKINGS[Tlp.GREEN], MARKINGS[Tlp.RED]) is Tlp.RED
    assert tlp("marking-definition--5e57c739-391a-4eb3-b6be-7d15ca92d5ed") is Tlp.RED
    assert tlp("marking-definition--00000000-0000-4000-8000-000000000000") is Tlp.AMBER_STRICT


def test_everything_expires() -> None:
    """An object's own end may be sooner than the feed's, never later."""
    for until, end in (
        ("2130-01-01T00:00:00Z", NOW + 90 * 86_400),
        (None, NOW + 90 * 86_400),
        ("2030-04-01T00:00:00.000Z", 1_901_232_000.0),
    ):
        more = {} if until is None else {"valid_until": until}
        read = read_object(says(1, **more), feed(), now=NOW)
        assert not isinstance(read, InboundOutcome)
        assert read.expires_at == end


def test_times_are_ordered_as_times() -> None:
    """Fractions of any length compare right; what is no time is none."""
    assert seconds("2026-11-01T00:00:00Z") == seconds("2026-11-01T00:00:00.000Z")
    assert (seconds("2026-11-01T00:00:00.1Z") or "") < (seconds("2026-11-01T00:00:00.11Z") or "")
    assert seconds("2026-11-01 00:00:00") is None


def test_an_object_becomes_a_test_and_nothing_else(place: _Place) -> None:
    """Our own shared technique comes back as questions under its chain; a state has no rule."""
    place.store.receive(feed(), objects([technique()], SHARER))
    found = next(one for one in place.store.quarantined() if one.kind == "attack-pattern")
    test = candidate(found, now=place.now)
    assert test.chain == ("base64",)
    assert trial(test).transforms == ("base64",)
    assert {one.value for one in InboundState} == {"quarantined", "candidate", "tested"}
    with pytest.raises(TrustError, match="expired"):
        candidate(found, now=found.expires_at)


@pytest.mark.parametrize(
    "extension",
    [
        {},
        {"chain": ["rm -rf"]},
        {"chain": "base64"},
        {"sketch": "zz"},
        {"chain": ["base64"] * 4},
        7,
    ],
)
def test_what_suggests_no_test_is_refused(tmp_path: Path, extension: object) -> None:
    """A chain must be of our own transforms; a sketch must be one."""
    place = _Place(str(tmp_path / "i.db"))
    place.store.receive(feed(), [says(1, extensions={EXTENSION: extension})])
    with pytest.raises(DataError):
        candidate(place.store.quarantined()[0], now=place.now)


class _Answers(http.server.BaseHTTPRequestHandler):
    asked = 0

    def do_GET(self) -> None:
        type(self).asked += 1
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'{"objects": [], "more": false}')

    def log_request(self, *said: object) -> None:
        """Say nothing."""


@pytest.fixture
def https(tmp_path: Path) -> Iterator[tuple[int, str]]:
    """A server with a certificate of its own making: its port, and the certificate's digest."""
    key, cert = tmp_path / "k.pem", tmp_path / "c.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    command += ["-nodes", "-days", "2", "-subj", "/CN=feed", "-keyout", str(key), "-out", str(cert)]
    subprocess.run(command, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    server = http.server.HTTPServer(("127.0.0.1", 0), _Answers)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    der = ssl.PEM_cert_to_DER_cert(cert.read_text())
    yield server.server_port, hashlib.sha256(der).hexdigest()
    server.shutdown()
    thread.join()
    server.server_close()


def test_another_certificate_than_the_pinned_one_hears_nothing(
    tmp_path: Path, https: tuple[int, str]
) -> None:
    """The password is not sent, nor any request; the pinned one answers."""
    port, digest = https
    place, root = _Place(str(tmp_path / "i.db")), f"https://127.0.0.1:{port}/r/"
    _Answers.asked = 0
    wrong = feed(api_root=root, tls_sha256="0" * 64, user="u")
    with pytest.raises(TrustError, match="expected the certificate"):
        pull(wrong, place.store, HttpsWire(wrong, "secret"))
    assert _Answers.asked == 0
    right = feed(api_root=root, tls_sha256=digest)
    assert pull(right, place.store, HttpsWire(right)) == {}
    assert _Answers.asked == 1


def test_an_unpinned_server_off_this_machine_is_refused() -> None:
    """No pin, no feed."""
    with pytest.raises(ConfigError, match="tls_sha256"):
        HttpsWire(feed(api_root="https://example.org/r/"))
    with pytest.raises(ConfigError, match="https"):
        HttpsWire(feed(api_root="http://example.org/r/"))
    closed = HttpsWire(feed())
    with pytest.raises(UpstreamError, match="can't be read"):
        closed("GET", "/", None, {})
