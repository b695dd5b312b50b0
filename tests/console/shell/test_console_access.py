"""The console's doors: every route times every role, logins, foreign posts, hostile addresses."""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import msgspec
import pytest
from sqlalchemy import create_engine
from starlette.testclient import TestClient

from safehold.console.demo.stage import CAST, DemoStage
from safehold.console.route_table import ACTS, SCREENS
from safehold.console.server import VENDORED, static_files
from safehold.console.shell.access import ConsoleRole
from safehold.console.shell.logins import IDLE_S, LONGEST_S, Logins, form_token
from safehold.console.shell.passkey_login import login_challenge
from safehold.console.shell.web import COOKIE, safe_next
from safehold.detect.review.interface import CaseKind
from safehold.errors import TrustError
from safehold.exchange import user_says
from safehold.guard.ledger.writer import Ledger
from safehold.testing.ledger import RowMaker
from safehold.testing.trust import SoftPasskey, person_id
from safehold.trust.grants.details import AssignPerson, RemovePerson
from safehold.trust.people.interface import PasskeyProof
from safehold.trust.people.passkey import b64url
from safehold.trust.people.statement import Act

BASE = "http://localhost:8443"
_OURS = {"type", "key_id"}
PEOPLE = [name for name in CAST if name != "watch"]


async def keep(url: str, text: str) -> None:
    """Keep one exchange of this text."""
    ledger = await Ledger.open(url)
    rows = RowMaker()
    prompt = rows.prompt("d0", exchange=user_says(text), key_id="a")
    await ledger.append(prompt, rows.final("d0", text))
    await ledger.close()


class Clock:
    """A clock to turn, for the console alone."""

    def __init__(self) -> None:
        self.late = 0.0

    def __call__(self) -> float:
        """Return now, and as much later as was asked for."""
        return time.time() + self.late


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> DemoStage:
    """Return a stage where each person has one role."""
    roles = {name: (role,) for name, role in zip(PEOPLE, ConsoleRole, strict=False)}
    made = DemoStage(tmp_path_factory.mktemp("stage"), roles=roles, clock=Clock())
    asyncio.run(keep(made.ledger, "what is malt?"))
    made.sources.index.follow()
    made.sources.review_desk.open_case(
        CaseKind.SAMPLE, ["d0"], severity=1, opened_by="t", account="a"
    )
    return made


@pytest.fixture(scope="module")
def http(stage: DemoStage) -> Iterator[httpx.Client]:
    """Return a client of the console without a login."""
    with TestClient(stage.console(), base_url=BASE, follow_redirects=False) as client:
        yield client


def as_(stage: DemoStage, name: str) -> dict[str, str]:
    """Return the headers of a person's login."""
    return {"cookie": f"{COOKIE}={stage.token(name)}"}


def assign(stage: DemoStage, *roles: str) -> None:
    """Give Ada exactly these roles."""
    stage.enclave.time = int(time.time())
    stage.carry("people.assign", AssignPerson(person_id("Ada Novak"), roles, ("t-security",)))


def leaves(stage: DemoStage) -> int:
    """Return how many leaves the log has, whoever wrote them."""
    with stage.sources.desk.store.exclusive():
        return stage.sources.desk.store.size


def path_of(path: str) -> str:
    """Fill a route's holes with what exists."""
    holes = {"{case}": "1", "{item}": "1", "{decision_id}": "d0", "{tenant}": "t", "{key}": "k"}
    holes |= {"{run}": "r", "{number}": "1", "{index}": "0"}
    for hole, value in holes.items():
        path = path.replace(hole, value)
    return path.replace("{request}", "0" * 64)


@pytest.mark.parametrize("role", ["", *ConsoleRole])
def test_every_route_times_every_role(stage: DemoStage, http: httpx.Client, role: str) -> None:
    """The table's roles get in, everybody else is refused; nothing is open by being forgotten."""
    assign(stage, *([role] if role else []))
    ada = as_(stage, "Ada Novak")
    for screen in SCREENS:
        may = role in screen.roles
        for start in ("", "/api/v1"):
            path = start + path_of("/overview" if start and screen.path == "/" else screen.path)
            status = http.get(path, headers=ada).status_code
            assert (status != 403) == may, (path, role, status)
            # 409: who may still be asked for a verdict on the decision does not see it yet.
            waits = status == 409 and "/explore/" in path and may
            assert status in {200, 403, 404} or waits, (path, role, status)
    for act in ACTS:
        may = role in act.roles
        path = path_of(act.path)
        # A body that no act takes: who may gets 400, and nothing happens.
        answer = http.post("/api/v1" + path, headers=ada, json={"no such member": 1})
        assert answer.status_code == (400 if may else 403), (path, role, answer.text)
        answer = http.post(path, headers=ada, data={"csrf": "false"})
        assert answer.status_code == 403, (path, role, answer.text)


def test_without_a_login_nothing_opens(http: httpx.Client) -> None:
    """Pages lead to the login and say where from; the API says 401."""
    for screen in SCREENS:
        path = path_of(screen.path)
        answer = http.get(path)
        assert answer.status_code == 303
        assert answer.headers["location"].startswith("/login")
        assert http.get("/api/v1" + path_of(screen.path)).status_code in {401, 404}
    for act in ACTS:
        path = path_of(act.path)
        assert http.post(path, data={}).status_code == 303
        assert http.post("/api/v1" + path, json={}).status_code == 401
    for path in ("/live", "/api/v1/openapi.json", "/api/v1/grants/x"):
        assert http.get(path).status_code in {303, 401}


def test_every_answer_has_a_strict_policy(stage: DemoStage, http: httpx.Client) -> None:
    """No inline script, no foreign source, no frame; hostile pages take no string for markup."""
    assign(stage, *ConsoleRole)
    ada = as_(stage, "Ada Novak")
    paths = ["/login", "/enrol", "/static/console.js", "/nothing", "/static/nothing"]
    for path in [*paths, *(path_of(one.path) for one in SCREENS)]:
        answer = http.get(path, headers=ada)
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert answer.headers["x-frame-options"] == "DENY"
        assert "://" not in policy
        hostile = any(path == path_of(one.path) and one.hostile for one in SCREENS)
        assert ("require-trusted-types-for 'script'" in policy) == hostile, path
        if answer.headers["content-type"].startswith("text/html"):
            assert "<script>" not in answer.text
            assert "style=" not in answer.text
            assert answer.headers["cache-control"] == "no-store"


def test_hostile_pages_load_no_library(stage: DemoStage, http: httpx.Client) -> None:
    """Where an attacker's text is shown, only our own small script runs."""
    assign(stage, *ConsoleRole)
    for screen in SCREENS:
        if screen.hostile:
            page = http.get(path_of(screen.path), headers=as_(stage, "Ada Novak")).text
            assert "htmx" not in page
            assert "uPlot" not in page


def test_foreign_posts_change_nothing(stage: DemoStage, http: httpx.Client) -> None:
    """Another site's form, origin, type, token, size or repeated field is refused."""
    assign(stage, *ConsoleRole)
    token = stage.token("Ada Novak")
    head = {"cookie": f"{COOKIE}={token}"}
    form = {"csrf": form_token(token)}
    before = leaves(stage)
    attacks: list[tuple[dict[str, object], int]] = [
        ({"headers": {**head, "sec-fetch-site": "cross-site"}, "data": form}, 403),
        ({"headers": {**head, "sec-fetch-site": "same-site"}, "data": form}, 403),
        ({"headers": {**head, "origin": "https://evil.example"}, "data": form}, 403),
        ({"headers": {**head, "origin": "null"}, "data": form}, 403),
        ({"headers": head, "data": {"csrf": form_token("another")}}, 403),
        ({"headers": head, "data": {"reason": "x"}}, 403),
        ({"headers": {**head, "content-type": "text/plain"}, "content": b"csrf=1"}, 415),
        ({"headers": head, "files": {"csrf": b"1"}}, 415),
        ({"headers": head, "data": {**form, "reason": "x" * 70_000}}, 413),
        ({"headers": head, "data": {**form, **{f"f{n}": "1" for n in range(80)}}}, 400),
        ({"headers": head, "data": {**form, "reason": ["one", "two"]}}, 400),
        ({"headers": head, "data": {**form, "more": "1", "reason": "x"}}, 400),
    ]
    for attack, status in attacks:
        answer = http.post("/review/items/1/look", **attack)  # type: ignore[arg-type]
        assert answer.status_code == status, (attack, answer.text[-300:])
    cross = {**head, "sec-fetch-site": "cross-site"}
    assert http.post("/api/v1/review/next", headers=cross, json={}).status_code == 403
    large = {"reason": "x" * 70_000}
    assert http.post("/api/v1/review/items/1/look", headers=head, json=large).status_code == 413
    assert leaves(stage) == before
    assert http.post("/logout", headers=head, data={"csrf": "x"}).status_code == 403
    assert stage.logins.find(token) is not None


def test_our_own_form_is_taken(stage: DemoStage, http: httpx.Client) -> None:
    """The benign twin: the same posts from our own page act."""
    assign(stage, *ConsoleRole)
    token = stage.token("Ada Novak")
    head = {"cookie": f"{COOKIE}={token}", "sec-fetch-site": "same-origin", "origin": BASE}
    form = {"csrf": form_token(token)}
    answer = http.post("/review/next", headers=head, data=form)
    assert answer.headers["location"] == "/review/items/1"
    answer = http.post("/review/items/1/look", headers=head, data={**form, "reason": "queue"})
    assert "what is malt?" in answer.text
    answer = http.post("/review/items/1/back", headers=head, data=form)
    assert answer.status_code == 303
    assert http.post("/logout", headers=head, data=form).headers["location"] == "/login"
    assert stage.logins.find(token) is None


def test_other_hosts_and_paths_are_refused(stage: DemoStage, http: httpx.Client) -> None:
    """Another host name, two of them, a path out of the folder and a long address get nothing."""
    assign(stage, *ConsoleRole)
    for host in ("evil.example", "localhost:1", "localhost:8443.evil.example", ""):
        assert http.get("/login", headers={"host": host}).status_code == 400
    doubled = httpx.Headers([("host", "localhost:8443"), ("host", "evil.example")])
    assert http.get("/login", headers=doubled).status_code == 400
    for path in ("/static/../server.py", "/static/%2e%2e/server.py", "/static/..%2fserver.py",
                 "/static/%2fetc%2fpasswd", "/static/", "/static/login.html"):  # fmt: skip
        assert http.get(path).status_code == 404, path
    assert http.get("/login?" + "x" * 5000).status_code == 414
    ada = as_(stage, "Ada Novak")
    for path in ("/explore/..%2f..%2fetc", "/review/cases/-1", "/review/cases/1e3",
                 "/review/cases/99999999999999999999", "/explore/%00",
                 "/approvals/zz"):  # fmt: skip
        assert http.get(path, headers=ada).status_code == 404, path


def test_login_leads_to_our_own_pages_only() -> None:
    """`next` is a path of ours, whatever it says."""
    for hostile in ("//evil.example", "https://evil.example", "/\\evil.example", "javascript:x",
                    "/\t/evil", "\\\\evil", "", "/login?next=/"):  # fmt: skip
        assert safe_next(hostile) == "/"
    assert safe_next("/explore?outcome=error") == "/explore?outcome=error"


class KeyHolder:
    """A person with a software passkey who logs in by the API."""

    def __init__(self, stage: DemoStage, http: httpx.Client, seed: bytes) -> None:
        self.http, self.key = http, SoftPasskey(seed)
        stage.enclave.time = int(time.time())
        assert not isinstance(self.key.key, str)
        stage.carry("people.add-key", stage.enclave.adding("Ada Novak", self.key))

    def nonce(self, name: str = "ada novak") -> str:
        """Ask for a challenge."""
        return str(self.http.post("/login/options", json={"name": name}).json()["nonce"])

    def proof(self, nonce: str, **client: object) -> dict[str, str]:
        """Sign a challenge; `client` replaces what the browser would say."""
        said = {"challenge": b64url(login_challenge(nonce)), **client}
        made = self.key.sign(Act.APPROVE, {}, client=said)
        assert isinstance(made, PasskeyProof)
        fields = msgspec.to_builtins(made)
        return {"nonce": nonce, **{k: v for k, v in fields.items() if k not in _OURS}}

    def login(self, proof: dict[str, str], **headers: str) -> httpx.Response:
        """Post a proof."""
        return self.http.post("/login/passkey", json=proof, headers=headers)


def test_passkey_login_and_its_attacks(stage: DemoStage, http: httpx.Client) -> None:
    """A fresh assertion logs in once; a replay, an approval, another site and a copy do not."""
    assign(stage, *ConsoleRole)
    ada = KeyHolder(stage, http, b"ada")
    nonce = ada.nonce()
    proof = ada.proof(nonce)
    fixed = ada.login(proof, cookie=f"{COOKIE}=chosen-by-an-attacker")
    assert fixed.status_code == 200
    cookie = fixed.headers["set-cookie"]
    assert "chosen-by-an-attacker" not in cookie
    for part in ("HttpOnly", "Secure", "SameSite=Strict", "Path=/", COOKIE):
        assert part in cookie
    inside = {"cookie": cookie.split(";")[0]}
    assert http.get("/", headers=inside).status_code == 200
    assert http.get("/", headers={"cookie": f"{COOKIE}=chosen-by-an-attacker"}).status_code == 303
    # 1. The same proof again; a nonce that was never given.
    assert ada.login(proof).status_code == 409
    assert ada.login(ada.proof("0" * 64)).status_code == 409
    # 2. A signature for an approval, from another site's page, inside a frame.
    for lie in (
        {"challenge": b64url(b"x" * 32)},
        {"origin": "https://evil.example"},
        {"crossOrigin": True},
        {"type": "webauthn.create"},
    ):
        assert ada.login(ada.proof(ada.nonce(), **lie)).status_code == 403, lie
    # 3. A copied authenticator whose counter fell back.
    ada.key.counter = 0
    assert ada.login(ada.proof(ada.nonce())).status_code == 403
    # 4. A user who was not verified.
    ada.key.counter, ada.key.flags = 50, 0x01
    assert ada.login(ada.proof(ada.nonce())).status_code == 403
    ada.key.flags = 0x05
    assert ada.login(ada.proof(ada.nonce())).status_code == 200
    # 5. Somebody without a role.
    assign(stage)
    assert ada.login(ada.proof(ada.nonce())).status_code == 409
    assert http.get("/", headers=inside).status_code == 403
    # 6. A stranger's name is answered like a friend's, with a key that nobody holds.
    one, two = (http.post("/login/options", json={"name": "nobody"}).json() for _ in range(2))
    assert one["credentials"] == two["credentials"]
    assert one["nonce"] != two["nonce"]


def test_logins_end_by_themselves(stage: DemoStage) -> None:
    """Half an hour unused or eight hours old, and the login is over; the token is not kept."""
    clock = stage.clock
    assert isinstance(clock, Clock)
    token = stage.token("Jonas Lind")
    assert token.encode() not in (stage.folder / "console.db").read_bytes()
    try:
        clock.late = IDLE_S - 60
        assert stage.logins.find(token) is not None
        clock.late = IDLE_S + 60  # was used in between
        assert stage.logins.find(token) is not None
        clock.late = 2 * IDLE_S + 120
        assert stage.logins.find(token) is None
        clock.late = 0.0
        token = stage.token("Jonas Lind")
        for step in range(1, 17):
            clock.late = step * (IDLE_S - 10)
            stage.logins.find(token)
        clock.late = LONGEST_S + 1
        assert stage.logins.find(token) is None
    finally:
        clock.late = 0.0


def test_a_removed_person_is_out_at_once(tmp_path: Path) -> None:
    """The roster decides on every request, not the day of the login."""
    stage = DemoStage(tmp_path)
    with TestClient(stage.console(), base_url=BASE, follow_redirects=False) as http:
        jonas = as_(stage, "Jonas Lind")
        assert http.get("/", headers=jonas).status_code == 200
        stage.enclave.time = int(time.time())
        stage.carry("people.remove", RemovePerson(person_id("Jonas Lind")))
        assert http.get("/", headers=jonas).status_code == 303


def test_a_copied_key_is_out_however_close_its_login_comes(tmp_path: Path) -> None:
    """Two logins that were both verified before either was kept: the lower counter gets none."""
    logins = Logins(create_engine(f"sqlite:///{tmp_path / 'l.db'}"), time.time)
    logins.begin("p", "key", sign_count=6)
    for copied in (5, 6):
        with pytest.raises(TrustError, match="fell back"):
            logins.begin("p", "key", sign_count=copied)
    assert logins.find(logins.begin("p", "key", sign_count=7))
    assert logins.counter("key") == 7
    with pytest.raises(TrustError, match="fell back"):
        logins.begin("p", "key", sign_count=0)
    for _ in range(2):
        assert logins.begin("p", "counts nothing", sign_count=0)


def test_a_counter_that_the_log_knows_holds_for_a_login(
    stage: DemoStage, http: httpx.Client
) -> None:
    """A copy that was not used here yet is found out: the key counted 1 when it was enrolled."""
    assign(stage, *ConsoleRole)
    ada = KeyHolder(stage, http, b"copied")
    assert ada.key.counter == 1
    ada.key.counter = 0
    assert ada.login(ada.proof(ada.nonce())).status_code == 403
    assert ada.login(ada.proof(ada.nonce())).status_code == 200


def test_logins_are_shared_by_processes(tmp_path: Path) -> None:
    """A second console on the same stores knows the login; a challenge works once."""
    stage = DemoStage(tmp_path)
    token = stage.token("Ada Novak")
    other = type(stage.logins)(stage.logins._engine, time.time)
    assert other.find(token) is not None
    nonce = stage.logins.challenge()
    other.spend(nonce)
    with pytest.raises(Exception, match="used before"):
        stage.logins.spend(nonce)


def test_vendored_files_are_those_that_were_reviewed() -> None:
    """Each has its digest, and all together stay small."""
    files = static_files()
    assert set(VENDORED) <= set(files)
    assert sum(len(files[name][1]) for name in VENDORED) < 200_000
    assert all("sourceMappingURL" not in files[name][1].decode() for name in VENDORED)


def test_the_api_describes_itself(stage: DemoStage, http: httpx.Client) -> None:
    """Every screen and act of the table is in the document, with a schema for what it answers."""
    assign(stage, *ConsoleRole)
    document = http.get("/api/v1/openapi.json", headers=as_(stage, "Ada Novak")).json()
    assert document["openapi"].startswith("3.1")
    gets = [path for path, one in document["paths"].items() if "get" in one]
    posts = [path for path, one in document["paths"].items() if "post" in one]
    assert len(gets) == len(SCREENS)
    assert len(posts) == len(ACTS)
    overview = document["paths"]["/api/v1/overview"]["get"]
    assert overview["responses"]["200"]["content"]["application/json"]["schema"]
