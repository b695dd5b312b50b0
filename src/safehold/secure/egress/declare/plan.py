"""The egress plan: what must stay true about the weights, and the host that must keep it."""

import ipaddress
import tomllib
from pathlib import Path
from typing import Literal

import msgspec

from safehold.secure.egress.declare.register import MAX_REGISTER_BYTES
from safehold.secure.egress.interface import BudgetError, EgressMode, RegisterError, Window
from safehold.secure.egress.units import human_bytes, parse_bytes, parse_rate
from safehold.toml_text import parse_toml

COMPRESSIONS = (1.0, 1 / 16, 1 / 100)
"""Lossless; and the two ends of what a determined thief reaches (arXiv 2601.01296)."""

NEIGHBOUR_BYTES_PER_DAY = 2_000_000
"""What IPv6 neighbour discovery, and ARP, may each send in a day; it counts as leak."""

ACCOUNTING_LAG_S = 70.0
"""How late a reconciled byte may be missed: rows arrive within 60 s, accounting runs each 10 s."""

OVERHEAD_SLACK = 0.001
"""How far the learned overhead may be wrong; a thief can hide this share of explained bytes."""


class Bound(msgspec.Struct, frozen=True):
    """What must hold: `weight_bytes * compression` takes at least `steal_days` to leave.

    One incident (from the first stolen byte to the block) leaks at most the share `alpha` of it.
    `detect_s` and `respond_s` say how long an incident lasts on flows without reconciliation;
    `review_days` is the least time between two-party reviews that clear the residual odometer.
    """

    weight_bytes: int
    compression: float = 1 / 16
    steal_days: float = 30.0
    alpha: float = 0.1
    detect_s: float = 110 * 3600.0
    respond_s: float = 60.0
    review_days: float = 7.0

    @property
    def stolen_bytes(self) -> int:
        """How many bytes are the whole secret: S * c."""
        return int(self.weight_bytes * self.compression)

    @property
    def incident_bytes(self) -> int:
        """What one incident may leak: alpha * S * c."""
        return int(self.alpha * self.weight_bytes * self.compression)


class Link(msgspec.Struct, frozen=True):
    """The ways out: interfaces, and the rate that all of them together are shaped to."""

    interfaces: tuple[str, ...]
    rate_bit_s: int
    shape: bool = True
    burst_bytes: int = 65_536


class Local(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is neither a declared flow nor the outside: loopback, link-local, raw frames."""

    loopback: bool = True
    link_local: bool = False
    neighbour_discovery: bool = True
    raw_frame_guard: bool = True


class EgressJudge(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is checked from outside the rules, and what a difference leads to.

    `bound_bytes` may leave past the rules before everything is closed. `on_bypass` says how: `cut`
    takes the devices down (the one thing that AF_XDP obeys), `seal` drops in the rules, `warn` only
    tells. `dead_man_s` closes everything when no look renewed the rules for so long (0: never).
    `senders` are the programs (by their path) that may hold packet, raw or XDP sockets untold.
    `control_bytes_a_day` is what the kernel's own link control (LACP of a bond, spanning tree of a
    bridge) may send, which no rule sees; it counts as leak.
    """

    bound_bytes: int = 65_536
    on_bypass: Literal["cut", "seal", "warn"] = "cut"
    dead_man_s: int = 900
    control_bytes_a_day: int = 0
    senders: tuple[str, ...] = ()


class Box(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A machine that forwards for a host and holds it to the same register.

    `inside` is the device that leads to the host; without it this is no box. `addresses` are those
    that the host may send from; none given: any.
    """

    inside: str = ""
    addresses: tuple[str, ...] = ()


class EgressPlan(msgspec.Struct, frozen=True):
    """A checked plan file."""

    bound: Bound
    link: Link
    local: Local = Local()
    judge: EgressJudge = EgressJudge()
    box: Box = Box()
    mode: EgressMode = EgressMode.ENFORCE
    total: dict[Window, int] = {}
    accounting_lag_s: float = ACCOUNTING_LAG_S
    trust_senders: bool = True
    overhead_slack: float = OVERHEAD_SLACK


class _Weights(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    size: int | str = 0
    manifest: str = ""


class _Bound(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    compression: float = 1 / 16
    steal_days: float = 30.0
    alpha: float = 0.1
    detect_hours: float = 110.0
    respond_s: float = 60.0
    review_days: float = 7.0


class _Link(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    interfaces: tuple[str, ...]
    rate: int | str
    shape: bool = True
    burst: int | str = 65_536


class _PlanFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    version: int
    weights: _Weights
    link: _Link
    bound: _Bound = _Bound()
    local: Local = Local()
    judge: EgressJudge = EgressJudge()
    box: Box = Box()
    total: dict[Window, int | str] = {}
    mode: EgressMode = EgressMode.ENFORCE
    accounting_lag_s: float = ACCOUNTING_LAG_S
    trust_senders: bool = True
    overhead_slack: float = OVERHEAD_SLACK


def load_plan(path: Path) -> EgressPlan:
    """Read and check a plan file; a weights manifest is found relative to it.

    Raises:
        RegisterError: The file is unreadable or malformed.
        BudgetError: The bound is impossible, such as a compression outside (0, 1].
    """
    try:
        if path.stat().st_size > MAX_REGISTER_BYTES:
            raise RegisterError(f"{path.name}: expected at most {MAX_REGISTER_BYTES} bytes")
        text = path.read_bytes().decode("utf-8")
    except OSError as error:
        raise RegisterError(f"{path.name}: can't be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise RegisterError(f"{path.name}: {str(error)[:120]}") from error
    return parse_plan(text, path)


def parse_plan(text: str, path: Path) -> EgressPlan:
    """Check the text of a plan that lies at a path; only a weights manifest is read there.

    Raises:
        RegisterError: The text is malformed.
        BudgetError: The bound is impossible, such as a compression outside (0, 1].
    """
    try:
        raw = msgspec.convert(parse_toml(text), _PlanFile)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise RegisterError(f"{path.name}: {str(error)[:120]}") from error
    if raw.version != 1:
        raise RegisterError(f"{path.name}: expected `version = 1`")
    return _check(raw, _weight_bytes(raw.weights, path.parent))


def _check(raw: _PlanFile, weight_bytes: int) -> EgressPlan:
    bound = Bound(
        weight_bytes=weight_bytes,
        compression=raw.bound.compression,
        steal_days=raw.bound.steal_days,
        alpha=raw.bound.alpha,
        detect_s=raw.bound.detect_hours * 3600,
        respond_s=raw.bound.respond_s,
        review_days=raw.bound.review_days,
    )
    if not 0 < bound.compression <= 1:
        raise BudgetError("bound.compression: expected a share in (0, 1]")
    if not 0 < bound.alpha <= 1:
        raise BudgetError("bound.alpha: expected a share in (0, 1]")
    if not 0 < bound.steal_days <= 36_500:
        raise BudgetError("bound.steal_days: expected between 0 and 36500")
    if bound.detect_s <= 0 or bound.respond_s < 0 or bound.review_days <= 0:
        raise BudgetError("bound: expected positive detect_hours, respond_s and review_days")
    if not 1 <= raw.accounting_lag_s <= 86_400:
        raise BudgetError("accounting_lag_s: expected between 1 and 86400")
    if not 0 <= raw.overhead_slack <= 0.1:
        raise BudgetError("overhead_slack: expected a share between 0 and 0.1")
    _check_judge(raw.judge)
    link = Link(
        interfaces=raw.link.interfaces,
        rate_bit_s=parse_rate(raw.link.rate, "link.rate"),
        shape=raw.link.shape,
        burst_bytes=parse_bytes(raw.link.burst, "link.burst"),
    )
    if not link.interfaces or link.rate_bit_s == 0:
        raise RegisterError("link: expected at least one interface and a rate above 0")
    for name in (*link.interfaces, *([raw.box.inside] if raw.box.inside else [])):
        if not (0 < len(name) < 16 and name.isprintable() and name.isascii()) or set(name) & {
            "/",
            " ",
            '"',
            "\\",
        }:
            raise RegisterError("link.interfaces, box.inside: expected interface names")
    _check_box(raw.box, link)
    return EgressPlan(
        bound=bound,
        link=link,
        local=raw.local,
        judge=raw.judge,
        box=raw.box,
        mode=raw.mode,
        total={window: parse_bytes(v, f"total.{window}") for window, v in raw.total.items()},
        accounting_lag_s=raw.accounting_lag_s,
        trust_senders=raw.trust_senders,
        overhead_slack=raw.overhead_slack,
    )


def _check_box(box: Box, link: Link) -> None:
    if box.inside in link.interfaces:
        raise RegisterError("box.inside: expected another device than those that lead out")
    if box.addresses and not box.inside:
        raise RegisterError("box.addresses: expected box.inside as well")
    for text in box.addresses:
        try:
            ipaddress.ip_network(text)
        except ValueError as error:
            raise RegisterError("box.addresses: expected IP networks") from error


def _check_judge(given: EgressJudge) -> None:
    if given.bound_bytes < 0:
        raise BudgetError("judge.bound_bytes: expected 0 or more")
    if given.control_bytes_a_day < 0:
        raise BudgetError("judge.control_bytes_a_day: expected 0 or more")
    if given.dead_man_s != 0 and not 30 <= given.dead_man_s <= 86_400:
        raise BudgetError("judge.dead_man_s: expected 0 (never), or between 30 and 86400")


def _weight_bytes(weights: _Weights, folder: Path) -> int:
    if bool(weights.size) == bool(weights.manifest):
        raise RegisterError("weights: expected either `size` or `manifest`")
    if weights.size:
        return parse_bytes(weights.size, "weights.size")
    return manifest_bytes(folder / weights.manifest)


def manifest_bytes(path: Path) -> int:
    """Return the plain size of the weights that a manifest lists.

    Any JSON manifest whose files carry `size_bytes`, `size` or `plain_bytes` will do.
    """
    try:
        document = msgspec.json.decode(path.read_bytes())
    except OSError as error:
        raise RegisterError(f"{path.name}: can't be read ({error.strerror})") from error
    except msgspec.DecodeError as error:
        raise RegisterError(f"{path.name}: expected JSON") from error
    total = _sum_sizes(document, 0)
    if total <= 0:
        raise RegisterError(f"{path.name}: expected files with `size_bytes`")
    return total


_MAX_DEPTH = 6


def _sum_sizes(node: object, depth: int) -> int:
    if depth > _MAX_DEPTH:
        return 0
    if isinstance(node, list):
        return sum(_sum_sizes(item, depth + 1) for item in node)
    if not isinstance(node, dict):
        return 0
    for key in ("plain_bytes", "size_bytes", "size"):
        value = node.get(key)
        if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
            return value
    return sum(_sum_sizes(item, depth + 1) for item in node.values())


def describe(bound: Bound) -> str:
    """Say the bound in one line."""
    return (
        f"{human_bytes(bound.weight_bytes)} of weights, compressible to "
        f"{human_bytes(bound.stolen_bytes)} (c = {bound.compression:.4g}); at least "
        f"{bound.steal_days:g} days to steal; at most {human_bytes(bound.incident_bytes)} "
        f"({bound.alpha:.0%}) per incident"
    )
