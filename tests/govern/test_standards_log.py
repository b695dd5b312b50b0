"""Standards out of a real log: signed requests, distinct persons, and the command line."""

import json
from importlib import resources
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from safehold.cli.serve import serve_with, with_defaults
from safehold.cli.standards import standards
from safehold.errors import ConfigError, TrustError
from safehold.govern.controls.library import stock_catalogue
from safehold.govern.standards.library import load_standards, parse_standards
from safehold.govern.standards.reading import read_log
from safehold.guard.gateway.policy import Settings
from safehold.testing.trust import GOVERNING, POLICY, Enclave, person_id
from safehold.trust.demands.ask import StandingError, StandingQuestion, demand
from safehold.trust.demands.document import document_digest
from safehold.trust.demands.met import MetControls, met_note
from safehold.trust.demands.records import record_fault
from safehold.trust.grants.details import Facts, StandingAct
from safehold.trust.grants.interface import Refused
from safehold.trust.grants.policy import load_policy
from safehold.trust.log.note import SigningKey, sign_note
from safehold.trust.standing.gate import GatedAction
from safehold.trust.standing.interface import Activation
from safehold.trust.standing.state import in_force

MODEL = "d" * 64
RSP = load_standards("rsp")
DOCUMENT = document_digest(RSP)
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


def act(
    enclave: Enclave,
    operation: str,
    record: dict[str, object],
    *names: str,
    document: str = "",
) -> None:
    """File a standing act, and use it once the names approved."""
    request = enclave.ask(
        operation=operation,
        details=StandingAct(document or DOCUMENT, json.dumps(record)),
        byte_budget=0,
    )
    enclave.file(request)
    if names:
        enclave.approve(request, *names)  # The last approval of the quorum carries it.
    enclave.time += 10


ACTIVATE = {"standard": "asl-2", "precautionary": True, "provisional": True, "rationale": "r"}


def test_activation_in_the_log_names_who_carried_it(enclave: Enclave, tmp_path: Path) -> None:
    """An activation that two persons carried is in force; claimed approvers are not read."""
    claimed = ACTIVATE | {"approvers": ["x", "y", "z"], "index": 0, "time": 0}
    act(enclave, "standards.activate", claimed, "sec-one", "dev-two")
    found = read_log(tmp_path / "log", tmp_path / "log" / "log.json", RSP)
    assert isinstance(found.records[0], Activation)
    assert set(found.records[0].approvers) == {person_id("sec-one"), person_id("dev-two")}
    assert found.records[0].index > 0
    assert in_force(found.records, "asl-2", at=enclave.time) is not None


def test_lax_policy_of_grants_does_not_lower_the_persons(tmp_path: Path) -> None:
    """Where the grants' policy lets one person activate, the standard is still not in force."""
    lax = RULES.replace("count = 2", "count = 1")
    enclave = Enclave(tmp_path / "log", policy=POLICY + GOVERNING + lax)
    act(enclave, "standards.activate", ACTIVATE, "sec-one")
    found = read_log(tmp_path / "log", tmp_path / "log" / "log.json", RSP)
    assert len(found.records) == 1
    assert in_force(found.records, "asl-2", at=enclave.time) is None


def test_unapproved_act_and_nonsense_hold_nothing(enclave: Enclave, tmp_path: Path) -> None:
    """A request that nobody approved decides nothing; a record of another shape is void, said."""
    act(enclave, "standards.activate", ACTIVATE)
    act(enclave, "standards.activate", {"standard": "asl-2"}, "sec-one", "dev-two")
    found = read_log(tmp_path / "log", tmp_path / "log" / "log.json", RSP)
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


def test_act_under_another_document_counts_for_nothing(enclave: Enclave, tmp_path: Path) -> None:
    """An activation that names another document is void; the superseded one's still counts."""
    act(enclave, "standards.activate", ACTIVATE, "sec-one", "dev-two", document="9" * 64)
    found = read_log(tmp_path / "log", tmp_path / "log" / "log.json", RSP)
    assert found.records == ()
    assert "another document" in found.voids[0]
    newer = msgspec.structs.replace(RSP, version="2", supersedes="9" * 64)
    assert len(read_log(tmp_path / "log", tmp_path / "log" / "log.json", newer).records) == 1


def test_act_as_free_facts_is_refused_where_it_is_asked(enclave: Enclave) -> None:
    """An act of standards has its own details: free facts don't fit its operation."""
    request = enclave.ask(operation="standards.activate", details=Facts({"record": "{}"}))
    enclave.file(request)
    assert isinstance(enclave.approve(request, "sec-one", "dev-two"), Refused)


_SIGNER = SigningKey.generate("host.controls")


def _met(folder: Path, until: dict[str, int], key: SigningKey = _SIGNER) -> None:
    note = met_note(MetControls(until, "e" * 64), key)
    (folder / "controls.note").write_bytes(note)


def _question(tmp_path: Path, **changes: object) -> StandingQuestion:
    stock = resources.files("safehold.govern.standards") / "stock" / "rsp.toml"
    (tmp_path / "rsp.toml").write_text(stock.read_text("utf-8"))
    _met(tmp_path, {})
    question = StandingQuestion(
        document=str(tmp_path / "rsp.toml"),
        document_sha256=DOCUMENT,
        log=str(tmp_path / "log"),
        log_keys=str(tmp_path / "log" / "log.json"),
        controls=str(tmp_path / "controls.note"),
        controls_key=str(_SIGNER.verifier),
        compute=1e24,
        model=MODEL,
    )
    return msgspec.structs.replace(question, **changes)


def test_service_that_asks_is_refused_until_all_is_met(enclave: Enclave, tmp_path: Path) -> None:
    """Asking refuses while a standard is not active or a control has no result, then allows."""
    question = _question(tmp_path)
    with pytest.raises(StandingError, match="not active"):
        demand(question, GatedAction.LOAD, at=enclave.time)
    for name in ("asl-2", "asl-3-security", "asl-4-security"):
        act(enclave, "standards.activate", ACTIVATE | {"standard": name}, "sec-one", "dev-two")
    with pytest.raises(StandingError, match="has no result"):
        demand(question, GatedAction.LOAD, at=enclave.time)
    met = {control: enclave.time + 100 for one in RSP.standards for control in one.controls}
    _met(tmp_path, met, SigningKey.generate("host.controls"))
    with pytest.raises(StandingError, match="signed by"):
        demand(question, GatedAction.LOAD, at=enclave.time)
    _met(tmp_path, met)
    whole = (tmp_path / "controls.note").read_text()
    later = str(enclave.time + 100)
    for forged in (json.dumps(met), whole.replace(later, str(enclave.time + 900)), ""):
        (tmp_path / "controls.note").write_text(forged)
        with pytest.raises(StandingError, match="signed by"):
            demand(question, GatedAction.LOAD, at=enclave.time)
    other = sign_note(f"another text\nrun {'e' * 64}\n{json.dumps(met)}\n", _SIGNER)
    (tmp_path / "controls.note").write_text(str(other))
    with pytest.raises(StandingError, match="something else"):
        demand(question, GatedAction.LOAD, at=enclave.time)
    _met(tmp_path, met)
    demand(question, GatedAction.LOAD, at=enclave.time)
    with pytest.raises(StandingError, match="stale"):
        demand(question, GatedAction.LOAD, at=enclave.time + 100)
    with pytest.raises(StandingError, match="asl-3-deployment is required"):
        demand(question, GatedAction.SERVE, at=enclave.time)


@pytest.mark.parametrize("lost", ["document", "controls", "log_keys", "log"])
def test_service_that_can_not_ask_is_refused(enclave: Enclave, tmp_path: Path, lost: str) -> None:
    """A file that is gone, a changed document or no model is a refusal, never an answer."""
    gone = _question(tmp_path, **{lost: str(tmp_path / "gone")})
    with pytest.raises(TrustError):
        demand(gone, GatedAction.SERVE, at=enclave.time)
    for changes in ({"document_sha256": "0" * 64}, {"model": ""}):
        with pytest.raises(StandingError):
            demand(_question(tmp_path, **changes), GatedAction.SERVE, at=enclave.time)


def test_gateway_asks_before_it_listens(enclave: Enclave, tmp_path: Path) -> None:
    """`serve` with a standing question that is refused never starts."""
    settings = with_defaults(
        Settings(standing=_question(tmp_path), ledger=str(tmp_path / "ledger.db"))
    )
    with pytest.raises(StandingError):
        serve_with(settings, as_json=True)
    assert not (tmp_path / "ledger.db").exists()
    assert enclave.time


def test_starter_rules_are_a_policy_and_acts_are_checked_before_signing(enclave: Enclave) -> None:
    """The printed rules load as a policy; a record of another shape is refused at once."""
    printed = CliRunner().invoke(standards, ["rules", "--team", "t-everybody"])
    policy = load_policy(POLICY + GOVERNING + printed.output)
    rule = policy.rule("standards.deactivate")
    assert rule is not None
    assert rule.thresholds[0].count == 3
    bad = StandingAct(DOCUMENT, '{"standard": "asl-2"}')
    assert "standards.activate" in record_fault("standards.activate", bad)
    assert record_fault("standards.activate", StandingAct(DOCUMENT, json.dumps(ACTIVATE))) == ""
    assert enclave.time


def test_stock_standards_demand_controls_that_exist() -> None:
    """Every control that the stock document demands is in the catalogue, but the undefined ones."""
    known = {one.id for one in stock_catalogue().controls}
    demanded = {control for one in RSP.standards for control in one.controls}
    assert {one for one in demanded - known if not one.endswith("-defined")} == set()
    assert len(demanded & known) >= 15
