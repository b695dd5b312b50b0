"""`safehold console --demo` as a newcomer meets it: a day is played, every screen is alive."""

from pathlib import Path

import pytest
from starlette.testclient import TestClient

from safehold.console.demo.play import Play
from safehold.console.route_table import SCREENS
from safehold.console.sources import GatewayLink
from safehold.testing.trust import person_id


@pytest.mark.soak
def test_the_demo_fills_every_screen(tmp_path: Path) -> None:
    """The link logs in, no list that the demo fills is empty, and a rollback acts."""
    play = Play(tmp_path / "demo", origin="http://localhost:8440")
    with play.gateway() as gateway:
        play.day(gateway, print)
        play.measure(print)
        link = GatewayLink(gateway.url, play.admin_key)
        console = play.stage.console(demo=("t", person_id("Ada Novak")), gateway=link)
        with TestClient(console, base_url="http://localhost:8440") as http:
            assert http.get("/login/demo?token=wrong").status_code == 404
            login = http.get("/login/demo?token=t", follow_redirects=False)
            head = {"cookie": login.headers["set-cookie"].split(";")[0]}
            for screen in SCREENS:
                if "{" not in screen.path:
                    path = "/overview" if screen.path == "/" else screen.path
                    answer = http.get(f"/api/v1{path}", headers=head)
                    assert answer.status_code == 200, path
                    if path in {"/review", "/explore", "/accounts", "/redteam", "/bounty",
                                "/exemptions", "/log", "/weights", "/incidents", "/approvals",
                                "/rollout"}:  # fmt: skip
                        assert answer.json()["rows"], path
            seen = http.get("/api/v1/overview", headers=head).json()
            assert seen["blocked"]["events"] > 50
            before = link.status()
            posted = {"from_bundle": before.bundle}
            assert http.post("/api/v1/rollout/back", headers=head, json=posted).status_code == 200
            assert link.status().bundle == before.previous
