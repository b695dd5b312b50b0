"""A real gateway's signed rows against the kernel's own counter, in a network namespace."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from safehold.errors import EgressError
from safehold.secure.egress.explain.accounting import expected_by_flow, learn_overhead
from safehold.secure.egress.explain.ledger import ChainPosition, ExplainedReader, ExplainedRow
from safehold.secure.egress.explain.replies import ExplainedReplies, open_replies
from safehold.secure.egress.explain.senders import load_sources, new_key
from safehold.testing.egress import World
from safehold.testing.egress_gateway import ASK, FLOWS, KEY, PORT, GovernedGateway, process, serving

LEAVE = """
import http.client, json, sys
address, port, key = sys.argv[1:]
link = http.client.HTTPConnection(address, int(port), timeout=300)
body = {"model": "mock", "messages": [{"role": "user", "content": "hi"}], "stream": True}
head = {"authorization": f"Bearer {key}", "content-type": "application/json"}
link.request("POST", "/v1/chat/completions", json.dumps(body), head)
link.getresponse().read(500)
link.close()
"""
THIEF = """
import socket
with socket.create_server(("", 9443)) as listener:
    print("ready", flush=True)
    client = listener.accept()[0]
    client.sendall(bytes(400_000))
    client.close()
"""
TAKE = """
import socket, sys
with socket.create_connection((sys.argv[1], 9443), timeout=300) as link:
    while link.recv(65536):
        pass
"""


@pytest.fixture
def gateway(world: World, tmp_path: Path) -> Iterator[GovernedGateway]:
    """A gateway process that signs for what it sends."""
    with serving(world, tmp_path) as made:
        yield made


def test_kernel_counter_is_explained_by_signed_replies(gateway: GovernedGateway) -> None:
    """Rows of a real gateway explain the kernel's bytes; a second sender's bytes stay over."""
    kernel, explained, items = [], [], []
    before = gateway.kernel()
    for number in range(14):
        count = 2 + number % 4
        gateway.outside(ASK, str(PORT), KEY, str(number % 2), str(count))
        rows = gateway.rows(count + 1)
        after = gateway.kernel()
        kernel.append(float(after - before))
        explained.append(float(sum(row.size for row in rows)))
        items.append(float(sum(row.items for row in rows)))
        assert {row.account for row in rows} == {"acct/key1", ""}
        assert sum(row.tokens for row in rows) >= 5 * count
        before = after
    overhead = learn_overhead(kernel[:12], explained[:12], items[:12])
    assert overhead.per_byte < 0.2
    for index in (12, 13):
        expected = overhead.expected(explained[index], items[index])
        share = (kernel[index] - expected) / kernel[index]
        # A busy machine cuts a stream into other packets than an idle one; few replies, no average.
        assert abs(share) <= max(4 * overhead.sigma, 0.05), f"{share:.2%} of {overhead}"
    with process(gateway.world.pair.inside, "-c", THIEF, cwd=gateway.folder) as thief:
        assert thief.stdout is not None
        thief.stdout.readline()
        gateway.outside(TAKE)
        gateway.outside(ASK, str(PORT), KEY, "0", "2")
        rows = gateway.rows(3)
        loose = gateway.kernel() - before
    loose -= int(expected_by_flow(rows, {"replies": overhead})["replies"])
    assert 395_000 <= loose < 450_000


def test_client_that_leaves_is_counted_all_the_same(gateway: GovernedGateway) -> None:
    """A reply that a client abandons has its row, with bytes and estimated tokens."""
    gateway.outside(LEAVE, str(PORT), KEY)
    rows = gateway.rows(1)
    assert sum(row.size for row in rows) > 500
    assert sum(row.tokens for row in rows) > 0


def replies(folder: Path) -> ExplainedReplies:
    """Replies that are written into a folder."""
    if not (folder / "k.pem").exists():
        new_key(folder / "k.pem")
    return open_replies(folder / "rows.jsonl", folder / "k.pem", "replies", "gateway")


def told(to: ExplainedReplies, count: int, account: str = "a/b") -> None:
    """Tell of one reply."""
    to.reply(
        count=count, account=account, tokens=3, started=9.0, ended=10.0, reply_id="x", last=True
    )


def read(folder: Path) -> list[ExplainedRow]:
    """Every row of the folder's file, verified."""
    (folder / "s.toml").write_text(
        'version = 1\n[[sender]]\nname = "gateway"\nrows = "rows.jsonl"\n'
        'flows = ["replies"]\npublic_key = "k.pub.pem"\n'
    )
    reader = load_sources(folder / "s.toml", FLOWS).reader
    assert isinstance(reader, ExplainedReader)
    return [row for row, _ in reader.follow(folder / "rows.jsonl", ChainPosition(), 100.0)]


def test_replies_of_one_second_are_one_row_per_account(tmp_path: Path) -> None:
    """A thousand replies to two accounts cost two signatures."""
    writer = replies(tmp_path)
    for number in range(1000):
        told(writer, 10, "even/k" if number % 2 else "odd/k")
    writer.flush()
    writer.flush()
    rows = read(tmp_path)
    assert [(row.size, row.items, row.tokens) for row in rows] == [(5000, 500, 1500)] * 2


def test_workers_share_one_chain(tmp_path: Path) -> None:
    """Two writers of one sender append in turn and the chain still verifies."""
    one, two = replies(tmp_path), replies(tmp_path)
    for writer in (one, two, one, two, two):
        told(writer, 7)
        writer.flush()
    assert [row.seq for row in read(tmp_path)] == [0, 1, 2, 3, 4]


def test_torn_row_is_cut_off_and_the_chain_goes_on(tmp_path: Path) -> None:
    """A row that a crash tore is removed before the next one."""
    writer = replies(tmp_path)
    told(writer, 7)
    writer.flush()
    with (tmp_path / "rows.jsonl").open("ab") as file:
        file.write(b'{"sender":"gat')
    told(writer, 8)
    writer.flush()
    assert [row.size for row in read(tmp_path)] == [7, 8]


def test_full_disk_loses_no_byte(tmp_path: Path) -> None:
    """What could not be written is in the next row that can."""
    writer = replies(tmp_path)
    told(writer, 7)
    (tmp_path / "rows.jsonl").unlink()
    (tmp_path / "rows.jsonl").mkdir()
    with pytest.raises(EgressError, match="can't be appended"):
        writer.flush()
    told(writer, 8)
    (tmp_path / "rows.jsonl").rmdir()
    writer.flush()
    assert [(row.size, row.items) for row in read(tmp_path)] == [(15, 2)]


def test_file_of_another_sender_is_refused(tmp_path: Path) -> None:
    """A gateway does not continue somebody else's chain."""
    writer = replies(tmp_path)
    told(writer, 7)
    writer.flush()
    with pytest.raises(EgressError, match="another sender"):
        open_replies(tmp_path / "rows.jsonl", tmp_path / "k.pem", "replies", "mallory")
