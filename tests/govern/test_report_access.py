"""The pages of governance in a real browser: axe finds nothing serious."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium import webdriver

from safehold.govern.controls.engine import run_controls
from safehold.govern.controls.library import stock_catalogue
from safehold.govern.controls.matrix import matrix_html
from safehold.govern.report.build import build_report
from safehold.govern.report.case import read_case
from safehold.govern.report.gather import of_controls, of_log
from safehold.govern.report.interface import Audience, CaseSources, ClaimState, Doubt
from safehold.govern.report.render import report_html
from safehold.testing.hosts import NOW, SITE, healthy

AXE = Path(__file__).parent.parent / "console" / "vendor" / "axe.min.js"
SHORT = "document.querySelectorAll('tbody tr:nth-child(n+6)').forEach((one) => one.remove());"
"""Rows that are like those before them are left out: axe takes its time for each."""


@pytest.fixture(scope="module")
def driver() -> Iterator[webdriver.Chrome]:
    """Give a browser without a window."""
    options = webdriver.ChromeOptions()
    for word in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"):
        options.add_argument(word)
    made = webdriver.Chrome(
        options=options, service=webdriver.ChromeService("/usr/bin/chromedriver")
    )
    try:
        yield made
    finally:
        made.quit()


def pages() -> dict[str, str]:
    """Return the pages: a report with claims in several states, and the matrix of a run."""
    host = healthy().said("nft", "-j", "list", "ruleset", old='"inv": true', new='"inv": false')
    run = run_controls(stock_catalogue(), host, SITE)
    found = [*of_controls(run.results), *of_log(host.reading, NOW)]
    sources = CaseSources(
        at=NOW,
        bundle="",
        evidence={one.id: one for one in found},
        doubts=(Doubt(kind="incident", about=("controls:egr-17",), text="open"),),
    )
    report = build_report(read_case("asl3"), sources, Audience.INTERNAL)
    assert {one.state for one in report.claims} >= {ClaimState.SUPPORTED, ClaimState.UNDERMINED}
    return {
        "report": report_html(report),
        "matrix": matrix_html(stock_catalogue(), run.results, host="h", at=NOW),
    }


@pytest.mark.parametrize("name", ["report", "matrix"])
def test_axe_finds_nothing_serious(driver: webdriver.Chrome, tmp_path: Path, name: str) -> None:
    """0 serious or critical findings on the report and on the matrix."""
    page = tmp_path / "page.html"
    page.write_text(pages()[name], "utf-8")
    driver.get(page.as_uri())
    driver.execute_script(SHORT)
    driver.execute_script(AXE.read_text("utf-8"))
    found = driver.execute_async_script(
        "const done = arguments[0];"
        "axe.run(document, {resultTypes: ['violations']}).then((all) => done(all.violations));"
    )
    bad = [one["id"] for one in found if one["impact"] in {"serious", "critical"}]
    assert bad == []
