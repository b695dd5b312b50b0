"""Cases: opened once from labels, alarms and the log, told once over each channel."""

import hashlib
import hmac
import json
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib import resources
from pathlib import Path

import msgspec
import pytest

from safehold.detect.monitoring.account_book import KeptLabel
from safehold.detect.monitoring.campaigns import Campaign
from safehold.detect.monitoring.cases import sources
from safehold.detect.monitoring.cases.book import CaseBook
from safehold.detect.monitoring.cases.channels import MailCommand, OtlpLogs, Webhook, tell_all
from safehold.detect.monitoring.cases.interface import PLAYBOOKS, Finding, MonitorCase
from safehold.detect.monitoring.tables import MonitorStore
from safehold.errors import ConfigError, UsageError
from safehold.guard.gateway.operate.metrics import Metrics
from safehold.guard.ledger.interface import EventKind, EventRow
from safehold.guard.ledger.reader import LedgerReader
from safehold.testing.ledger import NOW
from safehold.testing.monitoring import fill, kept
from safehold.testing.trust import Enclave
from safehold.trust.log.files import DirectorySource
from safehold.trust.log.log_entries import Record


@contextmanager
def listening(status: int = 200) -> Iterator[tuple[str, list[tuple[dict[str, str], bytes]]]]:
    """Serve one address; collect what is posted there."""
    got: list[tuple[dict[str, str], bytes]] = []

    class Hook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            got.append(({name.lower(): text for name, text in self.headers.items()}, body))
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            return

    server = HTTPServer(("127.0.0.1", 0), Hook)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", got
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def book(tmp_path: Path) -> CaseBook:
    """A book with one case of each severity."""
    book = CaseBook(MonitorStore.open(str(tmp_path / "m.db")))
    for number, kind in enumerate((Finding.INCIDENT, Finding.DENIALS, Finding.DECOY), start=2):
        case = MonitorCase(
            key=f"k{number}", kind=kind, title=f"case {number}", severity=number, opened_at=NOW
        )
        assert book.open([case]) == [case]
        assert book.open([case]) == []
    return book


def test_a_label_or_campaign_opens_one_case_and_a_new_one_another() -> None:
    """The key is the thing's own: seen again it is the same, begun anew it is another."""
    label = KeptLabel(
        account="t/eve", label="search-walk", reason="9 of 20", evidence=("d",), since=NOW,
        expires=NOW + 9, queries=20,
    )  # fmt: skip
    (one,) = sources.of_labels([label])
    (later,) = sources.of_labels([msgspec.structs.replace(label, since=NOW + 100)])
    assert (one.kind, one.evidence) == (Finding.ACCOUNT_LABEL, ("d",))
    assert one.key != later.key
    small = Campaign(decision_ids=("a", "b"), accounts=("x", "y"), stopped=2, shared=("01", "02"),
                     alarm=True)  # fmt: skip
    grown = msgspec.structs.replace(small, decision_ids=("a", "b", "c"))
    keys = {one.key for one in sources.of_campaigns([small, grown], now=NOW)}
    assert len(keys) == 1
    assert not list(sources.of_campaigns([msgspec.structs.replace(small, alarm=False)], now=NOW))


def test_the_gateways_alarms_open_a_case_a_day(tmp_path: Path) -> None:
    """Two alarms of a kind on a day are one case; nothing is read twice; other events are none."""
    store, url = MonitorStore.open(str(tmp_path / "m.db")), str(tmp_path / "l.db")
    fill(url, [("a", "hello", False)])
    refused = {"alarm": "hot-rules-refused", "reason": "forged"}
    kept(url, *(EventRow(at=NOW + n, kind=EventKind.ALARM, detail=refused) for n in (0, 9)),
         EventRow(at=NOW, kind=EventKind.START, detail={}))  # fmt: skip
    reader, book = LedgerReader.open(url), CaseBook(store)
    news = sources.of_ledger(store, reader)
    (found,) = book.open(news.cases, news.cursor)
    assert (found.kind, found.facts["reason"]) == (Finding.GATEWAY_ALARM, "forged")
    assert sources.of_ledger(store, reader).cases == ()


def test_leaves_of_the_enclave_open_cases_and_a_rolled_back_log_too(tmp_path: Path) -> None:
    """Closures, denials and decoys by their leaves; fewer leaves than before is a fork."""
    enclave = Enclave(tmp_path / "log", now=int(time.time()) - 100)
    store, keys = MonitorStore.open(str(tmp_path / "m.db")), enclave.desk.store.keys
    source, now, book = DirectorySource(tmp_path / "log"), time.time(), CaseBook(store)
    first = sources.of_log(store, source, keys, now=now)
    assert book.open(first.cases, first.cursor) == []
    rows = (
        ("incident", {"event": "decoy-touched", "host": "gpu-1", "lure": "weights"}),
        ("incident", {"event": "egress-close", "flow": "replies"}),
        ("exec-deny", {"host": "gpu-1", "refused": "3"}),
        ("note", {"event": "egress-apply"}),
    )
    for kind, facts in rows:
        enclave.desk.record(Record(time=enclave.time, kind=kind, facts=facts, digests={}))
    news = sources.of_log(store, source, keys, now=now)
    found = book.open(news.cases, news.cursor)
    assert [one.kind for one in found] == [Finding.DECOY, Finding.EGRESS, Finding.DENIALS]
    assert [one.severity for one in found] == [4, 4, 2]
    assert sources.of_log(store, source, keys, now=now).cases == ()
    other = Enclave(tmp_path / "other", now=int(time.time()) - 100)
    (fork,) = sources.of_log(store, DirectorySource(other.root), keys, now=now).cases
    assert (fork.kind, fork.severity) == (Finding.LOG_FORK, 4)


def test_a_webhook_is_told_once_and_its_signature_holds(book: CaseBook, tmp_path: Path) -> None:
    """A refusal leaves the case untold; what was taken is not told again; closed ones never."""
    key = tmp_path / "hook.key"
    key.touch(mode=0o600)
    key.write_bytes(b"k" * 40)
    book.close("k3", by="ann", now=NOW)
    with listening(status=503) as (url, got):
        count, why = tell_all(book, Webhook(url, key))
        assert (count, len(got)) == (0, 1)
        assert "503" in (why or "")
    with listening() as (url, got):
        hook = Webhook(url, key)
        assert tell_all(book, hook) == (2, None)
        assert tell_all(book, hook) == (0, None)
    headers, body = got[0]
    message = headers["x-safehold-time"].encode() + b"." + body
    mark = hmac.new(b"k" * 40, message, hashlib.sha256).hexdigest()
    assert headers["x-safehold-signature"] == mark
    assert json.loads(body)["playbook"]
    with pytest.raises(UsageError):
        book.close("k3", by="ann", now=NOW)


def test_a_collector_gets_log_records_of_opentelemetry(book: CaseBook) -> None:
    """Time, severity and name are where the Logs Data Model has them."""
    with listening() as (url, got):
        assert tell_all(book, OtlpLogs(url)) == (3, None)
    records = [
        json.loads(body)["resourceLogs"][0]["scopeLogs"][0]["logRecords"][0] for _, body in got
    ]
    worst = next(one for one in records if one["severityText"] == "FATAL")
    assert worst["severityNumber"] == 21
    assert worst["eventName"] == "safehold.case.decoy-touched"
    assert int(worst["timeUnixNano"]) == int(NOW * 1e9)


def test_a_mail_command_gets_a_mail_and_its_failure_is_told(book: CaseBook, tmp_path: Path) -> None:
    """The mail has its receiver, title and playbook; a title can't add a header."""
    out = tmp_path / "mails"
    case = MonitorCase(key="x", kind=Finding.DECOY, title="a touch", severity=4, opened_at=NOW)
    book.open([case])
    program = f"import sys; open({str(out)!r}, 'a').write(sys.stdin.read())"
    mail = MailCommand(f'{sys.executable} -c "{program}"', "duty@example.org")
    assert tell_all(book, mail) == (4, None)
    text = out.read_text()
    assert "To: duty@example.org" in text
    assert PLAYBOOKS[Finding.DECOY][0] in text
    broken = MailCommand(f'{sys.executable} -c "raise SystemExit(3)"', "b@example.org")
    assert tell_all(book, broken)[1] == "mail: the command ended with status 3"
    for command, to in (("", "a@b"), ("true", ""), ("true", "a@b\nBcc: c@d")):
        with pytest.raises(ConfigError):
            MailCommand(command, to)


def test_every_finding_has_a_playbook_and_every_alert_a_metric_of_ours() -> None:
    """No case without a first step; no rule over a metric that the gateway does not have."""
    assert set(PLAYBOOKS) == set(Finding)
    assert all(PLAYBOOKS.values())
    place = resources.files("safehold.detect.monitoring.cases") / "rules.yml"
    rules = msgspec.yaml.decode(place.read_text("utf-8"))["groups"][0]["rules"]
    assert len(rules) >= 5
    known = {metric.name for metric in Metrics().registry.collect()}
    for rule in rules:
        words = rule["expr"].replace("(", " ").replace("[", " ").replace("{", " ").split()
        named = {word.removesuffix("_total") for word in words if word.startswith("safehold_")}
        assert named
        assert named <= known, rule["alert"]
