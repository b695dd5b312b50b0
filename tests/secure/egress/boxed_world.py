"""A host, a box that forwards for it, and the world, as three namespaces in a row."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import msgspec
from pyroute2 import netns

from safehold.secure.egress.declare.plan import Box, EgressPlan
from safehold.secure.egress.declare.register import Register
from safehold.secure.egress.enforcement.audit import ChainedLog
from safehold.secure.egress.enforcement.enforce import Enforcer
from safehold.secure.egress.enforcement.state import Clock, StateFile
from safehold.secure.egress.interface import Authorizer, RefuseAll
from safehold.secure.egress.kernel.netns import Pair, open_links, run_in
from safehold.secure.egress.kernel.nft import NftKernel
from safehold.testing.egress import TODAY, World, plan

HOST, BOX_IN, BOX_OUT, WORLD = "10.231.6.1", "10.231.6.2", "10.231.7.1", "10.231.7.2"


class NamespaceNames(msgspec.Struct, frozen=True):
    """The names of the three namespaces."""

    host: str
    box: str
    world: str


@contextlib.contextmanager
def in_a_row(name: str) -> Iterator[NamespaceNames]:
    """Make host, box and world, joined by two cables; remove them whatever happened."""
    row = NamespaceNames(f"{name}-h", f"{name}-b", f"{name}-w")
    with contextlib.ExitStack() as stack:
        for space in (row.host, row.box, row.world):
            netns.create(space)
            stack.callback(netns.remove, space)
        _cable(row.box, ("in0", BOX_IN), row.host, ("up0", HOST))
        _cable(row.box, ("out0", BOX_OUT), row.world, ("down0", WORLD))
        run_in(row.box, ["sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward"])
        for space, gateway in ((row.host, BOX_IN), (row.world, BOX_OUT)):
            with open_links(space) as links:
                links.route("add", dst="default", gateway=gateway)
        yield row


def _cable(near: str, one: tuple[str, str], far: str, other: tuple[str, str]) -> None:
    with open_links(near) as links:
        links.link("add", ifname=one[0], kind="veth", peer={"ifname": other[0], "net_ns_fd": far})
    for space, (device, address) in ((near, one), (far, other)):
        with open_links(space) as links:
            index = links.link_lookup(ifname=device)[0]
            links.addr("add", index=index, address=address, prefixlen=24)
            for number in (links.link_lookup(ifname="lo")[0], index):
                links.link("set", index=number, state="up")


def box_plan(**changes: object) -> EgressPlan:
    """The plan of the box: the world is behind out0, the host behind in0."""
    near = plan()
    link = msgspec.structs.replace(near.link, interfaces=("out0",))
    return plan(**{"link": link, "box": Box(inside="in0", addresses=(HOST,)), **changes})


class BoxedWorld(World):
    """Sends from the host; what arrives in the world came through the box."""

    def __init__(self, row: NamespaceNames, folder: Path) -> None:
        super().__init__(
            Pair(
                inside=row.host,
                outside=row.world,
                inside_v4=HOST,
                outside_v4=WORLD,
            ),
            folder,
        )
        self.row = row

    def box(
        self,
        flows: Register,
        the_plan: EgressPlan | None = None,
        authorizer: Authorizer | None = None,
        clock: Clock | None = None,
    ) -> Enforcer:
        """The enforcer of the box, with its own state and log."""
        return Enforcer(
            register=flows,
            plan=the_plan or box_plan(),
            store=StateFile(self.folder / "box-state"),
            audit=ChainedLog(self.folder / "box-audit.jsonl"),
            authorizer=authorizer or RefuseAll(),
            kernel=NftKernel(self.row.box),
            clock=clock,
            today=TODAY,
        )
