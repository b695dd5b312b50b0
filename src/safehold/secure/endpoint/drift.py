"""What on this host is no longer as the inventory says."""

import msgspec

from safehold.secure.endpoint.inventory.book import Item


class Drift(msgspec.Struct, frozen=True):
    """Paths that are new, changed or gone since the inventory was signed."""

    new: tuple[str, ...]
    changed: tuple[str, ...]
    gone: tuple[str, ...]

    @property
    def any(self) -> bool:
        """Whether something differs."""
        return bool(self.new or self.changed or self.gone)


def drift(signed: tuple[Item, ...], found: list[Item]) -> Drift:
    """Compare by path and digest; a set-user-id bit that came is a change too."""
    before = {item.path: (item.sha256, item.setuid) for item in signed}
    now = {item.path: (item.sha256, item.setuid) for item in found}
    return Drift(
        new=tuple(sorted(now.keys() - before.keys())),
        changed=tuple(sorted(p for p in now.keys() & before.keys() if now[p] != before[p])),
        gone=tuple(sorted(before.keys() - now.keys())),
    )
