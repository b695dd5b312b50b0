"""Our TAXII server: who may ask, what is told, and an inbox that goes to quarantine."""

import hashlib
from pathlib import Path

import msgspec
import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from safehold.detect.intel.describe import told_words
from safehold.detect.intel.store import IntelStore
from safehold.detect.intel.taxii_server import MEDIA, TaxiiClient, TaxiiServer
from safehold.detect.pace import Pace
from safehold.testing.intel import PASSWORD, SHARER, SOURCE, says, technique


class _Leaves:
    def append(self, kind: str, facts: dict[str, str]) -> None:
        assert kind
        assert all(isinstance(value, str) for value in facts.values())


class _Site:
    def __init__(self, folder: Path) -> None:
        self.store = IntelStore(str(folder / "i.db"), leaves=_Leaves())
        for number in range(3):
            self.store.add(
                technique(family=f"family-{number}", updated=1_795_600_000 + number), SHARER
            )
        digest = hashlib.sha256(PASSWORD.encode()).hexdigest()
        clients = [TaxiiClient(name="partner", sha256=digest), TaxiiClient(name="b", sha256=digest)]
        self.server = TaxiiServer(
            self.store,
            SHARER,
            clients,
            contact="x@example.org",
            tries=Pace(each=1_000, together=1_000, window_s=60.0),
        )
        self.http = TestClient(Starlette(routes=self.server.routes()))
        self.http.auth = ("partner", PASSWORD)
        self.http.headers["accept"] = MEDIA

    def get(self, path: str, **params: object) -> dict:
        found = self.http.get(f"/taxii2/{path}", params=params)
        assert found.status_code == 200, found.text
        assert found.headers["content-type"] == MEDIA
        return found.json()

    @property
    def shared(self) -> str:
        return f"root/collections/{self.server.shared}/"

    @property
    def inbox(self) -> str:
        return f"root/collections/{self.server.inbox}/"


@pytest.fixture
def site(tmp_path: Path) -> _Site:
    """A server with three techniques."""
    return _Site(tmp_path)


def test_nobody_without_a_password_learns_anything(site: _Site) -> None:
    """No name, a wrong password, an unknown client, half a header: 401 on every route."""
    paths = [route.path for route in site.server.routes()]
    assert len(paths) == 10
    for path in paths:
        filled = path.format(collection=site.server.shared, object="o", status="s")
        for auth in (None, ("partner", "x"), ("nobody", PASSWORD), ("partner", "")):
            site.http.auth = auth
            assert site.http.get(filled).status_code == 401
    for header in ("Basic", "Basic !!", "Bearer x", "Basic /////w=="):
        site.http.auth = None
        got = site.http.get("/taxii2/", headers={"authorization": header})
        assert got.status_code == 401
        assert got.headers["www-authenticate"] == "Basic"


def test_pages_lead_through_everything_once(site: _Site) -> None:
    """`limit` and `next` walk over all objects; dates in the headers are those of the page."""
    whole = site.get(f"{site.shared}objects/")["objects"]
    walked: list[str] = []
    asked: dict[str, object] = {"limit": 4}
    while True:
        page = site.get(f"{site.shared}objects/", **asked)
        walked += [one["id"] for one in page["objects"]]
        if not page["more"]:
            break
        asked["next"] = page["next"]
    assert walked == [one["id"] for one in whole]
    assert len(set(walked)) == len(walked) == 2 + 3 * 7


def test_filters_and_manifest(site: _Site) -> None:
    """By type, id, version, time; the manifest names what objects gives."""
    found = site.get(f"{site.shared}objects/", **{"match[type]": "indicator,attack-pattern"})
    assert {one["type"] for one in found["objects"]} == {"indicator", "attack-pattern"}
    assert len(found["objects"]) == 6
    first = found["objects"][0]
    assert site.get(f"{site.shared}objects/{first['id']}/")["objects"] == [first]
    assert site.get(f"{site.shared}objects/{first['id']}/versions/")["versions"] == [
        first["modified"]
    ]
    after = site.get(f"{site.shared}objects/", added_after=first["modified"])["objects"]
    assert first["id"] not in {one["id"] for one in after}
    assert after
    manifest = site.get(f"{site.shared}manifest/", **{"match[id]": first["id"]})["objects"]
    assert [one["id"] for one in manifest] == [first["id"]]
    assert site.get(f"{site.shared}objects/", **{"match[spec_version]": "2.0"}) == {"more": False}


def test_an_inbox_goes_to_quarantine_and_is_never_read(site: _Site) -> None:
    """What a client sends is judged as a feed's; nobody else sees the status."""
    sent = site.http.post(
        f"/taxii2/{site.inbox}objects/",
        json={"objects": [says(1), says(1, name="changed"), {"id": 1}]},
        headers={"content-type": MEDIA},
    )
    assert sent.status_code == 202
    status = sent.json()
    assert (status["success_count"], status["failure_count"]) == (1, 2)
    assert [one.feed for one in site.store.quarantined()] == ["inbox:partner"]
    assert site.get(f"root/status/{status['id']}/") == status
    assert site.http.get(f"/taxii2/{site.inbox}objects/").status_code == 403
    site.http.auth = ("b", PASSWORD)
    assert site.http.get(f"/taxii2/root/status/{status['id']}/").status_code == 404


@pytest.mark.parametrize(
    ("path", "params", "status"),
    [
        ("{shared}objects/", {"limit": "x"}, 400),
        ("{shared}objects/", {"limit": "0"}, 400),
        ("{shared}objects/", {"next": "-1"}, 400),
        ("{shared}objects/", {"added_after": "now"}, 400),
        ("{shared}objects/nothing/", {}, 404),
        ("root/collections/none/", {}, 404),
        ("root/status/none/", {}, 404),
    ],
)
def test_what_is_asked_wrongly_gets_a_taxii_error(
    site: _Site, path: str, params: dict[str, str], status: int
) -> None:
    """A status and a title, as the specification has it."""
    got = site.http.get(f"/taxii2/{path.format(shared=site.shared)}", params=params)
    assert got.status_code == status
    assert got.json()["http_status"] == str(status)


def test_wrong_bodies_are_refused(site: _Site) -> None:
    """Too large, no envelope, another type, the collection that is only read, another Accept."""

    def post(where: str, data: bytes, kind: str = MEDIA) -> int:
        headers = {"content-type": kind}
        return site.http.post(f"/taxii2/{where}objects/", content=data, headers=headers).status_code

    assert post(site.inbox, b"x" * 3_000_000) == 413
    assert post(site.inbox, b"[") == 422
    assert post(site.inbox, b"{}", "text/plain") == 415
    assert post(site.shared, b"{}") == 403
    assert site.http.get("/taxii2/", headers={"accept": "text/html"}).status_code == 406


def test_no_route_tells_five_words_of_the_source(site: _Site) -> None:
    """Every answer of every route, by the search that `add` runs."""
    sent = site.http.post(
        f"/taxii2/{site.inbox}objects/",
        content=msgspec.json.encode({"objects": [says(9, description=SOURCE)]}),
        headers={"content-type": MEDIA},
    )
    assert sent.status_code == 202
    names = [one["id"] for one in site.get(f"{site.shared}objects/")["objects"]]
    walked = 0
    for route in site.server.routes():
        for collection in (site.server.shared, site.server.inbox):
            for name in names:
                path = route.path.format(
                    collection=collection, object=name, status=sent.json()["id"]
                )
                for got in (site.http.get(path), site.http.post(path, content=SOURCE)):
                    assert told_words(msgspec.json.encode(got.text), [SOURCE]) == 0
                    walked += got.status_code == 200
    assert walked > 30
    kept = site.store.quarantined()
    assert [told_words(one.value, [SOURCE]) > 0 for one in kept] == [True]
