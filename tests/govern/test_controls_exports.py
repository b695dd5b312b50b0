"""Documents are written from what the parts have: read on this machine, not recorded."""

import os
import time
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from safehold.canonical import sha256_hex
from safehold.cli import safehold
from safehold.govern.controls.exports.changing import trailers
from safehold.govern.controls.exports.host import separable, units
from safehold.govern.controls.exports.secrets_scan import fingerprints
from safehold.govern.controls.exports.serving import covered
from safehold.govern.controls.exports.table import EXPORTERS, export_all
from safehold.govern.controls.exports.weights import copies, requirements, supply
from safehold.govern.controls.facts.documents import DOCUMENTS
from safehold.govern.controls.facts.host import LocalHost
from safehold.govern.controls.facts.processes import processes
from safehold.govern.controls.facts.site import Site
from safehold.govern.controls.facts.sources import CopySource, ExportSources
from safehold.govern.controls.facts.system import sysctls
from safehold.govern.controls.facts.trust_log import read_log
from safehold.guard.ledger.coverage import LedgerCoverage, SurfaceCounts
from safehold.testing.hosts import RecordedHost, healthy
from safehold.testing.trust import Enclave
from safehold.testing.weights import Publisher
from safehold.trust.log.log_entries import Record


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """A site with a real log and nothing else."""
    Enclave(tmp_path / "log", now=int(time.time()))
    (tmp_path / "state").mkdir()
    return Site(
        log=str(tmp_path / "log"),
        log_keys=str(tmp_path / "log" / "log.json"),
        state=str(tmp_path / "state"),
        weights=(),
        egress=str(tmp_path / "egress"),
        register=str(tmp_path / "flows.toml"),
        export=ExportSources(
            staff=str(tmp_path / "staff.toml"),
            baseline=str(tmp_path / "baseline.json"),
            units=(str(tmp_path / "units"),),
            endpoint_socket=str(tmp_path / "none.sock"),
            decoy_book=str(tmp_path / "decoys.json"),
            secret_zones={"enclave": (str(tmp_path / "zone"),)},
        ),
    )


def test_every_document_has_an_exporter() -> None:
    """No document is one that only an operator's own program could write."""
    assert set(EXPORTERS) == set(DOCUMENTS)


def test_part_that_is_not_there_leaves_no_document(site: Site) -> None:
    """A silent guard, a missing ledger or staff file is said, and nothing is written for it."""
    found = {one.document: one.fault for one in export_all(site, int(time.time()))}
    assert "silent" in found["endpoint"]
    for name in ("outputs", "staff", "changes", "deployments", "baseline", "monitoring"):
        assert found[name], name
        assert not (Path(site.state) / f"{name}.json").exists()
    stale = Path(site.state) / "staff.json"
    stale.write_text("{}")
    list(export_all(site, int(time.time()), frozenset({"staff"})))
    assert not stale.exists()
    assert found["insider"] == ""
    assert (Path(site.state) / "insider.json").exists()


def test_staff_document_is_as_old_as_the_file(site: Site) -> None:
    """A personnel file that nobody renews grows stale, whenever it is exported."""
    file = Path(site.export.staff)
    file.write_text('present = ["p-1"]\n[departed]\np-2 = 2026-01-02\n')
    old = time.time() - 10 * 86_400
    os.utime(file, (old, old))
    assert [one.fault for one in export_all(site, int(time.time()), frozenset({"staff"}))] == [""]
    written = msgspec.json.decode((Path(site.state) / "staff.json").read_bytes())
    assert written["written"] == int(old)
    file.write_text('present = ["p-1"]\nunknown = 1\n')
    (fault,) = export_all(site, int(time.time()), frozenset({"staff"}))
    assert "unknown" in fault.fault


def test_log_that_was_altered_exports_nothing(site: Site) -> None:
    """Where the log contradicts its signed head nothing at all is written."""
    entries = [one for one in Path(site.log).rglob("*") if one.is_file() and "tile" in str(one)]
    assert entries
    for one in entries:
        one.write_bytes(b"\0" + one.read_bytes()[1:])
    done = CliRunner().invoke(safehold, ["controls", "collect", "--site", str(_file(site))])
    assert done.exit_code != 0
    assert not list(Path(site.state).glob("*.json"))


def _file(site: Site) -> Path:
    path = Path(site.state).parent / "controls.toml"
    path.write_text(
        f'log = "{site.log}"\nlog_keys = "{site.log_keys}"\nstate = "{site.state}"\nweights = []\n'
    )
    return path


def test_secret_in_a_file_is_known_by_its_digest_alone(site: Site) -> None:
    """A key in a file that others read is exposed; in one for its owner alone it is not."""
    zone = Path(site.export.secret_zones["enclave"][0])
    zone.mkdir()
    for name, mode in (("open", 0o644), ("closed", 0o600)):
        (zone / name).write_text("aws_access_key_id = AKIA" + "A" * 16 + "\n")
        (zone / name).chmod(mode)
    assert not [
        one.fault for one in export_all(site, int(time.time()), frozenset({"secrets"})) if one.fault
    ]
    written = msgspec.json.decode((Path(site.state) / "secrets.json").read_bytes())
    assert str(zone / "open") in written["exposed"]
    assert str(zone / "closed") not in written["exposed"]
    assert len(written["zones"]["enclave"]) == 1
    assert "AKIA" not in str(written)


@pytest.mark.parametrize("text", ["the password is a word", "token = short", "hex 00112233", ""])
def test_plain_words_are_no_secret(text: str) -> None:
    """The benign twin: prose and short values do not alarm."""
    assert not list(fingerprints(text.encode()))


def test_requirement_without_a_digest_is_not_pinned() -> None:
    """A version alone pins nothing: the digest does."""
    text = "a==1 \\\n    --hash=sha256:00\nb==2\nc>=3\n# note\n-r other.txt\n"
    assert list(requirements(text)) == [("a", True), ("b", False), ("c", False)]


def test_decoys_that_stand_out_are_told_apart(tmp_path: Path) -> None:
    """Files of one size, entropy and time are not told apart; a tiny old one is."""
    for number in range(6):
        path = tmp_path / f"{number}"
        path.write_bytes(bytes(range(256)) * (number % 3 + 1))
        os.utime(path, (1_000 + number % 3, 1_000 + number % 3))
    alike = [tmp_path / "0", tmp_path / "1", tmp_path / "2"]
    assert separable(alike) == 0.5
    odd = tmp_path / "odd"
    odd.write_bytes(b"x")
    os.utime(odd, (1, 1))
    assert separable([odd]) == 1.0
    assert separable([]) == 1.0


def test_unit_that_changed_has_another_digest(tmp_path: Path) -> None:
    """A new unit, another content and another link are all seen."""
    (tmp_path / "a.service").write_text("x")
    before = units([str(tmp_path)])
    (tmp_path / "a.service").write_text("y")
    (tmp_path / "b.timer").symlink_to("a.service")
    after = units([str(tmp_path)])
    assert set(after) - set(before) == {str(tmp_path / "b.timer")}
    assert after[str(tmp_path / "a.service")] != before[str(tmp_path / "a.service")]


def test_coverage_is_whole_only_without_a_gap() -> None:
    """One sentence of the audit keeps the figure below one, however few bytes it is about."""

    def told(gaps: tuple[str, ...], lost: int) -> LedgerCoverage:
        counts = SurfaceCounts(delivered_bytes=10**9, unlogged_bytes=lost)
        return LedgerCoverage(
            last_seq=1, pruned_rows=0, missing_rows=0, surfaces={"api": counts}, gaps=gaps
        )

    assert covered(told((), 0)) == 1.0
    assert covered(told(("one row is missing",), 0)) < 1.0
    assert covered(told(("bytes",), 10**9)) == 0.0


def test_copy_is_sealed_logged_and_whole_only_if_it_is(tmp_path: Path) -> None:
    """A copy beside a plain file is not sealed, an unlogged one not logged, a cut one not whole."""
    enclave = Enclave(tmp_path / "log", now=int(time.time()))
    publisher = Publisher(tmp_path / "vault")
    publisher.seal()
    source, copy = tmp_path / "vault" / "sealed", tmp_path / "copy"
    copy.mkdir()
    for one in source.iterdir():
        (copy / one.name).write_bytes(one.read_bytes())
    at = Site(
        log=str(tmp_path / "log"),
        log_keys=str(tmp_path / "log" / "log.json"),
        export=ExportSources(
            copies=(CopySource(name="b", kind="transfer", folder=str(copy), source=str(source)),)
        ),
    )

    def look() -> tuple[bool, bool, bool]:
        (found,) = copies(at, read_log(Path(at.log), Path(at.log_keys)), 1).copies
        return found.sealed, found.logged, found.sent == found.received

    assert look() == (True, False, True)
    digest = sha256_hex((source / "header.json").read_bytes())
    leaf = Record(time=int(time.time()), kind="seal", facts={}, digests={"header": digest})
    enclave.desk.record(leaf)
    assert look() == (True, True, True)
    victim = next(one for one in copy.iterdir() if one.name.endswith(".sealed"))
    victim.write_bytes(victim.read_bytes()[:-1])
    assert look() == (True, True, False)
    (copy / "x.safetensors").write_bytes((8).to_bytes(8, "little") + b'{"a": 1}')
    assert look()[0] is False


def test_fault_keeps_the_day_on_which_it_was_seen_first(tmp_path: Path) -> None:
    """An advisory that stays open grows older, whenever it is exported."""
    audit = tmp_path / "audit.json"
    audit.write_text('{"dependencies": [{"name": "a", "vulns": [{"id": "CVE-1"}]}]}')
    (tmp_path / "lock.txt").write_text("a==1 --hash=sha256:00\n--index-url https://m.example/x\n")
    at = Site(
        state=str(tmp_path),
        weights=(),
        export=ExportSources(locks=(str(tmp_path / "lock.txt"),), advisories=str(audit)),
    )
    first = supply(at, healthy().reading, 100)
    (tmp_path / "supply.json").write_bytes(msgspec.json.encode(first))
    assert supply(at, healthy().reading, 900).advisories == {"CVE-1": 100}
    assert "m.example" in first.indexes
    assert (first.pinned, first.unpinned) == (1, ())


def test_trailers_are_read_from_the_message_alone() -> None:
    """What stands in a commit's headers is no trailer."""
    signed = b"tree 1\nRisk: low\n\nTitle\n\nRisk: high\nRollback: undo it\nTest:\n"
    assert trailers(signed) == {"risk": "high", "rollback": "undo it"}


def test_parameters_and_processes_of_this_machine_are_read() -> None:
    """On a real kernel the parameters are there, and who looks is no process of the host."""
    assert sysctls(LocalHost()).values["kernel/random/boot_id"]
    assert os.getpid() not in {one.pid for one in processes(LocalHost()).running}


def test_recorded_host_and_this_machine_have_the_same_seam() -> None:
    """What a test plants, a real host can have."""
    public = {one for one in dir(LocalHost) if one[0] != "_"}
    assert public <= set(dir(RecordedHost)) | {"now", "name", "pid"}
