"""What `/proc` says of a process that waits for an answer; of one that is gone, nothing."""

import os

_MOST_BYTES = 4 << 20


def readlink(path: str) -> str:
    """Return what a link leads to, without the mark of a deleted file."""
    try:
        return os.readlink(path).removesuffix(" (deleted)")
    except OSError:
        return ""


def words(pid: int, name: str) -> tuple[str, ...]:
    """Return the strings of `cmdline` or `environ`."""
    try:
        handle = os.open(f"/proc/{pid}/{name}", os.O_RDONLY)
    except OSError:
        return ()
    try:
        text = b""
        while (part := os.read(handle, 1 << 16)) and len(text) < _MOST_BYTES:
            text += part
    except OSError:
        return ()
    finally:
        os.close(handle)
    return tuple(text.decode("utf-8", "surrogateescape").removesuffix("\0").split("\0"))


def there(pid: int, path: str) -> str:
    """Return a path as the process means it."""
    return f"/proc/{pid}/root{path}" if path.startswith("/") else f"/proc/{pid}/cwd/{path}"


def unit_of(pid: int) -> str:
    """Return the control group, which under systemd names the unit."""
    try:
        handle = os.open(f"/proc/{pid}/cgroup", os.O_RDONLY)
    except OSError:
        return ""
    try:
        rows = os.read(handle, 1 << 14).decode("utf-8", "replace").splitlines()
    finally:
        os.close(handle)
    return next((row.split(":", 2)[2] for row in rows if row.startswith("0::")), "")
