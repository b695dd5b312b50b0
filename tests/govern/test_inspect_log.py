"""Logs of Inspect: read as they are packed, and refused when they say too much or too little."""

import json
import struct
import zlib
from pathlib import Path
from typing import Any

import pytest
import zstandard

from safehold.govern.capability.inspect_log import read_inspect
from safehold.govern.capability.interface import CapabilityError

HEADER = {
    "version": 2,
    "status": "success",
    "eval": {"task": "t", "model": "m", "created": "2026", "dataset": {"samples": 4}},
}


def sample(name: int, value: object, epoch: int = 1, error: str | None = None) -> dict[str, Any]:
    """Return one row of the summaries."""
    return {"id": name, "epoch": epoch, "scores": {"s": {"value": value}}, "error": error}


SAMPLES = [sample(1, "C"), sample(2, "I"), sample(3, None), sample(4, "I", error="timeout")]


def packed(path: Path, members: dict[str, bytes], method: int) -> Path:
    """Write a zip by hand: the standard library writes no Zstandard."""
    body, central = b"", b""
    for name, data in members.items():
        if method == 93:
            small = zstandard.ZstdCompressor().compress(data)
        elif method == 8:
            packer = zlib.compressobj(wbits=-15)
            small = packer.compress(data) + packer.flush()
        else:
            small = data
        common = struct.pack(
            "<HHHHHIIIHH", 63, 0, method, 0, 0, zlib.crc32(data), len(small), len(data),
            len(name), 0,
        )  # fmt: skip
        central += b"PK\x01\x02" + struct.pack("<H", 63) + common
        central += struct.pack("<HHHII", 0, 0, 0, 0, len(body)) + name.encode()
        body += b"PK\x03\x04" + common + name.encode() + small
    end = struct.pack("<HHHHIIH", 0, 0, len(members), len(members), len(central), len(body), 0)
    path.write_bytes(body + central + b"PK\x05\x06" + end)
    return path


def log(path: Path, header: object = HEADER, samples: object = SAMPLES, method: int = 93) -> Path:
    """Write a log."""
    members = {"header.json": header, "summaries.json": samples}
    return packed(path, {name: json.dumps(one).encode() for name, one in members.items()}, method)


@pytest.mark.parametrize("method", [0, 8, 93])
def test_log_is_read_however_it_is_packed(tmp_path: Path, method: int) -> None:
    """Items are counted by their best epoch; errors and unscored ones are kept apart."""
    found = read_inspect(log(tmp_path / "a.eval", method=method))
    assert (found.items, found.successes, found.unscorable, found.errors) == (4, 1, 1, 1)


def test_epochs_are_attempts_not_items(tmp_path: Path) -> None:
    """A sample solved in its second epoch is one item, and solved."""
    many = [*SAMPLES, sample(2, "C", epoch=2)]
    found = read_inspect(log(tmp_path / "a.eval", samples=many))
    assert (found.items, found.successes) == (4, 2)


@pytest.mark.parametrize(
    ("header", "samples"),
    [
        (HEADER | {"status": "error"}, SAMPLES),
        (HEADER | {"status": "cancelled"}, SAMPLES),
        (HEADER | {"invalidated": True}, SAMPLES),
        (HEADER, SAMPLES[:3]),
        (HEADER, [*SAMPLES, SAMPLES[0]]),
        (HEADER, {"no": "list"}),
        ({}, SAMPLES),
    ],
)
def test_unfinished_or_contradictory_log_is_refused(
    tmp_path: Path, header: object, samples: object
) -> None:
    """Not finished, samples missing, an epoch twice, or another shape: no evidence."""
    with pytest.raises(CapabilityError):
        read_inspect(log(tmp_path / "a.eval", header, samples))


def test_damaged_log_is_refused_at_every_byte(tmp_path: Path) -> None:
    """A cut log, or one with a byte changed in its members, is an error and never other counts."""
    path = log(tmp_path / "a.eval")
    whole = path.read_bytes()
    for at in range(0, len(whole), 7):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])
        try:
            found = read_inspect(path)
        except CapabilityError:
            continue
        assert (found.items, found.successes) == (4, 1)
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CapabilityError):
        read_inspect(path)


def test_member_that_unpacks_to_too_much_is_refused(tmp_path: Path) -> None:
    """A bomb ends at the limit."""
    bomb = packed(
        tmp_path / "b.eval",
        {"header.json": b" " * (65 * 2**20), "summaries.json": b"[]"},
        93,
    )
    with pytest.raises(CapabilityError):
        read_inspect(bomb)
