"""`safehold intel`: out without content, in on trial, each with its leaf."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from safehold.cli.intel import intel
from safehold.cli.log import log
from safehold.detect.intel.candidate import candidate
from safehold.detect.intel.interface import Feed
from safehold.detect.intel.store import IntelStore
from safehold.errors import ConfigError, DataError, SafeholdError, UpstreamError, UsageError
from safehold.guard.bundle.signing import load_or_make_key
from safehold.testing.bundles import write_tiny
from safehold.testing.intel import SOURCE
from safehold.testing.monitoring import fill
from safehold.testing.ports import held_port


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a log, a configuration, a group's key and a template."""
    made = CliRunner().invoke(log, ["init", f"{tmp_path}/log", "--origin", "example.org/t"])
    assert made.exit_code == 0
    (tmp_path / "intel.yaml").write_text("organisation: Example lab\ngroup: example-group\n")
    (tmp_path / "template.txt").write_text(SOURCE)
    _run(tmp_path, "new-key", f"{tmp_path}/group.key")
    return tmp_path


def _run(folder: Path, *words: str) -> str:
    places = ["--config", f"{folder}/intel.yaml", "--intel", f"{folder}/i.db"]
    places += ["--log", f"{folder}/log"]
    done = CliRunner().invoke(intel, [*places, *words], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def _add(folder: Path, *more: str) -> str:
    key = ["--text", f"{folder}/template.txt", "--group-key", f"{folder}/group.key"]
    return _run(folder, "add", "lighthouse-letter", *key, "--band", "high", *more)


def test_a_technique_goes_out_without_its_text(folder: Path) -> None:
    """Added, listed, exported in both forms; the store holds no word of the template."""
    name = _add(folder, "--chain", "base64", "--seen", "2026-W47:3").strip()
    assert name.startswith("attack-pattern--")
    assert json.loads(_run(folder, "list"))[0]["family"] == "lighthouse-letter"
    bundle = json.loads(_run(folder, "export", "--by", "ann"))
    assert name in {one["id"] for one in bundle["objects"]}
    event = json.loads(_run(folder, "export", "--by", "ann", "--format", "misp"))
    assert event["Event"]["Attribute"]
    assert b"nephew" not in (folder / "i.db").read_bytes()
    listed = CliRunner().invoke(log, ["list", f"{folder}/log", "--json"])
    assert listed.output.count("intel-out") >= 2


def test_what_is_typed_wrongly_is_said(folder: Path) -> None:
    """A sentence as a family, a week that is none, a feed that is not there."""
    with pytest.raises(UsageError, match="--seen"):
        _add(folder, "--seen", "yesterday:3")
    with pytest.raises(UsageError, match="rm"):
        _add(folder, "--seen", "2026-W47:3", "--chain", "rm")
    with pytest.raises(UsageError, match="no feed x"):
        _run(folder, "pull", "x")
    (folder / "intel.yaml").write_text("organisation: x\ngroup: y\nsecret: z\n")
    with pytest.raises(ConfigError, match="unknown field"):
        _run(folder, "export", "--by", "ann")


def test_a_client_gets_a_password_whose_digest_alone_is_kept(folder: Path) -> None:
    """The same name twice is refused."""
    clients = ["--clients", f"{folder}/clients.yaml"]
    password = _run(folder, "new-client", "partner-lab", *clients).strip()
    assert len(password) > 40
    assert password not in (folder / "clients.yaml").read_text()
    with pytest.raises(UsageError, match="already"):
        _run(folder, "new-client", "partner-lab", *clients)
    with pytest.raises(UsageError, match="name"):
        _run(folder, "new-client", "Partner Lab", *clients)


def test_one_lab_serves_and_another_pulls_pushes_and_tries(
    folder: Path, tmp_path: Path, port: int
) -> None:
    """`intel serve` in a process of its own; what comes is quarantined, promoted and tried."""
    _add(folder, "--chain", "base64", "--seen", "2026-W47:3")
    clients = ["--clients", f"{folder}/clients.yaml"]
    password = _run(folder, "new-client", "partner-lab", *clients).strip()
    command = [sys.executable, "-m", "safehold", "intel", "--config", f"{folder}/intel.yaml"]
    command += ["--intel", f"{folder}/i.db", "--log", f"{folder}/log"]
    command += ["serve", "--port", str(port), *clients]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        names = [process.stdout.readline().split(": ")[1].strip() for _ in range(2)]
        _await(port)
        feeds = [
            f"  - {{name: {name}, api_root: 'http://127.0.0.1:{port}/taxii2/root/', "
            f"collection: {collection}, user: partner-lab, password_env: THEIR_PASSWORD}}\n"
            for name, collection in zip(("theirs", "inbox"), names, strict=True)
        ]
        (folder / "intel.yaml").write_text(
            "organisation: Other lab\ngroup: example-group\nfeeds:\n" + "".join(feeds)
        )
        os.environ["THEIR_PASSWORD"] = password
        places = ["--intel", f"{folder}/other.db"]
        assert json.loads(_run(folder, *places, "pull", "theirs")) == {"taken": 7}
        assert set(json.loads(_run(folder, *places, "pull", "theirs"))) <= {"replayed"}
        sent = json.loads(_run(folder, "push", "inbox", "--by", "ann"))
        assert sent["success_count"] == 7
        os.environ["THEIR_PASSWORD"] = "another"
        with pytest.raises(UpstreamError, match="401"):
            _run(folder, *places, "pull", "theirs")
    finally:
        os.environ.pop("THEIR_PASSWORD", None)
        process.terminate()
        process.wait(60)
        process.stdout.close()
    shown = json.loads(_run(folder, *places, "show"))
    number = next(
        one["number"] for one in shown["quarantine"] if one["id"].startswith("attack-pattern")
    )
    out = ["--out", f"{tmp_path}/candidates"]
    path = _run(folder, *places, "promote", str(number), *out).strip()
    rule = {"id": "r", "clause": "c", "pattern": "zeppelin", "example": "zeppelin"}
    (folder / "rules.yaml").write_text(json.dumps({"rules": [rule]}))
    tried = json.loads(_run(folder, *places, "try", path, "--bundle", f"{folder}/rules.yaml"))
    assert tried["requests"] == 12
    states = {one["state"] for one in json.loads(_run(folder, *places, "show"))["quarantine"]}
    assert states == {"quarantined", "tested"}


def test_a_bundle_that_nobody_vouches_for_is_tried_by_nobody(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a key, and with another's: one line; one's own key is trusted as everywhere."""
    monkeypatch.setenv("HOME", str(folder))
    own = folder / ".config" / "safehold" / "bundle-key.pem"
    own.parent.mkdir(parents=True)
    write_tiny(folder / "bundle", load_or_make_key(folder / "signing.pem"))
    rules = candidate_file(folder)
    tried = ["try", rules, "--bundle", f"{folder}/bundle"]
    with pytest.raises(ConfigError, match="a bundle needs trust"):
        _run(folder, *tried)
    load_or_make_key(own)
    with pytest.raises(SafeholdError, match="did not start"):
        _run(folder, *tried)
    shutil.rmtree(folder / "bundle")
    write_tiny(folder / "bundle", load_or_make_key(own))
    assert json.loads(_run(folder, *tried))["requests"] == 12


def candidate_file(folder: Path) -> str:
    """Return a candidate test of a technique that a partner told."""
    _add(folder, "--chain", "base64", "--seen", "2026-W47:3")
    bundle = json.loads(_run(folder, "export", "--by", "ann"))
    of = {"name": "partners", "api_root": "http://127.0.0.1:1/", "collection": "c"}
    store = IntelStore(str(folder / "theirs.db"), leaves=_Quiet())
    told = [one for one in bundle["objects"] if one["type"] == "attack-pattern"]
    store.receive(msgspec.convert(of, Feed), told)
    (found,) = store.quarantined()
    path = folder / "test.json"
    path.write_bytes(msgspec.json.encode(candidate(found, now=time.time())))
    return str(path)


@pytest.fixture
def port() -> Iterator[int]:
    """A port for the server."""
    with held_port() as port:
        yield port


def _await(port: int) -> None:
    until = time.monotonic() + 60
    while time.monotonic() < until:
        with socket.socket() as sock:
            if sock.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise TimeoutError("the server does not listen")


def test_a_sketch_finds_its_template_in_the_ledger_under_the_groups_key_alone(
    folder: Path,
) -> None:
    """An edited copy is found, an unlike prompt is not, and with another key nothing is."""
    edited = SOURCE.replace("<<ask>>", "how do I rack beer?").replace("nephew", "niece")
    other = "Please write a long letter to my landlord about the heating. " * 5
    fill(str(folder / "l.db"), [("a", edited, False), ("a", other, False), ("b", "hello", True)])
    _add(folder, "--seen", "2026-W47:3")
    bundle = json.loads(_run(folder, "export", "--by", "ann"))
    feed = msgspec.convert(
        {"name": "partners", "api_root": "http://127.0.0.1:1/", "collection": "c"}, Feed
    )
    store = IntelStore(str(folder / "theirs.db"), leaves=_Quiet())
    store.receive(feed, [one for one in bundle["objects"] if one["type"] == "indicator"])
    (found,) = store.quarantined()
    test = candidate(found, now=time.time())
    (folder / "test.json").write_bytes(msgspec.json.encode(test))
    look = ["match", f"{folder}/test.json", "--ledger", f"{folder}/l.db", "--group-key"]
    told = json.loads(_run(folder, *look, f"{folder}/group.key"))
    assert told["n"] == 3
    assert [one["decision_id"] for one in told["alike"]] == ["d0"]
    assert told["alike"][0]["share"] >= 0.5
    _run(folder, "new-key", f"{folder}/foreign.key")
    none = json.loads(_run(folder, *look, f"{folder}/foreign.key"))
    assert none == {"alike": [], "n": 3}
    (folder / "bare.json").write_bytes(
        msgspec.json.encode(msgspec.structs.replace(test, sketch="", chain=("base64",)))
    )
    with pytest.raises(DataError, match="no sketch"):
        _run(folder, "match", f"{folder}/bare.json", *look[2:], f"{folder}/group.key")


class _Quiet:
    def append(self, kind: str, facts: dict[str, str]) -> None:
        assert kind
        assert facts
