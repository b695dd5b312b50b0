"""A console that runs behind a real socket, beside a real gateway, and a Chromium to open it."""

import asyncio
import dataclasses
import hashlib
import os
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import msgspec
import pytest
import uvicorn
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from safehold.console.demo.attackers import submit_bounties
from safehold.console.demo.releases import (
    DemoReleases,
    released_bundle,
    released_settings,
)
from safehold.console.demo.stage import DemoStage
from safehold.console.shell.web import COOKIE
from safehold.console.sources import GatewayLink
from safehold.detect.monitoring.account_book import AccountBook
from safehold.detect.monitoring.accounts import Caps
from safehold.detect.monitoring.tables import MonitorStore
from safehold.detect.redteam.interface import AttackedPart, AttackOutcome, Attempt, AttemptResult
from safehold.detect.redteam.plan import AttackPlan
from safehold.detect.review.interface import CaseKind
from safehold.exchange import Lane, user_says
from safehold.guard.gateway.bundles.loading import RulesLoader
from safehold.guard.gateway.policy import Key, Settings, Upstream, digest_key
from safehold.guard.gateway.server import Parts
from safehold.guard.ledger.interface import Action, Delivered, LedgerVerdict, Outcome
from safehold.guard.ledger.writer import Ledger
from safehold.improve.response.case import IncidentCase
from safehold.improve.response.gates import GateLimits, GateReport, GateState, GateVerdict
from safehold.improve.response.interface import Incident, IncidentKind
from safehold.secure.egress.watch.timeline_rows import TimelineRow
from safehold.testing.gateway import PATIENT, RunningGateway
from safehold.testing.ledger import RowMaker
from safehold.testing.ports import held_port
from safehold.testing.trust import person_id
from safehold.testing.upstream import MockUpstream
from safehold.trust.grants.details import AddKey
from safehold.trust.grants.interface import GrantRequest
from safehold.trust.release.interface import Artefact, ArtefactKind
from safehold.trust.released.follow import ReleaseLog

WAIT_S = 60.0
ADMIN = "an-admin-key-of-the-tests-0123456789"
HOSTILE = (
    "<script>window.pwned=1</script><img src=x onerror='window.pwned=2'>"
    "\u202edesrever\u202c \x1b[31mred\x1b[0m zero\u200bwidth \u2066iso\u2069 {{7*7}} "
    "<a href=javascript:pwned>x</a> e" + "\u0301" * 50 + " tag\U000e0041 \ud800"
)
LONG = "a line without an end " * 50_000


PLAN = AttackPlan(domain="brew", seed=1, attempts=3, depth=1, surface=AttackedPart.BOTH)
RECORD = b"".join(
    msgspec.json.encode(one) + b"\n"
    for one in (
        PLAN,
        *(
            AttemptResult(
                attempt=Attempt(id=f"a{n}", question="q", topic="t", clause=clause, chain=chain),
                outcome=outcome,
            )
            for n, (clause, chain, outcome) in enumerate(
                [
                    ("c1", ("base64",), AttackOutcome.BLOCKED_BY_GUARD),
                    ("c1", (), AttackOutcome.COMPLIED),
                    ("c2", ("leet",), AttackOutcome.BLOCKED_BY_GUARD),
                ]
            )
        ),
    )
)
TIMELINE = b"".join(
    msgspec.json.encode(
        TimelineRow(
            time=1_790_000_000.0 + 60 * n,
            passed={"replies": 1000 * n, "total": 1000 * n},
            remaining={"replies": {"day": 10**6 - 1000 * n}},
            residual={"replies": 10.0 * n},
            undeclared=0,
            line=10**6,
            budgets={"replies": {"day": 10**6}},
            actions=(("warn", "replies", "unexplained <b>bytes</b>"),) if n == 2 else (),
        )
    )
    + b"\n"
    for n in range(5)
)


def respond(folder: Path) -> Path:
    """Make a case of a response that has come to its gates."""
    case = IncidentCase(folder / "responses" / "verse")
    case.folder.mkdir(parents=True)
    incident = Incident(
        id="verse", kind=IncidentKind.MISS, at=int(time.time()) - 1800, text="kept apart",
        clause="brewing", source="bounty 3", reporter="t",
    )  # fmt: skip
    (case.folder / "incident.json").write_bytes(msgspec.json.encode(incident))
    gates = (
        GateVerdict("golden", GateState.PASSED, "24 of 24"),
        GateVerdict("speed", GateState.NOT_MEASURED, "<b>no</b> data"),
    )
    case.keep_report(GateReport("a" * 64, "b" * 64, "verse", GateLimits(), gates))
    return case.folder.parent


def rule(pattern: str) -> str:
    """Return a rules file of one pattern."""
    return f"rules: [{{id: r, clause: brewing, pattern: {pattern}, example: {pattern}}}]\n"


class House:
    """The stage, its gateway and its console, all running."""

    def __init__(self, folder: Path, port: int) -> None:
        self.port = port
        self.url = f"http://localhost:{self.port}"
        self.stage = DemoStage(folder / "stage", origin=self.url)
        self.rows = RowMaker()
        asyncio.run(self._fill())
        self.stage.sources.index.follow()
        self.stage.sources.index.refresh_coverage()
        submit_bounties(self.stage)
        records = folder / "redteam"
        records.mkdir()
        (records / "one.jsonl").write_bytes(RECORD)
        timeline = folder / "timeline.jsonl"
        timeline.write_bytes(TIMELINE)
        self.stage.sources = dataclasses.replace(
            self.stage.sources, redteam=records, timeline=timeline, response=respond(folder)
        )
        AccountBook(MonitorStore.open(str(folder / "stage" / "monitor.db")), caps=Caps()).follow(
            self.stage.sources.reader
        )
        self.upstream = MockUpstream()
        bundles = folder / "bundles"
        bundles.mkdir()
        self.bundles = bundles
        for name in ("one", "two"):
            self.write(name)
        self.releases = DemoReleases(self.stage, folder / "releases", "house")

    async def _fill(self) -> None:
        ledger = await Ledger.open(self.stage.ledger)
        now = time.time()
        texts = ["how is a loaf made?", HOSTILE, LONG, *(f"question {n}" for n in range(30))]
        for number, text in enumerate(texts):
            await self.add(
                ledger, f"d{number}", text, now - 7000 + 100 * number, blocked=number % 3 == 1
            )
        await ledger.close()

    async def add(
        self, ledger: Ledger, decision: str, text: str, at: float, *, blocked: bool
    ) -> None:
        """Keep one exchange."""
        stop: dict[str, Any] = {}
        if blocked:
            stop = {"verdict": LedgerVerdict.BLOCK, "clause": "brewing", "action": Action.BLOCK}
            stop["score"] = 0.9
        about = {"key_id": "app", "tenant": "bakery", "model": "m<b>x</b>\u202e", "at": at}
        prompt = self.rows.prompt(decision, exchange=user_says(text), **about, **stop)
        end: dict[str, Any] = {"at": at}
        if blocked:
            end["outcome"] = Outcome.BLOCKED_BY_GUARD
        said = Delivered(lane=Lane(), text=text)
        size = len(text.encode("utf-8", "surrogatepass"))
        final = self.rows.final(decision, "", **end)
        if not blocked:
            final = msgspec.structs.replace(
                final, delivered=(said,), delivered_bytes=size, scored_bytes=size
            )
        await ledger.append(prompt, final)

    def write(self, name: str) -> None:
        """Put a file of one rule into the gateway's folder."""
        (self.bundles / f"{name}.yaml").write_text(rule(f"purple-{name}"))

    def guard(self, name: str) -> Artefact:
        """Return the artefact of a rules file of the gateway."""
        digest = hashlib.sha256((self.bundles / f"{name}.yaml").read_bytes()).hexdigest()
        return released_bundle(f"{name}.yaml", digest, ArtefactKind.RULES)

    def release(self, *artefacts: Artefact) -> GrantRequest:
        """Ask for a release of these artefacts."""
        return self.releases.ask(*artefacts, purpose="Guard with more", ticket="T-1")

    def approve(self, asked: GrantRequest, *names: str) -> None:
        """Approve a request."""
        self.stage.enclave.approve(asked, *names)

    def case(self, *decisions: str, severity: int = 1, kind: CaseKind = CaseKind.SAMPLE) -> int:
        """Open a case of its own."""
        return self.stage.sources.review_desk.open_case(
            kind, decisions, severity=severity, opened_by="t", account="bakery/app"
        )

    def __enter__(self) -> Self:
        self.upstream.__enter__()
        settings = Settings(
            port=0,
            upstream=Upstream(url=self.upstream.url),
            limits=PATIENT,
            bundle=str(self.bundles / "one.yaml"),
            bundles=str(self.bundles),
            ledger=self.stage.ledger,
            keys=(Key(id="console", sha256=digest_key(ADMIN), admin=True),),
            releases=self.releases.verifier("gateway"),
            log="none",
        )
        self.released = [released_settings(settings), self.guard("one"), self.guard("two")]
        self.approve(self.release(*self.released), "Mara Okoye", "Ines Pereira", "Wei Zhang")
        log = ReleaseLog(self.releases.verifier("console"), time.time)
        self.stage.sources = dataclasses.replace(self.stage.sources, releases=log)
        self.gateway = RunningGateway(settings, Parts(loader=RulesLoader()))
        self.gateway.__enter__()
        self.link = GatewayLink(self.gateway.url, ADMIN)
        console = self.stage.console(gateway=self.link)
        config = uvicorn.Config(console, host="127.0.0.1", port=self.port, log_level="error")
        config.timeout_graceful_shutdown = 1
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.server.run)
        self.thread.start()
        until = time.monotonic() + WAIT_S
        while not self.server.started and time.monotonic() < until:
            time.sleep(0.02)
        return self

    def __exit__(self, *_: object) -> None:
        self.server.should_exit = True
        self.thread.join(WAIT_S)
        self.gateway.__exit__(None, None, None)
        self.upstream.__exit__(None, None, None)


class Browser:
    """Chromium with a virtual security key, driven as a person would."""

    def __init__(self, driver: "webdriver.Chrome", house: House) -> None:
        self.driver, self.house = driver, house

    def be(self, name: str) -> None:
        """Hold a login of this person."""
        self.driver.get(self.house.url + "/static/favicon.svg")
        self.driver.execute_cdp_cmd(
            "Network.setCookie",
            {"name": COOKIE, "value": self.house.stage.token(name), "url": self.house.url,
             "secure": True, "httpOnly": True, "sameSite": "Strict", "path": "/"},
        )  # fmt: skip

    def open(self, path: str) -> None:
        """Open a page."""
        self.driver.get(self.house.url + path)

    def text(self, css: str = "main") -> str:
        """Return what an element shows."""
        return str(self.driver.find_element(By.CSS_SELECTOR, css).text)

    def until(self, text: str, css: str = "main") -> str:
        """Wait until an element shows a text, and return all of it."""
        end, shown = time.monotonic() + WAIT_S, ""
        while time.monotonic() < end:
            found = self.driver.find_elements(By.CSS_SELECTOR, css)
            try:
                shown = found[0].text if found else ""
            except Exception:  # noqa: BLE001 - the page is changing under us
                shown = ""
            if text in shown:
                return shown
            time.sleep(0.03)
        raise AssertionError(f"{css} shows {shown!r}, expected {text!r}")

    def press(self, css: str, *, keyboard: bool) -> None:
        """Act on a control: click it, or go to it by Tab and press Enter."""
        if not keyboard:
            self.driver.find_element(By.CSS_SELECTOR, css).click()
            return
        self.go_to(css)
        self.keys(Keys.ENTER)

    def go_to(self, css: str) -> None:
        """Press Tab until a control has the focus."""
        wanted = self.driver.find_element(By.CSS_SELECTOR, css)
        for _ in range(80):
            self.keys(Keys.TAB)
            if self.driver.switch_to.active_element == wanted:
                return
        raise AssertionError(f"Tab never reaches {css}")

    def keys(self, *keys: str) -> None:
        """Press keys where the focus is."""
        webdriver.ActionChains(self.driver).send_keys(*keys).perform()

    def severe(self) -> list[str]:
        """Return the errors of the page's console since the last time."""
        rows = self.driver.get_log("browser")
        return [row["message"] for row in rows if row["level"] == "SEVERE"]

    def enrol(self, name: str) -> None:
        """Create a passkey on the page and have it enrolled by others."""
        self.open("/enrol")
        self.driver.find_element(By.ID, "person").send_keys(person_id(name))
        self.driver.find_element(By.ID, "create").click()
        self.until("Created and signed", "#status")
        offer = msgspec.json.decode(self.text("#passkey").encode(), type=AddKey)
        self.house.stage.carry("people.add-key", offer)


@pytest.fixture(scope="session")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """Return a running house."""
    with held_port() as port, House(tmp_path_factory.mktemp("house"), port) as running:
        yield running


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator["webdriver.Chrome"]:
    """Return one Chromium for all tests."""
    from selenium.webdriver.chrome.service import Service  # noqa: PLC0415 - optional
    from selenium.webdriver.common.virtual_authenticator import (  # noqa: PLC0415 - optional
        VirtualAuthenticatorOptions,
    )

    if shutil.which("chromium") is None or shutil.which("chromedriver") is None:
        pytest.skip("needs Chromium (Debian: chromium, chromium-driver)")
    options = webdriver.ChromeOptions()
    for flag in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"):
        options.add_argument(flag)
    options.add_argument(f"--user-data-dir={tmp_path_factory.mktemp('profile')}")
    options.binary_location = shutil.which("chromium") or ""
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = Service(shutil.which("chromedriver"), log_output=os.devnull)
    driver = webdriver.Chrome(options=options, service=service)
    try:
        driver.add_virtual_authenticator(
            VirtualAuthenticatorOptions(
                has_user_verification=True, is_user_verified=True, transport="usb"
            )
        )
        yield driver
    finally:
        driver.quit()


@pytest.fixture
def browser(chromium: "webdriver.Chrome", house: House) -> Browser:
    """Return the Chromium, logged in as nobody, at a usual size."""
    chromium.delete_all_cookies()
    size = {"width": 1280, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    chromium.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    chromium.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    chromium.get_log("browser")
    return Browser(chromium, house)
