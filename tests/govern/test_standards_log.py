"""Standards out of a real log: signed requests, distinct persons, and the command line."""

import json
from importlib import resources
from pathlib import Path

import pytest
from click.testing import CliRunner

from safehold.cli.standards import standards
from safehold.errors import ConfigError
from safehold.govern.standards.library import parse_standards
from safehold.govern.standards.reading import read_log
from safehold.testing.trust import GOVERNING, POLICY, Enclave, person_id
from safehold.trust.grants.details import Facts
from safehold.trust.standing.interface import Activation
from safehold.trust.standing.state import in_force

MODEL = "d" * 64
RULES = "".join(
    f"""
[[rule]]
operation = "standards.{act}"
thresholds = [{{ team = "t-everybody", count = {count} }}]
max_duration_s = 86400
keys = ["ssh"]
"""
    for act, count in (
        ("plan", 1), ("evaluation", 1), ("determine", 2), ("activate", 2), ("deactivate", 2),
    )
)  # fmt: skip


@pytest.fixture
def enclave(tmp_path: Path) -> Enclave:
    """Give a founded log whose policy knows the acts of standards."""
    return Enclave(tmp_path / "log", policy=POLICY + GOVERNING + RULES)


def act(enclave: Enclave, operation: str, record: dict[str, object], *names: str) -> None:
    """File a standing act, and use it once the names approved."""
    request = enclave.ask(
        operation=operation, details=Facts({"record": json.dumps(record)}), byte_budget=0
    )
    enclave.file(request)
    if names:
        enclave.approve(request, *names)
        enclave.use(request)
    enclave.time += 10


ACTIVATE = {"standard": "asl-2", "precautionary": True, "provisional": True, "rationale": "r"}


def test_activation_in_the_log_names_who_carried_it(enclave: Enclave, tmp_path: Path) -> None:
    """An activation that two persons carried is in force; claimed approvers are not read."""
    claimed = ACTIVATE | {"approvers": ["x", "y", "z"], "index": 0, "time": 0}
    act(enclave, "standards.activate", claimed, "sec-one", "dev-two")
    found = read_log(tmp_path / "log", tmp_path / "log" / "log.json")
    assert isinstance(found.records[0], Activation)
    assert set(found.records[0].approvers) == {person_id("sec-one"), person_id("dev-two")}
    assert found.records[0].index > 0
    assert in_force(found.records, "asl-2", at=enclave.time) is not None


def test_lax_policy_of_grants_does_not_lower_the_persons(tmp_path: Path) -> None:
    """Where the grants' policy lets one person activate, the standard is still not in force."""
    lax = RULES.replace("count = 2", "count = 1")
    enclave = Enclave(tmp_path / "log", policy=POLICY + GOVERNING + lax)
    act(enclave, "standards.activate", ACTIVATE, "sec-one")
    found = read_log(tmp_path / "log", tmp_path / "log" / "log.json")
    assert len(found.records) == 1
    assert in_force(found.records, "asl-2", at=enclave.time) is None


def test_unapproved_act_and_nonsense_hold_nothing(enclave: Enclave, tmp_path: Path) -> None:
    """A request that nobody approved decides nothing; a record of another shape is void, said."""
    act(enclave, "standards.activate", ACTIVATE)
    act(enclave, "standards.activate", {"standard": "asl-2"}, "sec-one", "dev-two")
    found = read_log(tmp_path / "log", tmp_path / "log" / "log.json")
    assert found.records == ()
    assert len(found.voids) == 1


def test_gate_on_the_command_line(enclave: Enclave, tmp_path: Path) -> None:
    """The gate refuses with every reason and exit 1; status says what is in force."""
    act(enclave, "standards.activate", ACTIVATE, "sec-one", "dev-two")
    where = ["--log", str(tmp_path / "log"), "--log-keys", str(tmp_path / "log" / "log.json")]
    asked = ["--model", MODEL, "--compute", "1e24", "--at", str(enclave.time), *where]
    refused = CliRunner().invoke(standards, ["gate", "rsp", "serve", *asked])
    assert refused.exit_code == 1
    assert "asl-3-deployment is required (weapons-basic-uplift: not assessed)" in refused.output
    assert "asl-2 " not in refused.output
    status = CliRunner().invoke(standards, ["status", "rsp", *asked])
    assert "in force: asl-2 as a precaution, provisionally" in status.output


def test_document_that_contradicts_itself_is_refused() -> None:
    """An undefined standard, an unknown key or an empty list of thresholds refuses."""
    stock = resources.files("safehold.govern.standards") / "stock" / "rsp.toml"
    text = stock.read_text("utf-8")
    assert parse_standards(text, "x").id == "rsp"
    for broken in (
        text.replace('requires = ["asl-3-security"]', 'requires = ["asl-9"]'),
        text + "\n[extra]\nx = 1\n",
        'id = "x"',
    ):
        with pytest.raises(ConfigError):
            parse_standards(broken, "x")
