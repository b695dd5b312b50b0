"""Every screen for everybody: axe, dark and light, narrow and zoomed, and without JavaScript."""

import hashlib
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safehold.console.route_table import SCREENS

if TYPE_CHECKING:
    from tests.console.browser.conftest import Browser, House

AXE = Path(__file__).parent.parent / "vendor" / "axe.min.js"
AXE_SHA256 = "29348999450cdf2849a8e70b7912fc2da85a849da39c0d0d5394f51d4a9ed95c"
"""axe-core 4.14.1 (MPL-2.0), as npm has it."""

_STILL = {"name": "prefers-reduced-motion", "value": "reduce"}
DARK = {"features": [{"name": "prefers-color-scheme", "value": "dark"}, _STILL]}
LIGHT = {"features": [{"name": "prefers-color-scheme", "value": "light"}, _STILL]}
SHORT = """
document.querySelectorAll("tbody tr:nth-child(n+4)").forEach((one) => one.remove());
document.querySelectorAll("main section.card:nth-of-type(n+7)").forEach((one) => one.remove());
"""
"""Rows and cards that are like those before them are left out: axe takes its time for each."""


def pages(house: "House") -> list[str]:
    """Return the address of every screen, filled with what exists, and of the doors."""
    stage = house.stage
    case = house.case("d10", severity=0)
    asked = stage.enclave.ask("Jonas Lind", purpose=f"Load it, {case}")
    stage.enclave.time = int(time.time())
    stage.enclave.file(asked)
    item = stage.sources.cases.case(case, "x").items[0].item
    holes = {"case": str(case), "item": str(item), "decision_id": "d1", "request": asked.sha256,
             "tenant": "bakery", "key": "app", "run": "one.jsonl", "number": "1",
             "index": "3"}  # fmt: skip
    return ["/login", "/enrol", "/bounty/submit", *(one.path.format(**holes) for one in SCREENS)]


def axe(browser: "Browser", rules: dict[str, Any]) -> list[str]:
    """Return what axe finds serious or critical on the open page."""
    if not browser.driver.execute_script("return Boolean(window.axe)"):
        browser.driver.execute_script(AXE.read_text("utf-8"))
    found = browser.driver.execute_async_script(
        "const done = arguments[1]; axe.run(document, arguments[0]).then("
        "(all) => done(all.violations),"
        "(error) => done([{id: String(error), impact: 'critical', nodes: []}]));",
        {"resultTypes": ["violations"], **rules},
    )
    return [
        f"{one['id']}: {[node['html'][:120] for node in one['nodes'][:3]]}"
        for one in found
        if one["impact"] in {"serious", "critical"}
    ]


def test_axe_is_the_reviewed_one() -> None:
    """The file that judges has its digest."""
    assert hashlib.sha256(AXE.read_bytes()).hexdigest() == AXE_SHA256


def test_axe_finds_nothing_serious_light_and_dark(house: "House", browser: "Browser") -> None:
    """0 serious or critical on every screen; in the dark, colours again."""
    browser.be("Ada Novak")
    wrong = {}
    for path in pages(house):
        browser.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", LIGHT)
        browser.open(path)
        browser.driver.execute_script(SHORT)
        found = axe(browser, {})
        browser.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", DARK)
        found += axe(browser, {"runOnly": ["color-contrast"]})
        browser.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", LIGHT)
        if found:
            wrong[path] = found
    assert wrong == {}


def test_narrow_and_zoomed_pages_fit(house: "House", browser: "Browser") -> None:
    """At 1,024 px, there at 200 %, and on a phone, no page scrolls sideways; a table may."""
    browser.be("Ada Novak")
    wide = """
    const page = document.documentElement;
    if (page.scrollWidth <= page.clientWidth) return null;
    const over = [...document.querySelectorAll("main *")].filter((one) =>
      !one.closest(".scroll") && one.getBoundingClientRect().right > page.clientWidth);
    return over.map((one) => one.outerHTML.slice(0, 80)).slice(-3);
    """
    wrong = []
    for path in pages(house):
        browser.open(path)
        for width in (1024, 512, 375):
            size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": False}
            browser.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
            over = browser.driver.execute_script(wide)
            if over is not None:
                wrong.append((path, width, over))
    assert wrong == []


def test_pages_are_read_without_javascript(house: "House", browser: "Browser") -> None:
    """Each screen's heading, facts and charts' numbers are there without a script."""
    browser.be("Ada Novak")
    browser.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        for path in pages(house)[3:]:
            browser.open(path)
            assert browser.text("h1")
            assert len(browser.text("main")) > 40, path
        browser.open("/")
        assert browser.text("table[data-chart]")
    finally:
        browser.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
