"""The kernel's records and its mount table, as values."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safehold.secure.fanotify.interface import FanotifyError
from safehold.secure.fanotify.mounts import markable, parse_mountinfo
from safehold.secure.fanotify.wire import METADATA, Event, events, response

NUMBERS = st.integers(0, 2**31 - 1)


def record(mask: int, handle: int, pid: int, info: bytes = b"") -> bytes:
    """One record as the kernel writes it."""
    length = METADATA.size + len(info)
    return METADATA.pack(length, 3, 0, METADATA.size, mask, handle, pid) + info


@given(st.lists(st.tuples(NUMBERS, NUMBERS, NUMBERS), max_size=20))
def test_every_record_of_a_read_is_found(rows: list[tuple[int, int, int]]) -> None:
    """What the kernel put into one read comes out, in order, each once."""
    data = b"".join(record(*row) for row in rows)
    assert [(one.mask, one.handle, one.pid) for one in events(data)] == rows


@given(st.integers(0, 2**63), st.integers(0, 2**63))
def test_range_of_a_read_is_found_behind_other_information(offset: int, count: int) -> None:
    """Offset and length are found also after a record that we don't know."""
    unknown = struct.pack("<BBH", 99, 0, 8) + b"skip"
    known = struct.pack("<BBHIQQ", 6, 0, 24, 0, offset, count)
    assert list(events(record(1, 2, 3, unknown + known))) == [Event(1, 2, 3, offset, count)]


@given(st.binary(max_size=200))
def test_nonsense_is_an_error_and_never_an_event_of_another_version(data: bytes) -> None:
    """Bytes that are no records of version 3 end in our own error."""
    try:
        list(events(data))
    except FanotifyError:
        return
    assert all(data[start + 4] == 3 for start in [0] if data)


def test_answer_of_a_refusal_carries_its_error_number() -> None:
    """A refusal with an error number has it in the top byte; an approval has none."""
    assert response(7, allow=True, refusal=122) == struct.pack("<iI", 7, 1)
    assert response(7, allow=False, refusal=122) == struct.pack("<iI", 7, 2 | 122 << 24)


ROW = "36 35 98:0 / {point} rw,noexec - {kind} src rw\n"


def test_mount_points_with_blanks_and_newlines_are_read_as_they_are() -> None:
    """The octal escapes of proc(5) are undone: a mount can't hide behind an odd name."""
    (mount,) = parse_mountinfo(ROW.format(point=r"/a\040b\012c\134d", kind="ext4"))
    assert (mount.point, mount.device, mount.kind) == ("/a b\nc\\d", "98:0", "ext4")
    assert "noexec" in mount.options


def test_optional_fields_do_not_move_the_file_system() -> None:
    """Rows with any number of tags before the dash are read alike."""
    row = "36 35 0:5 / / rw shared:1 master:2 - tmpfs x rw"
    assert parse_mountinfo(row)[0].kind == "tmpfs"


@pytest.mark.parametrize("row", ["", "x", "36 35 98:0 / /p rw ext4 src rw", "36 - ext4 s rw"])
def test_row_that_is_no_mount_is_refused(row: str) -> None:
    """A cut row is an error, not a mount less."""
    with pytest.raises(FanotifyError):
        parse_mountinfo(row + "\n")


def test_proc_is_never_marked_and_devices_are() -> None:
    """`/proc` would make the daemon wait for itself; `/dev` is a tmpfs that holds programs."""
    rows = "".join(ROW.format(point=f"/{one}", kind=one) for one in ("proc", "sysfs", "devtmpfs"))
    assert [one.kind for one in markable(parse_mountinfo(rows))] == ["devtmpfs"]
