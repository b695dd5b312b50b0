"""Keys of a log are for their owner alone, and a use is not spent on a command that can't run."""

import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from safehold.cli import safehold
from safehold.cli._weights_run import check_command
from safehold.errors import ConfigError, SafeholdError, UsageError
from safehold.trust.log.key_files import check_key_folder, read_private_key


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Return a log whose keys lie beside it."""
    run(tmp_path / "log", "log", "init", str(tmp_path / "log"), "--origin", "keys.test/log")
    return tmp_path / "log"


def run(log: Path, *words: str) -> str:
    """Run a command that must succeed."""
    done = CliRunner().invoke(safehold, words, env={"SAFEHOLD_LOG": str(log)})
    assert done.exit_code == 0, (done.output, done.exception)
    return done.output


def refused(log: Path, *words: str) -> str:
    """Run a command that must fail with one line."""
    done = CliRunner().invoke(safehold, words, env={"SAFEHOLD_LOG": str(log)})
    assert isinstance(done.exception, SafeholdError), done.output
    return str(done.exception)


COMMANDS = [("people", "list"), ("grant", "list"), ("exemption", "list")]


@pytest.mark.parametrize("words", COMMANDS)
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o666])
def test_a_private_key_that_others_can_read_is_refused(
    log: Path, words: tuple[str, ...], mode: int
) -> None:
    """By every command, with what to do; the owner's alone is taken."""
    key = log.with_name("log.keys") / "emitter.key"
    key.chmod(mode)
    assert "chmod 600" in refused(log, *words)
    key.chmod(0o400)
    read_private_key(key)


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o722])
def test_a_folder_of_keys_that_others_can_change_is_refused(log: Path, mode: int) -> None:
    """Whoever can replace the key is its owner."""
    folder = log.with_name("log.keys")
    folder.chmod(mode)
    assert "chmod 700" in refused(log, "people", "list")
    folder.chmod(0o700)
    check_key_folder(folder)


def test_log_init_takes_no_folder_that_others_can_change(tmp_path: Path) -> None:
    """A world-writable folder, a dangling link or a file where the keys would go: one line."""
    for number, make in enumerate((_shared, _dangling, _file)):
        log = tmp_path / f"log{number}"
        make(log.with_name(f"{log.name}.keys"))
        assert "expected a folder" in refused(
            log, "log", "init", str(log), "--origin", "keys.test/log"
        )
        assert not log.exists()


def _shared(path: Path) -> None:
    path.mkdir()
    path.chmod(0o777)


def _dangling(path: Path) -> None:
    path.symlink_to(path.with_name("nowhere"))


def _file(path: Path) -> None:
    path.write_text("x")


def test_a_link_to_a_key_is_not_followed(log: Path) -> None:
    """A link could be turned to another key between two commands."""
    key = log.with_name("log.keys") / "emitter.key"
    key.rename(key.with_suffix(".real"))
    key.symlink_to(key.with_suffix(".real"))
    with pytest.raises(ConfigError, match="link"):
        read_private_key(key)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_somebody_elses_key_is_refused(log: Path) -> None:
    """A key that another user made is known to that user."""
    key = log.with_name("log.keys") / "emitter.key"
    os.chown(key, 12_345, -1)
    with pytest.raises(ConfigError, match="yours"):
        read_private_key(key)


def test_a_command_without_a_shard_spends_no_use() -> None:
    """What could not run is refused before the key service is asked."""
    check_command(["a.gguf"], ["sh", "-c", "cat {a.gguf}"])
    with pytest.raises(UsageError, match="expected a shard"):
        check_command(["a.gguf"], ["sleep", "60"])
    with pytest.raises(UsageError, match="no such program"):
        check_command(["a.gguf"], ["no-such-program", "{a.gguf}"])
