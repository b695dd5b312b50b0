"""The data-flow register: every legitimate flow out, declared in a checked file."""

import datetime as dt
import functools
import ipaddress
import re
import tomllib
from collections.abc import Iterator, Mapping
from enum import StrEnum
from pathlib import Path

import msgspec

from safehold.secure.egress.interface import Direction, RegisterError, Tuple5, Window, Wire
from safehold.secure.egress.units import parse_bytes, parse_rate
from safehold.toml_text import parse_toml

MAX_REGISTER_BYTES = 16 * 2**20
MAX_FLOWS = 10_000
_MAX_TEXT = 200
_ID = re.compile(r"[a-z][a-z0-9_]{0,23}", re.ASCII)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@-]{0,31}", re.ASCII)
_INTERFACE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,14}", re.ASCII)
_CGROUP = re.compile(r"[A-Za-z0-9_.@-]+(?:/[A-Za-z0-9_.@:-]+)*", re.ASCII)
_PORTLESS = frozenset({Wire.ICMP, Wire.ICMPV6})
_FIXED_PORTS: Mapping[Wire, tuple[int, ...]] = {Wire.DNS: (53,), Wire.QUIC: (443,)}

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class DataClass(StrEnum):
    """What a flow carries; `weights` is not among them on purpose."""

    PUBLIC = "public"
    TELEMETRY = "telemetry"
    MODEL_OUTPUT = "model-output"
    CODE = "code"
    INTERNAL = "internal"
    CONTROL = "control"


class Source(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who sends. Empty fields do not restrict; at least one must be given.

    `user` or `uid` and `cgroup` bind local processes; `interface`, `netns` and `address` bind
    traffic forwarded for a network namespace or another machine.
    """

    user: str = ""
    uid: int | None = None
    cgroup: str = ""
    netns: str = ""
    interface: str = ""
    address: tuple[str, ...] = ()

    @property
    def forwarded(self) -> bool:
        """Whether the packets come from outside this network namespace."""
        return bool(self.netns or self.interface)


class Flow(msgspec.Struct, frozen=True):
    """One row: a flow out that somebody owns, with what it may send in every window."""

    id: str
    owner: str
    purpose: str
    data_class: DataClass
    direction: Direction
    protocol: Wire
    ports: tuple[int, ...]
    destination: tuple[str, ...]
    source: Source
    budget: Mapping[Window, int]
    expires: dt.date
    reconciled: bool = False
    peak_bit_s: int = 0

    def networks(self) -> tuple[Network, ...]:
        """The destinations as networks."""
        return tuple(map(_network, self.destination))

    def source_networks(self) -> tuple[Network, ...]:
        """The addresses of forwarded senders as networks."""
        return tuple(map(_network, self.source.address))

    def transport(self) -> frozenset[str]:
        """The IP protocols that the row covers; DNS speaks both UDP and TCP."""
        match self.protocol:
            case Wire.QUIC:
                return frozenset({"udp"})
            case Wire.DNS:
                return frozenset({"udp", "tcp"})
            case _:
                return frozenset({self.protocol.value})

    def expired(self, today: dt.date) -> bool:
        """A row is good through its expiry day."""
        return today > self.expires

    def covers(self, seen: Tuple5) -> bool:
        """Whether a seen flow of packets belongs to this row."""
        address = ipaddress.ip_address(seen.destination)
        return (
            seen.protocol in self.transport()
            and (self.protocol in _PORTLESS or seen.port in self.ports)
            and seen.direction == self.direction
            and any(address in net for net in self.networks() if net.version == address.version)
            and self._source_covers(seen)
        )

    def _source_covers(self, seen: Tuple5) -> bool:
        source = self.source
        named = source.interface or source.netns
        return (
            (source.uid is None or source.uid == seen.uid)
            and (not source.user or source.user == seen.user)
            and (not source.cgroup or source.cgroup == seen.cgroup)
            and (not named or named == seen.interface)
            and (
                not source.address
                or (
                    bool(seen.source)
                    and any(
                        ipaddress.ip_address(seen.source) in ipaddress.ip_network(net)
                        for net in source.address
                    )
                )
            )
        )


class Register(msgspec.Struct, frozen=True):
    """All declared flows, in file order, checked against each other."""

    flows: tuple[Flow, ...]

    def live(self, today: dt.date) -> tuple[Flow, ...]:
        """The rows that have not expired; an expired row is an undeclared flow."""
        return tuple(flow for flow in self.flows if not flow.expired(today))

    def expired(self, today: dt.date) -> tuple[Flow, ...]:
        """The rows whose expiry has passed."""
        return tuple(flow for flow in self.flows if flow.expired(today))

    def owner_of(self, seen: Tuple5, today: dt.date) -> Flow | None:
        """The live row that declares a seen flow, or nothing: an undeclared flow is a finding."""
        return next((flow for flow in self.live(today) if flow.covers(seen)), None)


def load_register(path: Path) -> Register:
    """Read and check a register file.

    Raises:
        RegisterError: The file is unreadable, malformed, or a row is wrong or overlaps another.
    """
    try:
        if path.stat().st_size > MAX_REGISTER_BYTES:
            raise RegisterError(f"{path.name}: expected at most {MAX_REGISTER_BYTES} bytes")
        text = path.read_bytes().decode("utf-8")
    except OSError as error:
        raise RegisterError(f"{path.name}: can't be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise RegisterError(f"{path.name}: expected UTF-8") from error
    return parse_register(text)


def parse_register(text: str) -> Register:
    """Check the text of a register; see load_register."""
    try:
        document = parse_toml(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise RegisterError(f"register: not TOML ({str(error)[:80]})") from error
    if set(document) - {"version", "flow"}:
        raise RegisterError("register: expected only `version` and `[[flow]]`")
    if document.get("version") != 1:
        raise RegisterError("register: expected `version = 1`")
    rows = document.get("flow", [])
    if not isinstance(rows, list) or not 0 < len(rows) <= MAX_FLOWS:
        raise RegisterError(f"register: expected between 1 and {MAX_FLOWS} [[flow]] rows")
    flows = tuple(_parse_flow(number, row) for number, row in enumerate(rows, 1))
    _check_together(flows)
    return Register(flows=flows)


class _Row(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A row as the file spells it."""

    id: str
    owner: str
    purpose: str
    data_class: DataClass
    protocol: Wire
    destination: tuple[str, ...]
    source: Source
    budget: dict[Window, int | str]
    expires: dt.date
    direction: Direction = Direction.OUT
    ports: tuple[int, ...] = ()
    reconciled: bool = False
    peak: int | str = 0


def _parse_flow(number: int, row: object) -> Flow:
    where = f"flow {number}"
    try:
        raw = msgspec.convert(row, _Row)
    except msgspec.ValidationError as error:
        raise RegisterError(f"{where}: {error}") from error
    if not _ID.fullmatch(raw.id):
        raise RegisterError(f"{where}: expected an id of a-z, 0-9 and _ (at most 24 characters)")
    where = f"flow {raw.id}"
    for field in ("owner", "purpose"):
        value = getattr(raw, field)
        if not value.strip() or len(value) > _MAX_TEXT or not value.isprintable():
            raise RegisterError(
                f"{where}: expected 1 to {_MAX_TEXT} printable characters in `{field}`"
            )
    return Flow(
        id=raw.id,
        owner=raw.owner,
        purpose=raw.purpose,
        data_class=raw.data_class,
        direction=raw.direction,
        protocol=raw.protocol,
        ports=_ports(raw, where),
        destination=_networks(raw.destination, where, "destination"),
        source=_source(raw.source, where),
        budget=_budget(raw.budget, where),
        expires=raw.expires,
        reconciled=raw.reconciled,
        peak_bit_s=parse_rate(raw.peak, f"{where}: peak") if raw.peak else 0,
    )


def _ports(raw: _Row, where: str) -> tuple[int, ...]:
    if raw.protocol in _PORTLESS:
        if raw.ports:
            raise RegisterError(f"{where}: {raw.protocol} has no ports")
        if raw.direction is Direction.SERVE:
            raise RegisterError(f"{where}: {raw.protocol} can't be a serve flow")
        return ()
    ports = raw.ports or _FIXED_PORTS.get(raw.protocol, ())
    if not ports or len(set(ports)) != len(ports) or not all(0 < p < 2**16 for p in ports):
        raise RegisterError(f"{where}: expected distinct ports between 1 and 65535")
    return tuple(sorted(ports))


def _networks(texts: tuple[str, ...], where: str, field: str) -> tuple[str, ...]:
    if not texts:
        raise RegisterError(f"{where}: expected at least one network in `{field}`")
    nets: list[Network] = []
    for text in texts:
        try:
            nets.append(ipaddress.ip_network(text))
        except ValueError as error:
            raise RegisterError(f"{where}: expected IP networks in `{field}`") from error
    for first in range(len(nets)):
        for second in range(first):
            if nets[first].overlaps(nets[second]):
                raise RegisterError(f"{where}: networks in `{field}` overlap")
    return tuple(str(net) for net in nets)


def _source(source: Source, where: str) -> Source:
    if source == Source():
        raise RegisterError(f"{where}: expected a source: user, uid, cgroup, netns, interface")
    local = bool(source.user or source.uid is not None or source.cgroup)
    if local and source.forwarded:
        raise RegisterError(f"{where}: a source is local (user, cgroup) or forwarded, not both")
    if source.netns and source.interface:
        raise RegisterError(f"{where}: name the source's netns or its interface, not both")
    if source.uid is not None and not 0 <= source.uid < 2**32 - 1:
        raise RegisterError(f"{where}: expected a uid between 0 and 2**32 - 2")
    if source.user and source.uid is not None:
        raise RegisterError(f"{where}: name the source's user or its uid, not both")
    for value, form, field in (
        (source.user, _NAME, "user"),
        (source.netns, _NAME, "netns"),
        (source.interface, _INTERFACE, "interface"),
        (source.cgroup, _CGROUP, "cgroup"),
    ):
        if value and (not form.fullmatch(value) or ".." in value):
            raise RegisterError(f"{where}: `{field}` has characters that can't be used")
    if source.address:
        _networks(source.address, where, "address")
    return source


def _budget(raw: Mapping[Window, int | str], where: str) -> Mapping[Window, int]:
    if set(raw) != set(Window):
        raise RegisterError(f"{where}: expected a budget for hour, day, week and month")
    budget = {window: parse_bytes(raw[window], f"{where}: {window}") for window in Window}
    sizes = list(budget.values())
    if sizes[0] == 0 or sizes != sorted(sizes):
        raise RegisterError(f"{where}: expected 0 < hour <= day <= week <= month")
    return budget


def _check_together(flows: tuple[Flow, ...]) -> None:
    """Refuse two flows of one id, or that a packet could both belong to."""
    ids: set[str] = set()
    for flow in flows:
        if flow.id in ids:
            raise RegisterError(f"flow {flow.id}: declared twice")
        ids.add(flow.id)
    for one, two in meetings(flows):
        raise RegisterError(f"flows {one.id} and {two.id} overlap: a packet would belong to both")


def meetings(flows: tuple[Flow, ...]) -> Iterator[tuple[Flow, Flow]]:
    """Yield pairs of flows that a packet could both belong to, each in file order.

    Networks nest or are apart, so one sweep over their beginnings meets every pair that overlaps:
    those that are still open where another begins. Flows to apart places are never compared.
    """
    spans = sorted(
        (network.version, int(network.network_address), -network.num_addresses, number)
        for number, flow in enumerate(flows)
        for network in map(_network, set(flow.destination))
    )
    open_spans: list[tuple[int, int, int]] = []
    for version, start, size, number in spans:
        while open_spans and open_spans[-1][:2] <= (version, start):
            open_spans.pop()
        for _, _, other in open_spans:
            if other != number and _overlap(flows[other], flows[number]):
                one, two = sorted((other, number))
                yield flows[one], flows[two]
        open_spans.append((version, start - size, number))


def _overlap(one: Flow, other: Flow) -> bool:
    """Whether flows to places that meet could both claim a packet."""
    return (
        _sources_meet(one.source, other.source)
        and one.direction == other.direction
        and bool(one.transport() & other.transport())
        and (not one.ports or not other.ports or bool(set(one.ports) & set(other.ports)))
    )


@functools.lru_cache(maxsize=65_536)
def _network(text: str) -> Network:
    return ipaddress.ip_network(text)


def _nets_meet(one: tuple[str, ...], other: tuple[str, ...]) -> bool:
    return any(
        a.version == b.version and a.overlaps(b)
        for a in map(_network, one)
        for b in map(_network, other)
    )


def _sources_meet(one: Source, other: Source) -> bool:
    if one.forwarded != other.forwarded:
        return False
    for field in ("user", "uid", "cgroup", "interface", "netns"):
        a, b = getattr(one, field), getattr(other, field)
        if a not in ("", None) and b not in ("", None) and a != b:
            return False
    if one.address and other.address:
        return _nets_meet(one.address, other.address)
    return True
