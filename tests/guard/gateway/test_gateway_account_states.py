"""Account states through real gateways: each step at every door, two workers, no false file."""

import base64
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from gateway_process import served
from gateway_wire import PATHS, body_for

from safehold.errors import ConfigError
from safehold.guard.accounts.file import sealed
from safehold.guard.accounts.interface import (
    DAY_S,
    AccountStanding,
    AccountStateError,
    AccountStates,
    LadderStep,
)
from safehold.guard.gateway.access.account_states import AccountStateFile
from safehold.guard.gateway.account_settings import AccountStateSettings
from safehold.guard.gateway.bundles.released import enforced
from safehold.guard.gateway.policy import Key, Settings, SurfacePolicy, digest_key
from safehold.guard.gateway.server import Parts
from safehold.guard.interface import DeliveryMode
from safehold.guard.ledger.interface import EventRow
from safehold.testing.guards import MARKER, held_rules
from safehold.testing.released import RELEASE_RULES, ReleaseChannel, settings_artefact
from safehold.testing.trust import GOVERNING, POLICY, Enclave
from safehold.testing.upstream import MockUpstream, says
from safehold.trust.grants.details import AccountStep
from safehold.trust.grants.interface import GrantRequest
from safehold.trust.people.statement import Act
from safehold.trust.release.interface import Artefact, ArtefactKind

KEY = Ed25519PrivateKey.from_private_bytes(b"monitor!" * 4)
OTHER = Ed25519PrivateKey.from_private_bytes(b"stranger" * 4)
SECRETS = {name: f"sk-safehold-{name}-0123456789abcdefghijk" for name in ("ann", "bob")}
CLIENTS = tuple(Key(id=name, sha256=digest_key(SECRETS[name])) for name in SECRETS)
LADDER_RULES = "".join(
    f"""
[[rule]]
operation = "account.{step}"
thresholds = [{{ team = "t-everybody", count = 2 }}]
max_duration_s = 28800
keys = ["ssh"]
"""
    for step in ("step-up", "rate-limit", "suspend")
)


def standing(level: LadderStep = LadderStep.STEP_UP, **changes: Any) -> AccountStanding:
    """Return a step of bob's that lasts an hour."""
    now = int(time.time())
    base = AccountStanding(
        account="default/bob",
        level=level,
        label="search-walk",
        reason="20 of 60 exchanges",
        evidence=("sh_1",),
        created=now - 5,
        expires=now + 3_600,
        requests_per_hour=2 if level is LadderStep.RATE_LIMIT else None,
    )
    return msgspec.structs.replace(base, **changes)


def put(
    folder: Path,
    *standings: AccountStanding,
    serial: int,
    key: Ed25519PrivateKey = KEY,
    **changes: Any,
) -> AccountStateSettings:
    """Write the file; return the settings that name it."""
    pem = KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (folder / "monitor.pub").write_bytes(pem)
    now = int(time.time())
    content = AccountStates(serial=serial, at=now, fresh_until=now + DAY_S, standings=standings)
    draft = folder / "states.draft"
    draft.write_bytes(sealed(msgspec.structs.replace(content, **changes), "monitor", key))
    draft.replace(folder / "states.json")
    return AccountStateSettings(
        file=str(folder / "states.json"),
        keys={"monitor": str(folder / "monitor.pub")},
        memory=str(folder / "states.memory"),
        reload_s=0.1,
    )


def ask(url: str, who: str = "bob", path: str = PATHS[0], text: str = "hi") -> httpx.Response:
    """Ask as a client."""
    headers = {"authorization": f"Bearer {SECRETS[who]}", "content-type": "application/json"}
    body = json.dumps(body_for(path, text, stream=False))
    return httpx.post(url + path, content=body, headers=headers, timeout=60)


def until(true: Callable[[], bool], within_s: float = 60) -> None:
    """Wait for something."""
    began = time.monotonic()
    while not true():
        assert time.monotonic() - began < within_s
        time.sleep(0.05)


class Site:
    """A founded log whose policy knows the ladder."""

    def __init__(self, root: Path) -> None:
        self.enclave = Enclave(
            root / "log",
            policy=POLICY + GOVERNING + RELEASE_RULES + LADDER_RULES,
            now=int(time.time()) - 60,
        )
        store = self.enclave.desk.store.keys
        keys = msgspec.structs.replace(store, founding=self.enclave.founding_sha256())
        (root / "pinned.json").write_bytes(msgspec.json.encode(keys))
        self.root = root

    def released(self) -> dict[str, Any]:
        """Release a gateway's guard and settings; return what the gateway is started with."""
        channel, held = ReleaseChannel(self.enclave, self.root / "releases"), held_rules()
        declared = Settings(keys=CLIENTS)
        guard = Artefact(path="bundle", kind=ArtefactKind.BUNDLE, sha256=held.digest)
        channel.publish(channel.next(guard, settings_artefact(ArtefactKind.GATEWAY, declared)))
        parts = Parts(loader=_never, held=held, declared=declared)
        return {"releases": channel.settings, "parts": parts}

    def grant(self, level: str = "suspend", *, spend: bool = True, **changes: Any) -> GrantRequest:
        """Have two people put bob on a step; spend the grant as a desk does."""
        details = AccountStep(account="default/bob", until=int(time.time()) + 30 * DAY_S)
        request = self.enclave.ask(
            operation=f"account.{level}", details=msgspec.structs.replace(details, **changes)
        )
        self.enclave.file(request)
        self.enclave.approve(request, "sec-one", "sec-two")
        if spend:
            self.enclave.use(request)
        return request

    def settings(self, settings: AccountStateSettings) -> AccountStateSettings:
        """Return the settings with this log."""
        places = {"log": str(self.root / "log"), "log_keys": str(self.root / "pinned.json")}
        return msgspec.structs.replace(settings, **places)


@pytest.mark.parametrize("path", PATHS)
def test_each_step_does_what_it_says_on_every_surface(
    stage: Callable, tmp_path: Path, path: str
) -> None:
    """Bob is held, limited and freed; Ann, his twin, is served; refusals have rows."""
    settings = put(tmp_path, serial=1)
    one = stage(says(f"so the {MARKER} is", size=4), keys=CLIENTS, account_states=settings,
                default=SurfacePolicy(shadow=True))  # fmt: skip
    url = one.gateway.url
    assert MARKER in ask(url, path=path).text
    put(tmp_path, standing(), standing(LadderStep.OBSERVE, account="default/ann"), serial=2)
    until(lambda: MARKER not in ask(url, path=path).text)
    held = [row for row in one.prompts() if row.key_id == "bob"][-1]
    assert held.mode is DeliveryMode.FULL
    assert MARKER in ask(url, "ann", path).text
    put(tmp_path, standing(LadderStep.RATE_LIMIT), serial=3)
    until(lambda: ask(url, path=path).status_code == 429)
    limited = ask(url, path=path)
    assert 0 < int(limited.headers["retry-after"]) <= 3_600
    assert limited.json()["error"]["message"]
    assert ask(url, "ann", path).status_code == 200
    assert one.finals()[-2].error == "this account's requests of this hour are spent"
    put(tmp_path, serial=4)
    until(lambda: ask(url, path=path).status_code == 200)


def test_a_suspension_needs_a_grant_that_holds_and_ends_with_it(tmp_path: Path) -> None:
    """No grant, another's, another step's, unspent, too long or revoked: not in force."""
    site = Site(tmp_path)
    good = site.grant().sha256
    now, month = int(time.time()), int(time.time()) + 29 * DAY_S
    wrong = {
        "another account": standing(LadderStep.SUSPEND, account="default/ann", grant=good),
        "longer than granted": standing(LadderStep.SUSPEND, grant=good, expires=now + 40 * DAY_S),
        "unspent": standing(LadderStep.SUSPEND, grant=site.grant(spend=False).sha256),
        "another step": standing(LadderStep.SUSPEND, grant=site.grant("step-up").sha256),
        "unknown": standing(LadderStep.SUSPEND, grant="ab" * 32),
        "harsher": standing(
            LadderStep.RATE_LIMIT,
            grant=site.grant("rate-limit", requests_per_hour=5).sha256,
            expires=month,
        ),
    }
    for serial, one in enumerate(wrong.values(), start=1):
        states = AccountStateFile(site.settings(put(tmp_path, one, serial=serial)), time.time)
        assert states.of(one.account, time.time()) is None, one
        assert states.ungranted == 1
    gentle = standing(
        LadderStep.RATE_LIMIT,
        grant=site.grant("rate-limit", requests_per_hour=5).sha256,
        expires=month,
        requests_per_hour=9,
    )
    settings = put(
        tmp_path, standing(LadderStep.SUSPEND, grant=good, expires=month), gentle, serial=9
    )
    now = int(time.time())  # the steps are younger than the test, and no older time knows them
    assert AccountStateFile(settings, time.time).of("default/bob", now) is None  # it reads no log
    states = AccountStateFile(site.settings(settings), time.time)
    found = states.of("default/bob", now)
    assert (found.level, found.requests_per_hour) == (LadderStep.SUSPEND, 9)
    note = site.enclave.note(site.enclave.desk.state.case(good).signed.request)
    site.enclave.desk.revoke(note, site.enclave.keys["sec-two"].sign(Act.REVOKE, note))
    assert states.refresh()
    assert states.of("default/bob", now).level is LadderStep.RATE_LIMIT


def test_a_suspended_account_is_refused_at_every_door(tmp_path: Path, stage: Callable) -> None:
    """403 in each surface's own shape, models and embeddings included; nothing goes upstream."""
    site = Site(tmp_path)
    grant = site.grant().sha256
    settings = site.settings(put(tmp_path, standing(LadderStep.SUSPEND, grant=grant), serial=1))
    given = {"keys": CLIENTS, "account_states": settings, "embeddings": "pass"}
    one = stage(says("hello"), **given, **site.released())
    url = one.gateway.url
    for path in (*PATHS, "/v1/embeddings", "/v1/messages/count_tokens"):
        answer = ask(url, path=path) if path in PATHS else _post(url, path)
        assert answer.status_code == 403
        assert "suspended" in answer.json()["error"]["message"]
        assert (answer.json().get("type") == "error") is path.startswith("/v1/messages")
    got = httpx.get(f"{url}/v1/models", headers={"authorization": f"Bearer {SECRETS['bob']}"})
    assert got.status_code == 403
    assert not one.upstream.requests
    assert ask(url, "ann").status_code == 200


def _never(path: Path) -> Any:
    """Stand where this test loads no bundle."""
    raise AssertionError(path)


def _post(url: str, path: str) -> httpx.Response:
    headers = {"authorization": f"Bearer {SECRETS['bob']}"}
    return httpx.post(url + path, json={"model": "m", "input": "x"}, headers=headers, timeout=60)


def test_a_false_old_stale_or_missing_file_changes_nothing_and_alarms(
    stage: Callable, tmp_path: Path
) -> None:
    """Each is refused once, by an alarm with its reason; the limit in force stays in force."""
    limit = standing(LadderStep.RATE_LIMIT, requests_per_hour=1)
    settings = put(tmp_path, limit, serial=5)
    one = stage(says("hello"), keys=CLIENTS, account_states=settings)
    url, file = one.gateway.url, tmp_path / "states.json"
    good = file.read_bytes()
    ask(url)
    assert ask(url).status_code == 429

    def refused() -> int:
        rows = [row for row in one.ledger.rows if isinstance(row, EventRow)]
        return sum(row.detail.get("alarm") == "account-states-refused" for row in rows)

    now = int(time.time())
    content = json.loads(base64.b64decode(json.loads(good)["content"]))
    content["standings"][0]["level"] = "banish"
    attempts: list[Callable[[], object]] = [
        lambda: file.write_bytes(good[:-20]),
        lambda: put(tmp_path, serial=4),
        lambda: put(tmp_path, serial=5),
        lambda: put(tmp_path, serial=6, key=OTHER),
        lambda: put(tmp_path, serial=7, at=now - 50, fresh_until=now - 5),
        lambda: put(tmp_path, serial=8, at=now + DAY_S, fresh_until=now + 2 * DAY_S),
        lambda: put(tmp_path, standing(LadderStep.SUSPEND), serial=9),
        lambda: put(tmp_path, standing(expires=now + 2 * DAY_S), serial=10),
        lambda: put(tmp_path, limit, limit, serial=11),
        lambda: file.write_bytes(_signed(content)),
        file.unlink,
    ]
    for number, attempt in enumerate(attempts, start=1):
        attempt()
        until(lambda n=number: refused() == n)
        assert ask(url).status_code == 429, number
    put(tmp_path, serial=6)
    until(lambda: ask(url).status_code == 200)


def _signed(content: dict[str, Any]) -> bytes:
    """Sign a content that no schema of ours has."""
    body = json.dumps(content).encode()
    base = AccountStates(serial=1, at=0, fresh_until=0)
    envelope = json.loads(sealed(base, "monitor", KEY))
    mark = base64.b64encode(KEY.sign(b"safehold-account-states/1\0" + body)).decode()
    envelope |= {"content": base64.b64encode(body).decode(), "signature": mark}
    return json.dumps(envelope).encode()


def test_a_gateway_does_not_start_without_its_states(tmp_path: Path) -> None:
    """Missing, rolled back or with lost memory: somebody may have freed an account meanwhile."""
    settings = put(tmp_path, standing(), serial=3)
    assert AccountStateFile(settings, time.time).content.serial == 3
    put(tmp_path, serial=2)
    with pytest.raises(AccountStateError):
        AccountStateFile(settings, time.time)
    put(tmp_path, serial=4)
    (tmp_path / "states.memory").write_text("?")
    with pytest.raises(AccountStateError):
        AccountStateFile(settings, time.time)
    (tmp_path / "states.json").unlink()
    with pytest.raises(AccountStateError):
        AccountStateFile(settings, time.time)


def test_settings_that_trust_nobody_or_half_a_log_are_refused(tmp_path: Path) -> None:
    """No key, a log without its keys, a pause of hours; a log without its releases."""
    good = put(tmp_path, serial=1)
    for changes in ({"keys": {}}, {"log": "log"}, {"reload_s": 3_600.0}):
        given = msgspec.to_builtins(good) | changes
        with pytest.raises(ConfigError):
            AccountStateSettings(**given)
    named = msgspec.structs.replace(good, log="log", log_keys="keys")
    with pytest.raises(ConfigError, match="account_states names"):
        enforced(Settings(account_states=named))


def test_two_workers_follow_the_file(tmp_path: Path) -> None:
    """Every worker limits the account soon after the change, and serves its twin."""
    members = msgspec.structs.fields(AccountStateSettings)
    (stock,) = (one.default for one in members if one.name == "reload_s")
    assert stock <= 1  # a step is in force within two looks
    settings = put(tmp_path, serial=1)
    with (
        MockUpstream(says("hello")) as upstream,
        served(
            tmp_path,
            upstream.url,
            "--workers",
            "2",
            store=f"sqlite:///{tmp_path}/store.db",
            keys=msgspec.to_builtins(CLIENTS),
            account_states=msgspec.to_builtins(settings),
        ) as at,
    ):
        url = f"http://127.0.0.1:{at.port}"
        assert ask(url).status_code == 200
        limit = standing(LadderStep.RATE_LIMIT, requests_per_hour=1)
        put(tmp_path, limit, serial=2)
        # The hour's one request is spent; an hour may end at any moment.
        until(lambda: {ask(url).status_code for _ in range(12)} == {429})
        assert {ask(url, "ann").status_code for _ in range(6)} == {200}
