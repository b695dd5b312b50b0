"""Find what can run on this host; a file is hashed again only when its key has changed."""

import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import msgspec

from safehold.secure.endpoint.facts import content_kind, digest
from safehold.secure.endpoint.interface import CodeKind, InventoryError
from safehold.secure.endpoint.inventory.book import Item
from safehold.secure.endpoint.invocation import LANGUAGES
from safehold.secure.fanotify.interface import FanotifyError

ROOTS = ("/usr", "/opt", "/bin", "/sbin", "/lib", "/lib64", "/etc")
_SUFFIXES = tuple(suffix for language in LANGUAGES for suffix in language.suffixes)
_CONTROL = re.compile(r"[\x00-\x1f]")
_DPKG = Path("/var/lib/dpkg")


class ScannedFile(msgspec.Struct, frozen=True):
    """A digest, and the key (device, inode, size, both times) under which it holds."""

    key: tuple[int, int, int, int, int]
    sha256: str
    kind: CodeKind


Cache = dict[str, ScannedFile]


def load_cache(path: Path) -> Cache:
    """Return what was hashed before; nothing if the file is missing, not ours, or not readable."""
    try:
        found = path.stat()
        if found.st_uid != os.geteuid() or found.st_mode & 0o022:
            return {}
        return msgspec.json.decode(path.read_bytes(), type=Cache)
    except (OSError, msgspec.DecodeError):
        return {}


def store_cache(path: Path, cache: Mapping[str, ScannedFile]) -> None:
    """Keep what was hashed, for root alone.

    Raises:
        InventoryError: the disk refused.
    """
    fresh = path.with_name(path.name + ".new")
    try:
        handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(msgspec.json.encode(cache))
        fresh.rename(path)
    except OSError as error:
        raise InventoryError(f"{path.name}: can't be written ({error.strerror})") from error


def packages() -> dict[str, tuple[str, str]]:
    """Return package and version of each path that dpkg knows. It says where a file is from.

    It is no anchor of trust: its sums are MD5, unsigned, and root can write them.
    """
    versions: dict[str, str] = {}
    try:
        status = (_DPKG / "status").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}
    for block in status.split("\n\n"):
        name = re.search(r"^Package: (.+)$", block, re.MULTILINE)
        version = re.search(r"^Version: (.+)$", block, re.MULTILINE)
        if name and version:
            versions[name[1]] = version[1]
    found: dict[str, tuple[str, str]] = {}
    for listing in (_DPKG / "info").glob("*.list"):
        package = listing.stem.partition(":")[0]
        for path in listing.read_text(encoding="utf-8", errors="replace").splitlines():
            found[path] = package, versions.get(package, "")
    return found


def scan(
    roots: tuple[str, ...],
    cache: Cache,
    known: Mapping[str, tuple[str, str]],
    progress: Callable[[int], None] = lambda _: None,
) -> tuple[list[Item], Cache, list[str]]:
    """Return the items, the cache of this scan, and the files that could not be read.

    Links are not followed: a file is listed under its own path.
    """
    items: list[Item] = []
    fresh: Cache = {}
    missed: list[str] = []
    for path, entry in _walk(roots):
        found = entry.stat(follow_symlinks=False)
        if not stat.S_ISREG(found.st_mode) or not _may_run(path, found.st_mode):
            continue
        try:
            seen = _seen(path, found, cache.get(path))
        except (OSError, FanotifyError) as error:
            missed.append(f"{path}: {error}")
            continue
        if seen is None:
            continue
        fresh[path] = seen
        package, version = known.get(path) or known.get(path.removeprefix("/usr"), ("", ""))
        setuid = bool(found.st_mode & (stat.S_ISUID | stat.S_ISGID))
        items.append(Item(path, found.st_size, seen.sha256, seen.kind, package, version, setuid))
        progress(len(items))
    return items, fresh, missed


def _walk(roots: tuple[str, ...]) -> Iterator[tuple[str, "os.DirEntry[str]"]]:
    for root in roots:
        if os.path.islink(root) or not os.path.isdir(root):
            continue
        stack = [root]
        while stack:
            try:
                with os.scandir(stack.pop()) as entries:
                    for entry in entries:
                        if entry.is_dir(follow_symlinks=False):
                            stack.append(entry.path)
                        elif not _CONTROL.search(entry.path):
                            yield entry.path, entry
            except OSError:
                continue


def _may_run(path: str, mode: int) -> bool:
    return (
        bool(mode & 0o111) or ".so" in os.path.basename(path) or path.endswith((*_SUFFIXES, ".ko"))
    )


def _seen(path: str, found: os.stat_result, before: ScannedFile | None) -> ScannedFile | None:
    key = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
    if before is not None and before.key == key:
        return before
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        text = path.endswith(_SUFFIXES)
        kind = content_kind(handle, executed=bool(found.st_mode & 0o111))
        if kind is CodeKind.ELF and ".so" in os.path.basename(path):
            kind = CodeKind.LIBRARY
        if kind is None:
            if not text:
                return None
            kind = CodeKind.SCRIPT
        return ScannedFile(key, digest(handle), kind)
    finally:
        os.close(handle)
