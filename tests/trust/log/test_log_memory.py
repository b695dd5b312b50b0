"""A host's memory of its log: another log, another founding, a rollback and a fork are refused."""

import shutil
from pathlib import Path

import msgspec
import pytest

from safehold.trust.log import (
    DirectorySource,
    LogError,
    LogKeys,
    LogStore,
    LogTamperError,
    SigningKey,
    create_log,
)
from safehold.trust.log.memory import begin_log_memory, hold_against

KEY = SigningKey.generate("log.test/memory")
KEYS = LogKeys(KEY.verifier.name, str(KEY.verifier), (str(KEY.verifier),), founding="ab" * 32)


def grown(root: Path, count: int, mark: str = "entry", key: SigningKey = KEY) -> DirectorySource:
    """Return a log of so many entries."""
    keys = msgspec.structs.replace(KEYS, key=str(key.verifier))
    if not root.exists():
        create_log(root, key, keys)
    store = LogStore(root, key)
    store.append([f"{mark} {number}".encode() for number in range(store.size, count)])
    store.publish()
    return DirectorySource(root)


def test_a_log_that_goes_on_is_taken_and_remembered(tmp_path: Path) -> None:
    """Each time from what was seen before; keys may be added, the founding stays."""
    begin_log_memory(tmp_path / "m", KEYS)
    for count in (0, 3, 3, 300):
        hold_against(tmp_path / "m", KEYS, grown(tmp_path / "log", count))
    more = msgspec.structs.replace(KEYS, witnesses=("w",))
    hold_against(tmp_path / "m", more, DirectorySource(tmp_path / "log"))


def test_a_log_set_back_or_forked_is_refused(tmp_path: Path) -> None:
    """The same key, and another history: shorter, as long, or longer."""
    begin_log_memory(tmp_path / "m", KEYS)
    shutil.copytree(grown(tmp_path / "log", 3)._root, tmp_path / "old")
    hold_against(tmp_path / "m", KEYS, grown(tmp_path / "log", 5))
    with pytest.raises(LogTamperError, match="shrank from 5 to 3"):
        hold_against(tmp_path / "m", KEYS, DirectorySource(tmp_path / "old"))
    for count in (5, 9):
        forked = grown(tmp_path / f"fork-{count}", count, "other")
        with pytest.raises(LogTamperError):
            hold_against(tmp_path / "m", KEYS, forked)
    hold_against(tmp_path / "m", KEYS, DirectorySource(tmp_path / "log"))


@pytest.mark.parametrize("member", ["origin", "key", "founding"])
def test_another_log_is_refused(tmp_path: Path, member: str) -> None:
    """A log of one's own, with one's own founders, carries no grant."""
    begin_log_memory(tmp_path / "m", KEYS)
    other = msgspec.structs.replace(KEYS, **{member: "other"})
    with pytest.raises(LogTamperError, match=f"another {member}"):
        hold_against(tmp_path / "m", other, grown(tmp_path / "log", 2))
    forged = grown(tmp_path / "forged", 2, key=SigningKey.generate(KEY.verifier.name))
    with pytest.raises(LogTamperError):
        hold_against(tmp_path / "m", KEYS, forged)


def test_a_memory_is_made_once_of_a_founded_log(tmp_path: Path) -> None:
    """A second beginning would forget; a log without a founding has nobody who decides."""
    with pytest.raises(LogError, match="founded"):
        begin_log_memory(tmp_path / "m", msgspec.structs.replace(KEYS, founding=""))
    begin_log_memory(tmp_path / "m", KEYS)
    with pytest.raises(LogError, match="it stays"):
        begin_log_memory(tmp_path / "m", KEYS)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[" * 100_000, b'{"keys": 1}'])
def test_a_lost_or_damaged_memory_refuses(tmp_path: Path, content: bytes) -> None:
    """Nothing is made up."""
    source = grown(tmp_path / "log", 1)
    with pytest.raises(LogError, match="not there"):
        hold_against(tmp_path / "m", KEYS, source)
    (tmp_path / "m").write_bytes(content)
    with pytest.raises(LogError, match="damaged"):
        hold_against(tmp_path / "m", KEYS, source)
    assert (tmp_path / "m").read_bytes() == content
    with pytest.raises(LogError, match="can't be written"):
        hold_against(tmp_path, KEYS, source)
