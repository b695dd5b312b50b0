"""The kernel's packet filter, spoken to in JSON through `nft -j` (libnftables-json(5))."""

import subprocess
from pathlib import Path
from typing import Any

import msgspec

from safehold.secure.egress.interface import KernelError
from safehold.secure.egress.kernel.ruleset import WIRE_TABLE
from safehold.secure.egress.kernel.statements import TABLE, Json

_TIMEOUT_S = 20.0
NETNS_FOLDER = Path("/run/netns")


class CounterReading(msgspec.Struct, frozen=True):
    """What the kernel's objects said at one moment, by object name, in bytes.

    Quotas are read before counters, so a byte that passes in between is charged, never lost.
    """

    quotas: dict[str, tuple[int, int]]
    counters: dict[str, int]
    packets: dict[str, int]


class NftKernel:
    """The packet filter of this network namespace, or of a named one.

    `ip netns exec` is not used: it hides /sys/fs/cgroup, which rules on cgroups need.
    """

    def __init__(self, netns: str | None = None) -> None:
        self.netns = netns

    def apply(self, transaction: Json) -> None:
        """Apply a transaction; the kernel takes all of it or nothing.

        Raises:
            KernelError: nft is missing or the kernel refused.
        """
        self._run(["-f", "-"], msgspec.json.encode(transaction))

    def read(self) -> CounterReading | None:
        """Read quotas, then counters; our table always has counters."""
        quotas = {
            item["quota"]["name"]: (int(item["quota"]["bytes"]), int(item["quota"].get("used", 0)))
            for item in self._list("quotas")
            if "quota" in item and item["quota"]["table"] in {TABLE, WIRE_TABLE}
        }
        counters = [
            item["counter"]
            for item in self._list("counters")
            if "counter" in item and item["counter"]["table"] in {TABLE, WIRE_TABLE}
        ]
        if not any(item["table"] == TABLE for item in counters):
            return None
        return CounterReading(
            quotas=quotas,
            counters={item["name"]: int(item["bytes"]) for item in counters},
            packets={item["name"]: int(item["packets"]) for item in counters},
        )

    def text(self) -> str:
        """Every rule in nft's own words, without the numbers that move."""
        return self._nft(["-n", "-s", "list", "ruleset"], b"").decode(errors="replace")

    def ruleset(self) -> list[dict[str, Any]]:
        """Every object and rule, as libnftables lists them."""
        return self._list("ruleset")

    def listing(self, kind: str, *names: str) -> list[dict[str, Any]]:
        """List one kind of object."""
        return self._list(kind, *names)

    def _list(self, kind: str, *names: str) -> list[dict[str, Any]]:
        raw = self._run(["list", kind, *names], b"")
        try:
            return msgspec.json.decode(raw, type=dict[str, list[dict[str, Any]]])["nftables"]
        except (msgspec.DecodeError, KeyError) as error:
            raise KernelError(f"nft list {kind}: expected its JSON") from error

    def _run(self, arguments: list[str], stdin: bytes) -> bytes:
        return self._nft(["-j", *arguments], stdin)

    def _nft(self, arguments: list[str], stdin: bytes) -> bytes:
        command = ["nft", *arguments]
        if self.netns:
            command = ["nsenter", f"--net={NETNS_FOLDER / self.netns}", "--", *command]
        try:
            done = subprocess.run(
                command, input=stdin, capture_output=True, timeout=_TIMEOUT_S, check=False
            )
        except FileNotFoundError as error:
            raise KernelError(
                f"{error.filename} is not installed (nftables, util-linux)"
            ) from error
        except subprocess.TimeoutExpired as error:
            raise KernelError(f"nft did not answer within {_TIMEOUT_S:.0f} s") from error
        if done.returncode:
            lines = [line for line in done.stderr.decode(errors="replace").splitlines() if line]
            raise KernelError(f"nft refused: {lines[0][:200] if lines else done.returncode}")
        return done.stdout
