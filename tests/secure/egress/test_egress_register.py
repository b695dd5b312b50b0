"""The data-flow register refuses what is malformed, overlapping or tries to inject."""

import contextlib
import datetime as dt
import ipaddress
import itertools
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safehold.secure.egress.declare.register import load_register, parse_register
from safehold.secure.egress.interface import Direction, RegisterError, Tuple5
from safehold.secure.egress.units import human_bytes, parse_bytes
from safehold.testing.egress import TODAY, register, row


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (('id = "replies"', 'id = "x; drop table inet filter"'), "id of a-z"),
        (('id = "replies"', 'id = "x\\"} {\\"add"'), "id of a-z"),
        (('id = "replies"', 'id = "../../etc"'), "id of a-z"),
        (("uid = 0", 'cgroup = "a\\" accept comment \\"b"'), "can't be used"),
        (("uid = 0", 'cgroup = "../system.slice"'), "can't be used"),
        (("uid = 0", 'cgroup = "a//b"'), "can't be used"),
        (("uid = 0", 'interface = "eth0\\naccept"'), "can't be used"),
        (("uid = 0", 'user = "root; accept"'), "can't be used"),
        (("uid = 0", 'netns = "../../proc/1/ns/net"'), "can't be used"),
        (("uid = 0", "uid = -1"), "uid between"),
        (("uid = 0", 'uid = 0, user = "root"'), "not both"),
        (("uid = 0", 'uid = 0, interface = "eth0"'), "not both"),
        (("{ uid = 0 }", "{}"), "a source"),
        (('owner = "serving team"', 'owner = "  "'), "printable"),
        (('owner = "serving team"', 'owner = "a\\u001b[2J"'), "printable"),
        (('"model-output"', '"weights"'), "Invalid enum"),
        (("ports = [8443]", "ports = [0]"), "ports between"),
        (("ports = [8443]", "ports = [65536]"), "ports between"),
        (("ports = [8443]", "ports = []"), "ports between"),
        (("ports = [8443]", "ports = [1, 1]"), "ports between"),
        (('["10.231.7.0/24", "fd5a:fe:7::/64"]', "[]"), "at least one network"),
        (('["10.231.7.0/24", "fd5a:fe:7::/64"]', '["example.org"]'), "IP networks"),
        (('["10.231.7.0/24", "fd5a:fe:7::/64"]', '["10.0.0.1/8"]'), "IP networks"),
        (
            ('["10.231.7.0/24", "fd5a:fe:7::/64"]', '["10.0.0.0/8", "10.1.0.0/16"]'),
            "overlap",
        ),
        (("hour = 10000000", "hour = 0"), "0 < hour"),
        (("hour = 10000000", "hour = -5"), "between 0"),
        (("hour = 10000000", "hour = 10000000000000000000"), "between 0"),
        (("hour = 10000000", 'hour = "10 parsecs"'), "a size such as"),
        (("hour = 10000000", "hour = true"), "Expected"),
        (("hour = 10000000", "hour = 40000000000"), "0 < hour"),
        (("hour = 10000000\n", ""), "hour, day, week and month"),
        (("expires = 2099-01-01", 'expires = "soon"'), "Invalid"),
        (("expires = 2099-01-01", ""), "expires"),
        (("purpose =", "purpos ="), "purpos"),
        (('protocol = "tcp"', 'protocol = "gre"'), "Invalid enum"),
    ],
)
def test_wrong_row_is_refused(change: tuple[str, str], message: str) -> None:
    """A row that is wrong in one place is refused with the place in the message."""
    text = row()
    assert change[0] in text
    with pytest.raises(RegisterError, match=message):
        register(text.replace(*change))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "version = 2",
        "version = 1",
        "version = 1\nflow = 3",
        "a = 1",
        "[",
        "\0",
        "version=1\nx=2",
    ],
)
def test_malformed_register_is_refused(text: str) -> None:
    """A document that is no register is one error."""
    with pytest.raises(RegisterError):
        parse_register(text)


def test_deeply_nested_register_is_refused() -> None:
    """A hostile document does not exhaust the stack."""
    with pytest.raises(RegisterError):
        parse_register("version = 1\nflow = " + "[" * (sys.getrecursionlimit() * 2))


def test_unreadable_register_is_one_error(tmp_path: Path) -> None:
    """A missing, binary or huge file is one error."""
    with pytest.raises(RegisterError, match="can't be read"):
        load_register(tmp_path / "missing.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RegisterError, match="UTF-8"):
        load_register(tmp_path / "binary.toml")
    (tmp_path / "huge.toml").write_bytes(b"#" * (17 * 2**20))
    with pytest.raises(RegisterError, match="at most"):
        load_register(tmp_path / "huge.toml")


@pytest.mark.parametrize(
    ("other", "meets"),
    [
        (row("b", port=8443), True),
        (row("b", port=9000), False),
        (row("b", uid=7), False),
        (row("b", destination='["10.231.7.9/32"]'), True),
        (row("b", destination='["10.9.0.0/16"]'), False),
        (row("b", protocol="udp"), False),
        (row("b").replace("uid = 0", 'user = "root"'), True),
        (row("b").replace("uid = 0", 'cgroup = "x"'), True),
        (row("b").replace("uid = 0", 'interface = "eth1"'), False),
        (row("b").replace('protocol = "tcp"', 'protocol = "tcp"\ndirection = "serve"'), False),
        (row("replies", port=9000), True),
    ],
)
def test_overlapping_rows_are_refused(other: str, *, meets: bool) -> None:
    """Two rows that one packet could belong to are refused, near misses are not."""
    if not meets:
        assert len(register(row(), other).flows) == 2
        return
    with pytest.raises(RegisterError, match=r"overlap|twice"):
        register(row(), other)


def test_quic_is_udp_443() -> None:
    """QUIC needs no port and overlaps a row for UDP 443."""
    quic = row("q").replace('protocol = "tcp"', 'protocol = "quic"').replace("ports = [8443]", "")
    assert register(quic).flows[0].ports == (443,)
    with pytest.raises(RegisterError, match="overlap"):
        register(quic, row("u", protocol="udp", port=443))


def test_expired_row_declares_nothing() -> None:
    """The day after its expiry a row's flow is undeclared."""
    rows = register(row().replace("2099-01-01", "2026-11-21"))
    seen = Tuple5(protocol="tcp", destination="10.231.7.2", port=8443, uid=0)
    assert rows.owner_of(seen, TODAY) is not None
    assert rows.owner_of(seen, TODAY + dt.timedelta(days=1)) is None
    assert len(rows.expired(TODAY + dt.timedelta(days=1))) == 1


@pytest.mark.parametrize(
    "seen",
    [
        Tuple5(protocol="udp", destination="10.231.7.2", port=8443, uid=0),
        Tuple5(protocol="tcp", destination="10.231.8.2", port=8443, uid=0),
        Tuple5(protocol="tcp", destination="fd5a:fe:8::2", port=8443, uid=0),
        Tuple5(protocol="tcp", destination="10.231.7.2", port=8444, uid=0),
        Tuple5(protocol="tcp", destination="10.231.7.2", port=8443, uid=1),
        Tuple5(
            protocol="tcp",
            destination="10.231.7.2",
            port=8443,
            uid=0,
            direction=Direction.SERVE,
        ),
    ],
)
def test_near_miss_is_undeclared(seen: Tuple5) -> None:
    """A flow that differs in one property from its row is undeclared."""
    assert register(row()).owner_of(seen, TODAY) is None


@given(st.text(max_size=200))
def test_any_text_is_a_register_or_one_error(text: str) -> None:
    """No text makes the parser fail in any other way."""
    with contextlib.suppress(RegisterError):
        parse_register(text)


@given(st.one_of(st.integers(), st.text(max_size=20), st.floats(), st.none(), st.booleans()))
def test_any_value_is_a_size_or_one_error(value: object) -> None:
    """Sizes are integers in range, or refused."""
    try:
        assert 0 <= parse_bytes(value, "x") <= 2**62
    except RegisterError:
        return


def test_sizes_read_as_people_write_them() -> None:
    """Decimal and binary units differ."""
    assert parse_bytes("40 GB", "x") == 40 * 10**9
    assert parse_bytes("2 GiB", "x") == 2 * 2**30
    assert human_bytes(40 * 10**9) == "40 GB"
    assert human_bytes(999_592) == "1 MB"


NETWORKS = ("0.0.0.0/0", "10.0.0.0/8", "10.1.0.0/16", "10.1.1.0/24", "10.1.1.7/32", "10.2.0.0/16")


@given(st.lists(st.tuples(st.sampled_from(NETWORKS), st.sampled_from([1, 2])), max_size=7))
def test_sweep_finds_what_comparing_every_pair_finds(chosen: list[tuple[str, int]]) -> None:
    """One pass over the beginnings of networks refuses exactly the registers with an overlap."""
    rows = [
        row(f"f{number}", destination=f'["{network}"]', port=port)
        for number, (network, port) in enumerate(chosen)
    ]
    nets = [(ipaddress.ip_network(network), port) for network, port in chosen]
    meets = any(
        one.overlaps(other) and port == second
        for (one, port), (other, second) in itertools.combinations(nets, 2)
    )
    if not rows:
        return
    with pytest.raises(RegisterError, match="overlap") if meets else contextlib.nullcontext():
        register(*rows)
