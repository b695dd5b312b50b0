"""Who am I, how does it stand, the same again, and who is told: as typed."""

import http.server
import json
import shutil
import threading
from pathlib import Path

import pytest
from click.shell_completion import ShellComplete
from test_cli_trust import Desk, ask, desk

from safehold.cli import safehold

pytestmark = pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="needs OpenSSH")
__all__ = ["desk"]


def test_whoami_says_what_waits_for_whom(desk: Desk) -> None:
    """A request waits for those who may still approve it, and for nobody else."""
    request = ask(desk)

    def who(name: str) -> dict[str, object]:
        printed = desk.ok("grant", "whoami", "--json", "--ssh-key", desk.path(name))
        found: dict[str, object] = json.loads(printed)
        return found

    assert who("ada")["waiting_for_you"] == []
    assert who("ada")["your_requests"] == [request]
    assert who("ben")["waiting_for_you"] == [request]
    assert who("ben")["teams"] == ["t-ops"]
    desk.ok("grant", "approve", request, "--yes", "--ssh-key", desk.path("ben"))
    assert who("dora")["waiting_for_you"] == []
    assert "enrolled" in desk.refused("grant", "whoami", "--ssh-key", desk.path("cleo"))
    assert "Ben" in desk.ok("grant", "whoami", "--ssh-key", desk.path("ben"))


def test_status_counts_and_exits_with_one_when_somebody_must_look(desk: Desk) -> None:
    """A quiet enclave ends with 0; a leaf without effect is named and ends with 1."""
    request = ask(desk)
    facts = json.loads(desk.ok("grant", "status", "--json"))
    assert (facts["requests_waiting"], facts["grants_in_force"]) == (1, 0)
    desk.ok("grant", "approve", request, "--yes", "--ssh-key", desk.path("ben"))
    facts = json.loads(desk.ok("grant", "status", "--json"))
    assert (facts["requests_waiting"], facts["grants_in_force"]) == (0, 1)
    assert facts["people"].startswith("3 humans")


def test_renew_asks_for_the_same_again_and_carries_no_approval_over(desk: Desk) -> None:
    """The new request has the old scope, a new window, and needs its own approvals."""
    request = ask(desk)
    desk.ok("grant", "approve", request, "--yes", "--ssh-key", desk.path("ben"))
    done = desk.run("grant", "renew", request, "--minutes", "30", "--ssh-key", desk.path("ada"))
    assert "0 of 1 use(s)" in done.stderr
    new = json.loads(desk.ok("grant", "show", done.stdout.strip(), "--json"))
    old = json.loads(desk.ok("grant", "show", request, "--json"))
    assert new["approved_by"] == []
    assert new["request"]["resource"] == old["request"]["resource"]
    assert new["request"]["expires"] - new["request"]["not_before"] == 1800
    desk.ok(
        *("people", "offer", desk.path("cleo.json"), "--name", "Cleo", "--team", "t-ops"),
        *("--log-keys", desk.path("log/log.json"), "--ssh-key", desk.path("cleo")),
    )
    enrol = desk.ok("people", "enrol", desk.path("cleo.json"), "--ssh-key", desk.path("ada"))
    assert "own command" in desk.refused("grant", "renew", enrol, "--ssh-key", desk.path("ada"))


def test_approvers_are_told_by_a_program_and_a_webhook(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names and id go out, nothing secret; a deaf webhook is a warning, for the request stands."""
    heard: list[str] = []

    class Hook(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = int(self.headers["content-length"])
            heard.append(json.loads(self.rfile.read(length))["text"])
            self.send_response(200)
            self.end_headers()

        def log_message(self, *args: object) -> None:
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Hook)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    url = f"http://127.0.0.1:{server.server_port}/hook"
    program = Path(desk.path("tell"))
    program.write_text('#!/bin/sh\nprintf "%s|" "$@" >> "$(dirname "$0")/told"\n')
    program.chmod(0o755)
    try:
        monkeypatch.setenv("SAFEHOLD_NOTIFY", f"{url} {program}")
        request = ask(desk)
    finally:
        server.shutdown()
        thread.join(30)
        server.server_close()
    for text in (*heard, Path(desk.path("told")).read_text()):
        assert request[:12] in text
        assert "Ben, Dora" in text
        assert "Ada" not in text
    assert len(heard) == 1
    monkeypatch.setenv("SAFEHOLD_NOTIFY", url)
    options = ("--resource", "model/brewer/2", "--host", "gpu-1", "--workload", "ab" * 32)
    words = (*options, "--minutes", "5", "--purpose", "x", "--ticket", "y")
    done = desk.run("grant", "request", "weights.load", *words, "--ssh-key", desk.path("ada"))
    assert done.exit_code == 0
    assert "told nobody" in done.stderr
    monkeypatch.setenv("SAFEHOLD_NOTIFY", "http://example.invalid/hook")
    done = desk.run("grant", "request", "weights.load", *words, "--ssh-key", desk.path("ada"))
    assert "https" in str(done.exception or done.stderr)


def test_the_stock_policy_founds_an_enclave(tmp_path: Path) -> None:
    """The documented way: a policy written by a command, three founders, one founding."""
    made = Desk(tmp_path)
    made.ok("log", "init", made.path("log"), "--origin", "cli.test/log")
    policy = made.path("stock.toml")
    words = ("--rp-id", "localhost", "--origin", "http://localhost:8443", "--key", "ssh")
    made.ok("grant", "stock-policy", policy, "--team", "t-ops", "--people", "3", *words)
    assert "new file" in made.refused("grant", "stock-policy", policy, "--team", "t-ops", *words)
    people = [f"{name},t-ops,{made.path(name.lower())}.pub" for name in ("Ada", "Ben", "Dora")]
    made.ok(
        *("people", "draft", made.path("founding.json"), "--origin", "cli.test/log"),
        *("--policy", policy, "--team", "t-ops=Operations"),
        *(word for one in people for word in ("--person", one)),
    )
    assert "weights.load" in made.ok("grant", "operations")


def test_a_shell_completes_commands_and_open_requests(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the printed script asks for: subcommands by name, requests by id."""
    request = ask(desk)
    monkeypatch.setenv("SAFEHOLD_LOG", desk.path("log"))
    complete = ShellComplete(safehold, {}, "safehold", "_SAFEHOLD_COMPLETE")
    assert "whoami" in [one.value for one in complete.get_completions(["grant"], "wh")]
    found = complete.get_completions(["grant", "approve"], request[:3])
    assert [one.value for one in found] == [request[:12]]
    monkeypatch.setenv("SAFEHOLD_LOG", desk.path("none"))
    assert complete.get_completions(["grant", "approve"], "") == []
    for shell in ("bash", "zsh", "fish"):
        assert "_SAFEHOLD_COMPLETE" in desk.ok("completion", shell)
