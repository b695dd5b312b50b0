"""The log on disk: proofs, crashes, damage, several writers, witnesses, an outside reader."""

import base64
import itertools
import os
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safehold.trust.clock import SKEW_S
from safehold.trust.log import (
    Algorithm,
    DirectorySource,
    LogError,
    LogKeys,
    LogStore,
    LogTamperError,
    SigningKey,
    Statement,
    StatementSubject,
    TileReader,
    Witness,
    attach,
    audit,
    create_log,
    create_witness,
    encode_proof,
    read_keys,
    sign_envelope,
    verify_proof_text,
)
from safehold.trust.log.checkpoint import open_checkpoint
from safehold.trust.log.journal import encode_frame, read_journal
from safehold.trust.log.merkle import (
    fold,
    hash_leaf,
    prove_consistency,
    prove_inclusion,
    tree_root,
    verify_consistency,
    verify_inclusion,
)
from safehold.trust.log.tiles import Frontier, encode_bundle, tile_path

ORIGIN = "log.test/one"


def new_log(root: Path, *, witnesses: tuple[str, ...] = ()) -> tuple[LogStore, SigningKey]:
    """Return an empty log and its key, which is its emitter too."""
    key = SigningKey.generate(ORIGIN)
    vkey = str(key.verifier)
    create_log(root, key, LogKeys(ORIGIN, vkey, (vkey,), witnesses))
    return LogStore(root, key), key


def leaf(key: SigningKey, number: int) -> bytes:
    """Return a sealed leaf."""
    return sign_envelope(
        Statement(
            type="https://in-toto.io/Statement/v1",
            subject=(StatementSubject("test", {"sha256": f"{number:064x}"}),),
            predicate_type="urn:test",
            predicate={"number": number},
        ),
        key,
    )


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 1200), st.data())
def test_proofs_of_every_kind_verify_and_near_misses_do_not(size: int, data: st.DataObject) -> None:
    """Inclusion and consistency proofs hold for their own leaf and trees, and no others."""
    leaves = [hash_leaf(number.to_bytes(4, "big")) for number in range(size)]

    def node(level: int, index: int) -> bytes:
        return fold(leaves[index << level : (index + 1) << level])

    root = tree_root(size, node)
    frontier = Frontier()
    for one in leaves:
        frontier.add(one)
    assert frontier.root() == root
    index = data.draw(st.integers(0, size - 1))
    proof = prove_inclusion(index, size, node)
    verify_inclusion(proof, leaves[index], root)
    with pytest.raises(LogTamperError):
        verify_inclusion(proof, hash_leaf(b"other"), root)
    old = data.draw(st.integers(0, size))
    old_root = tree_root(old, node)
    consistency = prove_consistency(old, size, node)
    verify_consistency(consistency, old_root, root)
    with pytest.raises(LogTamperError):
        verify_consistency(consistency, hash_leaf(b"fork"), root)


def test_entries_are_proved_across_tile_borders(tmp_path: Path) -> None:
    """Every entry of a log of 600 has a proof that verifies offline, published in odd steps."""
    store, key = new_log(tmp_path / "log")
    numbers = itertools.count()
    for step in (1, 254, 1, 1, 255, 88):
        store.append([leaf(key, next(numbers)) for _ in range(step)])
        store.publish()
    entries = dict(store.entries())
    assert len(entries) == 600
    for index in (0, 1, 254, 255, 256, 257, 511, 512, 599):
        proof, checkpoint = store.prove(index)
        text = encode_proof(proof, checkpoint)
        head, at = verify_proof_text(text, entries[index], key.verifier)
        assert (head.size, at) == (600, index)
        with pytest.raises(LogTamperError):
            verify_proof_text(text, entries[index] + b" ", key.verifier)
    assert audit(DirectorySource(tmp_path / "log"), store.keys).leaves == 600


def test_partial_tiles_of_full_tiles_are_dropped(tmp_path: Path) -> None:
    """Old partial files do not pile up once their tile is full."""
    store, key = new_log(tmp_path / "log")
    for number in range(300):
        store.append([leaf(key, number)])
        if number % 10 == 0:
            store.publish()
    store.publish()
    assert not (tmp_path / "log" / "tile/0/000.p").exists()
    assert (tmp_path / "log" / "tile/0/000").stat().st_size == 8192


WRITER = """
import sys
from pathlib import Path
from safehold.trust.log import LogStore, SigningKey
store = LogStore(Path(sys.argv[1]), SigningKey.parse(sys.argv[2]))
number = store.size
while True:
    store.append([b"entry %d" % number])
    print(number, flush=True)
    number += 1
    if number % 7 == 0:
        store.publish()
        print("published", number, flush=True)
"""


@pytest.mark.parametrize("attempt", range(4))
def test_kill_at_any_instant_loses_no_acknowledged_entry(tmp_path: Path, attempt: int) -> None:
    """After SIGKILL, everything that was acknowledged is there, in order, and appends go on."""
    store, key = new_log(tmp_path / "log")
    store.close()
    acknowledged = -1
    published = 0
    for life in range(3):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path / "log"), key.text()],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        line = process.stdout.readline()
        time.sleep(0.05 + 0.037 * attempt + 0.011 * life)
        process.send_signal(signal.SIGKILL)
        for row in [line, *process.stdout.readlines()]:
            if row.startswith("published") and row.endswith("\n"):
                published = int(row.split()[1])
            elif row.strip().isdigit() and row.endswith("\n"):
                acknowledged = int(row)
        process.stdout.close()
        process.wait()
        again = LogStore(tmp_path / "log", key)
        assert again.checkpoint().size >= published
        entries = [entry for _, entry in again.entries()]
        assert len(entries) > acknowledged
        assert entries == [b"entry %d" % number for number in range(len(entries))]
        head = again.publish()
        assert head.size == len(entries)
        reader = TileReader(DirectorySource(tmp_path / "log"), head)
        assert tree_root(head.size, reader.node) == head.root
        again.close()
    assert acknowledged > 0


def test_torn_tail_is_cut_and_acknowledged_entries_stay(tmp_path: Path) -> None:
    """A journal cut at every byte of its last frame keeps exactly the frames before it."""
    store, key = new_log(tmp_path / "log")
    store.append([b"first", b"second"])
    store.close()
    journal = tmp_path / "log" / "journal"
    sound = journal.read_bytes()
    frame = encode_frame([b"third"])
    for length in range(len(frame)):
        journal.write_bytes(sound + frame[:length])
        again = LogStore(tmp_path / "log", key)
        assert [entry for _, entry in again.entries()] == [b"first", b"second"]
        with again.exclusive():
            assert journal.read_bytes() == sound
        again.close()
    journal.write_bytes(sound + bytes(300))
    again = LogStore(tmp_path / "log", key)
    assert again.size == 2
    assert again.append([b"third"]) == range(2, 3)


def test_damage_before_the_tail_is_no_torn_tail(tmp_path: Path) -> None:
    """A flipped bit in an acknowledged frame refuses to open: nothing is silently dropped."""
    store, key = new_log(tmp_path / "log")
    for text in (b"first", b"second", b"third"):
        store.append([text])
    store.close()
    sound = (tmp_path / "log" / "journal").read_bytes()

    def refuses(at: int) -> bool:
        root = shutil.copytree(tmp_path / "log", tmp_path / f"damaged{at}")
        damaged = bytearray(sound)
        damaged[at] ^= 0x40
        (root / "journal").write_bytes(bytes(damaged))
        try:
            LogStore(root, key)
        except LogError:
            return True
        return False

    # At once: each waits a tenth of a second for a writer that may be in the middle of a frame.
    with ThreadPoolExecutor(32) as pool:
        opened = [at for at, done in enumerate(pool.map(refuses, range(len(sound)))) if not done]
    assert opened == []


@given(st.binary(max_size=200))
@settings(max_examples=200)
def test_arbitrary_journals_give_one_clear_error_or_entries(tail: bytes) -> None:
    """No bytes after the header make the reader fail in another way."""
    try:
        base, entries, end = read_journal(b"SAFEJNL1" + bytes(8) + tail)
    except LogTamperError:
        return
    assert base == 0
    assert end <= 16 + len(tail)
    assert entries == [] or len(tail) > 44


def test_full_disk_appends_nothing(tmp_path: Path) -> None:
    """When the disk refuses, the error is clear and the log stays as it was."""
    store, key = new_log(tmp_path / "log")
    store.append([b"first"])
    script = (
        "import resource, sys\n"
        "from pathlib import Path\n"
        "from safehold.trust.log import LogError, LogStore, SigningKey\n"
        "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "store = LogStore(Path(sys.argv[1]), SigningKey.parse(sys.argv[2]))\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))\n"
        "try:\n"
        "    store.append([b'x' * 5000])\n"
        "except LogError as error:\n"
        "    print('refused:', error)\n"
        "print(store.append([b'small'])[0])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "log"), key.text()],
        check=True,
        capture_output=True,
        text=True,
    )
    assert done.stdout.splitlines()[0].startswith("refused: can't append")
    assert done.stdout.splitlines()[1] == "1"
    again = LogStore(tmp_path / "log", key)
    assert [entry for _, entry in again.entries()] == [b"first", b"small"]


def test_two_processes_append_without_losing_or_doubling(tmp_path: Path) -> None:
    """Several processes interleave, and every entry is there once."""
    _, key = new_log(tmp_path / "log")
    script = (
        "import sys\n"
        "from pathlib import Path\n"
        "from safehold.trust.log import LogStore, SigningKey\n"
        "store = LogStore(Path(sys.argv[1]), SigningKey.parse(sys.argv[2]))\n"
        "for number in range(40):\n"
        "    store.append([(sys.argv[3] + str(number)).encode()])\n"
        "    if number % 9 == 0: store.publish()\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "log"), key.text()]
    running = [subprocess.Popen([*command, name]) for name in "abc"]
    assert [process.wait() for process in running] == [0, 0, 0]
    store = LogStore(tmp_path / "log", key)
    entries = [entry for _, entry in store.entries()]
    assert sorted(entries) == sorted(f"{name}{n}".encode() for name in "abc" for n in range(40))
    for name in "abc":
        mine = [entry for entry in entries if entry.startswith(name.encode())]
        assert mine == [f"{name}{n}".encode() for n in range(40)]


def test_threads_share_commits(tmp_path: Path) -> None:
    """Each thread gets the index of its own entry."""
    store, _ = new_log(tmp_path / "log")
    found: dict[int, bytes] = {}

    def work(name: int) -> None:
        for number in range(20):
            entry = f"{name}-{number}".encode()
            found[store.append([entry])[0]] = entry

    threads = [threading.Thread(target=work, args=(name,)) for name in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert dict(store.entries()) == found
    assert len(found) == 160


def test_waiting_threads_get_the_error_of_their_commit(tmp_path: Path) -> None:
    """When the log can't be locked any more, every thread hears it, and nothing is appended."""
    store, key = new_log(tmp_path / "log")
    errors: list[Exception] = []

    def work() -> None:
        try:
            store.append([b"never"])
        except LogError as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(6)]
    with store.exclusive():
        for thread in threads:
            thread.start()
        sound = (tmp_path / "log" / "checkpoint").read_bytes()
        (tmp_path / "log" / "checkpoint").unlink()
        os.utime(tmp_path / "log" / "journal")
        (tmp_path / "log" / "journal").rename(tmp_path / "log" / "hidden")
    for thread in threads:
        thread.join(60)
    assert len(errors) == 6
    (tmp_path / "log" / "hidden").rename(tmp_path / "log" / "journal")
    (tmp_path / "log" / "checkpoint").write_bytes(sound)
    assert LogStore(tmp_path / "log", key).size == 0
    assert store.append([b"again"]) == range(1)


def test_append_inside_an_exclusive_section_does_not_deadlock(tmp_path: Path) -> None:
    """Who holds the log's lock appends at once, though other threads wait for it."""
    store, _ = new_log(tmp_path / "log")
    threads = [threading.Thread(target=lambda: store.append([b"other"])) for _ in range(4)]
    with store.exclusive():
        for thread in threads:
            thread.start()
        time.sleep(0.05)
        mine = store.append([b"mine"])
    for thread in threads:
        thread.join(60)
    entries = dict(store.entries())
    assert entries[mine[0]] == b"mine"
    assert sorted(entries.values()) == [b"mine"] + [b"other"] * 4


def test_entry_limits(tmp_path: Path) -> None:
    """Entries are 1 to 65,535 bytes: what no bundle can hold is refused before it is written."""
    store, _ = new_log(tmp_path / "log")
    for entry in (b"", b"x" * 65_536):
        with pytest.raises(LogError):
            store.append([b"fine", entry])
    assert store.size == 0
    assert store.append([b"x" * 65_535]) == range(1)


def filled(root: Path, count: int = 300, **options: tuple[str, ...]) -> tuple[LogStore, SigningKey]:
    """Return a published log of sealed leaves."""
    store, key = new_log(root, **options)
    store.append([leaf(key, number) for number in range(count)])
    store.publish()
    return store, key


@pytest.mark.parametrize(
    "path", ["checkpoint", "tile/0/000", "tile/0/001.p/44", "tile/entries/000", "tile/1/000.p/1"]
)
def test_audit_finds_any_changed_file(tmp_path: Path, path: str) -> None:
    """A flipped bit, a truncation or a removal of any file is found offline."""
    store, _ = filled(tmp_path / "log")
    keys = store.keys
    sound = (tmp_path / "log" / path).read_bytes()
    for changed in (
        sound[:100] + bytes([sound[100 % len(sound)] ^ 1]) + sound[101:]
        if len(sound) > 101
        else bytes([sound[0] ^ 1]) + sound[1:],
        sound[:-1],
        None,
    ):
        if changed is None:
            (tmp_path / "log" / path).unlink()
        else:
            (tmp_path / "log" / path).write_bytes(changed)
        with pytest.raises(LogError):
            audit(DirectorySource(tmp_path / "log"), keys)


def test_leaf_by_an_unknown_emitter_is_found(tmp_path: Path) -> None:
    """A leaf signed by a stranger fails the audit, though the tree is sound."""
    store, _ = filled(tmp_path / "log", 3)
    store.append([leaf(SigningKey.generate("stranger"), 4)])
    store.publish()
    with pytest.raises(LogTamperError, match="known emitter"):
        audit(DirectorySource(tmp_path / "log"), store.keys)


def test_log_of_another_key_is_refused(tmp_path: Path) -> None:
    """Pinned keys refuse a log that somebody made under the same origin."""
    filled(tmp_path / "log", 3)
    other, _ = filled(tmp_path / "other", 3)
    with pytest.raises(LogTamperError):
        audit(DirectorySource(tmp_path / "log"), other.keys)


def test_writer_refuses_a_log_whose_tiles_were_changed(tmp_path: Path) -> None:
    """Opening for append checks the right edge against the signed root."""
    store, key = filled(tmp_path / "log", 10)
    store.close()
    tile = tmp_path / "log" / tile_path(0, 0, 10)
    tile.write_bytes(bytes(320))
    with pytest.raises(LogTamperError, match="contradict"):
        LogStore(tmp_path / "log", key)


@pytest.mark.parametrize("count", [3, 256, 300])
def test_no_reader_believes_a_changed_file(tmp_path: Path, count: int) -> None:
    """Whatever tile or bundle of the signed tree is changed, no reader gives what it holds."""
    filled(tmp_path / "log", count)
    head = open_checkpoint(
        (tmp_path / "log/checkpoint").read_bytes(), read_keys(tmp_path / "log/log.json").log_key()
    )[0]
    source = DirectorySource(tmp_path / "log")
    entries = list(TileReader(source, head).entries())
    assert len(entries) == head.size
    for file in sorted((tmp_path / "log/tile").rglob("*")):
        if not file.is_file():
            continue
        whole = file.read_bytes()
        changed = bytes([whole[-1] ^ 1])
        for wrong in (whole[:-1] + changed, whole[:-1], whole + whole[-32:], b""):
            file.write_bytes(wrong)
            with pytest.raises(LogTamperError):
                list(TileReader(source, head).entries())
            with pytest.raises(LogTamperError):
                list(LogStore(tmp_path / "log", None).entries())
        file.write_bytes(whole)
    assert list(TileReader(source, head).entries()) == entries


def test_an_entry_in_anothers_place_is_no_history(tmp_path: Path) -> None:
    """A leaf that was really signed, put where another one was, is not replayed."""
    store, _ = filled(tmp_path / "log", 5)
    path = tmp_path / "log/tile/entries/000.p/5"
    entries = [entry for _, entry in store.entries()]
    path.write_bytes(encode_bundle([*entries[:2], entries[1], *entries[3:]]))
    with pytest.raises(LogTamperError, match="contradicts its tile"):
        list(store.entries())
    with pytest.raises(LogTamperError, match="contradicts its tile"):
        LogStore(tmp_path / "log", None)


def test_writer_refuses_a_lost_or_older_checkpoint(tmp_path: Path) -> None:
    """A removed checkpoint, or one from before the journal's base, refuses."""
    store, key = filled(tmp_path / "log", 10)
    old = (tmp_path / "log" / "checkpoint").read_bytes()
    store.append([leaf(key, 11)])
    store.publish()
    store.close()
    (tmp_path / "log" / "checkpoint").write_bytes(old)
    with pytest.raises(LogTamperError, match="contradict"):
        LogStore(tmp_path / "log", key)
    (tmp_path / "log" / "checkpoint").unlink()
    with pytest.raises(LogTamperError, match="no checkpoint"):
        LogStore(tmp_path / "log", key)


def witness(root: Path, name: str = "witness.test/w1") -> tuple[Witness, SigningKey]:
    """Return a witness with an empty memory."""
    key = SigningKey.generate(name, Algorithm.COSIGNATURE)
    create_witness(root)
    return Witness(root, key), key


def test_witness_cosigns_growth_and_refuses_a_rollback(tmp_path: Path) -> None:
    """A log restored from an old backup is smaller than what the witness saw."""
    store, key = filled(tmp_path / "log", 10)
    guard, _ = witness(tmp_path / "w")
    source = DirectorySource(tmp_path / "log")
    guard.cosign_copy(source, key.verifier, 100)
    shutil.copytree(tmp_path / "log", tmp_path / "backup")
    store.append([leaf(key, 11)])
    store.publish()
    guard.cosign_copy(source, key.verifier, 101)
    with pytest.raises(LogTamperError, match="shrank"):
        guard.cosign_copy(DirectorySource(tmp_path / "backup"), key.verifier, 102)


def test_witness_refuses_a_fork(tmp_path: Path) -> None:
    """A second history of the same log, grown from the same backup, is refused."""
    store, key = filled(tmp_path / "log", 10)
    shutil.copytree(tmp_path / "log", tmp_path / "fork")
    store.append([leaf(key, 11)])
    store.publish()
    guard, _ = witness(tmp_path / "w")
    guard.cosign_copy(DirectorySource(tmp_path / "log"), key.verifier, 100)
    other = LogStore(tmp_path / "fork", key)
    other.append([leaf(key, 12), leaf(key, 13)])
    other.publish()
    with pytest.raises(LogTamperError):
        guard.cosign_copy(DirectorySource(tmp_path / "fork"), key.verifier, 101)


def test_witness_remembers_across_restarts_and_refuses_lost_memory(tmp_path: Path) -> None:
    """The memory is on disk; without it the witness does not start."""
    _, key = filled(tmp_path / "log", 10)
    guard, secret = witness(tmp_path / "w")
    guard.cosign_copy(DirectorySource(tmp_path / "log"), key.verifier, 100)
    seen = Witness(tmp_path / "w", secret).seen(key.verifier)
    assert seen is not None
    assert seen.size == 10
    shutil.rmtree(tmp_path / "w")
    (tmp_path / "w").mkdir()
    with pytest.raises(LogError, match="state directory"):
        Witness(tmp_path / "w", secret)


def test_witness_keeps_its_memory_where_the_next_version_looks(tmp_path: Path) -> None:
    """The memory's name is made of the log's key, and only its owner opens the lock."""
    _, key = filled(tmp_path / "log", 10)
    guard, _ = witness(tmp_path / "w")
    guard.cosign_copy(DirectorySource(tmp_path / "log"), key.verifier, 100)
    log = key.verifier
    assert (tmp_path / "w" / f"log-{log.id.hex()}-{log.public.hex()[:16]}.json").exists()
    assert stat.S_IMODE((tmp_path / "w" / "lock").stat().st_mode) == 0o600


def test_witness_clock_set_back_is_refused(tmp_path: Path) -> None:
    """A cosignature says "the latest as of now", so now only moves forward."""
    _, key = filled(tmp_path / "log", 10)
    guard, _ = witness(tmp_path / "w")
    guard.cosign_copy(DirectorySource(tmp_path / "log"), key.verifier, 1_000)
    guard.cosign_copy(DirectorySource(tmp_path / "log"), key.verifier, 999)
    with pytest.raises(LogError, match="clock"):
        guard.cosign_copy(DirectorySource(tmp_path / "log"), key.verifier, 999 - SKEW_S)


def test_audit_demands_known_witnesses(tmp_path: Path) -> None:
    """Cosignatures count for known witnesses only, once each, and a forged one fails."""
    guard, secret = witness(tmp_path / "w")
    store, key = filled(tmp_path / "log", 10, witnesses=(str(secret.verifier),))
    root = tmp_path / "log"
    keys = read_keys(root / "log.json")
    with pytest.raises(LogTamperError, match="expected cosignatures"):
        audit(DirectorySource(root), keys, need_witnesses=1)
    note = guard.cosign_copy(DirectorySource(root), key.verifier, 100)
    attach(root, str(note).encode(), key.verifier, keys.witness_keys())
    store.append([leaf(key, 11)])
    store.publish()
    found = audit(DirectorySource(root), keys, need_witnesses=1)
    assert (found.witnesses, found.witnessed_size, found.leaves) == (("witness.test/w1",), 10, 11)
    with pytest.raises(LogTamperError):
        audit(DirectorySource(root), keys, need_witnesses=2)
    forged = (root / "witnessed").read_text().replace(" hF", " hG").splitlines()
    line = forged[-1].split()
    blob = bytearray(base64.b64decode(line[2]))
    blob[-1] ^= 1
    line[2] = base64.b64encode(bytes(blob)).decode()
    (root / "witnessed").write_text("\n".join([*forged[:-1], " ".join(line), ""]))
    with pytest.raises(LogTamperError, match="cosignature"):
        audit(DirectorySource(root), keys, need_witnesses=1)


def test_checkpoint_of_another_origin_is_refused(tmp_path: Path) -> None:
    """A key that signs for two logs can't pass one off as the other."""
    _, key = filled(tmp_path / "log", 1)
    data = (tmp_path / "log" / "checkpoint").read_bytes()
    with pytest.raises(LogTamperError, match="another log"):
        open_checkpoint(data, key.verifier, origin="log.test/two")
