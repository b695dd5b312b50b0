"""Blindness over the console's API and pages: whatever people do, nothing judges before they do."""

import asyncio
import re
import time
from collections.abc import Iterator

import httpx
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from safehold.console.demo.stage import DemoStage
from safehold.console.shell.access import ConsoleRole
from safehold.console.shell.web import COOKIE
from safehold.detect.monitoring.account_book import AccountBook
from safehold.detect.monitoring.accounts import Caps
from safehold.detect.review.interface import CaseKind, ReviewVerdict
from safehold.exchange import user_says
from safehold.guard.ledger.interface import Action, LedgerVerdict
from safehold.guard.ledger.writer import Ledger
from safehold.testing.ledger import RowMaker

_PEOPLE = ("Ada Novak", "Mara Okoye", "Wei Zhang")
_LEAD = "Tomas Keller"
_VERDICTS = [one.value for one in ReviewVerdict]
_ACTS = ("next", "look", "judge", "back", "queue", "case", "item", "page", "explore")
_COUNT = 45


def _score(number: int) -> float:
    return 0.5 + number / 1000 + 0.000_31


async def _fill(url: str) -> None:
    """Keep blocked exchanges of one account, each with a score and a clause of its own."""
    ledger, rows = await Ledger.open(url), RowMaker()
    for number in range(_COUNT):
        text = f"the same long question about kettles and copper, time {number}"
        stop = {
            "verdict": LedgerVerdict.BLOCK,
            "action": Action.BLOCK,
            "clause": f"hush-{number:02d}",
            "score": _score(number),
        }
        about = {"exchange": user_says(text), "key_id": "acme", "at": time.time()}
        prompt = rows.prompt(f"d{number}", **about, **stop)
        await ledger.append(prompt, rows.final(f"d{number}", "", at=time.time()))
    await ledger.close()


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> DemoStage:
    """A stage with three reviewers and an account that the monitor has labelled."""
    folder = tmp_path_factory.mktemp("blind")
    made = DemoStage(
        folder, roles=dict.fromkeys(_PEOPLE, (ConsoleRole.REVIEWER,)) | {_LEAD: (ConsoleRole.LEAD,)}
    )
    asyncio.run(_fill(made.ledger))
    made.sources.index.follow()
    assert made.sources.monitor is not None
    book = AccountBook(made.sources.monitor, caps=Caps())
    book.follow(made.sources.reader)
    assert {one.label for one in book.labels(now=time.time())} >= {"blocked-often"}
    return made


@pytest.fixture(scope="module")
def http(stage: DemoStage) -> Iterator[httpx.Client]:
    """A client of the console."""
    with TestClient(
        stage.console(), base_url="http://localhost:8443", follow_redirects=False
    ) as client:
        yield client


class _Walk:
    """What three people do in the console, and what each may know by now."""

    def __init__(self, stage: DemoStage, http: httpx.Client, first: int) -> None:
        self.stage, self.http = stage, http
        account = "/".join(
            name for name in (stage.sources.reader.decision("d0")[0].row.tenant, "acme") if name
        )
        names = [f"d{first + i}" for i in range(3)]
        self.case = stage.sources.review_desk.open_case(
            CaseKind.ACCOUNT, names, severity=4, opened_by="t", account=account
        )
        record = stage.sources.cases.case(self.case, "nobody")
        self.items = {one.item: int(one.decision_id[1:]) for one in record.items}
        self.judged: dict[str, set[int]] = {name: set() for name in _PEOPLE}
        self.held: dict[str, int] = {}
        self.given: dict[int, int] = dict.fromkeys(self.items, 0)
        self.heads = {name: {"cookie": f"{COOKIE}={stage.token(name)}"} for name in _PEOPLE}

    def go(self, name: str, act: str, verdict: str) -> None:
        """Do one thing and look at everything that came back."""
        item, head = self.held.get(name, next(iter(self.items))), self.heads[name]
        posts = {
            "next": ("/api/v1/review/next", {}),
            "look": (f"/api/v1/review/items/{item}/look", {"reason": "queue"}),
            "judge": (f"/api/v1/review/items/{item}/verdict", {"verdict": verdict}),
            "back": (f"/api/v1/review/items/{item}/back", {}),
        }
        gets = {
            "queue": "/api/v1/review",
            "case": f"/api/v1/review/cases/{self.case}",
            "item": f"/api/v1/review/items/{item}",
            "page": f"/review/cases/{self.case}",
            "explore": f"/api/v1/explore/d{self.items[min(self.items)]}",
        }
        if act in posts:
            path, body = posts[act]
            answer = self.http.post(path, headers=head, json=body)
        else:
            answer = self.http.get(gets[act], headers=head)
        found = re.search(r"/review/items/(\d+)", answer.text) if act == "next" else None
        if found:
            self.held[name] = int(found[1])
        if act == "judge" and answer.status_code == 200 and item in self.items:
            self.judged[name].add(item)
        if act == "explore":
            assert answer.status_code == 403
        self._blind(name, act, answer.text)

    def _blind(self, name: str, act: str, text: str) -> None:
        """Neither score, clause, label nor verdict of an item that this person has not judged."""
        for item, number in self.items.items():
            if item not in self.judged[name]:
                assert f"hush-{number:02d}" not in text, (act, item)
                assert f"{_score(number):.3f}" not in text, (act, item)
        waiting = [
            one
            for one in self.stage.sources.cases.case(self.case, _id(self.stage, name)).items
            if one.mine is None and one.given < one.needed
        ]
        if waiting:
            assert "blocked-often" not in text, act
        if act == "case":
            page = msgspec.json.decode(text)
            told = {int(number) for number in page.get("contexts", {})}
            assert told <= self.judged[name]


def _id(stage: DemoStage, name: str) -> str:
    roster = stage.sources.desk.state.roster
    return next(one.id for one in roster.persons if one.name == name)


_firsts = iter(range(0, _COUNT, 3))


@settings(max_examples=4)
@given(
    st.lists(
        st.tuples(st.sampled_from(_PEOPLE), st.sampled_from(_ACTS), st.sampled_from(_VERDICTS)),
        min_size=10,
        max_size=25,
    )
)
def test_nothing_leaves_before_ones_own_verdict(
    stage: DemoStage, http: httpx.Client, steps: list[tuple[str, str, str]]
) -> None:
    """Three people take, look, judge, give back and read pages in any order."""
    first = next(_firsts, None)
    if first is None:  # a failure is being made smaller: the last case serves again
        first = _COUNT - 3
    walk = _Walk(stage, http, first)
    for name, act, verdict in steps:
        walk.go(name, act, verdict)


def test_explore_shows_a_lead_nothing_that_they_may_be_asked_about(
    stage: DemoStage, http: httpx.Client
) -> None:
    """A lead judges as well: the decision opens, and is listed, after their verdict."""
    lead = _LEAD
    desk, person = stage.sources.review_desk, _id(stage, lead)
    desk.open_case(CaseKind.ACCOUNT, ["d44"], severity=4, opened_by="t")
    head = {"cookie": f"{COOKIE}={stage.token(lead)}"}
    assert http.get("/api/v1/explore/d44", headers=head).status_code == 409
    assert "hush-44" not in http.get("/api/v1/explore", headers=head).text
    while (item := desk.next(person)) is not None:
        desk.reveal(item.item, person, reason="queue")
        desk.verdict(item.item, person, ReviewVerdict.PERMITTED)
    assert "hush-44" in http.get("/api/v1/explore/d44", headers=head).text
    assert "hush-44" in http.get("/api/v1/explore", headers=head).text


def test_after_ones_own_verdict_the_score_is_told(stage: DemoStage, http: httpx.Client) -> None:
    """The twin: the same pages do tell, so the walk above looks at the right places."""
    walk = _Walk(stage, http, 0)
    desk, person = stage.sources.review_desk, _id(stage, _PEOPLE[0])
    while (item := desk.next(person)) is not None:
        desk.reveal(item.item, person, reason="queue")
        desk.verdict(item.item, person, ReviewVerdict.PERMITTED)
    page = http.get(f"/api/v1/review/cases/{walk.case}", headers=walk.heads[_PEOPLE[0]]).text
    assert "hush-00" in page
    assert f"{_score(0):.3f}"[:4] in page
    assert "blocked-often" in page
