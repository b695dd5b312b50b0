"""The console's demo as a newcomer gets it: every screen alive, and what it offers acts."""

import re
from collections.abc import Iterator

import httpx
import pytest
from starlette.testclient import TestClient

from safehold.console.demo.play import Play
from safehold.console.route_table import SCREENS
from safehold.console.shell.web import COOKIE
from safehold.console.sources import GatewayLink

pytestmark = pytest.mark.soak
BASE = "http://localhost:8447"
DEAD = re.compile(
    r'class="(?:note|trouble)"[^>]*>(?!A seeded|You have no passkey|Demo:)([^<]{1,80})'
)


class Demo:
    """A demo that was played, its gateway, and a client that its link logged in."""

    def __init__(self, play: Play, link: GatewayLink, http: httpx.Client) -> None:
        self.play, self.link, self.http = play, link, http
        assert http.get("/login/demo?token=wrong").status_code == 404
        assert http.get("/login/demo?token=t").status_code == 303

    def head(self) -> dict[str, str]:
        """Return the headers of Ada's login."""
        return {"cookie": f"{COOKIE}={self.play.stage.token('Ada Novak')}"}

    def page(self, path: str) -> str:
        """Return a page's text."""
        answer = self.http.get(path, headers=self.head())
        assert answer.status_code == 200, (path, answer.status_code)
        return answer.text


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    """Play the demo."""
    play = Play(tmp_path_factory.mktemp("demo") / "demo", origin=BASE)
    with play.gateway() as gateway:
        play.day(gateway, print)
        play.measure(print)
        link = GatewayLink(gateway.url, play.admin_key)
        console = play.stage.console(demo=play.stage.door("t", "Ada Novak"), gateway=link)
        with TestClient(console, base_url=BASE, follow_redirects=False) as http:
            yield Demo(play, link, http)


def test_no_screen_is_empty(demo: Demo) -> None:
    """Every page of the navigation has rows or figures, and none says that something is missing."""
    for screen in SCREENS:
        if "{" in screen.path:
            continue
        page = demo.page(screen.path)
        assert DEAD.findall(page) == [], screen.path
        assert "<td" in page, screen.path
    seen = demo.http.get("/api/v1/overview", headers=demo.head()).json()
    assert seen["blocked"]["events"] > 50


def test_the_waiting_release_is_approved_promoted_and_rolled_back(demo: Demo) -> None:
    """The gateway enforces releases: two approvals load nothing, the third lets Promote act."""
    before = demo.link.status().bundle
    wanted = demo.play.digests["guard-c"]
    body = {"from_bundle": before, "to_bundle": wanted}
    assert demo.http.post("/api/v1/rollout/on", headers=demo.head(), json=body).status_code == 409
    asked = re.search(r"/approvals/([0-9a-f]{64})", demo.page("/rollout"))
    assert asked is not None
    ours = {**demo.head(), "origin": BASE}
    second = {"request": asked[1]}
    assert demo.http.post("/login/demo/second", headers=ours, json=second).status_code == 200
    done = demo.http.post("/api/v1/rollout/on", headers=demo.head(), json=body)
    assert done.status_code == 200, done.text
    assert demo.link.status().bundle == wanted
    back = {"from_bundle": wanted}
    assert demo.http.post("/api/v1/rollout/back", headers=demo.head(), json=back).status_code == 200
    assert demo.link.status().bundle == before


def test_the_challenger_comes_to_its_gates(demo: Demo) -> None:
    """The response goes on in a process of its own; its gates and clock are shown afterwards."""
    assert "so far" in demo.page("/incidents")
    demo.play.respond()
    assert "so far" not in demo.page("/incidents")
    page = demo.page("/rollout")
    for gate in ("golden", "family", "red-team", "shadow"):
        assert gate in page
