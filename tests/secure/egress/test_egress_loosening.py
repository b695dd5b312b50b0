"""Anything but a pure tightening needs the grant; state files are held against the audit log."""

from pathlib import Path

import msgspec
import pytest

from safehold.errors import TrustError
from safehold.secure.egress.declare.plan import load_plan
from safehold.secure.egress.declare.register import parse_register
from safehold.secure.egress.enforcement.loosening import (
    documents,
    file_digests,
    looser,
    recorded,
)
from safehold.secure.egress.explain.senders import key_files
from safehold.secure.egress.interface import StateError
from safehold.testing.egress import World, plan, register, row

REGISTER = """version = 1
[[flow]]
id = "replies"
owner = "serving"
purpose = "answers"
data_class = "model-output"
direction = "serve"
protocol = "tcp"
ports = [8443, 8444]
destination = ["10.231.0.0/16"]
source = { uid = 12345 }
expires = 2098-01-01
reconciled = true
budget = { hour = 2000000, day = 4000000, week = 25000000, month = 100000000 }
[[flow]]
id = "metrics"
owner = "platform"
purpose = "metrics"
data_class = "telemetry"
protocol = "udp"
ports = [9000]
destination = ["10.231.7.2/32", "10.231.7.3/32"]
source = { user = "root" }
expires = 2098-01-01
peak = "1 Mbit/s"
budget = { hour = 2000000, day = 4000000, week = 25000000, month = 100000000 }
"""
PLAN = """version = 1
mode = "enforce"
accounting_lag_s = 70.0
trust_senders = false
overhead_slack = 0.001
[weights]
size = "1 TB"
[bound]
compression = 0.0625
steal_days = 30.0
alpha = 0.1
detect_hours = 110.0
respond_s = 60.0
review_days = 7.0
[link]
interfaces = ["up0"]
rate = "100 Mbit/s"
burst = 65536
shape = true
[local]
loopback = true
link_local = false
neighbour_discovery = true
raw_frame_guard = true
[judge]
bound_bytes = 65536
on_bypass = "seal"
dead_man_s = 900
[total]
hour = 10000000
month = 900000000
"""
SECOND = REGISTER[REGISTER.index('[[flow]]\nid = "metrics"') :]

LOOSER = [
    ("ports = [8443, 8444]", "ports = [8443, 8444, 22]"),
    ("ports = [9000]", "ports = [9001]"),
    ("ports = [9000]", "ports = [1, 9000]"),
    ("10.231.0.0/16", "0.0.0.0/0"),
    ("10.231.0.0/16", "10.0.0.0/8"),
    ("10.231.0.0/16", "11.0.0.0/16"),
    ('"10.231.7.3/32"', '"10.231.7.4/32"'),
    ("uid = 12345", "uid = 0"),
    ("uid = 12345", 'user = "root"'),
    ("uid = 12345", 'address = ["10.231.0.0/16"]'),
    ('user = "root"', "uid = 0"),
    ('protocol = "tcp"', 'protocol = "udp"'),
    ('protocol = "udp"', 'protocol = "tcp"'),
    ('direction = "serve"', 'direction = "out"'),
    ("2098-01-01\nreconciled", "2099-01-01\nreconciled"),
    ("reconciled = true", "reconciled = false"),
    ("hour = 2000000", "hour = 3000000"),
    ("day = 4000000", "day = 5000000"),
    ("week = 25000000", "week = 26000000"),
    ("month = 100000000 }", "month = 100000001 }"),
    ('peak = "1 Mbit/s"', 'peak = "2 Mbit/s"'),
    ('peak = "1 Mbit/s"', ""),
    ('data_class = "telemetry"', 'data_class = "public"'),
    ('id = "metrics"', 'id = "metrics2"'),
    ('mode = "enforce"', 'mode = "map"'),
    ("accounting_lag_s = 70.0", "accounting_lag_s = 86400"),
    ("trust_senders = false", "trust_senders = true"),
    ("overhead_slack = 0.001", "overhead_slack = 0.1"),
    ('size = "1 TB"', 'size = "100 TB"'),
    ("compression = 0.0625", "compression = 1.0"),
    ("steal_days = 30.0", "steal_days = 1"),
    ("alpha = 0.1", "alpha = 1.0"),
    ("detect_hours = 110.0", "detect_hours = 1"),
    ("respond_s = 60.0", "respond_s = 0"),
    ("review_days = 7.0", "review_days = 0.0001"),
    ('interfaces = ["up0"]', 'interfaces = ["lo"]'),
    ('rate = "100 Mbit/s"', 'rate = "1 Gbit/s"'),
    ("burst = 65536", "burst = 655360"),
    ("shape = true", "shape = false"),
    ("link_local = false", "link_local = true"),
    ("raw_frame_guard = true", "raw_frame_guard = false"),
    ("bound_bytes = 65536", "bound_bytes = 9999999999"),
    ('on_bypass = "seal"', 'on_bypass = "warn"'),
    ("dead_man_s = 900", "dead_man_s = 0"),
    ("hour = 10000000\n", "hour = 20000000\n"),
    ("hour = 10000000\n", ""),
]
TIGHTER = [
    ("", ""),
    ("ports = [8443, 8444]", "ports = [8443]"),
    ("ports = [8443, 8444]", "ports = [8444]"),
    ("10.231.0.0/16", "10.231.7.0/24"),
    ("10.231.0.0/16", "10.231.7.2/32"),
    ("10.231.0.0/16", '10.231.7.0/24", "10.231.9.0/24'),
    (', "10.231.7.3/32"', ""),
    ('"10.231.7.2/32", ', ""),
    ("2098-01-01\nreconciled", "2097-01-01\nreconciled"),
    ("2098-01-01\npeak", "2027-01-01\npeak"),
    ("hour = 2000000", "hour = 1000000"),
    ("day = 4000000", "day = 3000000"),
    ("week = 25000000", "week = 5000000"),
    ("month = 100000000 }", "month = 99999999 }"),
    ('owner = "serving"', 'owner = "serving team"'),
    ('owner = "platform"', 'owner = "observability"'),
    ('purpose = "answers"', 'purpose = "answers to clients"'),
    ('purpose = "metrics"', 'purpose = "numbers"'),
    (SECOND, ""),
    ("version = 1\n[[flow]]", "version = 1\n# a comment\n[[flow]]"),
    ('size = "1 TB"', 'size = "500 GB"'),
    ("compression = 0.0625", "compression = 0.01"),
    ("compression = 0.0625", "compression = 0.05"),
    ("steal_days = 30.0", "steal_days = 60"),
    ("alpha = 0.1", "alpha = 0.05"),
    ("alpha = 0.1", "alpha = 0.01"),
    ("detect_hours = 110.0", "detect_hours = 120"),
    ("respond_s = 60.0", "respond_s = 120"),
    ("review_days = 7.0", "review_days = 14"),
    ('rate = "100 Mbit/s"', 'rate = "50 Mbit/s"'),
    ('rate = "100 Mbit/s"', 'rate = "1 Mbit/s"'),
    ("burst = 65536", "burst = 32768"),
    ("loopback = true", "loopback = false"),
    ("neighbour_discovery = true", "neighbour_discovery = false"),
    ("bound_bytes = 65536", "bound_bytes = 0"),
    ('on_bypass = "seal"', 'on_bypass = "cut"'),
    ("hour = 10000000\n", "hour = 5000000\n"),
    ("month = 900000000\n", "month = 100000000\n"),
    ("[total]\n", "[total]\nday = 50000000\n"),
    ("[total]\n", "[total]\nweek = 50000000\n"),
    ("mode =", "# still enforced\nmode ="),
]


def settings(folder: Path, old: str = "", new: str = "") -> dict[str, object]:
    """What the two files ask for, after one edit of either."""
    assert old in REGISTER or old in PLAN
    register_text = REGISTER.replace(old, new, 1) if old in REGISTER else REGISTER
    plan_text = PLAN if old in REGISTER else PLAN.replace(old, new, 1)
    (folder / "plan.toml").write_text(plan_text)
    asked = (
        parse_register(register_text),
        load_plan(folder / "plan.toml"),
    )
    return documents(*asked, {})


@pytest.mark.parametrize(("old", "new"), LOOSER)
def test_looser_file_needs_the_grant(tmp_path: Path, old: str, new: str) -> None:
    """Each of these edits, made by one administrator, is named as looser."""
    assert looser(settings(tmp_path), settings(tmp_path, old, new))


@pytest.mark.parametrize(("old", "new"), TIGHTER)
def test_tighter_file_needs_none(tmp_path: Path, old: str, new: str) -> None:
    """The twin: an edit that only tightens, or that people alone read, is taken."""
    assert looser(settings(tmp_path), settings(tmp_path, old, new)) == ()


def test_added_row_is_looser(tmp_path: Path) -> None:
    """A row that was not there is a new way out."""
    assert looser(settings(tmp_path, SECOND, ""), settings(tmp_path))


@pytest.mark.parametrize("name", ["senders", "quotas", "detectors"])
def test_other_files_are_pinned(tmp_path: Path, name: str) -> None:
    """What explains bytes and looks at them is approved by its digest: given, changed or gone."""
    before = settings(tmp_path)
    after = {**before, f"egress-{name}": "ab" * 32}
    assert looser(before, after) == (name,)
    assert looser(after, {**before, f"egress-{name}": "cd" * 32}) == (name,)
    assert looser(after, before) == (name,)
    assert looser(after, dict(after)) == ()


SENDERS = """version = 1
[[sender]]
name = "a"
rows = "a.jsonl"
flows = ["replies"]
public_key = "a.pub.pem"
[[sender]]
name = "b"
rows = "b.jsonl"
flows = ["replies"]
secret_file = "b.secret"
"""


@pytest.mark.parametrize("name", ["a.pub.pem", "b.secret", "senders.toml"])
def test_key_that_a_senders_file_names_is_approved_with_it(tmp_path: Path, name: str) -> None:
    """Another key in the same place explains other bytes: it is another approval."""

    def approved() -> str:
        path = tmp_path / "senders.toml"
        return file_digests({"senders": path}, {"senders": key_files(path)})["senders"]

    (tmp_path / "senders.toml").write_text(SENDERS)
    (tmp_path / "a.pub.pem").write_text("one key")
    (tmp_path / "b.secret").write_bytes(bytes(32))
    before = approved()
    assert approved() == before
    changed = tmp_path / name
    changed.write_bytes(changed.read_bytes() + b"\n")
    assert approved() != before


def test_keys_that_changed_places_are_another_approval(tmp_path: Path) -> None:
    """Two senders whose keys were swapped sign for each other."""
    path = tmp_path / "senders.toml"
    path.write_text(SENDERS.replace('secret_file = "b.secret"', 'public_key = "b.pub.pem"'))
    found = []
    for one, other in (("x", "y"), ("y", "x")):
        (tmp_path / "a.pub.pem").write_text(one)
        (tmp_path / "b.pub.pem").write_text(other)
        found.append(file_digests({"senders": path}, {"senders": key_files(path)}))
    assert found[0] != found[1]


def test_watch_without_an_approved_file_is_refused(world: World, tmp_path: Path) -> None:
    """Who starts the watch without its detectors would look less; with them it looks."""
    given = tmp_path / "detectors.json"
    given.write_text("{}")
    files = file_digests({"detectors": given})
    world.enforcer(register(row()), files=files).apply(first=True)
    with pytest.raises(StateError, match="--detectors"):
        world.enforcer(register(row())).refuse_missing_files()
    world.enforcer(register(row()), files=files).refuse_missing_files()


def test_edited_register_is_refused_by_a_real_host(world: World) -> None:
    """On a real kernel: another destination is refused, fewer ports are taken, without a grant."""
    world.enforcer(register(row(destination='["10.231.7.2/32"]'))).apply(first=True)
    with pytest.raises(TrustError, match=r"egress\.raise"):
        world.enforcer(register(row(destination='["0.0.0.0/0"]'))).apply()
    with pytest.raises(TrustError, match=r"egress\.raise"):
        world.enforcer(register(row(destination='["10.231.7.2/32"]', uid=12345))).apply()
    world.enforcer(register(row(destination='["10.231.7.2/32"]', hour=1_000_000))).apply()


def test_unsealed_by_hand_is_sealed_again(world: World) -> None:
    """Who edits the state file opens nothing: the audit log says what is closed."""
    enforcer = world.enforcer(register(row()))
    enforcer.apply(first=True)
    enforcer.close_all("incident 7")
    path = world.folder / "state" / "enforcement.json"
    path.write_bytes(path.read_bytes().replace(b'"sealed":true', b'"sealed":false'))
    world.enforcer(register(row())).apply()
    world.send("tcp", 20_000, seconds=0.5)
    assert world.received() == {}
    state = enforcer.state()
    assert state is not None
    assert state.sealed


def test_approval_written_by_hand_is_not_believed(world: World) -> None:
    """A larger approved budget in the state file raises nothing, by apply or by a look."""
    world.enforcer(register(row(hour=1_000_000))).apply(first=True)
    wider = world.enforcer(register(row(hour=9_000_000)))
    state = wider.state()
    assert state is not None
    forged = msgspec.structs.replace(
        state, documents=documents(wider.register, plan(), {}), approved=wider.budgets()
    )
    (world.folder / "state" / "enforcement.json").write_bytes(msgspec.json.encode(forged))
    with pytest.raises(TrustError, match=r"egress\.raise"):
        wider.apply()
    with pytest.raises(StateError, match="edited"):
        wider.tick()


def test_granted_release_ends_what_the_log_closed() -> None:
    """The twin: after a granted release nothing is closed any more."""
    events = [
        ("egress.apply", {"approved": "x"}),
        ("egress.block", {"flow": "a"}),
        ("egress.cut", {"flow": "*"}),
        ("egress.release", {"flow": "a"}),
        ("egress.release", {"flow": "*"}),
    ]
    assert recorded(events[:3]).sealed
    assert recorded(events[:3]).blocked == {"a"}
    assert not recorded(events).sealed
    assert not recorded(events).blocked
