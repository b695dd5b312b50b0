"""The commands about people, grants, exemptions and the log, typed as a user types them."""

import asyncio
import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from safehold.cli import safehold
from safehold.errors import SafeholdError
from safehold.guard.ledger.interface import EventKind, EventRow
from safehold.guard.ledger.writer import Ledger
from safehold.testing.trust import SoftSsh
from safehold.trust.exemptions import CHECKLIST, VettingTier
from safehold.trust.people.sshsig import private_key_text

pytestmark = pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="needs OpenSSH")

POLICY = 'version = 1\nrp_id = "localhost"\norigins = ["http://localhost:8443"]\n' + "".join(
    f'[[rule]]\noperation = "{operation}"\nthresholds = [{{ team = "t-ops", count = {count} }}]\n'
    'max_duration_s = 31536000\nmax_byte_budget = 1000000000\nkeys = ["ssh", "ssh-sk", "passkey"]\n'
    for operation, count in (
        ("people.enrol", 2),
        ("policy.change", 2),
        ("exemption.give", 1),
        ("weights.load", 1),
        ("class.switch-off", 2),
    )
)


class Desk:
    """A folder with keys, a log and a way to type commands."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for name in ("ada", "ben", "cleo", "dora"):
            soft = SoftSsh(name.encode())
            (root / name).write_bytes(private_key_text(soft.private))
            (root / name).chmod(0o600)
            public = getattr(soft.key, "public", "")
            (root / f"{name}.pub").write_text(f"{public} {name}\n")
        (root / "policy.toml").write_text(POLICY)

    def run(self, *words: str) -> Result:
        """Run one command in the folder."""
        env = {"SAFEHOLD_LOG": str(self.root / "log")}
        return CliRunner().invoke(safehold, list(words), env=env, catch_exceptions=True)

    def ok(self, *words: str) -> str:
        """Run one command that must succeed, and return what it printed."""
        done = self.run(*words)
        assert done.exit_code == 0, (words, done.output, done.exception)
        return done.stdout.strip()

    def refused(self, *words: str) -> str:
        """Run one command that must fail with one clear line."""
        done = self.run(*words)
        if done.exit_code == 2 and not isinstance(done.exception, SafeholdError):
            return done.output
        assert isinstance(done.exception, SafeholdError), (words, done.output)
        assert "\n" not in str(done.exception)
        return str(done.exception)

    def path(self, name: str) -> str:
        """Return a file of the folder."""
        return str(self.root / name)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    """Return a founded desk of Ada, Ben and Dora."""
    made = Desk(tmp_path)
    made.ok("log", "init", made.path("log"), "--origin", "cli.test/log")
    people = [f"{name},t-ops,{made.path(name.lower())}.pub" for name in ("Ada", "Ben", "Dora")]
    made.ok(
        *("people", "draft", made.path("founding.json"), "--origin", "cli.test/log"),
        *("--policy", made.path("policy.toml"), "--team", "t-ops=Operations"),
        *(word for one in people for word in ("--person", one)),
    )
    signatures = []
    for name in ("ada", "ben", "dora"):
        printed = made.ok(
            "people", "sign", made.path("founding.json"), "--ssh-key", made.path(name)
        )
        signatures.append(printed.splitlines()[-1].removeprefix("signed: "))
    refused = made.refused("people", "found", made.path("founding.json"), signatures[0])
    assert "founders" in refused
    made.ok("people", "found", made.path("founding.json"), *signatures)
    return made


def ask(desk: Desk, name: str = "ada", **changes: str) -> str:
    """File a request to load weights, and return its id."""
    options = {
        "--resource": "model/brewer/1",
        "--host": "gpu-1",
        "--workload": "ab" * 32,
        "--bytes": "1MB",
        "--minutes": "60",
        "--purpose": "serve it",
        "--ticket": "OPS-1",
        "--ssh-key": desk.path(name),
        **{f"--{key}": value for key, value in changes.items()},
    }
    words = [word for pair in options.items() for word in pair]
    return desk.ok("grant", "request", "weights.load", *words)


def test_grant_from_request_to_revocation(desk: Desk) -> None:
    """Ada asks, can't approve, Ben approves, Ada's grant is shown and revoked."""
    request = ask(desk)
    own = desk.refused("grant", "approve", request, "--yes", "--ssh-key", desk.path("ada"))
    assert "own request" in own
    stranger = desk.refused("grant", "approve", request, "--yes", "--ssh-key", desk.path("cleo"))
    assert "enrolled" in stranger
    printed = desk.ok("grant", "approve", request[:12], "--yes", "--ssh-key", desk.path("ben"))
    assert "serve it" in printed
    assert "1,000,000" in printed
    shown = json.loads(desk.ok("grant", "show", request, "--json"))
    assert shown["status"] == "granted, 1 use(s) left"
    assert shown["request"]["purpose"] == "serve it"
    words = ("--reason", "drill", "--ssh-key", desk.path("ben"))
    desk.ok("grant", "revoke", request, *words)
    assert "revoked" in desk.ok("grant", "show", request)
    assert desk.ok("grant", "list") == ""
    assert json.loads(desk.ok("grant", "list", "--all", "--json"))[0]["sha256"] == request


def test_approval_is_asked_for_before_it_is_signed(desk: Desk) -> None:
    """Without --yes the command shows the request and waits; no means no signature."""
    request = ask(desk)
    done = desk.run("grant", "approve", request, "--ssh-key", desk.path("ben"))
    assert done.exit_code == 1
    assert json.loads(desk.ok("grant", "show", request, "--json"))["approved_by"] == []


def test_signature_made_elsewhere_counts(desk: Desk) -> None:
    """What `grant statement` prints can be signed on another machine."""
    import subprocess  # noqa: PLC0415 - only here

    request = ask(desk)
    Path(desk.path("s")).write_text(desk.ok("grant", "statement", request) + "\n")
    command = ["ssh-keygen", "-Y", "sign", "-q", "-n", "safehold-act", "-f", desk.path("ben")]
    subprocess.run([*command, desk.path("s")], check=True, capture_output=True)
    desk.ok("grant", "approve", request, "--yes", "--signature", desk.path("s.sig"))
    assert "granted" in desk.ok("grant", "show", request)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"bytes": "lots"}, "bytes"),
        ({"resource": "brewer"}, "KIND/NAME/VERSION"),
        ({"workload": "xyz"}, "the request"),
        ({"purpose": "two\nlines"}, "one line of 1 to 400 visible"),
    ],
)
def test_wrong_requests_are_one_clear_line(desk: Desk, changes: dict[str, str], words: str) -> None:
    """What can't be a request is refused before anything is signed."""
    with pytest.raises(AssertionError, match=words):
        ask(desk, **changes)


def test_enrolment_and_policy_are_two_party(desk: Desk) -> None:
    """A person and a policy change when two others approve."""
    desk.ok(
        *("people", "offer", desk.path("cleo.json"), "--name", "Cleo", "--team", "t-ops"),
        *("--log-keys", desk.path("log/log.json"), "--ssh-key", desk.path("cleo")),
    )
    request = desk.ok("people", "enrol", desk.path("cleo.json"), "--ssh-key", desk.path("ada"))
    assert len(json.loads(desk.ok("people", "list", "--json"))["persons"]) == 3
    for name in ("ben", "dora"):
        desk.ok("grant", "approve", request, "--yes", "--ssh-key", desk.path(name))
    assert "Cleo" in desk.ok("people", "list")
    assert "expected version 2" in desk.refused(
        *("grant", "policy", desk.path("policy.toml"), "--request"),
        *("--ssh-key", desk.path("ada")),
    )
    Path(desk.path("policy.toml")).write_text(POLICY.replace("version = 1", "version = 2"))
    assert "ok: version 2" in desk.ok("grant", "policy", desk.path("policy.toml"))
    change = desk.ok(
        *("grant", "policy", desk.path("policy.toml"), "--request"),
        *("--ssh-key", desk.path("cleo")),
    )
    for name in ("ada", "dora"):
        desk.ok("grant", "approve", change, "--yes", "--ssh-key", desk.path(name))
    assert "granted" not in desk.ok("grant", "show", change)
    assert "version 2" in desk.ok("grant", "show", ask(desk))


@pytest.mark.parametrize(("option", "said"), [("minutes", "minutes"), ("bytes", "bytes")])
def test_a_request_that_no_rule_could_grant_is_refused_at_once(
    desk: Desk, option: str, said: str
) -> None:
    """Nobody is asked to approve what goes beyond the rule."""
    words = ["--resource", "model/brewer/1", "--host", "gpu-1", "--workload", "ab" * 32]
    words += ["--purpose", "serve it", "--ticket", "T", "--ssh-key", desk.path("ada")]
    given = {"minutes": "60", "bytes": "1MB"} | {option: "999999999"}
    words += ["--minutes", given["minutes"], "--bytes", given["bytes"]]
    if option == "bytes":
        words[-1] = "2GB"
    refused = desk.refused("grant", "request", "weights.load", *words)
    assert "at most" in refused
    assert said in refused


APPLICATION = """
who = "Ada Example"
contact = "ada@school.example"
institution = "The school"
use_case = "brewing-school"
why = "A licensed course"
evidence = [{kind = "licence", file = "licence.txt"}, {kind = "letter", file = "letter.txt"}]
conflict = []
"""
CHECKS = tuple(word for item in CHECKLIST[VettingTier.HIGH] for word in ("--checked", item))


def apply(desk: Desk, text: str = APPLICATION, name: str = "application") -> str:
    """Write an application and its evidence; return the file that is reviewed."""
    for one in ("licence", "letter"):
        Path(desk.path(f"{one}.txt")).write_text(one)
    Path(desk.path(f"{name}.toml")).write_text(text)
    out = desk.path(f"{name}.json")
    desk.ok("exemption", "apply", desk.path(f"{name}.toml"), "--out", out)
    return out


def exemption_words(desk: Desk, application: str) -> tuple[str, ...]:
    """Return the beginning of a request."""
    return (
        *("exemption", "request", "--application", application, *CHECKS),
        *("--seats", "2", "--rate", "5", "--days", "10", "--ticket", "V-1"),
        *("--ssh-key", desk.path("ada"), "--constitution", "homebrewing"),
    )


def test_an_exemption_that_the_gateway_could_not_match_is_refused(desk: Desk) -> None:
    """A use case with spaces and an unknown surface are refused before anybody approves them."""
    words = (
        *exemption_words(desk, apply(desk)),
        *("--subject", "organisation=org-1", "--relax", "beer-production=audit"),
    )
    spaced = ("--surface", "openai.chat", "--use-case", "brewing school")
    assert "use-case" in desk.refused(*words, *spaced)
    assert "openai.chat" in desk.refused(*words, "--surface", "api", "--use-case", "school")
    assert "application has" in desk.refused(
        *words, "--surface", "openai.chat", "--use-case", "school"
    )


def test_exemption_request_list_and_warning(desk: Desk) -> None:
    """An exemption is applied for, reviewed, approved by two, listed, and warned about once."""
    application = apply(desk)
    assert Path(application).stat().st_mode & 0o77 == 0
    review = ("exemption", "review", application)
    shown = desk.ok(*review, "--relax", "beer-production=audit", "--constitution", "homebrewing")
    assert "Ada Example" in shown
    assert "--checked licence" in shown
    words = (
        *exemption_words(desk, application),
        *("--surface", "openai.chat", "--use-case", "brewing-school"),
    )
    subject = ("--subject", "organisation=org-1")
    assert "actions" in desk.refused(*words, *subject, "--relax", "beer-production=off")
    assert "block" in desk.refused(*words, *subject, "--relax", "beer-production=block")
    assert "subjects" in desk.refused(*words, "--subject", "x", "--relax", "a=audit")
    assert "prohibited" in desk.refused(*words, *subject, "--relax", "beer-tasting=audit")
    request = desk.ok(*words, *subject, "--relax", "beer-production=audit")
    assert "ok:" in desk.ok(*review, "--grant", request)
    other = apply(desk, name="other")
    assert "reviewed" in desk.refused("exemption", "review", other, "--grant", request)
    for name in ("ben", "dora"):
        desk.ok("grant", "approve", request, "--yes", "--ssh-key", desk.path(name))
    assert "in force" in desk.ok("exemption", "list")
    given = json.loads(desk.ok("exemption", "list", "--json"))
    assert given[0]["terms"]["seats"] == 2
    for _ in range(2):
        assert "14 day" in desk.ok("exemption", "warn", "--record")
    assert desk.ok("log", "list", desk.path("log")).count("alarm") == 1


def test_the_applicant_is_told_and_the_log_knows_only_that(desk: Desk) -> None:
    """Grant, renewal with counted use, withdrawal: each told to the contact, none in the log."""
    program = Path(desk.path("mail"))
    program.write_text('#!/bin/sh\nprintf "%s|" "$@" >> "$(dirname "$0")/sent"\n')
    program.chmod(0o755)
    application = apply(desk)
    request = desk.ok(
        *exemption_words(desk, application),
        *("--surface", "openai.chat", "--use-case", "brewing-school"),
        *("--subject", "organisation=org-1", "--relax", "beer-production=audit"),
    )
    tell = ("exemption", "tell", request, "--application", application, "--notify", str(program))
    assert "waits" in desk.refused(*tell)
    for name in ("ben", "dora"):
        desk.ok("grant", "approve", request, "--yes", "--ssh-key", desk.path(name))
    assert "not told" in desk.ok("exemption", "list")
    assert "granted" in desk.ok(*tell)
    assert "not told" not in desk.ok("exemption", "list")
    renewed = desk.run(
        *("exemption", "renew", request, "--application", application, *CHECKS),
        *("--ledger", ledger_of(desk, request), "--days", "9", "--ticket", "V-2"),
        *("--ssh-key", desk.path("ada"), "--constitution", "homebrewing"),
    )
    assert "beer-production audit 3 exchanges" in renewed.stderr
    shown = desk.ok("grant", "show", renewed.stdout.strip())
    assert "audit, 3 exchanges" in shown
    withdraw = ("exemption", "withdraw", request, "--reason", "licence ended")
    told = ("--application", application, "--notify", str(program))
    assert "withdrawn" in desk.ok(*withdraw, *told, "--ssh-key", desk.path("dora"))
    assert "ended" in desk.ok("exemption", "list")
    sent = Path(desk.path("sent")).read_text()
    assert sent.count("ada@school.example|") == 2
    assert "withdrawn" in sent
    count = len(json.loads(desk.ok("log", "list", desk.path("log"), "--json")))
    leaves = "".join(desk.ok("log", "show", desk.path("log"), str(at)) for at in range(count))
    assert "licence ended" in leaves
    for secret in ("ada@school", "Ada Example", "The school"):
        assert secret not in leaves


def ledger_of(desk: Desk, grant: str) -> str:
    """Return a ledger in which the grant was used three times, and another one once."""

    async def write() -> None:
        ledger = await Ledger.open(desk.path("ledger.db"))
        for one in (grant, grant, "00" * 32, grant):
            detail = {"grant": one, "clause": "beer-production", "action": "deliver"}
            await ledger.append(EventRow(at=1.0, kind=EventKind.EXEMPTION, detail=detail))
        await ledger.close()

    asyncio.run(write())
    return desk.path("ledger.db")


def test_log_is_proved_and_verified_from_a_copy(desk: Desk) -> None:
    """A copy without private keys verifies; a changed one, a short one and a false proof do not."""
    desk.ok("log", "append", desk.path("log"), "--kind", "note", "--fact", "text=hello")
    vkey = desk.ok("log", "witness", desk.path("log"), "--state", desk.path("w"), "--init", "w.t/1")
    desk.ok("log", "add-key", desk.path("log"), vkey)
    shutil.copy(desk.path("log/log.json"), desk.path("pinned.json"))
    desk.ok("log", "witness", desk.path("log"), "--state", desk.path("w"), "--attach")
    shutil.copytree(desk.path("log"), desk.path("copy"))
    verify = ("log", "verify", desk.path("copy"), "--log-keys", desk.path("pinned.json"))
    assert "ok: 2 leaves" in desk.ok(*verify, "--witnesses", "1", "--at-least", "2")
    assert json.loads(desk.ok(*verify, "--json"))["size"] == 2
    assert "rollback" in desk.refused(*verify, "--at-least", "3")
    assert "2 witness" in desk.refused(*verify, "--witnesses", "2")
    earlier = ("log", "verify", desk.path("copy"), "--keys", desk.path("pinned.json"))
    assert "ok: 2 leaves" in desk.ok(*earlier)  # the option's earlier name
    assert "once" in desk.refused(*verify, "--keys", desk.path("pinned.json"))
    Path(desk.path("p")).write_text(desk.ok("log", "prove", desk.path("copy"), "1") + "\n")
    entry = desk.run("log", "show", desk.path("copy"), "1", "--entry").stdout_bytes
    Path(desk.path("e")).write_bytes(entry)
    proof = ("log", "verify", desk.path("p"), "--log-keys", desk.path("pinned.json"), "--entry")
    assert "entry 1" in desk.ok(*proof, desk.path("e"))
    assert "rollback" in desk.refused(*proof, desk.path("e"), "--at-least", "3")
    assert "2 witness" in desk.refused(*proof, desk.path("e"), "--witnesses", "2")
    told = json.loads(desk.ok(*proof, desk.path("e"), "--witnesses", "1", "--json"))
    assert (told["index"], told["size"], told["witnesses"]) == (1, 2, ["w.t/1"])
    Path(desk.path("e")).write_bytes(entry + b" ")
    assert "does not lead" in desk.refused(*proof, desk.path("e"))
    bundle = Path(desk.path("copy/tile/entries/000.p/2"))
    bundle.write_bytes(bundle.read_bytes().replace(b"A", b"B", 1))
    desk.refused(*verify)


def test_a_proof_is_of_the_tree_that_was_asked_for(desk: Desk) -> None:
    """A log that grew since proves an entry with cosignatures only in the older tree."""
    log = desk.path("log")
    assert "cosigned" in desk.refused("log", "prove", log, "0", "--witnessed")
    vkey = desk.ok("log", "witness", log, "--state", desk.path("w"), "--init", "w.t/1")
    desk.ok("log", "add-key", log, vkey)
    desk.ok("log", "witness", log, "--state", desk.path("w"), "--attach")
    desk.ok("log", "append", log, "--kind", "note", "--fact", "text=later")
    Path(desk.path("e")).write_bytes(desk.run("log", "show", log, "0", "--entry").stdout_bytes)
    told = {}
    for name, words in (("plain", ()), ("witnessed", ("--witnessed",))):
        Path(desk.path(name)).write_text(desk.ok("log", "prove", log, "0", *words) + "\n")
        check = ("log", "verify", desk.path(name), "--log-keys", desk.path("log/log.json"))
        told[name] = json.loads(desk.ok(*check, "--entry", desk.path("e"), "--json"))
    assert (told["plain"]["size"], told["plain"]["witnesses"]) == (2, [])
    assert (told["witnessed"]["size"], told["witnessed"]["witnesses"]) == (1, ["w.t/1"])


def test_a_leaf_that_a_full_disk_left_unpublished_is_stored_once(desk: Desk) -> None:
    """The command says that the leaf is stored; the same one again publishes it, and no other."""
    append = ("log", "append", desk.path("log"), "--kind", "note", "--fact", "text=once")
    tile = Path(desk.path("log/tile"))
    away = tile.rename(desk.path("tile"))
    shutil.copytree(away, tile)
    (tile / "entries/000.p/2").mkdir()  # where the next bundle's file must go
    for _ in range(2):
        said = desk.refused(*append)
        assert "leaf 1 is stored" in said
        assert "do not repeat" in said
    other = desk.refused("log", "append", desk.path("log"), "--kind", "note", "--fact", "text=no")
    assert "stored" not in other
    assert len(json.loads(desk.ok("log", "list", desk.path("log"), "--json"))) == 1
    (tile / "entries/000.p/2").rmdir()
    assert desk.ok(*append) == "1"
    assert len(json.loads(desk.ok("log", "list", desk.path("log"), "--json"))) == 2
    assert desk.ok(*append) == "2"  # nothing is unpublished: it is another leaf
    desk.ok("log", "verify", desk.path("log"))


def test_log_commands_refuse_what_is_wrong(desk: Desk) -> None:
    """A second log, a bad key, a bad index, an unknown kind: each one clear line."""
    assert "holds a log" in desk.refused("log", "init", desk.path("log"), "--origin", "x")
    desk.refused("log", "add-key", desk.path("log"), "nonsense")
    desk.refused("log", "prove", desk.path("log"), "99")
    desk.refused("log", "show", desk.path("log"), "99")
    desk.refused("log", "append", desk.path("log"), "--kind", "gossip", "--fact", "a=b")
    desk.refused("log", "append", desk.path("log"), "--kind", "note", "--fact", "nonsense")
    desk.refused("log", "verify", desk.path("policy.toml"))
    desk.refused("log", "witness", desk.path("log"), "--state", desk.path("none"))


def test_every_command_has_examples() -> None:
    """Each command's help shows how it is typed."""
    for group in ("people", "grant", "exemption", "log"):
        runner = CliRunner()
        command = safehold.get_command(None, group)  # type: ignore[arg-type]
        assert command is not None
        for name in command.commands:  # type: ignore[attr-defined]
            text = runner.invoke(safehold, [group, name, "--help"]).output
            assert f"safehold {group} {name}" in text, (group, name)


def test_one_class_is_switched_off_by_a_request_that_names_it(desk: Desk) -> None:
    """The approver reads which class, until when and why; beyond the rule it is not asked for."""
    words = ("grant", "class-off", "soap", "--purpose", "false alarms", "--ticket", "T-1")
    given = (*words, "--ssh-key", desk.path("ada"), "--log", desk.path("log"))
    asked = desk.ok(*given, "--minutes", "60")
    shown = desk.ok("grant", "show", asked, "--log", desk.path("log"))
    assert "soap" in shown
    assert "false alarms" in shown
    assert "minutes" in desk.refused(*given, "--minutes", "999999")
