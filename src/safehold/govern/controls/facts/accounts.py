"""Facts of people on the host: accounts, sudo, keys, the SSH server and its sessions."""

from collections.abc import Iterator
from contextlib import suppress

import msgspec

from safehold.govern.controls.facts.host import ControlledHost
from safehold.govern.controls.interface import AbsentError


class LocalAccount(msgspec.Struct, frozen=True):
    """A local account."""

    name: str
    uid: int
    shell: str
    locked: bool


class AccountFacts(msgspec.Struct, frozen=True):
    """Local accounts, the lines of sudoers, and who owns authorized keys."""

    users: tuple[LocalAccount, ...]
    sudoers: tuple[str, ...]
    key_owners: tuple[str, ...]
    groups: dict[str, tuple[str, ...]]


def accounts(host: ControlledHost) -> AccountFacts:
    """Read passwd, shadow, group, sudoers and authorized keys."""
    shadow = {line.split(":")[0]: line.split(":")[1] for line in lines_of(host, "/etc/shadow")}
    users, owners = [], []
    for line in lines_of(host, "/etc/passwd"):
        name, _, uid, _, _, home, shell = line.split(":")
        secret = shadow.get(name, "")
        users.append(LocalAccount(name, int(uid), shell, not secret or secret[0] in "*!"))
        with suppress(AbsentError):
            if lines_of(host, f"{home}/.ssh/authorized_keys"):
                owners.append(name)
    groups = {}
    for line in lines_of(host, "/etc/group"):
        words = line.split(":")
        groups[words[0]] = tuple(one for one in words[3].split(",") if one)
    return AccountFacts(tuple(users), tuple(_sudo(host)), tuple(sorted(set(owners))), groups)


def _sudo(host: ControlledHost) -> Iterator[str]:
    with suppress(AbsentError):
        yield from lines_of(host, "/etc/sudoers")
    with suppress(AbsentError):
        for name in host.names("/etc/sudoers.d"):
            yield from lines_of(host, f"/etc/sudoers.d/{name}")


def lines_of(host: ControlledHost, path: str) -> list[str]:
    """Return the lines of a file that are no comment, without blanks at their ends."""
    text = host.read(path).decode("utf-8", "replace")
    return [line.strip() for line in text.splitlines() if line.strip() and line[0] != "#"]


class SshServer(msgspec.Struct, frozen=True):
    """The effective options of sshd; empty where none is installed."""

    options: dict[str, str]
    sessions: tuple[str, ...]


def ssh_server(host: ControlledHost) -> SshServer:
    """Ask sshd for its options, and who for sessions."""
    options: dict[str, str] = {}
    with suppress(AbsentError):
        for line in host.run("sshd", "-T").splitlines():
            key, _, value = line.partition(" ")
            options[key.lower()] = value
    sessions = tuple(line.split()[0] for line in host.run("who").splitlines() if line.strip())
    return SshServer(options, sessions)
