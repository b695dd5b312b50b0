"""People's work in a real Chromium: a review, an approval, a rollback; by mouse and by keyboard."""

import asyncio
import time
from typing import TYPE_CHECKING

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from safehold.detect.review.interface import CaseKind
from safehold.guard.ledger.writer import Ledger
from safehold.testing.trust import person_id

if TYPE_CHECKING:
    from tests.console.browser.conftest import Browser, House

by_both = pytest.mark.parametrize("keyboard", [False, True], ids=["mouse", "keyboard"])


@by_both
def test_a_whole_review(house: "House", browser: "Browser", *, keyboard: bool) -> None:
    """Take, look, judge, see the scores, end the case; nothing is chosen beforehand."""
    decision = "d4" if keyboard else "d7"
    number = house.case(decision, severity=2, kind=CaseKind.FALSE_ALARM)
    browser.be("Ines Pereira")
    browser.open("/review")
    if keyboard:
        browser.keys("n")
    else:
        browser.press("[data-key=N]", keyboard=False)
    browser.until("Closed until you look")
    assert "question" not in browser.text()
    assert not browser.driver.find_elements(By.CSS_SELECTOR, "input[type=radio]:checked")
    assert not browser.driver.find_element(By.CSS_SELECTOR, "[value=permitted]").is_enabled()
    if keyboard:
        browser.keys("r")
    else:
        browser.press("[data-key=R]", keyboard=False)
    browser.until("question 1" if keyboard else "question 4")
    assert "0.9" not in browser.text()
    if keyboard:
        browser.keys("3", Keys.ENTER)
    else:
        browser.driver.find_element(By.CSS_SELECTOR, "[value=permitted]").click()
        browser.driver.find_element(By.CSS_SELECTOR, "form[action$=verdict] button").click()
    shown = browser.until("Your verdict is recorded")
    assert "score 0.900" in shown
    record = house.stage.sources.cases.case(number, person_id("Ines Pereira"))
    assert [one.mine for one in record.items] == ["permitted"]
    if record.items[0].needed > 1:  # drawn for a second review
        return
    if keyboard:
        browser.go_to("#action")
        browser.keys("o", "o")
        browser.press("form[action$=decide] button", keyboard=True)
    else:
        browser.driver.find_element(By.CSS_SELECTOR, "#action option[value=overturn]").click()
        browser.press("form[action$=decide] button", keyboard=False)
    browser.until("is closed")
    assert house.stage.sources.cases.case(number, "x").about.state == "closed"
    assert browser.severe() == []


@by_both
def test_login_and_approval_with_a_passkey(
    house: "House", browser: "Browser", *, keyboard: bool
) -> None:
    """A person logs in with a passkey and approves with a second touch; a login is no approval."""
    name = "Mara Okoye" if keyboard else "Tomas Keller"
    browser.enrol(name)
    house.stage.enclave.time = int(time.time())
    asked = house.stage.enclave.ask("Jonas Lind", purpose="Serve <b>the</b> model & nothing else")
    house.stage.enclave.file(asked)
    browser.open(f"/approvals/{asked.sha256}")
    browser.driver.find_element(By.ID, "name").send_keys(name)
    browser.press("form button", keyboard=keyboard)
    browser.until("Approve exactly this")
    words = browser.text("#words")
    for text in ("Serve <b>the</b> model & nothing else", "weights.load", asked.sha256):
        assert text in words
    assert house.stage.sources.desk.state.case(asked.sha256).approvers == []
    browser.press("#approve", keyboard=keyboard)
    browser.until("Your approval is recorded")
    assert house.stage.sources.desk.state.case(asked.sha256).approvers == [person_id(name)]
    assert house.stage.sources.desk.state.voids == []
    assert browser.severe() == []


def test_the_requester_can_not_approve(house: "House", browser: "Browser") -> None:
    """Who asked sees no button, and is told why."""
    asked = house.stage.enclave.ask("Jonas Lind", purpose="Load it again")
    house.stage.enclave.time = int(time.time())
    house.stage.enclave.file(asked)
    browser.be("Jonas Lind")
    browser.open(f"/approvals/{asked.sha256}")
    assert "Nobody approves their own request" in browser.text()
    assert not browser.driver.find_elements(By.ID, "approve")


@by_both
def test_a_rollback_that_acts(house: "House", browser: "Browser", *, keyboard: bool) -> None:
    """One button returns the running gateway to the bundle before, and its row says so."""
    before = house.link.status().bundle
    name = "two" if "one" in (house.bundles / "one.yaml").read_text() and not keyboard else "one"
    house.link.swap(f"{name}.yaml")
    now = house.link.status()
    assert now.previous == before
    browser.be("Mara Okoye")
    browser.open("/rollout")
    if keyboard:
        browser.keys("R")
    else:
        browser.press("[data-key='Shift R']", keyboard=False)
    browser.until("Rolled back")
    assert house.link.status().bundle == before
    assert "bundle swap" in browser.text()


@by_both
def test_a_promotion_that_a_release_allows(
    house: "House", browser: "Browser", *, keyboard: bool
) -> None:
    """Two of three approvals show no button; with the third one press makes the bundle guard."""
    name = "four" if keyboard else "three"
    house.write(name)
    fresh = house.guard(name)
    house.released.append(fresh)
    asked = house.release(*house.released)
    house.approve(asked, "Ines Pereira", "Wei Zhang")
    before = house.link.status().bundle
    browser.be("Mara Okoye")
    browser.open("/rollout")
    assert "Guard with more" in browser.text()
    wanted = f"button[aria-label='Promote {name}.yaml']"
    assert not browser.driver.find_elements(By.CSS_SELECTOR, wanted)
    house.approve(asked, "Ada Novak")
    browser.open("/rollout")
    browser.press(wanted, keyboard=keyboard)
    browser.until("Promoted")
    assert house.link.status().bundle == fresh.sha256
    house.link.roll_back()
    assert house.link.status().bundle == before
    assert browser.severe() == []


def test_the_response_clock_and_gates_are_shown(browser: "Browser") -> None:
    """Steps that are done, the one that runs, and gates that refuse; never the incident's text."""
    browser.be("Jonas Lind")
    browser.open("/incidents")
    shown = browser.text()
    assert "Response to verse" in shown
    assert "min so far" in shown
    assert "kept apart" not in browser.driver.page_source
    browser.open("/rollout")
    shown = browser.text()
    assert "24 of 24" in shown
    assert "not-measured" in shown
    assert "<b>no</b> data" in shown
    assert "refused" in shown


def test_a_viewer_has_no_rollback(browser: "Browser") -> None:
    """The benign twin: who only looks sees the bundles and no button."""
    browser.be("Jonas Lind")
    browser.open("/rollout")
    assert "guards now" in browser.text()
    assert not browser.driver.find_elements(By.CSS_SELECTOR, "[data-key='Shift R']")


def test_hostile_text_is_inert_and_visible(browser: "Browser") -> None:
    """Markup, bidi, escapes, zero-width, piles, tags, a lone surrogate: shown, and nothing acts."""
    browser.be("Wei Zhang")
    for decision, seen in (("d1", "<script>window.pwned=1</script>"), ("d2", "more characters")):
        browser.open(f"/explore/{decision}")
        browser.driver.find_element(By.ID, "reason").send_keys("<i>look</i>\u202e")
        browser.press("form[action$=open] button", keyboard=False)
        shown = browser.until(seen)
        assert "<i>look</i>\\u{202e}" in shown
        if decision == "d1":
            for mark in ("\\u{202e}", "\\u{1b}", "\\u{200b}", "\\u{2066}", "\\u{e0041}",
                         "\\u{d800}", "\\u{301}", "{{7*7}}", "<img src=x"):  # fmt: skip
                assert mark in shown, mark
        assert browser.driver.execute_script("return window.pwned") is None
        made = "main img, main script, main a[href^=java]"
        assert browser.driver.find_elements(By.CSS_SELECTOR, made) == []
        wide = "return document.documentElement.scrollWidth - innerWidth"
        assert browser.driver.execute_script(wide) <= 0
    browser.open("/explore?account=%3Cscript%3Ewindow.pwned=3%3C/script%3E")
    browser.until("Nothing matches")
    browser.open("/?told=%3Cimg%20src%3Dx%20onerror%3Dpwned%3E")
    assert "<img src=x onerror=pwned>" in browser.until("Overview")
    assert browser.driver.execute_script("return window.pwned") is None


def test_injected_scripts_and_markup_are_stopped(browser: "Browser") -> None:
    """Were a text to slip through unescaped, the policy stops it: inline code and TrustedHTML."""
    browser.be("Wei Zhang")
    browser.open("/explore/d1")
    tried = """
    const done = {};
    try { document.body.insertAdjacentHTML("beforeend", "<b>x</b>"); done.html = 1; }
    catch (error) { done.html = error.name; }
    const script = document.createElement("script");
    try { script.textContent = "window.pwned = 4"; document.body.append(script); }
    catch (error) { done.script = error.name; }
    return [done.html, done.script ?? "kept out", window.pwned ?? null];
    """
    html, _, pwned = browser.driver.execute_script(tried)
    assert html == "TypeError"
    assert pwned is None


@by_both
def test_a_bounty_submission(house: "House", browser: "Browser", *, keyboard: bool) -> None:
    """A stranger without a login sends a report; it is kept sealed, and triage sees a new one."""
    before = len(house.stage.sources.more["bounty"].book.entries())
    browser.open("/bounty/submit")
    for field, text in (
        ("title", "By <b>verse</b>"),
        ("handle", "hop"),
        ("prompt", "Sing: <<ask>>"),
    ):
        if keyboard:
            browser.go_to(f"#{field}")
            browser.keys(text)
        else:
            browser.driver.find_element(By.ID, field).send_keys(text)
    browser.press("form button", keyboard=keyboard)
    browser.until("Received as number")
    entries = house.stage.sources.more["bounty"].book.entries()
    assert len(entries) == before + 1
    kept = (house.stage.folder / "bounty.db").read_bytes()
    assert b"Sing" not in kept
    browser.be("Wei Zhang")
    browser.open(f"/bounty/{entries[-1].id}")
    assert "new" in browser.text("h1")
    browser.open("/bounty/submit")
    browser.press("form button", keyboard=False)
    assert "title is empty" in browser.until("expected a sealed text")


def test_the_browser_checks_a_leafs_proof(house: "House", browser: "Browser") -> None:
    """Hashes and signature are recomputed by the page; a changed byte is told."""
    browser.be("Wei Zhang")
    for index in (0, 5, house.stage.sources.desk.store.checkpoint().size - 1):
        browser.open(f"/log/{index}")
        browser.until("hashes and signature hold", "#status")
    lie = """
    const box = document.getElementById("proof").dataset;
    box.entry = btoa("another" + atob(box.entry));
    const again = document.createElement("script");
    return box.entry.length;
    """
    assert browser.driver.execute_script(lie) > 0
    told = browser.driver.execute_async_script(
        "const done = arguments[0]; import('/static/proof.js?again').then(() => setTimeout(() =>"
        " done(document.getElementById('status').textContent), 300));"
    )
    assert "does not hold" in told


def test_a_page_hears_of_news_and_resumes(house: "House", browser: "Browser") -> None:
    """A row of the ledger reaches an open page by itself."""
    browser.be("Jonas Lind")
    browser.open("/")
    browser.until("live", "#light")
    before = browser.driver.find_element(By.CSS_SELECTOR, "[aria-label=Blocked] .b").text

    async def add() -> None:
        ledger = await Ledger.open(house.stage.ledger)
        await house.add(ledger, "news", "a new one", time.time(), blocked=True)
        await ledger.close()

    asyncio.run(add())
    end = time.monotonic() + 60
    while time.monotonic() < end:
        found = browser.driver.find_elements(By.CSS_SELECTOR, "[aria-label=Blocked] .b")
        if found and found[0].text != before:
            break
        time.sleep(0.1)
    else:
        raise AssertionError(f"still {before}")
    assert browser.text("#light") == "live"
    assert browser.driver.find_elements(By.CSS_SELECTOR, ".plot canvas")
    assert browser.severe() == []
