"""What systemd is told and what it hands over: notifications, the watchdog, a listening socket."""

import os
import socket
import time

from safehold.errors import ConfigError

_FIRST = 3  # sd_listen_fds(3): the first descriptor that is handed over
_MICRO = 1_000_000


def notify(state: str) -> bool:
    """Send a state such as `READY=1` to systemd; return whether anybody listens (sd_notify(3))."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path.startswith(("/", "@")):
        return False
    address = "\0" + path[1:] if path.startswith("@") else path
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
            sock.setblocking(False)
            sock.connect(address)
            sock.send(state.encode())
    except OSError:
        return False  # a manager that went away, or does not read, is no reason to stop serving
    return True


def reloading() -> None:
    """Say that a reload has begun (`Type=notify-reload` wants the time of it)."""
    notify(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")


def watchdog_s() -> float | None:
    """Return how often to say `WATCHDOG=1`, in seconds: half of what systemd allows."""
    given, pid = os.environ.get("WATCHDOG_USEC", ""), os.environ.get("WATCHDOG_PID", "")
    if not given.isdigit() or (pid.isdigit() and int(pid) != os.getpid()):
        return None
    return int(given) / _MICRO / 2


def handed_socket() -> socket.socket | None:
    """Return the listening socket that systemd opened for this process, if it did.

    Raises:
        ConfigError: It handed over several, or one that does not listen.
    """
    count, pid = os.environ.get("LISTEN_FDS", ""), os.environ.get("LISTEN_PID", "")
    if not count.isdigit() or pid != str(os.getpid()):
        return None
    if int(count) != 1:
        raise ConfigError(f"socket activation: expected one socket, came {count}")
    sock = socket.socket(fileno=os.dup(_FIRST))
    try:
        listens = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) == 1
    except OSError:
        listens = False
    if not listens:
        sock.close()
        raise ConfigError("socket activation: expected a socket that listens")
    return sock
