"""Installing a weaker policy: by a grant in the pinned log, and in no other."""

import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from safehold.canonical import sha256_hex
from safehold.cli import safehold
from safehold.errors import TrustError
from safehold.secure.endpoint.changing import DeskLoosener, install, memory_of
from safehold.testing.trust import GOVERNING, POLICY, Enclave
from safehold.trust.grants.interface import Resource
from safehold.trust.log import LogError, LogTamperError
from safehold.trust.log.keys import read_keys
from safehold.trust.log.memory import begin_log_memory

RULE = (
    '[[rule]]\noperation = "endpoint.loosen"\nthresholds = [{ team = "t-everybody", count = 2 }]\n'
    'max_duration_s = 86400\nkeys = ["ssh"]\n'
)


def founded(root: Path) -> Enclave:
    """Return an enclave whose log.json pins its founding."""
    return Enclave(root, policy=POLICY + GOVERNING + RULE).pinned()


def granted(enclave: Enclave, text: str) -> None:
    """Have two persons allow a policy."""
    digest = sha256_hex(text.encode())
    request = enclave.ask(
        "dev-one",
        "endpoint.loosen",
        resource=Resource(kind="endpoint", name=digest, version="1", parts=("*",)),
        workload_sha256=digest,
    )
    enclave.file(request)
    enclave.approve(request, "dev-two", "sec-one")


@pytest.fixture
def weak(base_text: str) -> str:
    """Return a policy that is weaker than the installed one."""
    return base_text.replace('"enforce"', '"audit"')


def test_a_grant_counts_in_the_pinned_log_once(base_text: str, weak: str, tmp_path: Path) -> None:
    """A use is remembered: a copy of the log from before it gives no second one."""
    enclave, place = founded(tmp_path / "log"), tmp_path / "endpoint.toml"
    place.write_text(base_text)
    granted(enclave, weak)
    shutil.copytree(tmp_path / "log", tmp_path / "before")
    begin_log_memory(memory_of(place), read_keys(tmp_path / "log/log.json"))
    loosener = DeskLoosener(enclave.desk, memory_of(place))
    assert install(weak, place, loosener)[0]
    place.write_text(base_text)
    with pytest.raises(TrustError, match="needs a two-party grant"):
        install(weak, place, loosener)
    shutil.rmtree(tmp_path / "log")
    (tmp_path / "before").rename(tmp_path / "log")
    with pytest.raises(LogTamperError, match="shrank"):
        install(weak, place, DeskLoosener(enclave.open_desk(), memory_of(place)))
    assert place.read_text() == base_text


def test_a_log_of_ones_own_loosens_nothing(base_text: str, weak: str, tmp_path: Path) -> None:
    """Without the memory, or with another log's, the grant of a second log is none."""
    mine, theirs = founded(tmp_path / "mine"), founded(tmp_path / "theirs")
    place = tmp_path / "endpoint.toml"
    place.write_text(base_text)
    granted(mine, weak)
    with pytest.raises(LogError, match="not there"):
        install(weak, place, DeskLoosener(mine.desk, memory_of(place)))
    begin_log_memory(memory_of(place), read_keys(theirs.root / "log.json"))
    with pytest.raises(LogTamperError, match="another key"):
        install(weak, place, DeskLoosener(mine.desk, memory_of(place)))
    assert place.read_text() == base_text


def test_the_memory_is_made_from_a_pinned_file(tmp_path: Path) -> None:
    """By a command, once, beside the policy."""
    founded(tmp_path / "log")
    words = ["endpoint", "memory", "--log-keys", str(tmp_path / "log/log.json")]
    words += ["--place", str(tmp_path / "endpoint.toml")]
    assert "pins enclave.test/log" in CliRunner().invoke(safehold, words).output
    assert isinstance(CliRunner().invoke(safehold, words).exception, LogError)
