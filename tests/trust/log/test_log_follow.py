"""A follower reads a growing log, and stops at anything that is not its continuation."""

import pytest

from safehold.testing.trust_log import MemoryLog
from safehold.trust.log import LogKeys, LogTamperError, SigningKey, audit, verify_proof_text
from safehold.trust.log.follow import Follower
from safehold.trust.log.proof import encode_proof
from safehold.trust.log.tiles import bundle_path, encode_bundle

KEY = SigningKey.generate("log.test/follow")
KEYS = LogKeys("log.test/follow", str(KEY.verifier), (str(KEY.verifier),))


def grown(count: int, mark: bytes = b"entry") -> MemoryLog:
    """Return a published log of so many entries."""
    log = MemoryLog(KEY, KEYS)
    log.append([b"%b %d" % (mark, number) for number in range(count)])
    log.publish()
    return log


class Moving:
    """A source whose files change under the reader."""

    def __init__(self, log: MemoryLog) -> None:
        self.log = log

    def read(self, path: str) -> bytes | None:
        """Return a file as it is now."""
        return self.log.source.read(path)


def test_news_are_read_once() -> None:
    """Each call gives what is new, over a full tile and beyond."""
    source = Moving(grown(250))
    follower = Follower(source, KEYS)
    assert [index for index, _ in follower.news()] == list(range(250))
    assert follower.news() == []
    source.log = grown(520)
    assert [index for index, _ in follower.news()] == list(range(250, 520))


def test_a_rolled_back_log_is_refused() -> None:
    """A shorter tree than one seen, in this life or an earlier one, is an error."""
    source = Moving(grown(10))
    follower = Follower(source, KEYS)
    follower.news()
    source.log = grown(9)
    with pytest.raises(LogTamperError, match="rollback"):
        follower.news()
    with pytest.raises(LogTamperError, match="rollback"):
        Follower(source, KEYS, at_least=10).news()


def test_another_history_is_refused() -> None:
    """A longer tree, rightly signed, that begins otherwise is an error; nothing is taken."""
    source = Moving(grown(10))
    follower = Follower(source, KEYS)
    follower.news()
    source.log = grown(300, b"other")
    with pytest.raises(LogTamperError, match="root"):
        follower.news()
    assert follower.size == 10


def test_a_changed_entry_is_refused() -> None:
    """An entry that is not the one in the tree is an error."""
    source = grown(3).source
    source.files[bundle_path(0, 3)] = encode_bundle([b"entry 0", b"entry x", b"entry 2"])
    with pytest.raises(LogTamperError, match="contradicts its tile"):
        Follower(source, KEYS).news()


def test_the_log_in_memory_has_the_tree_and_proofs_of_one_on_disk() -> None:
    """The fake's files pass for a log's: its tiles prove each entry against its checkpoint."""
    log = grown(300)
    for index in (0, 255, 256, 299):
        proof, checkpoint = log.prove(index)
        entry = dict(log.entries())[index]
        text = encode_proof(proof, checkpoint)
        assert verify_proof_text(text, entry, KEY.verifier)[1] == index
    with pytest.raises(LogTamperError):
        audit(Moving(MemoryLog(KEY, KEYS)), LogKeys("else", str(KEY.verifier), KEYS.emitters))
