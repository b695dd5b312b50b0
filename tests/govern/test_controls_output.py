"""What a run becomes: a matrix, OSCAL documents, a saved file, a leaf of a real log."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner

from safehold.canonical import sha256_hex
from safehold.cli.controls import controls
from safehold.errors import UsageError
from safehold.govern.controls.engine import run_controls
from safehold.govern.controls.facts.trust_log import read_log
from safehold.govern.controls.interface import ControlRun, HostError
from safehold.govern.controls.library import stock_catalogue
from safehold.govern.controls.matrix import gaps, matrix_html
from safehold.govern.controls.oscal import assessment, catalog, oscal_faults, profile
from safehold.testing.hosts import NOW, SITE, healthy
from safehold.testing.trust import Enclave, person_id
from safehold.trust.demands.met import read_met
from safehold.trust.log.note import parse_vkey

CATALOGUE = stock_catalogue()
RUN = run_controls(CATALOGUE, healthy(), SITE)


def documents() -> list[dict[str, Any]]:
    """Return the three documents of a run on the healthy host."""
    return [
        catalog(CATALOGUE),
        profile(CATALOGUE, "#c"),
        assessment(CATALOGUE, RUN.results, host="h", at=NOW),
    ]


def _twice(docs: list[dict[str, Any]]) -> None:
    group = docs[0]["catalog"]["groups"][0]["controls"]
    group.append(group[0])


def _method(docs: list[dict[str, Any]]) -> None:
    docs[2]["assessment-results"]["results"][0]["observations"][0]["methods"] = ["X"]


def _orphan(docs: list[dict[str, Any]]) -> None:
    docs[2]["assessment-results"]["results"][0]["observations"].pop()


def _unfound(docs: list[dict[str, Any]]) -> None:
    docs[2]["assessment-results"]["results"][0]["findings"].pop()


def _state(docs: list[dict[str, Any]]) -> None:
    status = docs[2]["assessment-results"]["results"][0]["findings"][0]["target"]["status"]
    status.update(state="satisfied", reason="fail")


def test_oscal_of_a_run_is_consistent_and_repeats() -> None:
    """The documents have no fault, and two writings are the same bytes."""
    assert oscal_faults(*documents()) == ()
    assert json.dumps(documents()) == json.dumps(documents())


@pytest.mark.parametrize("spoil", [_twice, _method, _orphan, _unfound, _state])
def test_oscal_that_a_schema_accepts_and_contradicts_itself_is_refused(
    spoil: Callable[[list[dict[str, Any]]], None],
) -> None:
    """A duplicate id, an unknown method, an orphan or a missing finding is a fault."""
    spoiled = copy.deepcopy(documents())
    spoil(spoiled)
    assert oscal_faults(*spoiled) != ()


def test_matrix_is_self_contained_and_holds_every_control() -> None:
    """The page has each control, no script and no address outside; host names are escaped."""
    page = matrix_html(CATALOGUE, RUN.results, host="<b>x", at=NOW)
    assert all(f'id="{one.id}"' in page for one in CATALOGUE.controls)
    assert "<script" not in page
    assert "http" not in page
    assert "<b>x" not in page


def test_every_stage_has_prevention_and_detection() -> None:
    """No stage of an attack lacks a preventive or a detective control."""
    assert gaps(CATALOGUE) == ()


def test_run_on_this_machine_names_every_control(tmp_path: Path) -> None:
    """On a machine without an enclave the run ends with 1, quickly, and skips nothing."""
    out, valid, key = (tmp_path / name for name in ("run.json", "met.note", "met.key"))
    verifier = CliRunner().invoke(controls, ["new-key", str(key)]).stdout.strip()
    words = ["run", "--out", str(out), "--json", "--valid", str(valid)]
    unsigned = CliRunner().invoke(controls, words)
    assert isinstance(unsigned.exception, UsageError)
    words += ["--valid-key", str(key)]
    done = CliRunner().invoke(controls, words)
    assert done.exit_code == 1, done.output
    assert len(json.loads(done.stdout)) == 179
    saved = json.loads(out.read_text())
    met = read_met(valid.read_bytes(), parse_vkey(verifier))
    assert met.run_sha256 == sha256_hex(out.read_bytes())
    results = msgspec.json.decode(out.read_bytes(), type=ControlRun).results
    assert met.until == {one.control: one.until for one in results if one.satisfied}
    assert saved["seconds"] < 60
    late = str(saved["at"] + 200 * 86_400)
    read = CliRunner().invoke(controls, ["report", str(out), "--at", late, "--json"])
    assert read.exit_code == 1
    assert {one["status"] for one in json.loads(read.stdout)} == {"stale"}


def test_saved_run_becomes_page_and_oscal(tmp_path: Path) -> None:
    """A saved run is written as HTML and as OSCAL by the commands."""
    saved = tmp_path / "run.json"
    saved.write_bytes(msgspec.json.encode(RUN))
    page, folder = tmp_path / "m.html", tmp_path / "oscal"
    at = ["--at", str(NOW)]
    CliRunner().invoke(controls, ["report", str(saved), "--html", str(page), *at])
    assert "179" in page.read_text()
    done = CliRunner().invoke(controls, ["oscal", str(saved), "--out", str(folder)])
    assert done.exit_code == 0, done.output
    assert (folder / "assessment-results.json").exists()


def test_real_log_gives_people_grants_and_records(tmp_path: Path) -> None:
    """Facts of a real log: who is enrolled, who carried a use, what the policy says."""
    enclave = Enclave(tmp_path / "log")
    request = enclave.ask()
    enclave.file(request)
    enclave.approve(request, "dev-two", "dev-three", "sec-one")
    enclave.use(request)
    found = read_log(tmp_path / "log", tmp_path / "log" / "log.json")
    case = found.used("weights.load")[0]
    assert person_id("dev-two") in case.carried_by
    assert case.requester == person_id("dev-one")
    assert {one.operation: one.persons for one in found.rules}["weights.load"] == 3
    assert len(found.persons) == 8
    with pytest.raises(HostError):
        read_log(tmp_path / "nothing", tmp_path / "log" / "log.json")


def test_tampered_log_is_an_error(tmp_path: Path) -> None:
    """A log whose entries were changed gives no facts."""
    enclave = Enclave(tmp_path / "log")
    enclave.file(enclave.ask())
    keys = tmp_path / "log" / "log.json"
    for path in (tmp_path / "log" / "tile").rglob("*"):
        if path.is_file() and "entries" in str(path):
            path.write_bytes(path.read_bytes()[:-1] + b"!")
    with pytest.raises(HostError):
        read_log(tmp_path / "log", keys)
