"""Hot rules through the real gateway: in force in two seconds, no stream dropped, no old file."""

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import msgspec
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from gateway_process import served

from safehold.errors import ConfigError
from safehold.guard.bundle.overlay_file import approve, sealed
from safehold.guard.gateway.bundles.hot_rules import HotRuleFile
from safehold.guard.gateway.bundles.released import enforced
from safehold.guard.gateway.overlay_settings import OverlaySettings
from safehold.guard.gateway.policy import Settings
from safehold.guard.ledger.interface import EventKind, EventRow
from safehold.guard.overlay.interface import (
    BenignCost,
    HotRule,
    OverlayContent,
    OverlayError,
    PlacedRule,
    RuleState,
)
from safehold.testing.trust import GOVERNING, POLICY, Enclave
from safehold.testing.upstream import MockUpstream, says
from safehold.trust.grants.details import RuleActivation
from safehold.trust.released.interface import ReleaseSettings

KEYS = {name: Ed25519PrivateKey.from_private_bytes(name.encode() * 8) for name in ("anna", "bela")}
ASK = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}


def keys_in(folder: Path) -> dict[str, str]:
    """Write the persons' public keys."""
    files = {}
    for name, key in KEYS.items():
        path = folder / f"{name}.pub"
        path.write_bytes(
            key.public_key().public_bytes(
                serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
            )
        )
        files[name] = str(path)
    return files


def rule(*, acting: bool = True, lasts: float = 3_600, **fields: str) -> PlacedRule:
    """Return a rule as it stands in the file."""
    now = int(time.time())
    hot = HotRule(
        id="h1",
        clause="test-hot",
        owner="duty",
        incident="i1",
        created=now - 10,
        expires=now + int(lasts),
        cost=BenignCost(0, 100, {}),
        **(fields or {"pattern": "red barrel"}),
    )
    signed = tuple(approve(hot, name, key) for name, key in KEYS.items())
    return PlacedRule(hot, RuleState.ACTING if acting else RuleState.SHADOW, signed)


def put(folder: Path, *rules: PlacedRule, serial: int) -> OverlaySettings:
    """Write the file of hot rules; return the settings that name it."""
    content = OverlayContent(serial=serial, at=int(time.time()), rules=rules)
    draft = folder / "rules.draft"
    draft.write_bytes(sealed(content, "anna", KEYS["anna"]))
    draft.replace(folder / "hot-rules.json")
    return OverlaySettings(
        file=str(folder / "hot-rules.json"),
        keys=keys_in(folder),
        memory=str(folder / "hot-rules.memory"),
    )


def reply(url: str, **changes: object) -> str:
    """Return what a client is answered, whole."""
    answer = httpx.post(f"{url}/v1/chat/completions", json=ASK | changes, timeout=60)
    assert answer.status_code == 200
    return str(answer.json()["choices"][0]["message"]["content"])


def until(true: Callable[[], bool], within_s: float = 60) -> float:
    """Wait for something; return how long it took."""
    began = time.monotonic()
    while not true():
        assert time.monotonic() - began < within_s
        time.sleep(0.05)
    return time.monotonic() - began


def streamed(url: str, out: list[str]) -> None:
    """Stream one reply; collect its text and how it ended."""
    text = ""
    with httpx.stream(
        "POST", f"{url}/v1/chat/completions", json=ASK | {"stream": True}, timeout=60
    ) as answer:
        for line in answer.iter_lines():
            if line.startswith("data: {"):
                for choice in json.loads(line[6:]).get("choices", ()):
                    text += choice["delta"].get("content") or ""
                    out[:] = [text, choice.get("finish_reason") or ""]


def test_a_rule_acts_on_running_streams_and_ends_by_itself(stage: Callable, tmp_path: Path) -> None:
    """Two streams run; the rule stops the one whose next text it matches, and no other."""
    overlay = put(tmp_path, serial=1)
    text = "the blue barrel is here. " * 40 + "the red barrel is here. " * 8
    slow = msgspec.structs.replace(says(text, size=8), delay_s=0.02)
    fine = msgspec.structs.replace(says("the blue barrel is here. " * 45, size=8), delay_s=0.02)
    one, two = stage(slow, hot_rules=overlay), stage(fine, hot_rules=overlay)
    hit: list[str] = ["", ""]
    kept: list[str] = ["", ""]
    threads = [
        threading.Thread(target=streamed, args=(one.gateway.url, hit)),
        threading.Thread(target=streamed, args=(two.gateway.url, kept)),
    ]
    for thread in threads:
        thread.start()
    until(lambda: len(hit[0]) > 50 and len(kept[0]) > 50)
    put(tmp_path, rule(lasts=8), serial=2)
    for thread in threads:
        thread.join()
    assert hit[1] == "content_filter"
    assert "red barrel" not in hit[0]
    assert kept == ["the blue barrel is here. " * 45, "stop"]
    rows = [row for row in one.ledger.rows if isinstance(row, EventRow)]
    hits = [row.detail for row in rows if row.kind is EventKind.RULE_HIT]
    assert {"rule": "h1", "owner": "duty", "acted": True} in hits
    assert any(row.kind is EventKind.HOT_RULES and row.detail["acting"] == 1 for row in rows)
    until(lambda: "red barrel" in reply(one.gateway.url))


def test_a_bad_or_old_file_changes_nothing_and_alarms(stage: Callable, tmp_path: Path) -> None:
    """Garbage, an earlier serial and a missing file leave the acting rule acting."""
    overlay = put(tmp_path, rule(), serial=5)
    one = stage(says("the red barrel is here"), hot_rules=overlay)
    file = tmp_path / "hot-rules.json"
    old = file.read_bytes()
    assert "red barrel" not in reply(one.gateway.url)

    def alarms() -> int:
        rows = [row for row in one.ledger.rows if isinstance(row, EventRow)]
        return sum(row.detail.get("alarm") == "hot-rules-refused" for row in rows)

    file.write_bytes(old[:-20])
    until(lambda: alarms() == 1)
    put(tmp_path, serial=4)
    until(lambda: alarms() == 2)
    file.unlink()
    until(lambda: alarms() == 3)
    assert "red barrel" not in reply(one.gateway.url)
    put(tmp_path, rule(acting=False), serial=6)
    until(lambda: "red barrel" in reply(one.gateway.url))


def test_a_worker_does_not_start_without_the_file_that_it_shall_follow(tmp_path: Path) -> None:
    """Missing is not "no rules": somebody may have taken it away while it was down."""
    overlay = put(tmp_path, rule(), serial=3)
    assert HotRuleFile(overlay, time.time).serial == 3
    put(tmp_path, serial=2)
    with pytest.raises(OverlayError):
        HotRuleFile(overlay, time.time)
    (tmp_path / "hot-rules.json").unlink()
    with pytest.raises(OverlayError):
        HotRuleFile(overlay, time.time)


def test_settings_that_let_nobody_or_one_act_are_refused() -> None:
    """More approvals than persons, none at all, and a pause of hours are errors."""
    for fields in ({"approvals": 3}, {"approvals": 0}, {"reload_s": 3_600.0}):
        given = {"file": "f", "keys": {"a": "a", "b": "b"}, "memory": "m"}
        with pytest.raises(ConfigError):
            OverlaySettings(**(given | fields))


def test_four_workers_follow_the_file(tmp_path: Path) -> None:
    """Every worker that answers refuses soon after the file's change."""
    members = msgspec.structs.fields(OverlaySettings)
    (stock,) = (one.default for one in members if one.name == "reload_s")
    assert stock <= 1  # a rule acts within two looks
    overlay = put(tmp_path, serial=1)
    with (
        MockUpstream(says("the red barrel is here")) as upstream,
        served(
            tmp_path,
            upstream.url,
            "--workers",
            "4",
            store=f"sqlite:///{tmp_path}/store.db",
            hot_rules=msgspec.to_builtins(overlay),
        ) as at,
    ):
        url = f"http://127.0.0.1:{at.port}"
        assert "red barrel" in reply(url)
        put(tmp_path, rule(), serial=2)
        until(lambda: all("red barrel" not in reply(url) for _ in range(24)))


GRANT_RULE = """
[[rule]]
operation = "rule.activate"
thresholds = [{ team = "t-development", count = 1 }]
max_duration_s = 604800
keys = ["ssh"]
"""


class LoggedSite:
    """A log whose policy knows hot rules, and settings that name it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.enclave = Enclave(
            root / "log", policy=POLICY + GOVERNING + GRANT_RULE, now=int(time.time()) - 60
        )
        (root / "pinned.json").write_bytes((root / "log" / "log.json").read_bytes())

    def grant(self, placed: PlacedRule, **changes: object) -> PlacedRule:
        """Have two persons let a rule act, in the log; return the rule that names the grant."""
        details = RuleActivation(
            rule=placed.rule.id, sha256=placed.rule.digest, until=placed.rule.expires
        )
        details = msgspec.structs.replace(details, **changes)
        request = self.enclave.ask(operation="rule.activate", details=details)
        self.enclave.file(request)
        self.enclave.approve(request, "dev-two")
        return msgspec.structs.replace(placed, grant=request.sha256)

    def file(self, *rules: PlacedRule, serial: int) -> HotRuleFile:
        """Return the file of hot rules as a worker reads it."""
        places = {"log": str(self.root / "log"), "log_keys": str(self.root / "pinned.json")}
        settings = msgspec.structs.replace(put(self.root, *rules, serial=serial), **places)
        return HotRuleFile(settings, time.time)


def test_a_rule_acts_only_once_its_grant_is_a_leaf_of_the_log(tmp_path: Path) -> None:
    """Signed in the file but not granted: in shadow, and named; granted since: it acts."""
    site = LoggedSite(tmp_path)
    signed = rule()
    found = site.file(signed, serial=1)
    assert found.ungranted == ("h1",)
    assert not found.source().hits["h1"].acted
    put(tmp_path, site.grant(signed), serial=2)
    assert found.refresh()
    assert found.ungranted == ()
    assert found.source().hits["h1"].acted


@pytest.mark.parametrize("changes", [{"sha256": "a" * 64}, {"until": 1_000}, {"rule": "other"}])
def test_a_grant_of_another_rule_or_of_less_time_lets_nothing_act(
    tmp_path: Path, changes: dict[str, object]
) -> None:
    """What was approved is exactly one rule, until then."""
    site = LoggedSite(tmp_path)
    found = site.file(site.grant(rule(), **changes), serial=1)
    assert found.ungranted == ("h1",)


def test_a_gateway_that_enforces_releases_wants_the_grants_log(tmp_path: Path) -> None:
    """Otherwise two keys in a file would be enough there."""
    named = ReleaseSettings(log="l", log_keys="k", channel="c", documents="d", memory="m")
    settings = Settings(releases=named, hot_rules=put(tmp_path, serial=1))
    with pytest.raises(ConfigError, match="grant in the log"):
        enforced(settings)
