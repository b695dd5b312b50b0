"""The monitor's screen and its place in the API: open cases with playbooks, and coverage."""

from pathlib import Path

from starlette.testclient import TestClient

from safehold.console.demo.stage import CAST, DemoStage
from safehold.console.route_table import ACTS, SCREENS
from safehold.console.shell.openapi import openapi
from safehold.console.shell.web import COOKIE
from safehold.detect.monitoring.cases.book import CaseBook
from safehold.detect.monitoring.cases.interface import PLAYBOOKS, Finding, MonitorCase
from safehold.detect.monitoring.scan.coverage import scan_coverage
from safehold.detect.monitoring.scan.interface import ScanLimits, ScannerSpec
from safehold.detect.monitoring.scan.work import ScanJob, ScanWorker
from safehold.detect.monitoring.tables import MonitorStore
from safehold.guard.ledger.reader import LedgerReader
from safehold.testing.ledger import NOW
from safehold.testing.monitoring import fill, load_hash_scanner


def test_coverage_counts_what_was_judged_and_what_waits(tmp_path: Path) -> None:
    """One unit of two is done: its exchanges are judged, the others wait."""
    paths = str(tmp_path / "l.db"), str(tmp_path / "m.db")
    fill(paths[0], [("a", f"text {n}", False) for n in range(5)])
    job = ScanJob(*paths, ScannerSpec("hash"), load_hash_scanner, ScanLimits(unit_rows=3))
    worker = ScanWorker(job, "w")
    worker.queue.plan(LedgerReader.open(paths[0]), name="hash")
    assert worker.step()
    (found,) = scan_coverage(MonitorStore.open(paths[1]))
    assert (found.name, found.judged, found.waiting) == ("hash", 3, 2)


def test_the_api_names_the_monitor_with_its_types() -> None:
    """The OpenAPI document has the path, and a schema with the cases' playbooks."""
    document = openapi(SCREENS, ACTS)
    assert "get" in document["paths"]["/api/v1/monitor"]
    schemas = document["components"]["schemas"]
    assert "playbook" in schemas["OpenCase"]["properties"]
    assert "waiting" in schemas["ScannerCoverage"]["properties"]


def test_the_page_and_the_api_say_the_same(tmp_path: Path) -> None:
    """A case in the monitor's database is on the page, escaped, and in the JSON, whole."""
    roles = next(one.roles for one in SCREENS if one.path == "/monitor")
    stage = DemoStage(tmp_path, roles={name: tuple(roles) for name in CAST if name != "watch"})
    title = "<b>a decoy</b> was read"
    case = MonitorCase(key="k/1", kind=Finding.DECOY, title=title, severity=4, opened_at=NOW)
    CaseBook(stage.sources.monitor).open([case])
    login = {"cookie": f"{COOKIE}={stage.token('Ada Novak')}"}
    with TestClient(stage.console(), base_url="http://localhost:8443") as http:
        page = http.get("/monitor", headers=login)
        told = http.get("/api/v1/monitor", headers=login).json()
    assert page.status_code == 200
    assert "&lt;b&gt;a decoy" in page.text
    assert title not in page.text
    assert PLAYBOOKS[Finding.DECOY][0] in page.text
    assert [one["title"] for one in told["cases"]] == [title]
    assert told["cases"][0]["playbook"] == list(PLAYBOOKS[Finding.DECOY])
