"""Promotion without a browser: only what a release in force holds, and only as the page saw it."""

import dataclasses
import hashlib
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from starlette.testclient import TestClient

from safehold.console.demo.releases import DemoReleases, released_bundle
from safehold.console.demo.stage import DemoStage
from safehold.console.shell.web import COOKIE
from safehold.console.sources import GatewayLink, GatewayStatus
from safehold.detect.redteam.interface import Wrapper
from safehold.improve.response.case import IncidentCase
from safehold.improve.response.gates import GateLimits, GateReport, GateState, GateVerdict
from safehold.improve.response.interface import Dress, Incident, IncidentKind
from safehold.trust.released.follow import ReleaseLog

BASE = "http://localhost:8443"
NOW, NEXT, OTHER = (hashlib.sha256(name.encode()).hexdigest() for name in ("now", "next", "other"))


class Standing(GatewayLink):
    """A gateway that answers from memory: which bundle guards, and which each name holds."""

    def __init__(self) -> None:
        super().__init__("http://127.0.0.1:1", "key")
        self.bundle, self.swapped = NOW, list[str]()
        self.holds = {"next": NEXT, "now": NOW}

    def status(self) -> GatewayStatus:
        """Return the bundle that guards."""
        return GatewayStatus(bundle=self.bundle, previous=OTHER, surfaces={}, ready=True)

    def swap(self, bundle: str) -> str:
        """Load what the folder holds under a name."""
        self.swapped.append(bundle)
        self.bundle = self.holds[bundle]
        return self.bundle


class Rollout:
    """A stage with a release in force, a gateway, and a client of the console."""

    def __init__(self, folder: Path) -> None:
        self.stage, self.gateway = DemoStage(folder / "stage"), Standing()
        self.releases = DemoReleases(self.stage, folder / "releases")
        self.held = [released_bundle("now", NOW)]
        self.release("Mara Okoye", "Ines Pereira", "Wei Zhang")
        log = ReleaseLog(self.releases.verifier("console"), time.time)
        self.stage.sources = dataclasses.replace(
            self.stage.sources, releases=log, gateway=self.gateway, response=folder / "responses"
        )
        self.folder = folder

    def release(self, *names: str) -> None:
        """Publish what is held now, as far as these approve."""
        asked = self.releases.ask(*self.held, purpose="p", ticket="T-1")
        self.stage.enclave.approve(asked, *names)

    def post(self, http: httpx.Client, name: str, wanted: str, before: str = NOW) -> httpx.Response:
        """Promote as this person."""
        head = {"cookie": f"{COOKIE}={self.stage.token(name)}"}
        body = {"from_bundle": before, "to_bundle": wanted}
        return http.post("/api/v1/rollout/on", headers=head, json=body)


@pytest.fixture
def rollout(tmp_path: Path) -> Rollout:
    """Return a fresh one."""
    return Rollout(tmp_path)


@pytest.fixture
def http(rollout: Rollout) -> Iterator[httpx.Client]:
    """Return a client of its console."""
    with TestClient(rollout.stage.console(), base_url=BASE, follow_redirects=False) as client:
        yield client


def test_what_no_release_holds_is_not_promoted(rollout: Rollout, http: httpx.Client) -> None:
    """A bundle that nobody released, and one whose release lacks a person, stay where they are."""
    assert rollout.post(http, "Mara Okoye", NEXT).status_code == 409
    rollout.held.append(released_bundle("next", NEXT))
    rollout.release("Mara Okoye", "Ines Pereira")
    answer = rollout.post(http, "Mara Okoye", NEXT)
    assert (answer.status_code, rollout.gateway.swapped) == (409, [])
    assert "ask for its release" in answer.json()["error"]


def test_a_released_bundle_is_promoted_once(rollout: Rollout, http: httpx.Client) -> None:
    """The benign twin: it guards then; an old page can't promote again."""
    rollout.held.append(released_bundle("next", NEXT))
    rollout.release("Mara Okoye", "Ines Pereira", "Wei Zhang")
    assert rollout.post(http, "Mara Okoye", NEXT).status_code == 200
    assert rollout.gateway.bundle == NEXT
    assert rollout.post(http, "Mara Okoye", NEXT).status_code == 400
    assert rollout.gateway.swapped == ["next"]


def test_another_bundle_under_the_name_is_told(rollout: Rollout, http: httpx.Client) -> None:
    """The gateway's folder was changed: the answer says so instead of calling it promoted."""
    rollout.held.append(released_bundle("next", NEXT))
    rollout.release("Mara Okoye", "Ines Pereira", "Wei Zhang")
    rollout.gateway.holds["next"] = OTHER
    answer = rollout.post(http, "Mara Okoye", NEXT)
    assert answer.status_code == 503
    assert "another bundle" in answer.json()["error"]


def test_a_challenger_that_gates_refused_is_not_promoted(
    rollout: Rollout, http: httpx.Client
) -> None:
    """Even where a release holds it."""
    rollout.held.append(released_bundle("next", NEXT))
    rollout.release("Mara Okoye", "Ines Pereira", "Wei Zhang")
    case = IncidentCase(rollout.folder / "responses" / "verse")
    incident = Incident(
        id="verse", kind=IncidentKind.MISS, at=int(time.time()), text="x", clause="brewing",
        source="s", reporter="r",
    )  # fmt: skip
    case.begin(incident, Dress(Wrapper("verse", "<<ask>>"), (), "x"))
    gates = (GateVerdict("golden", GateState.REFUSED, "23 of 24"),)
    case.keep_report(GateReport(NOW, NEXT, "verse", GateLimits(), gates))
    answer = rollout.post(http, "Mara Okoye", NEXT)
    assert (answer.status_code, rollout.gateway.swapped) == (400, [])
    assert "gates of verse refused" in answer.json()["error"]


def test_the_page_shows_the_release_and_who_may_press(rollout: Rollout, http: httpx.Client) -> None:
    """A releaser sees a button beside each bundle that does not guard; a viewer sees none."""
    rollout.held.append(released_bundle("next", NEXT))
    rollout.release("Mara Okoye", "Ines Pereira", "Wei Zhang")
    rollout.release("Mara Okoye")
    for name, seen in (("Mara Okoye", True), ("Jonas Lind", False)):
        head = {"cookie": f"{COOKIE}={rollout.stage.token(name)}"}
        page = http.get("/rollout", headers=head).text
        assert "release 2 by release.weaken" in page
        assert "Asked for, and not in force yet" in page
        assert ("Promote next" in page) is seen
