"""`safehold endpoint` as a person types it: what is refused says why, in one line."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from safehold.cli.endpoint import endpoint
from safehold.errors import SafeholdError, TrustError
from safehold.secure.endpoint.interface import EndpointPolicyError, InventoryError
from safehold.secure.endpoint.service import load, require_policy


def run(*words: object) -> tuple[int, str]:
    """Run one command; return its status and what it said. Our own errors are raised."""
    found = CliRunner().invoke(endpoint, [str(word) for word in words])
    if isinstance(found.exception, SafeholdError):
        raise found.exception
    assert found.exception is None or isinstance(found.exception, SystemExit)
    return found.exit_code, found.output


def said(*command: str) -> str:
    """What a command prints in a process of its own; it must end well."""
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.fixture
def site(tmp_path: Path, base_text: str) -> Path:
    """A folder with a key, one program, its signed inventory and a policy that names it."""
    _, verifier = run("keygen", "platform", tmp_path / "key")
    (tmp_path / "opt").mkdir()
    (tmp_path / "opt/tool").write_text("#!/bin/sh\n")
    (tmp_path / "opt/tool").chmod(0o755)
    _, said = run(
        "scan", tmp_path / "i.jsonl", "--host", "gpu-1", "--signer", tmp_path / "key",
        "--root", tmp_path / "opt", "--json",
    )  # fmt: skip
    assert json.loads(said)["files"] == 1
    rows = f'\n[[inventory]]\nfile = "i.jsonl"\nsigner = "platform"\nkey = "{verifier.strip()}"\n'
    (tmp_path / "endpoint.toml").write_text(base_text + rows)
    return tmp_path


def test_second_scan_hashes_nothing(site: Path) -> None:
    """The cache by change time spares every file that did not change."""
    words = ("scan", site / "i.jsonl", "--host", "gpu-1", "--signer", site / "key", "--json")
    _, said = run(*words, "--root", site / "opt")
    assert json.loads(said)["hashed"] == 0


def test_clean_policy_passes_lint_and_a_bad_row_fails_it(site: Path) -> None:
    """Exit 0 for the good policy; exit 1 with row and code for an unknown package."""
    assert run("lint", "--policy", site / "endpoint.toml")[0] == 0
    bad = (site / "endpoint.toml").read_text().replace('path = ["/usr/**"]', 'package = ["tol"]')
    (site / "bad.toml").write_text(bad)
    status, said = run("lint", "--policy", site / "bad.toml")
    assert status == 1
    assert "system: unknown-package" in said


def test_dry_run_names_the_row_that_would_stop_the_shell(site: Path) -> None:
    """A deny row over the shell is shown by --dry-run, and a guard with it does not start."""
    shell = Path("/bin/sh").resolve()
    deny = f'\n[[deny]]\nname = "no-shell"\nkinds = ["elf"]\npath = ["{shell}"]\nreason = "r"\n'
    (site / "bad.toml").write_text((site / "endpoint.toml").read_text() + deny)
    status, said = run("guard", "--policy", site / "bad.toml", "--dry-run")
    assert status == EndpointPolicyError.exit_status
    assert f"the shell needs {shell} (elf): row no-shell" in said
    with pytest.raises(EndpointPolicyError, match="this policy would stop"):
        run("guard", "--policy", site / "bad.toml", "--records", site / "r", "--socket", site / "s")


def test_changed_inventory_stops_every_command_that_reads_it(site: Path) -> None:
    """One byte more in the inventory, and lint, guard and compile refuse it."""
    with (site / "i.jsonl").open("a") as file:
        file.write("{}\n")
    for words in (("lint",), ("guard", "--dry-run"), ("compile", "systemd", site / "out")):
        with pytest.raises(InventoryError, match="not those that were signed"):
            run(*words, "--policy", site / "endpoint.toml")


def test_compiled_files_come_with_what_the_engine_does_not_see(site: Path) -> None:
    """The drop-in is written, and scripts are named as a blind spot."""
    status, said = run("compile", "systemd", site / "out", "--policy", site / "endpoint.toml")
    assert status == 0
    assert "ExecPaths=/usr" in (site / "out/50-safehold.conf").read_text()
    assert "not seen by systemd: kinds: script" in said


def test_looser_policy_is_not_installed_without_a_log(site: Path) -> None:
    """Stepping down to audit without --log is refused; drift of a changed file is exit 1."""
    place = site / "installed.toml"
    run("install", site / "endpoint.toml", "--place", place)
    loose = place.read_text().replace('"enforce"', '"audit"')
    (site / "loose.toml").write_text(loose)
    with pytest.raises(TrustError, match=r"endpoint\.loosen"):
        run("install", site / "loose.toml", "--place", place)


def test_silent_guard_is_one_clear_line(site: Path) -> None:
    """Status and metrics of a guard that does not run are an error, not zeros."""
    for command in ("status", "metrics"):
        with pytest.raises(SafeholdError, match="silent"):
            run(command, "--socket", site / "none")


def test_learned_rows_with_essentials_are_taken_by_the_guard(tmp_path: Path) -> None:
    """Learn mode needs no rows; what is suggested of nothing but the essentials can be enforced."""
    head = 'version = 1\nmode = "learn"\nhost = "h"\n[[allow]]\nname = "nothing"\nkinds = ["elf"]\n'
    duty = 'owner = "o"\nreason = "r"\nticket = "T-1"\n'
    file = tmp_path / "endpoint.toml"
    file.write_text(f'{head}sha256 = ["{"0" * 64}"]\n{duty}')
    (tmp_path / "seen.jsonl").touch()
    require_policy(load(file, 0))
    words = ("suggest", "--policy", file, "--records", tmp_path / "seen.jsonl", "--owner", "o")
    more = ("--reason", "r", "--ticket", "T-1")
    _, bare = run(*words, *more)
    assert bare == ""
    _, rows = run(*words, *more, "--essentials")
    enforced = file.read_text().replace('"learn"', '"enforce"')
    file.write_text(enforced)
    with pytest.raises(EndpointPolicyError, match="would stop"):
        require_policy(load(file, 0))
    # As two commands: what one of them has loaded is not in the other's memory.
    command = (sys.executable, "-m", "safehold", "endpoint")
    given = [str(word) for word in (*words[1:], *more)]
    done = said(*command, "suggest", "--essentials", *given)
    assert rows.startswith("[[allow]]")
    file.write_text(enforced + "\n" + done)
    dry = [*command, "guard", "--dry-run", "--policy", str(file)]
    assert "nothing that the host needs" in said(*dry)
