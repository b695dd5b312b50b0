"""What people without a login use on the console: the bounty's form, appeals, TAXII."""

import asyncio
import dataclasses
import hashlib
import re
import time
from collections.abc import Iterator
from urllib.parse import urlencode

import httpx
import msgspec
import pytest
from openapi_spec_validator import validate
from starlette.testclient import TestClient

from safehold.console.demo.stage import DemoStage
from safehold.console.screens.bounty import BountyDesk
from safehold.console.shell.access import ConsoleRole
from safehold.console.shell.web import COOKIE
from safehold.detect.bounty.interface import MAX_SUBMISSION_BYTES
from safehold.detect.bounty.programme import programme_digest
from safehold.detect.bounty.sealing import read_triage_key, seal
from safehold.detect.intel.store import IntelStore
from safehold.detect.intel.taxii_server import MEDIA, TaxiiClient, TaxiiServer
from safehold.detect.pace import Pace
from safehold.detect.review.appeals import AppealBook
from safehold.detect.review.interface import CaseAction, ReviewVerdict
from safehold.exchange import user_says
from safehold.guard.ledger.interface import Action, LedgerVerdict
from safehold.guard.ledger.writer import Ledger
from safehold.testing.bounty import frozen_questions
from safehold.testing.disk import contents
from safehold.testing.intel import PASSWORD, SHARER, technique
from safehold.testing.ledger import RowMaker

BASE = "http://localhost:8443"
_WORDS = "zircon umbrella ninety lanterns quietly"


async def _fill(url: str) -> None:
    ledger, rows = await Ledger.open(url), RowMaker()
    for number in range(3):
        prompt = rows.prompt(
            f"d{number}",
            exchange=user_says(f"how do I clean kettle {number}?"),
            key_id="acme",
            at=time.time(),
            verdict=LedgerVerdict.BLOCK,
            action=Action.BLOCK,
            clause="brewing",
            score=0.87654,
        )
        await ledger.append(prompt, rows.final(f"d{number}", "", at=time.time()))
    await ledger.close()


class _House:
    def __init__(self, stage: DemoStage) -> None:
        self.stage = stage
        self.sources = stage.sources
        store = self.sources.more["intel"]
        assert isinstance(store, IntelStore)
        store.add(technique(), SHARER)
        self.told = store
        book = AppealBook(
            str(stage.folder / "review.db"),
            desk=self.sources.review_desk,
            evidence=self.sources.reader,
        )
        stage.sources = dataclasses.replace(self.sources, appeals=book)
        self.renew()

    def renew(self) -> None:
        """Serve TAXII with fresh counters."""
        digest = hashlib.sha256(PASSWORD.encode()).hexdigest()
        self.taxii = TaxiiServer(
            self.told,
            SHARER,
            [TaxiiClient(name=name, sha256=digest) for name in ("partner", "other")],
            contact="x@example.org",
            pace=Pace(each=40, together=400, window_s=3600.0),
            tries=Pace(each=5, together=50, window_s=3600.0),
        )
        self.stage.sources = dataclasses.replace(self.stage.sources, taxii=self.taxii)

    @property
    def bounty(self) -> BountyDesk:
        found = self.sources.more["bounty"]
        assert isinstance(found, BountyDesk)
        return found


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> _House:
    """A stage with three blocks, a technique to tell, and a bounty programme."""
    people = {"Ada Novak": (ConsoleRole.REVIEWER,), "Mara Okoye": (ConsoleRole.REVIEWER,)}
    stage = DemoStage(tmp_path_factory.mktemp("outside"), roles=people)
    asyncio.run(_fill(stage.ledger))
    return _House(stage)


@pytest.fixture
def http(house: _House) -> Iterator[httpx.Client]:
    """A client without a login, of a console whose counters are fresh."""
    house.renew()
    with TestClient(house.stage.console(), base_url=BASE, follow_redirects=False) as client:
        yield client


def test_a_client_appeals_at_the_console_and_learns_no_score(
    house: _House, http: httpx.Client
) -> None:
    """From the block's id to the overturned block, by the same server that people judge in."""
    made = http.post("/api/v1/appeals", json={"decision_id": "d0"})
    assert made.status_code == 201
    token = made.json()["token"]
    told = [made.text, http.get(f"/api/v1/appeals/{token}").text]
    desk = house.sources.review_desk
    for person in ("p-1", "p-2"):
        item = desk.next(person)
        assert item is not None
        desk.reveal(item.item, person, reason="appeal")
        desk.verdict(item.item, person, ReviewVerdict.PERMITTED)
    desk.decide(item.case, CaseAction.OVERTURN, by="lead")
    told.append(http.get(f"/api/v1/appeals/{token}").text)
    assert msgspec.json.decode(told[-1]) == {"state": "answered", "outcome": "overturn"}
    assert not re.search(r"score|0\.87|brewing|permitted|p-1|case", " ".join(told))
    for wrong in ("d0", "d1\x00", "nothing"):
        assert http.post("/api/v1/appeals", json={"decision_id": wrong}).status_code in {400, 409}
    assert http.get("/api/v1/appeals/unknown").status_code == 404
    assert http.post("/api/v1/appeals", content=b"x" * 10_000_000).status_code == 413


def test_appeals_have_a_pace_of_their_own(http: httpx.Client) -> None:
    """A flood is told to wait; questions about appeals are still answered."""
    got = [http.post("/api/v1/appeals", json={"decision_id": "zz"}) for _ in range(40)]
    assert [one.status_code for one in got] == [409] * 30 + [429] * 10
    assert int(got[-1].headers["retry-after"]) > 3_000
    assert http.get("/api/v1/appeals/unknown").status_code == 404


def test_the_document_of_the_api_holds_the_open_calls_too(
    house: _House, http: httpx.Client
) -> None:
    """OpenAPI 3.1, valid; what needs no login says so, everything else needs one."""
    http.headers["cookie"] = f"{COOKIE}={house.stage.token('Ada Novak')}"
    found = http.get("/api/v1/openapi.json").json()
    validate(found)
    open_ones = {
        path
        for path, verbs in found["paths"].items()
        if any(about.get("security") == [] for name, about in verbs.items() if name != "parameters")
    }
    assert open_ones == {"/api/v1/appeals", "/api/v1/appeals/{token}"}
    assert "/api/v1/review/items/{item}/verdict" in found["paths"]
    assert http.get("/api/v1/appeals/openapi.json").status_code == 200


def test_a_console_without_them_has_no_such_doors(house: _House) -> None:
    """Nobody who did not ask for it serves outsiders."""
    sources = dataclasses.replace(house.stage.sources, appeals=None, taxii=None)
    kept, house.stage.sources = house.stage.sources, sources
    try:
        with TestClient(house.stage.console(), base_url=BASE, follow_redirects=False) as bare:
            assert bare.post("/api/v1/appeals", json={"decision_id": "d0"}).status_code == 404
            assert bare.get("/taxii2/", auth=("partner", PASSWORD)).status_code == 404
    finally:
        house.stage.sources = kept


def test_partners_read_taxii_at_the_console(house: _House, http: httpx.Client) -> None:
    """Discovery leads to the objects; a console login opens nothing there, nor the other way."""
    http.headers["accept"] = MEDIA
    http.auth = ("partner", PASSWORD)
    root = http.get("/taxii2/").json()["default"]
    assert root == f"{BASE}/taxii2/root/"
    got = http.get(f"{root}collections/{house.taxii.shared}/objects/")
    assert got.headers["content-type"] == MEDIA
    assert {one["type"] for one in got.json()["objects"]} >= {"attack-pattern", "indicator"}
    sent = http.post(
        f"/taxii2/root/collections/{house.taxii.inbox}/objects/",
        content=msgspec.json.encode({"objects": got.json()["objects"][:1]}),
        headers={"content-type": MEDIA},
    )
    assert sent.status_code == 202
    assert http.get("/api/v1/overview").status_code == 401
    http.auth = None
    http.headers["cookie"] = f"{COOKIE}={house.stage.token('Ada Novak')}"
    assert http.get("/taxii2/").status_code == 401
    foreign = http.get("/taxii2/", headers={"host": "evil.example"})
    assert foreign.status_code == 400


def test_a_taxii_client_that_floods_or_guesses_is_told_to_wait(http: httpx.Client) -> None:
    """Each client has its own pace; wrong passwords have a slower one, and open nothing."""
    got = [http.get("/taxii2/", auth=("partner", PASSWORD)) for _ in range(45)]
    codes = [one.status_code for one in got]
    assert codes == [200] * 40 + [429] * 5
    assert int(got[-1].headers["retry-after"]) > 0
    assert got[-1].json()["http_status"] == "429"
    assert http.get("/taxii2/", auth=("other", PASSWORD)).status_code == 200
    wrong = [http.get("/taxii2/", auth=("other", f"guess {i}")) for i in range(8)]
    assert [one.status_code for one in wrong] == [401] * 5 + [429] * 3
    # The guess after that is not looked at, not even if it is right.
    assert http.get("/taxii2/", auth=("other", PASSWORD)).status_code == 429


def _posted(http: httpx.Client, fields: dict[str, str]) -> httpx.Response:
    body = urlencode(fields, errors="surrogatepass")
    head = {"content-type": "application/x-www-form-urlencoded", "origin": BASE}
    return http.post("/bounty/submit", content=body, headers=head)


_REPORT = {"title": "A way in", "handle": "ada", "prompt": f"{_WORDS}: <<ask>>", "notes": ""}


@pytest.mark.parametrize(
    ("fields", "status", "says"),
    [
        (_REPORT | {"prompt": "x" * 10_000_000}, 413, "expected at most"),
        (_REPORT | {"prompt": "x" * (MAX_SUBMISSION_BYTES + 9)}, 400, "at most 262144 bytes"),
        (_REPORT | {"title": "\x1b[2J\x1b]0;owned\x07"}, 400, "expected a submission"),
        (_REPORT | {"title": "a\u202eb"}, 400, "expected a submission"),
        (_REPORT | {"handle": "\x00\x01\x02"}, 400, "expected a submission"),
        (_REPORT | {"title": ""}, 400, "title is empty"),
        (_REPORT | {"verdict": "paid"}, 400, "verdict"),
        ({"sealed": "\x7fELF\x02\x01\x01"}, 400, "sealed"),
        ({"sealed": '{"type":"sealed-1"}'}, 400, "sealed"),
        ({"sealed": '{"hello": 1}'}, 400, "sealed"),
        ({"sealed": "\x1b[31m"}, 400, "sealed"),
        ({"sealed": "A" * 500_000}, 400, "sealed"),
        ({}, 400, "empty"),
    ],
)
def test_what_is_no_submission_gets_a_clear_answer(
    house: _House, http: httpx.Client, fields: dict[str, str], status: int, says: str
) -> None:
    """One line on the page, which no terminal or browser acts on; nothing is kept."""
    before = len(house.bounty.book.entries())
    got = _posted(http, fields)
    assert got.status_code == status
    (said,) = re.findall(r'role="alert">(.*?)</p>', got.text, re.DOTALL)
    assert says in said
    assert said.isprintable()
    assert len(house.bounty.book.entries()) == before


def test_whatever_bytes_a_form_holds_the_answer_is_a_page(http: httpx.Client) -> None:
    """No form at all, half an escape, a field twice: refused, in one line."""
    head = {"content-type": "application/x-www-form-urlencoded", "origin": BASE}
    for body in (b"\xff\xfe", b"title", b"title=a&title=b", b"%", b"title=%ff", b"=&=&="):
        got = http.post("/bounty/submit", content=body, headers=head)
        assert 400 <= got.status_code < 500
        assert 'role="alert"' in got.text
    got = http.post("/bounty/submit", content=b"{}", headers=head | {"content-type": "text/json"})
    assert got.status_code == 415


def test_a_report_is_nowhere_on_the_disk_but_sealed(house: _House, http: httpx.Client) -> None:
    """Typed or sealed before: no file under the stage holds five words of it, triage reads it."""
    programme = house.bounty.programme
    assert _posted(http, _REPORT).status_code == 200
    value = {"title": "t", "handle": "h", "turns": [{"role": "user", "text": f"{_WORDS} <<ask>>"}]}
    sealed = seal(
        msgspec.json.encode(value | {"notes": _WORDS * 500}),
        to=programme.triage_key,
        programme=programme_digest(programme),
    )
    assert _posted(http, {"sealed": sealed.decode()}).status_code == 200
    files = contents(house.stage.folder)
    assert len(files) > 5
    for path, data in files.items():
        assert _WORDS.encode() not in data, path
        assert _WORDS.encode("utf-16-le") not in data, path
    assert any("bounty.db" in one.name for one in files)
    key = read_triage_key(house.stage.folder / "triage.key")
    newest = house.bounty.book.entries()[-2:]
    for one in newest:
        found, _ = house.bounty.book.open(
            one.id, "p-1", reason="triage", key=key, questions=frozen_questions()
        )
        assert _WORDS in found.turns[-1].text


def test_a_flood_of_reports_is_told_to_wait(http: httpx.Client) -> None:
    """Refused ones count too: nobody tries ten thousand forms an hour."""
    codes = [_posted(http, {}).status_code for _ in range(20)]
    assert codes == [400] * 12 + [429] * 8
