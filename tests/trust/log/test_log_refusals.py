"""What is no note, no key, no proof, no leaf and no log is refused, each by its own sentence."""

import base64
import os
import stat
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from safehold.canonical import CanonicalError, canonical
from safehold.errors import ConfigError
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
    Witness,
    attach,
    create_log,
    create_witness,
    encode_proof,
    read_keys,
    sign_envelope,
    verify_proof_text,
)
from safehold.trust.log.checkpoint import cosign, open_checkpoint, parse_checkpoint
from safehold.trust.log.checkpoint import verify_cosignatures as verify_them
from safehold.trust.log.closures import LEVELS, closure_of, closures
from safehold.trust.log.dsse import PAYLOAD_TYPE, Envelope, Signed, open_envelope, pae, stated_time
from safehold.trust.log.files import write_durably
from safehold.trust.log.interface import Checkpoint, ConsistencyProof, InclusionProof
from safehold.trust.log.key_files import check_key_folder, read_private_key, read_secret
from safehold.trust.log.log_entries import Record
from safehold.trust.log.merkle import (
    EMPTY_ROOT,
    hash_children,
    hash_leaf,
    prove_consistency,
    prove_inclusion,
    tree_root,
    verify_consistency,
    verify_inclusion,
)
from safehold.trust.log.note import MAX_NOTE_BYTES, check_name, parse_note, parse_vkey, sign_note
from safehold.trust.log.tiles import decode_bundle

KEY = SigningKey.generate("log.test/r")
OTHER = SigningKey.generate("log.test/other")
WITNESS = SigningKey.generate("witness.test/r", Algorithm.COSIGNATURE)
NOTE = sign_note("what is said\n", KEY)
B64 = base64.b64encode(b"x" * 40).decode()
STATEMENT = Statement(
    type="https://in-toto.io/Statement/v1",
    subject=(StatementSubject(name="s", digest={"sha256": "0" * 64}),),
    predicate_type="https://safehold.test/p",
    predicate={"time": 7},
)


def vkey_of(blob: bytes, name: str = "log.test/r", given: str = "00000000") -> str:
    """Return the text of a verifier key with any bytes in it."""
    return f"{name}+{given}+{base64.b64encode(blob).decode()}"


@pytest.mark.parametrize("name", ["", "a b", "a+b", "a\nb", "a\x01b", "a\u2003b"])
def test_a_name_that_would_break_a_note_is_no_name(name: str) -> None:
    """Spaces of every kind, plus and control characters."""
    with pytest.raises(LogError, match="key name"):
        check_name(name)
    assert check_name("log.test/ö") == "log.test/ö"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("no key", "name\\+hash"),
        ("a+12345678+%%%", "name\\+hash"),
        ("a+12345678+A", "type 1 or 4"),
        (vkey_of(b""), "name\\+hash"),
        (vkey_of(b"\x02" + bytes(32)), "type 1 or 4"),
        (vkey_of(b"\x01" + bytes(31)), "32 bytes"),
        (vkey_of(b"\x01" + bytes(32)), "key hash"),
    ],
)
def test_what_is_no_verifier_key_is_refused(text: str, said: str) -> None:
    """Another form, another type, another length, another hash; the true one is taken."""
    with pytest.raises(LogError, match=said):
        parse_vkey(text)
    assert parse_vkey(str(KEY.verifier)) == KEY.verifier


@pytest.mark.parametrize(
    "text",
    [
        "",
        "PRIVATE+KEY+a+%%%",
        "PRIVATE+KEY+a+12345678+%%%",
        "PRIVATE+KEY+a+12345678+",
        KEY.text().replace("PRIVATE", "PUBLIC"),
        KEY.text().replace("log.test/r", "log.test/q"),
    ],
)
def test_what_is_no_private_key_is_refused_and_not_repeated(text: str) -> None:
    """The message of a refusal holds nothing of the key."""
    with pytest.raises(LogError, match="note private key") as refused:
        SigningKey.parse(text)
    secret = text.rpartition("+")[2]
    assert not secret or secret not in str(refused.value)
    assert SigningKey.parse(KEY.text()).verifier == KEY.verifier


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"\xff", "UTF-8"),
        (b"a\tb\n\nrow\n", "control"),
        (b"x" * (MAX_NOTE_BYTES + 1), "at most"),
        (b"no end", "empty line"),
        (b"text\n\nno newline", "empty line"),
        (b"text\n\nrow\n", "signature line"),
        ("text\n\n\u2014 name A\n".encode(), "in base64"),
        (f"text\n\n\u2014 name {base64.b64encode(b'1234').decode()}\n".encode(), "key id"),
        (f"text\n\n\u2014 na+me {B64}\n".encode(), "key name"),
        (("text\n\n" + f"\u2014 name {B64}\n" * 101).encode(), "at most 100"),
    ],
)
def test_what_is_no_note_is_refused(data: bytes, said: str) -> None:
    """Each rule of C2SP signed-note by itself; a sound note is read as it was written."""
    with pytest.raises(LogError, match=said):
        parse_note(data)
    assert parse_note(str(NOTE).encode()) == NOTE


def test_a_note_counts_by_a_known_key_that_really_signed() -> None:
    """No key, another key and a false signature are three refusals."""
    assert NOTE.verify([OTHER.verifier, KEY.verifier]) == (KEY.verifier,)
    for keys in ([], [OTHER.verifier]):
        with pytest.raises(LogTamperError, match="no known key"):
            NOTE.verify(keys)
    forged = msgspec.structs.replace(NOTE, text="what was not said\n")
    with pytest.raises(LogTamperError, match="is false"):
        forged.verify([KEY.verifier])


@pytest.mark.parametrize(
    "text",
    ["o\n1\n", "o\n\nx\n", "o\n01\nx\n", "o\n1\n%\n", f"o\n1\n{base64.b64encode(b'r').decode()}\n"],
)
def test_what_is_no_checkpoint_is_refused(text: str) -> None:
    """Too few lines, a size of another spelling, a root that is no hash."""
    with pytest.raises(LogError):
        parse_checkpoint(text)


def test_a_checkpoint_of_another_log_is_refused() -> None:
    """The key alone is not enough: the origin must be the one that is asked for."""
    text = f"elsewhere\n0\n{base64.b64encode(EMPTY_ROOT).decode()}\n"
    data = str(sign_note(text, KEY)).encode()
    with pytest.raises(LogTamperError, match="another log"):
        open_checkpoint(data, KEY.verifier)
    assert open_checkpoint(data, KEY.verifier, origin="elsewhere")[0].size == 0


def test_a_cosignature_needs_a_key_of_its_own_type() -> None:
    """A log's key is no witness, neither to sign nor to verify; a false one is told."""
    with pytest.raises(LogError, match="type 4"):
        cosign(NOTE, KEY, 1)
    with pytest.raises(LogError, match="type 4"):
        verify_them(NOTE, [KEY.verifier])
    signed = cosign(NOTE, WITNESS, 5)
    assert [one.time for one in verify_them(signed, [WITNESS.verifier])] == [5]
    other = msgspec.structs.replace(signed, text="else\n")
    with pytest.raises(LogTamperError, match="is false"):
        verify_them(other, [WITNESS.verifier])


LEAVES = [hash_leaf(bytes([n])) for n in range(7)]


def node(level: int, index: int) -> bytes:
    """Return the hash of a complete subtree of seven leaves."""
    if level == 0:
        return LEAVES[index]
    return hash_children(node(level - 1, 2 * index), node(level - 1, 2 * index + 1))


def test_no_changed_proof_leads_to_a_root() -> None:
    """Every inclusion proof of a tree of seven, each with a hash more, less, or another place."""
    root = tree_root(7, node)
    for index in range(7):
        proof = prove_inclusion(index, 7, node)
        verify_inclusion(proof, LEAVES[index], root)
        more = (*proof.hashes, b"\0" * 32)
        for wrong in (
            msgspec.structs.replace(proof, hashes=more),
            msgspec.structs.replace(proof, hashes=proof.hashes[:-1]),
            msgspec.structs.replace(proof, hashes=()),
            msgspec.structs.replace(proof, index=7),
            msgspec.structs.replace(proof, index=-1),
            msgspec.structs.replace(proof, index=(index + 1) % 7),
        ):
            with pytest.raises(LogTamperError, match="inclusion proof"):
                verify_inclusion(wrong, LEAVES[index], root)
    with pytest.raises(LogError, match="below the size"):
        prove_inclusion(7, 7, node)
    with pytest.raises(LogError, match="0 <= old <= new"):
        prove_consistency(8, 7, node)


def test_no_changed_consistency_proof_is_taken() -> None:
    """Every pair of sizes up to seven: the true proof holds, each changed one does not."""
    roots = [tree_root(size, node) for size in range(8)]
    for old in range(8):
        for new in range(old, 8):
            proof = prove_consistency(old, new, node)
            verify_consistency(proof, roots[old], roots[new])
            wrongs = [msgspec.structs.replace(proof, hashes=(*proof.hashes, b"\0" * 32))]
            if proof.hashes:
                wrongs.append(msgspec.structs.replace(proof, hashes=proof.hashes[:-1]))
                wrongs.append(msgspec.structs.replace(proof, hashes=()))
            for wrong in wrongs:
                with pytest.raises(LogTamperError, match="consistency proof"):
                    verify_consistency(wrong, roots[old], roots[new])
            with pytest.raises(LogTamperError, match="consistency proof"):
                verify_consistency(proof, b"\1" * 32, b"\2" * 32)
    with pytest.raises(LogTamperError, match="became smaller"):
        verify_consistency(ConsistencyProof(old=3, new=2, hashes=()), roots[3], roots[2])


def proof_text(head: Checkpoint, proof: InclusionProof) -> str:
    """Return a whole proof, signed."""
    root = base64.b64encode(head.root).decode()
    note = sign_note(f"{head.origin}\n{head.size}\n{root}\n", KEY)
    return encode_proof(proof, str(note).encode())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda text: text.replace("tlog-proof@v1", "tlog-proof@v2"), "begins with"),
        (lambda text: text.partition("\n\n")[0], "begins with"),
        (lambda text: text.replace("index 3", "index 03"), "index N"),
        (lambda text: text.replace("index 3\n", ""), "index N"),
        (lambda text: text.replace("index 3\n", "index 3\n" + f"{B64}\n" * 64), "at most 63"),
        (lambda text: text.replace("index 3\n", "index 3\nA\n"), "in base64"),
        (lambda text: text.replace("index 3\n", f"index 3\n{B64}\n"), "32 bytes"),
        (lambda text: text.replace("index 3", "index 2"), "checkpoint's root"),
    ],
)
def test_what_is_no_proof_file_is_refused(change: Callable[[str], str], said: str) -> None:
    """Each rule of C2SP tlog-proof by itself; lines that begin with `extra` are passed over."""
    head = Checkpoint(origin="log.test/r", size=7, root=tree_root(7, node))
    text = proof_text(head, prove_inclusion(3, 7, node))
    with pytest.raises(LogError, match=said):
        verify_proof_text(change(text), bytes([3]), KEY.verifier)
    extra = text.replace("index 3\n", "extra words\nindex 3\n")
    assert verify_proof_text(extra, bytes([3]), KEY.verifier) == (head, 3)


def envelope(**changed: object) -> bytes:
    """Return a leaf, with some members changed."""
    true = msgspec.json.decode(sign_envelope(STATEMENT, KEY), type=Envelope)
    return canonical(msgspec.structs.replace(true, **changed))


def signed_statement(statement: Statement) -> bytes:
    """Return a leaf whose statement is any."""
    payload = canonical(statement)
    sig = base64.b64encode(KEY.sign(pae(PAYLOAD_TYPE, payload))).decode()
    return canonical(
        Envelope(
            payload=base64.b64encode(payload).decode(),
            payload_type=PAYLOAD_TYPE,
            signatures=(Signed(keyid=KEY.verifier.label, sig=sig),),
        )
    )


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        (b"{}", "DSSE envelope"),
        (envelope(payload_type="text/plain"), "payload of type"),
        (envelope(payload="%"), "base64"),
        (envelope(signatures=()), "one known emitter"),
        (envelope(signatures=(Signed("nobody+00000000", "AA=="),)), "one known emitter"),
        (envelope(signatures=(Signed(KEY.verifier.label, "A"),)), "base64"),
        (envelope(signatures=(Signed(KEY.verifier.label, "AA=="),)), "is false"),
        (signed_statement(msgspec.structs.replace(STATEMENT, type="other")), "statement of type"),
    ],
)
def test_what_is_no_leaf_is_refused(entry: bytes, said: str) -> None:
    """Another form, by nobody, falsely signed, or about another thing."""
    emitters = {KEY.verifier.label: KEY.verifier}
    with pytest.raises((LogError, CanonicalError), match=said):
        open_envelope(entry, emitters)
    assert open_envelope(sign_envelope(STATEMENT, KEY), emitters)[0] == STATEMENT


def test_a_leaf_states_a_time_only_as_a_whole_number() -> None:
    """No leaf, no time, a text and a truth value state none."""
    assert stated_time(sign_envelope(STATEMENT, KEY)) == 7
    assert stated_time(b"no leaf") is None
    assert stated_time(envelope(payload="%")) is None
    for time in ("7", True, None):
        other = msgspec.structs.replace(STATEMENT, predicate={"time": time})
        assert stated_time(sign_envelope(other, KEY)) is None


def test_a_disk_that_refuses_leaves_the_old_file(tmp_path: Path) -> None:
    """A folder that is a file, and a target that is a folder, each with nothing left beside."""
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(LogError, match="can't write"):
        write_durably(tmp_path / "file" / "under", b"x")
    (tmp_path / "folder" / "in").mkdir(parents=True)
    with pytest.raises(LogError, match="can't write"):
        write_durably(tmp_path / "folder", b"x")
    assert sorted(one.name for one in tmp_path.iterdir()) == ["file", "folder"]


def test_a_file_that_is_there_and_cant_be_read_is_no_missing_file(tmp_path: Path) -> None:
    """Missing is None; a folder in its place is an error."""
    (tmp_path / "checkpoint").mkdir()
    (tmp_path / "file").write_bytes(b"x")
    source = DirectorySource(tmp_path)
    assert (source.read("nowhere"), source.read("file/under")) == (None, None)
    with pytest.raises(LogError, match="can't read"):
        source.read("checkpoint")


def key_file(folder: Path, mode: int = 0o600, text: str | bytes = "x") -> Path:
    """Return a key file in a folder of its own."""
    folder.mkdir(mode=0o700, parents=True)
    path = folder / "key"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    path.chmod(mode)
    return path


def test_a_secret_is_read_only_where_nobody_else_could_read_or_replace_it(tmp_path: Path) -> None:
    """Open to others, a link, somebody else's, too long, gone, or in a shared folder: refused."""
    good = key_file(tmp_path / "good", text=KEY.text())
    assert read_private_key(good).verifier == KEY.verifier
    with pytest.raises(ConfigError, match="chmod 600"):
        read_secret(key_file(tmp_path / "open", 0o644))
    with pytest.raises(ConfigError, match="at most 3 bytes"):
        read_secret(key_file(tmp_path / "long", text="four"), limit=3)
    with pytest.raises(ConfigError, match="No such file"):
        read_secret(tmp_path / "good" / "none")
    (tmp_path / "good" / "link").symlink_to(good)
    with pytest.raises(ConfigError, match="link is not followed"):
        read_secret(tmp_path / "good" / "link")
    with pytest.raises(ConfigError, match="can't read the private key"):
        read_private_key(key_file(tmp_path / "binary", text=b"\xff"))
    (tmp_path / "good" / "folder").mkdir(mode=0o700)
    os.mkfifo(tmp_path / "good" / "pipe", 0o600)
    for name in ("folder", "pipe"):
        with pytest.raises(ConfigError, match="expected a regular file"):
            read_secret(tmp_path / "good" / name)


def test_a_folder_of_keys_that_others_change_is_refused(tmp_path: Path) -> None:
    """Writable by a group, a file, or gone; a sticky one like /tmp is taken."""
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o770)
    with pytest.raises(ConfigError, match="only its owner changes"):
        check_key_folder(shared)
    shared.chmod(0o777 | stat.S_ISVTX)
    check_key_folder(shared)
    file = tmp_path / "file"
    file.write_bytes(b"")
    with pytest.raises(ConfigError, match="only its owner changes"):
        check_key_folder(file)
    with pytest.raises(ConfigError, match="No such file"):
        check_key_folder(tmp_path / "none")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_key_or_folder_of_another_user_is_refused(tmp_path: Path) -> None:
    """Whoever owns it can put another key there."""
    path = key_file(tmp_path / "theirs")
    os.chown(path, 12345, 12345)
    with pytest.raises(ConfigError, match="of yours"):
        read_secret(path)
    os.chown(path.parent, 12345, 12345)
    with pytest.raises(ConfigError, match="folder of yours"):
        check_key_folder(path.parent)


def test_only_what_egress_closed_is_a_closure() -> None:
    """Of every record, those of kind `incident` with an event of egress and a known level."""

    def record(kind: str, **facts: str) -> Record:
        return Record(kind=kind, facts=facts, digests={}, time=9)

    for level in LEVELS:
        found = closure_of(record("incident", event=f"egress-{level}", flow="replies", host="h"))
        assert found is not None
        assert (found.level, found.flow, found.host, found.time) == (level, "replies", "h", 9)
    for other in (
        record("incident", event="egress-warn"),
        record("incident", event="decoy-opened"),
        record("incident"),
        record("exec-deny", event="egress-seal"),
    ):
        assert closure_of(other) is None
    leaves: dict[int, object] = {
        4: record("incident", event="egress-cut"),
        2: record("incident", event="egress-seal"),
        3: "no record",
    }
    assert [(at, one.level) for at, one in closures(leaves)] == [(2, "seal"), (4, "cut")]


def keys_of(key: SigningKey = KEY, **changed: object) -> LogKeys:
    """Return the public keys of a log whose key is its emitter too."""
    vkey = str(key.verifier)
    keys = LogKeys(key.verifier.name, vkey, (vkey,), (str(WITNESS.verifier),))
    return msgspec.structs.replace(keys, **changed)


def test_a_bundle_that_was_cut_anywhere_is_no_bundle() -> None:
    """Between entries it is a shorter bundle; within one, and after half a length, it is none."""
    entries = [b"a", b"bc" * 200, b"", b"d"]
    whole = b"".join(len(one).to_bytes(2, "big") + one for one in entries)
    ends = [0]
    for one in entries:
        ends.append(ends[-1] + 2 + len(one))
    for at in range(len(whole) + 1):
        if at in ends:
            assert decode_bundle(whole[:at]) == entries[: ends.index(at)]
        else:
            with pytest.raises(LogTamperError, match="truncated"):
                decode_bundle(whole[:at])
    with pytest.raises(LogTamperError, match="truncated"):
        decode_bundle(whole + b"\0")


def test_a_log_is_made_once_and_with_its_own_key(tmp_path: Path) -> None:
    """A second beginning, no emitter, another key and another origin are refused."""
    for keys, said in (
        (keys_of(emitters=()), "at least one emitter"),
        (keys_of(OTHER), "own key"),
        (keys_of(origin="elsewhere"), "own key"),
    ):
        with pytest.raises(LogError, match=said):
            create_log(tmp_path / "log", KEY, keys)
    create_log(tmp_path / "log", KEY, keys_of())
    with pytest.raises(LogError, match="holds a log"):
        create_log(tmp_path / "log", KEY, keys_of())
    # What is left of a log is a log: neither half may be made anew over the other.
    for name in ("checkpoint", "journal"):
        half = tmp_path / f"half-{name}"
        half.mkdir()
        (half / name).write_bytes((tmp_path / "log" / name).read_bytes())
        with pytest.raises(LogError, match="holds a log"):
            create_log(half, KEY, keys_of())
    with pytest.raises(LogError, match="of this log"):
        LogStore(tmp_path / "log", OTHER)
    store = LogStore(tmp_path / "log", None)
    with pytest.raises(LogError, match="nothing can be published"):
        store.publish()
    assert store.append([]) == range(0)
    store.close()


def refuse(entry: bytes) -> None:
    """Refuse one entry."""
    if entry == b"bad":
        raise LogError("a bad entry")


def test_a_log_without_its_files_says_what_is_gone(tmp_path: Path) -> None:
    """No journal, a folder in its place, no checkpoint, another log's checkpoint, no lock."""
    root = tmp_path / "log"
    create_log(root, KEY, keys_of())
    journal, checkpoint = root / "journal", root / "checkpoint"
    kept, head = journal.read_bytes(), checkpoint.read_bytes()
    journal.unlink()
    with pytest.raises(LogError, match="no journal"):
        LogStore(root, KEY)
    journal.mkdir()
    with pytest.raises(LogError, match="can't open the log's journal"):
        LogStore(root, KEY)
    journal.rmdir()
    journal.write_bytes(kept)
    checkpoint.unlink()
    with pytest.raises(LogTamperError, match="no checkpoint"):
        LogStore(root, KEY)
    checkpoint.write_bytes(head)
    store = LogStore(root, KEY, check=refuse)
    with pytest.raises(LogError, match="a bad entry"):
        store.append([b"good", b"bad"])
    (root / "lock").unlink(missing_ok=True)
    (root / "lock").mkdir()
    with pytest.raises(LogError, match="can't lock"):
        store.append([b"good"])
    (root / "lock").rmdir()
    assert store.append([b"good"]) == range(1)
    store.close()


def test_what_a_check_refuses_gets_into_no_tree_by_the_journal(tmp_path: Path) -> None:
    """An entry that another process appended without the check is refused when the log opens."""
    root = tmp_path / "log"
    create_log(root, KEY, keys_of())
    loose = LogStore(root, None)
    strict = LogStore(root, KEY, check=refuse)
    loose.append([b"bad"])
    with pytest.raises(LogError, match="a bad entry"):
        strict.publish()
    with pytest.raises(LogError, match="a bad entry"):
        LogStore(root, KEY, check=refuse)
    for store in (loose, strict):
        store.close()


def test_a_pinned_file_of_keys_that_is_none_is_refused(tmp_path: Path) -> None:
    """Gone, and not of that form."""
    with pytest.raises(LogError, match="No such file"):
        read_keys(tmp_path / "log.json")
    (tmp_path / "log.json").write_bytes(b'{"origin": 1}')
    with pytest.raises(LogError, match=r"log\.json"):
        read_keys(tmp_path / "log.json")


def test_a_witness_signs_nothing_that_it_cant_place(tmp_path: Path) -> None:
    """No memory, a second beginning, a damaged memory, no checkpoint, a proof of other sizes."""
    state, root = tmp_path / "state", tmp_path / "log"
    with pytest.raises(LogError, match="must not be made up"):
        Witness(state, WITNESS)
    create_witness(state)
    with pytest.raises(LogError, match="witness's memory"):
        create_witness(state)
    witness = Witness(state, WITNESS)
    with pytest.raises(LogTamperError, match="no checkpoint"):
        witness.cosign_copy(DirectorySource(tmp_path), KEY.verifier, 1)
    create_log(root, KEY, keys_of())
    store = LogStore(root, KEY)
    store.append([b"one", b"two"])
    store.publish()
    signed = witness.cosign_copy(store.source, KEY.verifier, 100)
    data = (root / "checkpoint").read_bytes()
    with pytest.raises(LogTamperError, match="a proof from size 2"):
        witness.cosign(data, KEY.verifier, ConsistencyProof(old=1, new=2, hashes=()), 100)
    with pytest.raises(LogError, match="witness named in"):
        attach(root, str(signed).encode(), KEY.verifier, ())
    attach(root, str(signed).encode(), KEY.verifier, (WITNESS.verifier,))
    second = SigningKey.generate("witness.test/2", Algorithm.COSIGNATURE)
    both = cosign(parse_note(data), second, 101)
    kept = attach(root, str(both).encode(), KEY.verifier, (WITNESS.verifier, second.verifier))
    assert {one.name for one in kept.signatures} >= {"witness.test/r", "witness.test/2"}
    memory = next(state.glob("log-*.json"))
    memory.write_bytes(b"{")
    with pytest.raises(LogError, match="can't be read"):
        witness.seen(KEY.verifier)
    store.append([b"three"])
    store.publish()
    newer = cosign(parse_note((root / "checkpoint").read_bytes()), WITNESS, 102)
    attach(root, str(newer).encode(), KEY.verifier, (WITNESS.verifier,))
    with pytest.raises(LogError, match="already witnessed"):
        attach(root, str(signed).encode(), KEY.verifier, (WITNESS.verifier,))
    store.close()
