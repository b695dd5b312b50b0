"""`safehold controls` on a real log: runs recorded, attestations and exceptions by grant."""

import time
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner, Result

from safehold.canonical import sha256_hex
from safehold.cli.controls import controls
from safehold.govern.controls.accepted import accepted
from safehold.govern.controls.engine import run_controls
from safehold.govern.controls.facts.trust_log import read_log
from safehold.govern.controls.interface import ControlRun, ControlStatus
from safehold.govern.controls.library import stock_catalogue
from safehold.govern.controls.record import results_root
from safehold.testing.hosts import NOW, SITE, healthy
from safehold.testing.trust import GOVERNING, POLICY, Enclave, SoftSsh, person_id, ssh_public_of
from safehold.trust.people.sshsig import private_key_text
from safehold.trust.people.statement import Act

RULES = "".join(
    f"""
[[rule]]
operation = "{operation}"
thresholds = [{{ team = "t-everybody", count = 2 }}]
max_duration_s = 604800
keys = ["ssh"]
"""
    for operation in ("controls.attest", "controls.except")
)


class Site:
    """A log on disk with its keys and one person's SSH key."""

    def __init__(self, root: Path) -> None:
        self.log = root / "log"
        self.enclave = Enclave(self.log, policy=POLICY + GOVERNING + RULES, now=int(time.time()))
        keys = root / "log.keys"
        keys.mkdir()
        for name, key in (("log.key", self.enclave.log_key), ("emitter.key", self.enclave.emitter)):
            (keys / name).touch(mode=0o600)
            (keys / name).write_text(key.text() + "\n")
        soft = self.enclave.keys["dev-one"]
        assert isinstance(soft, SoftSsh)
        self.key = root / "dev-one"
        self.key.touch(mode=0o600)
        self.key.write_bytes(private_key_text(soft.private))
        (root / "dev-one.pub").write_text(ssh_public_of(soft) + "\n")

    def run(self, *words: str) -> Result:
        """Run a command on this log."""
        return CliRunner().invoke(controls, [*words, "--log", str(self.log)])

    def approve(self, digest: str, *names: str) -> None:
        """Have people approve a request."""
        desk = self.enclave.open_desk()
        for name in names:
            request = desk.state.cases[digest].signed.request
            desk.approve(digest, self.enclave.keys[name].sign(Act.APPROVE, request))


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """A founded log."""
    return Site(tmp_path)


@pytest.mark.parametrize(
    ("words", "table"),
    [
        (("attest", "iam-01", "--owner", "sec-one", "--evidence", __file__), "attested"),
        (
            ("except", "hst-06", "--owner", "sec-one", "--reason", "kernel is ordered"),
            "excepted",
        ),
    ],
)
def test_person_answers_for_a_control_only_after_two_approved(
    site: Site, words: tuple[str, ...], table: str
) -> None:
    """A request alone accepts nothing; approved and accepted, it holds until its end."""
    asked = site.run(*words, "--ssh-key", str(site.key))
    assert asked.exit_code == 0, asked.output
    digest = asked.stdout.split()[0]
    assert site.run("accept", digest[:12]).exit_code != 0
    site.approve(digest, "dev-two", "sec-one")
    done = site.run("accept", digest[:12])
    assert done.exit_code == 0, done.output
    log = read_log(site.log, site.log / "log.json")
    kept = accepted(log, log.last_time)
    held = getattr(kept, table)[words[1]]
    assert held.owner == "sec-one"
    assert accepted(log, held.expires).attested == accepted(log, held.expires).excepted == {}


@pytest.mark.parametrize(
    "words",
    [
        ("attest", "egr-01", "--owner", "sec-one", "--evidence", __file__),
        ("attest", "iam-01", "--owner", "mallory", "--evidence", __file__),
        ("except", "hst-06", "--owner", "sec-one", "--reason", "r", "--days", "91"),
        ("except", "zzz-99", "--owner", "sec-one", "--reason", "r"),
    ],
)
def test_request_that_could_never_hold_is_refused(site: Site, words: tuple[str, ...]) -> None:
    """A checked control is not attested; an owner is enrolled; an exception ends in 90 days."""
    assert site.run(*words, "--ssh-key", str(site.key)).exit_code != 0
    assert read_log(site.log, site.log / "log.json").cases == ()


def test_run_is_one_leaf_and_a_changed_result_is_no_longer_in_the_log(
    site: Site, tmp_path: Path
) -> None:
    """A recorded run reads back; one result changed later, or an unknown run, is refused."""
    out = tmp_path / "run.json"
    done = site.run("run", "--out", str(out))
    assert done.exit_code == 1
    log = read_log(site.log, site.log / "log.json")
    (leaf,) = log.of_kind("control-result")
    run = msgspec.json.decode(out.read_bytes(), type=ControlRun)
    assert leaf.digests["results"] == results_root(run.results)
    assert leaf.facts["controls"] == "179"
    assert int(leaf.facts["satisfied"]) == sum(one.satisfied for one in run.results)
    assert "no leaf" not in site.run("report", str(out)).output
    first, *rest = run.results
    better = msgspec.structs.replace(first, status=ControlStatus.PASSED, reasons=("",))
    out.write_bytes(msgspec.json.encode(msgspec.structs.replace(run, results=(better, *rest))))
    told = site.run("report", str(out))
    assert isinstance(told.exception, Exception)
    assert "no leaf" in str(told.exception)
    unknown = run_controls(stock_catalogue(), healthy(), SITE)
    out.write_bytes(msgspec.json.encode(unknown))
    assert "no leaf" in str(site.run("report", str(out), "--at", str(NOW)).exception)


def test_owner_is_named_or_by_id(site: Site) -> None:
    """An owner may be given by name or by id, and the record holds the id."""
    asked = site.run(
        "except", "hst-06", "--owner", person_id("sec-two"), "--reason", "r",
        "--ssh-key", str(site.key),
    )  # fmt: skip
    assert asked.exit_code == 0, asked.output
    log = read_log(site.log, site.log / "log.json")
    assert log.cases[0].details["owner"] == person_id("sec-two")


@pytest.mark.parametrize(
    ("command", "outcome"),
    [
        (("sh", "-c", "echo dropped 3 of 3"), "passed"),
        (("true",), "failed"),
        (("sh", "-c", "echo leaked; exit 1"), "failed"),
    ],
)
def test_a_drill_has_a_person_and_a_result_of_its_own(
    site: Site, command: tuple[str, ...], outcome: str
) -> None:
    """The leaf names who answers for it and what was printed; a silent command shows nothing."""
    words = ["drill", "egress-kill-switch", "--log", str(site.log)]
    told = CliRunner().invoke(controls, [*words, "--owner", "sec-one", "--", *command])
    assert told.exit_code == (0 if outcome == "passed" else 1), told.output
    (leaf,) = read_log(site.log, site.log / "log.json").of_kind("drill")
    assert (leaf.facts["outcome"], leaf.facts["owner"]) == (outcome, person_id("sec-one"))
    printed = told.stdout.rpartition("drill egress-kill-switch")[0]
    assert leaf.digests["result"] == sha256_hex(printed.encode())


def test_a_drill_of_nobody_is_not_run(site: Site, tmp_path: Path) -> None:
    """A person who is not enrolled, or no log to write to: the command does not run."""
    made = tmp_path / "made"
    words = ["drill", "x", "--log", str(site.log)]
    for more in ((), ("--owner", "Mallory")):
        told = CliRunner().invoke(controls, [*words, *more, "--", "touch", str(made)])
        assert told.exit_code != 0
    words = ["drill", "x", "--log", str(tmp_path / "none"), "--owner", "sec-one"]
    assert CliRunner().invoke(controls, [*words, "--", "touch", str(made)]).exit_code != 0
    assert not made.exists()
