"""The approval page in a real Chromium with a virtual authenticator, and its API without one."""

import os
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import httpx
import msgspec
import pytest
import uvicorn
from selenium import webdriver as selenium
from starlette.testclient import TestClient

from safehold.console.approvals import approvals_app
from safehold.testing.ports import held_port
from safehold.testing.trust import GOVERNING, POLICY, Enclave, person_id
from safehold.trust.grants.details import AddKey
from safehold.trust.grants.interface import Granted, GrantRequest, SignedRequest
from safehold.trust.people.interface import PasskeyProof
from safehold.trust.people.statement import Act

needs_browser = pytest.mark.skipif(
    shutil.which("chromium") is None or shutil.which("chromedriver") is None,
    reason="needs Chromium (Debian: chromium, chromium-driver)",
)
WAIT_S = 120.0


class Site:
    """An enclave whose policy names the origin of its own running page."""

    def __init__(self, root: Path, port: int) -> None:
        self.port = port
        self.url = f"http://localhost:{self.port}"
        policy = (POLICY + GOVERNING).replace("http://localhost:8443", self.url)
        policy = policy.replace('"t-development", count = 2', '"t-development", count = 1')
        self.enclave = Enclave(root / "log", policy=policy, now=int(time.time()))
        config = uvicorn.Config(
            approvals_app(self.enclave.desk), host="127.0.0.1", port=self.port, log_level="error"
        )
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.server.run)

    def __enter__(self) -> Self:
        self.thread.start()
        until = time.monotonic() + WAIT_S
        while not self.server.started and time.monotonic() < until:
            time.sleep(0.02)
        return self

    def __exit__(self, *_: object) -> None:
        self.server.should_exit = True
        self.thread.join(WAIT_S)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """Return a running page."""
    with held_port() as port, Site(tmp_path, port) as running:
        yield running


@pytest.fixture
def browser(tmp_path: Path) -> Iterator["selenium.Chrome"]:
    """Return a headless Chromium with a virtual security key that verifies its user."""
    from selenium.webdriver.chrome.service import Service  # noqa: PLC0415 - optional
    from selenium.webdriver.common.virtual_authenticator import (  # noqa: PLC0415 - optional
        VirtualAuthenticatorOptions,
    )

    options = selenium.ChromeOptions()
    for flag in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"):
        options.add_argument(flag)
    options.add_argument(f"--user-data-dir={tmp_path}/profile")
    options.binary_location = shutil.which("chromium") or ""
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = Service(shutil.which("chromedriver"), log_output=os.devnull)
    driver = selenium.Chrome(options=options, service=service)
    try:
        driver.add_virtual_authenticator(
            VirtualAuthenticatorOptions(
                has_user_verification=True, is_user_verified=True, transport="usb"
            )
        )
        yield driver
    finally:
        driver.quit()


def until_text(driver: "selenium.Chrome", element: str, text: str) -> str:
    """Wait until an element shows a text, and return all of it."""
    end = time.monotonic() + WAIT_S
    shown = ""
    while time.monotonic() < end:
        shown = driver.find_element("id", element).text
        if text in shown:
            return shown
        time.sleep(0.05)
    raise AssertionError(f"{element} shows {shown!r}, expected {text!r}")


def enrol_passkey(site: Site, driver: "selenium.Chrome", name: str) -> None:
    """Create a passkey on the page and have it enrolled by two people."""
    driver.get(site.url + "/enrol")
    driver.find_element("id", "person").send_keys(person_id(name))
    driver.find_element("id", "create").click()
    until_text(driver, "status", "Created and signed")
    text = driver.find_element("id", "passkey").text
    site.enclave.carry("people.add-key", msgspec.json.decode(text.encode(), type=AddKey))


def filed(site: Site, **changes: object) -> GrantRequest:
    """File a request of dev-one for weights."""
    site.enclave.time = int(time.time())
    asked = site.enclave.ask(**changes)
    site.enclave.file(asked)
    return asked


@needs_browser
def test_passkey_approval_in_a_real_browser(site: Site, browser: "selenium.Chrome") -> None:
    """A person enrols a passkey, reads the exact request in words, and approves it."""
    enrol_passkey(site, browser, "dev-two")
    asked = filed(site, purpose="Serve <b>the</b> home-brewing model & nothing else")
    browser.get(site.url + "/")
    end = time.monotonic() + WAIT_S
    while not browser.find_elements("css selector", "#requests a") and time.monotonic() < end:
        time.sleep(0.05)
    browser.find_element("css selector", "#requests a").click()
    words = until_text(browser, "words", asked.sha256)
    for text in ("Serve <b>the</b> home-brewing model & nothing else", "weights.load", "gpu-1"):
        assert text in words
    browser.find_element("id", "approve").click()
    until_text(browser, "status", "Approved.")
    case = site.enclave.desk.state.case(asked.sha256)
    assert case.approvers == [person_id("dev-two")]
    proof = case.approvals[0].proof
    assert isinstance(proof, PasskeyProof)
    decision = site.enclave.approve(asked, "sec-one")
    assert isinstance(decision, Granted)
    assert site.enclave.open_desk().state.voids == []
    severe = [row for row in browser.get_log("browser") if row["level"] == "SEVERE"]
    assert severe == []


@needs_browser
def test_denial_in_a_real_browser(site: Site, browser: "selenium.Chrome") -> None:
    """A denial is signed with its reason, and closes the request."""
    enrol_passkey(site, browser, "dev-two")
    asked = filed(site)
    browser.get(f"{site.url}/#{asked.sha256}")
    until_text(browser, "words", asked.sha256)
    browser.find_element("id", "reason").send_keys('no "ticket" for gr\u00f6\u00dfer\\brew')
    browser.find_element("id", "deny").click()
    until_text(browser, "status", "Denied")
    assert site.enclave.desk.state.case(asked.sha256).denied


@needs_browser
def test_requester_can_not_approve_in_a_real_browser(
    site: Site, browser: "selenium.Chrome"
) -> None:
    """The requester's own passkey is not offered, and nothing is approved."""
    enrol_passkey(site, browser, "sec-two")
    asked = filed(site, requester="sec-two")
    browser.get(f"{site.url}/#{asked.sha256}")
    until_text(browser, "words", asked.sha256)
    browser.find_element("id", "approve").click()
    until_text(browser, "status", "Not done")
    assert site.enclave.desk.state.case(asked.sha256).approvers == []


@needs_browser
def test_unverified_user_can_not_approve_in_a_real_browser(
    site: Site, browser: "selenium.Chrome"
) -> None:
    """A security key whose user was not verified approves nothing."""
    enrol_passkey(site, browser, "dev-two")
    asked = filed(site)
    browser.get(f"{site.url}/#{asked.sha256}")
    until_text(browser, "words", asked.sha256)
    browser.set_user_verified(verified=False)
    browser.find_element("id", "approve").click()
    until_text(browser, "status", "set a PIN or a fingerprint on it")
    assert browser.find_element("id", "approve").is_enabled()
    assert site.enclave.desk.state.case(asked.sha256).approvers == []


@needs_browser
def test_page_says_what_it_waits_for_in_a_real_browser(
    site: Site, browser: "selenium.Chrome"
) -> None:
    """While the key waits the page says so and takes no second click; then why it was refused."""
    enrol_passkey(site, browser, "dev-two")
    asked = filed(site)
    browser.get(f"{site.url}/#{asked.sha256}")
    until_text(browser, "words", asked.sha256)
    browser.execute_script(
        "navigator.credentials.get = () => new Promise((_, no) => { window.refuse = (name) =>"
        " no(new DOMException('See: privacy considerations', name)); });"
    )
    approve = browser.find_element("id", "approve")
    for name, told in (
        ("NotAllowedError", "gave no signature"),
        ("SecurityError", "not the one that the policy names"),
        ("AbortError", "broken off"),
    ):
        approve.click()
        until_text(browser, "status", "Waiting for your key")
        assert not approve.is_enabled()
        browser.execute_script("window.refuse(arguments[0])", name)
        assert "privacy" not in until_text(browser, "status", told)
        assert approve.is_enabled()
    assert site.enclave.desk.state.case(asked.sha256).approvers == []


@pytest.fixture
def client(tmp_path: Path) -> Iterator[tuple[Enclave, httpx.Client]]:
    """Return an enclave and a client of its page."""
    enclave = Enclave(tmp_path / "log")
    with TestClient(approvals_app(enclave.desk), base_url="http://localhost:8443") as http:
        yield enclave, http


def test_every_answer_has_a_strict_policy(client: tuple[Enclave, httpx.Client]) -> None:
    """No inline script, no foreign asset, no frame, no cache; files and errors alike."""
    _, http = client
    for path in ("/", "/enrol", "/static/approvals.js", "/api/requests", "/nothing"):
        answer = http.get(path)
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "http" not in policy
        assert "frame-ancestors 'none'" in policy
        assert answer.headers["cache-control"] == "no-store"
        assert "://" not in answer.text


def test_requests_by_api_from_filing_to_grant(client: tuple[Enclave, httpx.Client]) -> None:
    """Another client files, approves with SSH signatures, and reads the state as JSON."""
    enclave, http = client
    asked = enclave.ask()
    signed = SignedRequest(asked, enclave.keys["dev-one"].sign(Act.REQUEST, asked))
    answer = http.post("/api/requests", json=msgspec.to_builtins(signed))
    assert answer.json() == {"sha256": asked.sha256}
    for name in ("dev-two", "dev-three", "sec-one"):
        proof = msgspec.to_builtins(enclave.keys[name].sign(Act.APPROVE, asked))
        answer = http.post(f"/api/requests/{asked.sha256}/approve", json={"proof": proof})
        assert answer.status_code == 200
    assert "granted" in answer.json()["status"]
    note = enclave.note(asked, "over")
    proof = msgspec.to_builtins(enclave.keys["sec-two"].sign(Act.REVOKE, note))
    http.post(f"/api/requests/{asked.sha256}/revoke", json={"text": "over", "proof": proof})
    assert enclave.desk.state.case(asked.sha256).revoked
    assert http.get("/api/requests").json() == []


def test_hostile_posts_give_one_clear_error(client: tuple[Enclave, httpx.Client]) -> None:
    """Nonsense, other sites, other types, other hosts and large bodies change nothing."""
    enclave, http = client
    asked = enclave.ask()
    enclave.file(asked)
    before = enclave.desk.store.size
    path = f"/api/requests/{asked.sha256}/approve"
    json_type = {"content-type": "application/json"}
    proof = msgspec.to_builtins(enclave.keys["dev-two"].sign(Act.DENY, asked))
    expected = [
        (http.post(path, content=b"{", headers=json_type), 400),
        (http.post(path, json={"proof": {"type": "ssh"}}), 400),
        (http.post(path, json={"proof": proof, "more": 1}), 400),
        (http.post(path, json={"proof": proof}), 403),
        (http.post(path, content=b"proof=1"), 415),
        (http.post(path, json={}, headers={"sec-fetch-site": "cross-site"}), 403),
        (http.post(path, content=b"x" * 70_000, headers=json_type), 413),
        (http.post("/api/requests/zz/approve", json={"proof": proof}), 409),
        (http.get("/api/requests/zz"), 409),
        (http.get("/", headers={"host": "evil.example"}), 400),
        (http.get("/static/../server.py"), 404),
    ]
    assert [(answer.status_code, answer.text) for answer, _ in expected] == [
        (status, answer.text) for answer, status in expected
    ]
    assert enclave.desk.store.size == before


def test_enrolment_challenge_is_for_one_use(client: tuple[Enclave, httpx.Client]) -> None:
    """A registration to a challenge that was not given here, or was spent, is refused."""
    _, http = client
    for challenge in ("AAAA", "x"):
        answer = http.post("/api/enrolment", json={"challenge": challenge, "response": {}})
        assert answer.status_code == 403
    options = http.post("/api/enrolment/options", json={"person": person_id("dev-one")}).json()
    for _ in range(2):
        body = {"challenge": options["challenge"], "response": {"id": "x"}}
        answer = http.post("/api/enrolment", json=body)
        assert answer.status_code in {403, 409}
    assert answer.status_code == 403
