"""Devices that were moved into another network namespace, where no rule of ours holds."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from safehold.secure.egress.kernel.netns import inside, opened
from safehold.secure.egress.kernel.nft import NETNS_FOLDER


def find_elsewhere(
    netns: str | None, macs: Mapping[str, str], proc: Path = Path("/proc")
) -> dict[str, str]:
    """Say in which other namespace each device is now: name to a path that opens the namespace.

    `macs` are the hardware addresses of devices that are gone, by name. A namespace counts when a
    process or a name holds it; one that nobody holds ends, and its devices come home.
    """
    found: dict[str, str] = {}
    with inside(netns):
        own = Path("/proc/self/ns/net").stat().st_ino
    for path in _namespaces(own, proc):
        try:
            with opened(str(path)) as links:
                there = {str(one.get_attr("IFLA_ADDRESS")) for one in links.get_links()}
        except OSError:
            # It ended while we looked.
            continue
        found |= {name: str(path) for name, mac in macs.items() if mac in there}
    return found


def down_elsewhere(places: Mapping[str, str], macs: Mapping[str, str]) -> None:
    """Take devices down where they are now."""
    for name, path in places.items():
        with opened(path) as links:
            for link in links.get_links():
                if link.get_attr("IFLA_ADDRESS") == macs[name]:
                    links.link("set", index=link["index"], state="down")


def _namespaces(own: int, proc: Path) -> Iterator[Path]:
    seen = {own}
    for path in (*_named(), *_held(proc)):
        try:
            number = path.stat().st_ino
        except OSError:
            continue
        if number not in seen:
            seen.add(number)
            yield path


def _named() -> Iterable[Path]:
    return sorted(NETNS_FOLDER.iterdir()) if NETNS_FOLDER.is_dir() else ()


def _held(proc: Path) -> Iterator[Path]:
    for folder in proc.iterdir():
        if folder.name.isdigit():
            yield folder / "ns" / "net"
