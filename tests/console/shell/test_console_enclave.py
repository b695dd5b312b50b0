"""The enclave's screens: standards are followed, leases live and end, a decoy has a name."""

import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import msgspec
import pytest
from starlette.testclient import TestClient

from safehold.console.demo.host import touched_decoy
from safehold.console.demo.stage import DemoStage
from safehold.console.screens.enclave import newest_row, tail
from safehold.console.shell.web import COOKIE
from safehold.errors import DataError
from safehold.secure.egress.watch.timeline_rows import TimelineRow
from safehold.testing.trust import SoftPasskey, person_id
from safehold.trust.grants.events import DecisionNote
from safehold.trust.log.log_entries import Record
from safehold.trust.people.statement import Act

BASE = "http://localhost:8443"


@pytest.fixture
def stage(tmp_path: Path) -> DemoStage:
    """Return a stage."""
    return DemoStage(tmp_path / "stage")


@pytest.fixture
def http(stage: DemoStage) -> Iterator[httpx.Client]:
    """Return a client of its console, through the demo's doors too."""
    console = stage.console(demo=stage.door("a-token", "Ada Novak"))
    with TestClient(console, base_url=BASE, follow_redirects=False) as client:
        yield client


def head(stage: DemoStage, name: str = "Ada Novak") -> dict[str, str]:
    """Return the headers of a login."""
    return {"cookie": f"{COOKIE}={stage.token(name)}"}


def test_the_standards_page_reads_each_leaf_once(stage: DemoStage, http: httpx.Client) -> None:
    """What a view reads is what is new in the log, however long the log is."""
    desk, read = stage.sources.desk, list[int]()
    for number in range(300):
        facts = {"incident": f"i{number}", "state": "open"}
        desk.record(Record(time=desk.now(), kind="incident", facts=facts, digests={}))
    inner = desk.store.entries

    def counted(start: int = 0) -> Iterator[tuple[int, bytes]]:
        for index, entry in inner(start):
            read.append(index)
            yield index, entry

    desk.store.entries = counted  # type: ignore[method-assign,assignment]
    as_ada = head(stage)
    assert http.get("/standards", headers=as_ada).status_code == 200
    first = len(read)
    assert first >= 300
    assert http.get("/standards", headers=as_ada).status_code == 200
    assert len(read) == first
    desk.record(Record(time=desk.now(), kind="incident", facts={"incident": "z"}, digests={}))
    assert http.get("/api/v1/standards", headers=as_ada).status_code == 200
    assert len(read) <= first + 2  # the desk reads it too


def test_a_lease_lives_while_its_grant_holds(stage: DemoStage, http: httpx.Client) -> None:
    """A released key is a live lease; a revoked grant ends it."""
    enclave = stage.enclave
    enclave.time = int(time.time())
    asked = enclave.ask("Jonas Lind")
    enclave.file(asked)
    enclave.approve(asked, "Tomas Keller", "Mara Okoye")
    enclave.use(asked)
    enclave.desk.release(asked.sha256, host="gpu-1", header_sha256="5e" * 32, recipient="serve")
    shown = http.get("/api/v1/weights", headers=head(stage)).json()
    assert [one["live"] for one in shown["released"]] == [True]
    assert [one["leases"] for one in shown["rows"]] == [1]
    note = DecisionNote(request=asked.sha256, text="the host is taken down")
    enclave.desk.revoke(note, enclave.keys["Wei Zhang"].sign(Act.REVOKE, note))
    shown = http.get("/api/v1/weights", headers=head(stage)).json()
    assert [one["live"] for one in shown["released"]] == [False]
    assert [one["leases"] for one in shown["rows"]] == [0]


def test_a_touched_decoy_is_an_incident_with_a_name(
    stage: DemoStage, http: httpx.Client, tmp_path: Path
) -> None:
    """What a guard told by its event has that event as its title, and never the decoy's place."""
    touched_decoy(stage, tmp_path / "decoys")
    page = http.get("/incidents", headers=head(stage)).text
    assert "Decoy touched" in page
    assert "safetensors" not in page


def test_the_newest_row_is_read_from_the_end(tmp_path: Path) -> None:
    """A long timeline costs no more than its last rows; a torn line and another file are told."""
    path = tmp_path / "timeline.jsonl"
    rows = [
        TimelineRow(float(n), {"a": n}, {}, {"a": float(n)}, undeclared=0, line=10)
        for n in range(5_000)
    ]
    path.write_bytes(b"".join(msgspec.json.encode(one) + b"\n" for one in rows) + b'{"torn')
    found = newest_row(path)
    assert found is not None
    assert found.time == 4_999.0
    path.write_bytes(b"")
    assert newest_row(path) is None
    path.write_bytes(b"no row\n")
    with pytest.raises(DataError, match="no timeline row"):
        tail(path)


def test_the_demos_colleagues_enrol_a_passkey_and_approve(
    stage: DemoStage, http: httpx.Client
) -> None:
    """In the demo a newcomer's passkey counts at once, and a colleague's own key signs."""
    made = SoftPasskey(b"newcomer")
    key = made.key
    offer = stage.enclave.adding("Ada Novak", made)
    ours = {**head(stage), "origin": BASE, "sec-fetch-site": "same-origin"}
    answer = http.post(
        "/login/demo/passkey",
        headers={**ours, "content-type": "application/json"},
        content=msgspec.json.encode(offer),
    )
    assert answer.status_code == 200, answer.text
    theirs = stage.enclave.adding("Jonas Lind", SoftPasskey(b"theirs"))
    answer = http.post(
        "/login/demo/passkey",
        headers={**ours, "content-type": "application/json"},
        content=msgspec.json.encode(theirs),
    )
    assert "another person's" in answer.json()["error"]
    ada = stage.sources.desk.state.roster.person(person_id("Ada Novak"))
    assert ada is not None
    assert key in ada.keys
    asked = stage.enclave.ask("Jonas Lind")
    stage.enclave.file(asked)
    for _ in range(2):
        answer = http.post("/login/demo/second", headers=ours, json={"request": asked.sha256})
        assert answer.status_code == 200, answer.text
    done = stage.sources.desk.state.case(asked.sha256).approvers
    assert len(set(done)) == 2
    assert not {person_id("Ada Novak"), person_id("Jonas Lind")} & set(done)
    for path, body in (("passkey", offer), ("second", {"request": "0" * 64})):
        answer = http.post(
            f"/login/demo/{path}",
            headers={**head(stage), "origin": "https://evil.example"},
            content=msgspec.json.encode(body),
        )
        assert answer.status_code in {403, 415}


def test_without_the_demo_there_are_no_such_doors(stage: DemoStage) -> None:
    """A console of people's own enclave enrols and approves nothing for anybody."""
    with TestClient(stage.console(), base_url=BASE, follow_redirects=False) as client:
        ours = {**head(stage), "origin": BASE}
        for path in ("", "/passkey", "/second"):
            assert client.get(f"/login/demo{path}?token=a-token").status_code in {404, 405}
            answer = client.post(f"/login/demo{path}", headers=ours, json={"request": "0" * 64})
            assert answer.status_code in {404, 405}
        assert "demo/second" not in client.get("/enrol", headers=ours).text
