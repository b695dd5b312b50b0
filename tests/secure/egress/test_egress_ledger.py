"""Rows of explained bytes: forged, replayed, reordered and malformed ones are refused."""

from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from safehold.secure.egress.explain.ledger import (
    ChainPosition,
    Ed25519Signer,
    Ed25519Verifier,
    ExplainedReader,
    ExplainedRow,
    ExplainedWriter,
    HmacKey,
    Sender,
    decode_row,
)
from safehold.secure.egress.explain.senders import load_signer, load_sources, new_key
from safehold.secure.egress.interface import ExplainedRowError, RegisterError
from safehold.testing.egress import register, row

NOW = 2_000.0
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))


def reader() -> ExplainedReader:
    """A reader that knows one sender of one flow."""
    flows = frozenset({"replies"})
    return ExplainedReader({"gateway": Sender(Ed25519Verifier(KEY.public_key()), flows)})


def write(path: Path, count: int = 3, flow: str = "replies") -> list[ExplainedRow]:
    """Write rows of a thousand bytes."""
    writer = ExplainedWriter(path, "gateway", Ed25519Signer(KEY))
    return [
        writer.write(flow=flow, start=1_000.0, end=1_010.0, count=1_000, digest="0" * 64)
        for _ in range(count)
    ]


def test_genuine_rows_are_followed_over_restarts(tmp_path: Path) -> None:
    """Rows written by two processes are one chain, and reading goes on where it stopped."""
    path = tmp_path / "rows.jsonl"
    write(path, 2)
    first = list(reader().follow(path, ChainPosition(), NOW))
    write(path, 3)
    rest = list(reader().follow(path, first[-1][1], NOW))
    assert [item.seq for item, _ in first + rest] == [0, 1, 2, 3, 4]


def test_torn_row_waits_for_its_rest(tmp_path: Path) -> None:
    """A row that is half written is not read and not refused."""
    path = tmp_path / "rows.jsonl"
    write(path, 2)
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    assert len(list(reader().follow(path, ChainPosition(), NOW))) == 1


@pytest.mark.parametrize("attack", ["replay", "drop", "swap", "edit", "shorten", "alien"])
def test_manipulated_file_is_refused(tmp_path: Path, attack: str) -> None:
    """No line can be repeated, removed, swapped or changed unseen."""
    path = tmp_path / "rows.jsonl"
    write(path)
    one, two, three = path.read_bytes().splitlines(keepends=True)
    position = list(reader().follow(path, ChainPosition(), NOW))[-1][1]
    start = ChainPosition()
    match attack:
        case "replay":
            path.write_bytes(one + one)
        case "drop":
            path.write_bytes(one + three)
        case "swap":
            path.write_bytes(two + one)
        case "edit":
            path.write_bytes(one.replace(b'"size":1000', b'"size":9000'))
        case "shorten":
            path.write_bytes(one)
            start = position
        case _:
            path.write_bytes(one.replace(b'"gateway"', b'"mallory"'))
    with pytest.raises(ExplainedRowError):
        list(reader().follow(path, start, NOW))


def test_sender_explains_only_its_flows(tmp_path: Path) -> None:
    """A genuine signature over another sender's flow is refused."""
    path = tmp_path / "rows.jsonl"
    write(path, 1, flow="checkpoints")
    with pytest.raises(ExplainedRowError, match="may not explain"):
        list(reader().follow(path, ChainPosition(), NOW))


def test_row_from_the_future_is_refused(tmp_path: Path) -> None:
    """A row that ends after now explains nothing yet."""
    path = tmp_path / "rows.jsonl"
    write(path, 1)
    with pytest.raises(ExplainedRowError, match="future"):
        list(reader().follow(path, ChainPosition(), 500.0))


@given(st.binary(max_size=300))
def test_any_line_is_a_row_or_one_error(line: bytes) -> None:
    """Hostile lines end in one kind of error."""
    with pytest.raises(ExplainedRowError):
        decode_row(line)


@pytest.mark.parametrize(
    "change",
    [{"size": -1}, {"size": 2**60}, {"end": 0.0}, {"end": 1e9}, {"v": 2}, {"items": -1}],
)
def test_numbers_out_of_bounds_are_refused(tmp_path: Path, change: dict[str, float]) -> None:
    """A signed row with impossible numbers is refused."""
    genuine = msgspec.to_builtins(write(tmp_path / "rows.jsonl", 1)[0])
    with pytest.raises(ExplainedRowError):
        decode_row(msgspec.json.encode({**genuine, **change}))


def test_short_shared_secret_is_refused() -> None:
    """An HMAC key is at least 32 bytes; a genuine one verifies only its own messages."""
    with pytest.raises(ExplainedRowError):
        HmacKey(b"short")
    key = HmacKey(bytes(32))
    assert key.verify(key.sign(b"a"), b"a")
    assert not key.verify(key.sign(b"a"), b"b")


def test_senders_file_binds_keys_to_reconciled_flows(tmp_path: Path) -> None:
    """A senders file loads its keys; a flow that is not reconciled can't have senders."""
    new_key(tmp_path / "gateway.pem")
    load_signer(tmp_path / "gateway.pem")
    text = (
        'version = 1\n[[sender]]\nname = "gateway"\nrows = "rows.jsonl"\n'
        'flows = ["replies"]\npublic_key = "gateway.pub.pem"\n'
    )
    (tmp_path / "senders.toml").write_text(text)
    reconciled = register(row().replace("purpose =", "reconciled = true\npurpose ="))
    assert load_sources(tmp_path / "senders.toml", reconciled).files["gateway"].name == "rows.jsonl"
    with pytest.raises(RegisterError, match="reconciled"):
        load_sources(tmp_path / "senders.toml", register(row()))
    with pytest.raises(ExplainedRowError, match="overwritten"):
        new_key(tmp_path / "gateway.pem")
