"""Keys of a log are for their owner alone, and a use is not spent on a command that can't run."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from safehold.cli import safehold
from safehold.cli._weights_run import check_command
from safehold.cli.console import _gateway_link
from safehold.detect.bounty.sealing import new_triage_key, read_triage_key
from safehold.detect.monitoring.cases.channels import Webhook
from safehold.errors import ConfigError, SafeholdError, UsageError
from safehold.guard.bundle.signing import load_or_make_key
from safehold.guard.gateway.bundles.trial_file import read_draw
from safehold.guard.ledger.sealing import VARIABLE, key_at_hand
from safehold.secure.egress.explain.senders import load_signer
from safehold.trust.log.key_files import check_key_folder, read_bearer, read_private_key


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


def _trial_draw(path: Path) -> object:
    path.write_bytes(bytes(range(1, 33)))
    return read_draw(path)


def _ledger_key(path: Path) -> object:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(VARIABLE, str(path))
        return key_at_hand()


def _webhook(path: Path) -> object:
    return Webhook("http://127.0.0.1:1", path)


# Every reader of a secret file, and what it makes of a good one.
READERS: dict[str, Callable[[Path], object]] = {
    "the console's key of the gateway": lambda path: _gateway_link("http://127.0.0.1:1", path),
    "a bearer key": read_bearer,
    "the ledger's key": _ledger_key,
    "a trial's draw": _trial_draw,
    "a webhook's key": _webhook,
    "triage's key": read_triage_key,
    "a sender's key": load_signer,
    "the bundle's key": load_or_make_key,
}


def _good(name: str, path: Path) -> None:
    """Write a secret that its reader takes."""
    if name in {"a sender's key", "the bundle's key"}:
        load_or_make_key(path)
    elif name == "triage's key":
        new_triage_key(path)
    else:
        path.touch(mode=0o600)
        path.write_text("0123456789abcdef" * 2)


@pytest.mark.parametrize("name", READERS)
def test_every_reader_of_a_secret_file_looks_at_who_else_could(name: str, tmp_path: Path) -> None:
    """Readable by others, a link, in a folder that others change: refused; the owner's is taken."""
    read, path = READERS[name], tmp_path / "secret"
    _good(name, path)
    read(path)
    for mode in (0o640, 0o604, 0o660):
        # Under a new name each time: the ledger's key is read once by a process.
        path = path.rename(tmp_path / f"secret-{mode:o}")
        path.chmod(mode)
        with pytest.raises(ConfigError, match="chmod 600"):
            read(path)
    path.chmod(0o600)
    link = tmp_path / "link"
    link.symlink_to(path)
    with pytest.raises(ConfigError, match="link is not followed"):
        read(link)
    tmp_path.chmod(0o777)
    path = path.rename(tmp_path / "secret-again")
    with pytest.raises(ConfigError, match="chmod 700"):
        read(path)
    tmp_path.chmod(0o700)


@pytest.mark.parametrize("text", ["", "two words", "two\nlines", "\x07bell", "\u00e9"])
def test_a_bearer_key_is_one_plain_line(text: str, tmp_path: Path) -> None:
    """What would break or split a header is refused before anything is asked."""
    path = tmp_path / "key"
    path.touch(mode=0o600)
    path.write_text(text)
    with pytest.raises(ConfigError, match="one line"):
        read_bearer(path)
