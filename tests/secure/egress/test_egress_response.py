"""The ladder only climbs by itself; alerts never stop it."""

import hmac
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import msgspec
import pytest

from safehold.secure.egress.enforcement.audit import ChainedLog
from safehold.secure.egress.interface import StateError
from safehold.secure.egress.watch.alerts import Alert, AlertFile, Webhook, tell
from safehold.secure.egress.watch.metrics import OtelMetrics, TickReading, prometheus_text
from safehold.secure.egress.watch.response import Ladder, Rung, Signals, Step, decide, released

LINE = 1_000


@pytest.mark.parametrize(
    ("size", "level"),
    [(499, None), (500, Rung.WARN), (750, Rung.THROTTLE), (999, Rung.THROTTLE)],
)
def test_residual_climbs_the_ladder(size: int, level: Rung | None) -> None:
    """Half the line warns, three quarters throttle."""
    _, steps = decide(Ladder(), Signals(now=0, line=LINE, residual={"a": size}))
    assert [step.level for step in steps] == ([] if level is None else [level])


def test_whole_line_seals_everything() -> None:
    """The line reached by all flows together seals, though no flow reached it alone."""
    _, steps = decide(Ladder(), Signals(now=0, line=LINE, residual={"a": 600, "b": 400}))
    assert steps[0] == Step(Rung.SEAL, "*", steps[0].reason)


def test_step_is_taken_once_and_never_undone_by_itself() -> None:
    """A calm hour later nothing is loosened and nothing is repeated."""
    ladder, first = decide(Ladder(), Signals(now=0, line=LINE, residual={"a": 800}))
    ladder, again = decide(ladder, Signals(now=1, line=LINE, residual={"a": 800}))
    ladder, calm = decide(ladder, Signals(now=2, line=LINE, residual={"a": 0}))
    assert len(first) == 1
    assert again == calm == ()
    assert ladder.rung["a"] == Rung.THROTTLE
    assert released(ladder, "a").rung == {}


def test_repeated_alarms_warn_throttle_and_block() -> None:
    """One alarm may be chance; the third within a day is not."""
    ladder, levels = Ladder(), []
    for now in (0.0, 1_000.0, 2_000.0):
        ladder, steps = decide(ladder, Signals(now=now, line=LINE, alarms={"a": "cusum"}))
        levels += [step.level for step in steps]
    assert levels == [Rung.WARN, Rung.THROTTLE, Rung.BLOCK]


def test_alarm_after_a_day_counts_anew() -> None:
    """Alarms further apart than a day stay warnings."""
    ladder, _ = decide(Ladder(), Signals(now=0, line=LINE, alarms={"a": "cusum"}))
    _, steps = decide(ladder, Signals(now=90_000, line=LINE, alarms={"a": "cusum"}))
    assert steps == ()


def test_forged_row_blocks_and_tampering_seals() -> None:
    """A false row blocks its flow; a vanished table seals."""
    signals = Signals(now=0, line=LINE, forged={"a": "replayed"}, tampered=("table gone",))
    _, steps = decide(Ladder(), signals)
    assert [(step.level, step.flow) for step in steps] == [(Rung.SEAL, "*"), (Rung.BLOCK, "a")]


class Catcher(BaseHTTPRequestHandler):
    """Keeps what was posted."""

    seen: list[tuple[str, bytes]] = []  # noqa: RUF012 - one server, one test

    def do_POST(self) -> None:
        """Keep the body and its signature."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.seen.append((self.headers["X-Safehold-Signature"], body))
        self.send_response(204)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
        """Stay quiet."""


def test_webhook_is_signed() -> None:
    """The receiver can check that an alert is ours."""
    server = HTTPServer(("127.0.0.1", 0), Catcher)
    thread = threading.Thread(target=server.handle_request)
    thread.start()
    secret = bytes(32)
    alert = Alert(1.0, "block", "replies", "test")
    Webhook(f"http://127.0.0.1:{server.server_port}/hook", secret).send(alert)
    thread.join()
    server.server_close()
    signature, body = Catcher.seen[-1]
    assert signature == "sha256=" + hmac.digest(secret, body, "sha256").hex()
    assert msgspec.json.decode(body, type=Alert) == alert


def test_dead_webhook_stops_nothing(tmp_path: Path) -> None:
    """The file gets its line although the webhook does not answer."""
    path = tmp_path / "alerts.jsonl"
    sinks = [Webhook("http://127.0.0.1:9/"), AlertFile(path)]
    failed = tell([Step(Rung.SEAL, "*", "test")], 1.0, sinks)
    assert failed == ["the webhook did not answer"]
    assert msgspec.json.decode(path.read_bytes(), type=Alert).level == "seal"


@pytest.mark.parametrize("url", ["file:///etc/hosts", "ftp://x/", "http://", "x"])
def test_other_schemes_are_refused(url: str) -> None:
    """A webhook is HTTP."""
    with pytest.raises(StateError):
        Webhook(url)


def test_broken_audit_chain_is_found(tmp_path: Path) -> None:
    """A changed, removed or torn line breaks the chain."""
    log = ChainedLog(tmp_path / "audit.jsonl")
    for number in range(4):
        assert log.append("egress.test", {"n": number}) == number
    lines = log.path.read_bytes().splitlines(keepends=True)
    for bad in (
        [lines[0], lines[2], lines[3]],
        [lines[0].replace(b'"n":0', b'"n":9'), *lines[1:]],
        [*lines[:3], lines[3][:-10]],
    ):
        log.path.write_bytes(b"".join(bad))
        with pytest.raises(StateError):
            list(log.read())
    log.path.write_bytes(b"".join(lines))
    assert len(list(log.read())) == 4


READING = TickReading(
    passed={"replies": 10},
    dropped={"replies": 1},
    remaining={"replies": {"hour": 5}},
    residual={"replies": 2.0},
    rung={"replies": 3},
    undeclared=4,
    line=100,
)


def test_prometheus_shows_every_number() -> None:
    """The text format holds each value with its labels."""
    text = prometheus_text(READING).decode()
    assert 'safehold_egress_passed_bytes{flow="replies"} 10.0' in text
    assert 'safehold_egress_remaining_bytes{flow="replies",window="hour"} 5.0' in text
    assert "safehold_egress_undeclared_bytes 4.0" in text


def test_opentelemetry_shows_the_same_numbers() -> None:
    """Observable gauges read the latest tick."""
    metrics = pytest.importorskip("opentelemetry.metrics")
    source = OtelMetrics(metrics.NoOpMeter("test"), READING)
    observed = source._observer("safehold_egress_passed_bytes")(metrics.CallbackOptions())
    assert [(o.value, dict(o.attributes)) for o in observed] == [(10, {"flow": "replies"})]
