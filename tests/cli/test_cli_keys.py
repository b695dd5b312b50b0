"""`safehold keys`: every command against a running gateway, and what it says when it can't."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from safehold.cli.keys import keys
from safehold.errors import ConfigError, TrustError, UpstreamError, UsageError, WireError
from safehold.guard.gateway.policy import Key, Settings, Upstream, digest_key
from safehold.guard.gateway.server import Parts
from safehold.testing.answering import Answering
from safehold.testing.gateway import PATIENT, RunningGateway
from safehold.testing.guards import held_rules
from safehold.testing.ledger import MemoryLedger
from safehold.testing.ports import held_port
from safehold.testing.upstream import MockUpstream

ADMIN = "sk-safehold-zyxwvutsrqponmlkjihgfedcba98"
Run = Callable[..., object]


@pytest.fixture
def gateway() -> Iterator[RunningGateway]:
    """A running gateway with an administrator and one configured client."""
    given = (
        Key(id="ops", sha256=digest_key(ADMIN), admin=True),
        Key(id="old", sha256=digest_key("sk-safehold-0123456789abcdefghijklmnop")),
    )
    parts = Parts(loader=Path, held=held_rules(), ledger=MemoryLedger())
    with MockUpstream() as upstream:
        settings = Settings(
            upstream=Upstream(url=upstream.url), port=0, keys=given, log="none", limits=PATIENT
        )
        with RunningGateway(settings, parts) as running:
            yield running


@pytest.fixture
def run(gateway: RunningGateway, tmp_path: Path) -> Run:
    """Run one command; with --json its answer, else its text. Errors are raised."""
    (tmp_path / "admin.key").write_text(f"{ADMIN}\n")
    (tmp_path / "admin.key").chmod(0o600)

    def go(*arguments: str, url: str = "", key: str = "") -> object:
        if key:
            (tmp_path / "admin.key").write_text(key)
        options = ["--gateway", url or gateway.url]
        options += ["--admin-key-file", str(tmp_path / "admin.key")]
        result = CliRunner().invoke(keys, [*options, *arguments], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return json.loads(result.output) if "--json" in arguments else result.output

    return go


def test_a_keys_whole_life(run: Run, gateway: RunningGateway) -> None:
    """A key is made, shown, limited, rotated and revoked; a configured one revoked and restored."""
    made = run("add", "laptop", "--tenant", "research", "--expires-in", "30d", "--json")
    assert made["key"].startswith("sk-safehold-")
    run("budget", "laptop", "--requests-per-minute", "60", "--tokens-per-day", "900")
    run("budget", "laptop", "--tokens-per-day", "none")
    shown = run("show", "laptop", "--json")
    assert shown["budget"]["requests_per_minute"] == 60
    assert shown["budget"]["tokens_per_day"] is None
    assert shown["budget"]["unreadable_per_day"] == 2_000
    assert shown["used"]["requests_per_minute"] == 0
    assert shown["tenant"] == "research"
    ring = gateway.gateway.gate.ring
    anew = run("rotate", "laptop", "--grace", "1h", "--json")
    assert anew["key"] != made["key"]
    assert ring.client(made["key"]).id == ring.client(anew["key"]).id == "laptop"
    assert "laptop  active" in run("list")
    assert "used requests_per_minute: 0" in run("show", "laptop")
    assert run("revoke", "laptop") == "laptop: revoked\n"
    for key in (made["key"], anew["key"]):
        with pytest.raises(TrustError):
            ring.client(key)
    run("revoke", "old")
    assert run("restore", "old", "--json") == {"id": "old", "state": "active"}


def test_a_tenants_bounds(run: Run) -> None:
    """A tenant is bounded step by step, blocked, let in, and unbound."""
    run("add", "one", "--tenant", "team", "--model", "m", "--surface", "openai.chat")
    run("tenant", "team", "--requests-per-minute", "5", "--model", "qwen-*")
    run("tenant", "team", "--tokens-per-day", "7")
    shown = run("tenant", "team", "--json")
    assert shown["budget"]["requests_per_minute"] == 5
    assert shown["budget"]["tokens_per_day"] == 7
    assert shown["models"] == ["qwen-*"]
    assert shown["keys"] == ["one"]
    assert shown["used"] == {"requests_per_minute": 0, "tokens_per_day": 0}
    run("block", "team")
    assert "team  blocked  keys one" in run("tenants")
    run("unblock", "team")
    run("tenant", "team", "--unbound")
    team = next(one for one in run("tenants", "--json")["tenants"] if one["id"] == "team")
    assert (team["state"], team["from"], team["models"]) == ("active", None, [])


@pytest.mark.parametrize(
    ("arguments", "error", "said"),
    [
        (("show", "nobody"), UsageError, "expected the id of a key"),
        (("budget", "old", "--tokens-per-day", "3"), UsageError, "this API made"),
        (("add", "x", "--tokens-per-day", "-3"), UsageError, "a number or none"),
        (("add", "x", "--tokens-per-day", "many"), UsageError, "a number or none"),
        (("add", "x", "--expires-in", "soon"), UsageError, "a period like"),
        (("add", "x/y"), UsageError, "id: expected"),
        (("add", "x", "--surface", "nowhere"), UsageError, "--surface"),
        (("add", "old"), ConfigError, "there is a key of this id"),
        (("revoke", "ops"), ConfigError, "can't revoke the key that is asking"),
        (("rotate", "old"), UsageError, "this API made"),
        (("rotate", "x", "--grace", "31d"), UsageError, "grace_s"),
        (("unblock", "nobody"), UsageError, "that is blocked"),
        (("tenant", "nobody"), UsageError, "the name of a tenant"),
        (("budget", "old"), UsageError, "a limit that is to change"),
        (("add", "x", "--tokens-per-day", "\u0663"), UsageError, "a number or none"),
        (("tenant", "x", "--tokens-per-day", ""), UsageError, "a number or none"),
        (("tenant", "x", "--unbound", "--model", "m"), UsageError, "expected it alone"),
        (("add", "x", "--expires-in", "0d"), UsageError, "--expires-in: expected a period"),
        (("add", "x", "--expires-in", "999999999w"), UsageError, "at most 36500d"),
        (("rotate", "x", "--grace", ""), UsageError, "--grace: expected a period"),
        (("add", "x", "--tenant", "x" * 129), UsageError, "1 to 128 printable"),
        (("add", "x", "--tenant", "a\u202eb"), UsageError, "printable"),
        (("add", "x", "--tenant", "cafe\u0301"), UsageError, "composed"),
        (("add", "x", "--tenant", " x"), UsageError, "no space at its ends"),
        (("block", "a\nb"), UsageError, "printable"),
        (("add", "x", "--surface", "openai.chats"), UsageError, "one of openai.chat"),
    ],
)
def test_what_can_not_be_done_is_said(
    run: Run, arguments: tuple[str, ...], error: type[Exception], said: str
) -> None:
    """Each refusal is one error of ours with the gateway's sentence."""
    with pytest.raises(error, match=said):
        run(*arguments)


def test_wrong_key_and_no_gateway(run: Run) -> None:
    """A key that is no administrator's is status 5, an address without a gateway status 4."""
    with held_port() as nobody, pytest.raises(UpstreamError, match="nobody answers"):
        run("list", url=f"http://127.0.0.1:{nobody}")
    with pytest.raises(UsageError, match="http or https"):
        run("list", url="file:///etc/passwd")
    with pytest.raises(TrustError, match="refuses the admin key"):
        run("list", key="sk-nobody")


ODD_NAMES = (
    "a/b",
    "größe/team a",
    "..",
    "a%2Fb",
    "block",
    "x/block",
    "研究",
    "q?r#s",
    "per cent %",
)


@pytest.mark.parametrize("name", ODD_NAMES)
def test_whatever_a_tenant_is_called_it_is_bounded_and_blocked(
    run: Run, gateway: RunningGateway, name: str
) -> None:
    """A name that `add` takes is one that every other command reaches, and no other tenant's."""
    made = run("add", "one", "--tenant", name, "--json")
    run("add", "other", "--tenant", f"{name}x")
    run("tenant", name, "--tokens-per-day", "7")
    assert run("tenant", name, "--json")["keys"] == ["one"]
    run("block", name)
    gate = gateway.gateway.gate
    assert gate.suspended(gate.client(made["key"])) is not None
    states = {one["id"]: one["state"] for one in run("list", "--json")["keys"]}
    assert states == {"old": "active", "ops": "active", "one": "tenant blocked", "other": "active"}
    run("unblock", name)
    assert gate.suspended(gate.client(made["key"])) is None


def test_an_id_is_used_once(run: Run) -> None:
    """A revoked id is not made again: rows that name it mean one key."""
    run("add", "laptop")
    run("revoke", "laptop")
    with pytest.raises(ConfigError, match="was revoked"):
        run("add", "laptop")


@pytest.mark.parametrize(
    ("content", "mode", "said"),
    [
        (b"", 0o600, "a key of ASCII letters"),
        (b"one\ntwo\n", 0o600, "a key of ASCII letters"),
        (b"\xff\xfe", 0o600, "a key of ASCII letters"),
        (ADMIN.encode(), 0o644, "chmod 600"),
        (b"x" * 5_000, 0o600, "at most"),
    ],
)
def test_an_admin_key_file_that_is_none_is_said(
    run: Run, tmp_path: Path, content: bytes, mode: int, said: str
) -> None:
    """The file is read as every other secret is; nothing of it is sent or printed."""
    (tmp_path / "admin.key").write_bytes(content)
    (tmp_path / "admin.key").chmod(mode)
    with pytest.raises(ConfigError, match=said):
        run("list")


def test_the_address_that_clients_know_will_do(run: Run, gateway: RunningGateway) -> None:
    """`/v1` and a slash at the end of the address are no other gateway."""
    assert run("list", url=f"{gateway.url}/v1/") == run("list")


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"{}", b'{"keys":5,"tenants":5}', b'{"keys":[{}],"tenants":[7]}', b"[" * 50_000],
)
@pytest.mark.parametrize("arguments", [("list",), ("show", "x"), ("tenants",), ("add", "x")])
def test_an_answer_that_is_no_gateways_is_one_error(
    run: Run, body: bytes, arguments: tuple[str, ...]
) -> None:
    """Whatever another server answers, it is one sentence, never a traceback."""
    with Answering(_whole(body)) as other, pytest.raises(WireError, match="expected"):
        run(*arguments, url=other.url)


def test_a_web_servers_own_error_is_no_word_of_a_gateway(run: Run) -> None:
    """A 404 of something else says so, and that it is no gateway."""
    page = b"HTTP/1.1 404 Not Found\r\ncontent-length: 6\r\n\r\n<html>"
    with Answering(page) as other, pytest.raises(UpstreamError, match="a gateway's answer"):
        run("list", url=other.url)


def _whole(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)
