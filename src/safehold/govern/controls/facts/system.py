"""Facts of the operating system: parameters, mounts, kernel rules, processes, accounts."""

import json
import re
import stat
from collections.abc import Iterator
from contextlib import suppress

import msgspec

from safehold.govern.controls.facts.host import Host
from safehold.govern.controls.interface import AbsentError, HostError

SYSCTLS = (
    "fs/suid_dumpable",
    "kernel/core_pattern",
    "kernel/io_uring_disabled",
    "kernel/kptr_restrict",
    "kernel/dmesg_restrict",
    "kernel/modules_disabled",
    "kernel/perf_event_paranoid",
    "kernel/unprivileged_bpf_disabled",
    "kernel/yama/ptrace_scope",
    "kernel/random/boot_id",
    "net/netfilter/nf_conntrack_acct",
    "user/max_user_namespaces",
    "vm/memfd_noexec",
)
_MAX_PROCESSES = 5000


class Sysctls(msgspec.Struct, frozen=True):
    """Kernel parameters by path; one that this kernel lacks is not there.

    `closed` holds those that could not be read, and why.
    """

    values: dict[str, str]
    closed: dict[str, str] = {}

    def number(self, name: str) -> int:
        """Return a parameter as a number; -1 where the kernel has none; HostError if unreadable."""
        if name in self.closed:
            raise HostError(self.closed[name])
        found = self.values.get(name, "")
        return int(found) if re.fullmatch(r"-?\d+", found) else -1


def sysctls(host: Host) -> Sysctls:
    """Read the parameters that judges ask for."""
    found: dict[str, str] = {}
    closed: dict[str, str] = {}
    for name in SYSCTLS:
        try:
            found[name] = host.read(f"/proc/sys/{name}").decode("ascii", "replace").strip()
        except AbsentError:
            continue
        except HostError as fault:
            closed[name] = str(fault)
    if not found:
        raise HostError("/proc/sys holds none of the parameters")
    return Sysctls(found, closed)


class Mount(msgspec.Struct, frozen=True):
    """One mounted file system."""

    target: str
    fstype: str
    options: frozenset[str]


class Mounts(msgspec.Struct, frozen=True):
    """Everything that is mounted."""

    mounts: tuple[Mount, ...]


def mounts(host: Host) -> Mounts:
    """Read mountinfo: target and options stand before the dash, the type after it."""
    found = []
    for line in host.read("/proc/self/mountinfo").decode("utf-8", "replace").splitlines():
        before, dash, after = line.partition(" - ")
        words = before.split()
        if not dash or len(words) < 6:  # noqa: PLR2004 - proc(5)
            raise HostError("mountinfo has a line of another shape")
        found.append(Mount(words[4], after.split()[0], frozenset(words[5].split(","))))
    return Mounts(tuple(found))


class Chain(msgspec.Struct, frozen=True):
    """A chain of nftables; hook and policy are empty for a plain one."""

    table: str
    name: str
    hook: str = ""
    policy: str = ""


class Quota(msgspec.Struct, frozen=True):
    """A named quota; `over` says that it matches when spent."""

    name: str
    limit: int
    used: int
    over: bool


class Ruleset(msgspec.Struct, frozen=True):
    """The rules that the kernel holds now."""

    chains: tuple[Chain, ...]
    quotas: dict[str, Quota]


class _Chain(msgspec.Struct, frozen=True):
    table: str
    name: str
    hook: str = ""
    policy: str = ""


class _Quota(msgspec.Struct, frozen=True):
    name: str
    limit: int = msgspec.field(name="bytes")
    used: int = 0
    inv: bool = False


class _Item(msgspec.Struct, frozen=True):
    chain: _Chain | None = None
    quota: _Quota | None = None


class _Listing(msgspec.Struct, frozen=True):
    nftables: tuple[_Item, ...]


def ruleset(host: Host) -> Ruleset:
    """Read nftables as JSON."""
    try:
        listed = msgspec.json.decode(host.run("nft", "-j", "list", "ruleset"), type=_Listing)
    except msgspec.DecodeError as error:
        raise HostError(f"nft printed no rules: {error}") from error
    chains = [one.chain for one in listed.nftables if one.chain is not None]
    quotas = [one.quota for one in listed.nftables if one.quota is not None]
    return Ruleset(
        tuple(Chain(one.table, one.name, one.hook, one.policy) for one in chains),
        {one.name: Quota(one.name, one.limit, one.used, one.inv) for one in quotas},
    )


class Shaped(msgspec.Struct, frozen=True):
    """For each device, its root discipline and the rate in bits a second (0: none)."""

    roots: dict[str, tuple[str, int]]


def shaped(host: Host) -> Shaped:
    """Read the traffic disciplines."""
    roots = {}
    for one in json.loads(host.run("tc", "-j", "qdisc", "show")):
        if one.get("root"):
            rate = one.get("options", {}).get("rate", 0)
            roots[one["dev"]] = (one["kind"], int(rate) * 8)
    return Shaped(roots)


class Listener(msgspec.Struct, frozen=True):
    """A listening TCP socket."""

    address: str
    port: int


class Listeners(msgspec.Struct, frozen=True):
    """Everything that listens for TCP."""

    sockets: tuple[Listener, ...]


def listeners(host: Host) -> Listeners:
    """Ask ss; the fourth word is address and port."""
    found = []
    for line in host.run("ss", "-Hltn").splitlines():
        address, _, port = line.split()[3].rpartition(":")
        found.append(Listener(address.strip("[]"), int(port)))
    return Listeners(tuple(found))


class Process(msgspec.Struct, frozen=True):
    """A running program; capabilities as a bit mask."""

    pid: int
    uid: int
    exe: str
    command: str
    seccomp: int = 0
    no_new_privs: bool = False
    capabilities: int = 0
    fanotify_marks: int = 0
    namespaces: str = ""


class Processes(msgspec.Struct, frozen=True):
    """Everything that runs; kernel threads are left out."""

    running: tuple[Process, ...]

    def named(self, words: str) -> tuple[Process, ...]:
        """Return the processes whose command line holds these words."""
        return tuple(one for one in self.running if words in one.command)


def processes(host: Host) -> Processes:
    """Walk /proc; a process that ends meanwhile is none."""
    found = []
    for name in [one for one in host.names("/proc") if one.isdigit()][:_MAX_PROCESSES]:
        with suppress(AbsentError):
            command = (
                host.read(f"/proc/{name}/cmdline").replace(b"\0", b" ").decode("utf-8", "replace")
            )
            if command.strip():
                found.append(_process(host, int(name), command.strip()))
    if not found:
        raise HostError("/proc shows no process")
    return Processes(tuple(found))


def _process(host: Host, pid: int, command: str) -> Process:
    lines = host.read(f"/proc/{pid}/status").decode("utf-8", "replace").splitlines()
    said = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    return Process(
        pid=pid,
        uid=int(said["Uid"].split()[0]),
        exe=_exe(host, pid),
        command=command,
        seccomp=int(said.get("Seccomp", "0")),
        no_new_privs=said.get("NoNewPrivs", "0").strip() == "1",
        capabilities=int(said.get("CapEff", "0"), 16),
        fanotify_marks=_marks(host, pid) if "safehold" in command else 0,
    )


def _exe(host: Host, pid: int) -> str:
    """Return the program's file; empty where another's process does not show it."""
    try:
        return host.link(f"/proc/{pid}/exe")
    except AbsentError:
        raise
    except HostError:
        return ""


def _marks(host: Host, pid: int) -> int:
    marks = 0
    for name in host.names(f"/proc/{pid}/fdinfo"):
        with suppress(AbsentError):
            marks += host.read(f"/proc/{pid}/fdinfo/{name}").count(b"fanotify ino:")
            marks += host.read(f"/proc/{pid}/fdinfo/{name}").count(b"fanotify sdev:")
            marks += host.read(f"/proc/{pid}/fdinfo/{name}").count(b"fanotify mnt_id:")
    return marks


class Account(msgspec.Struct, frozen=True):
    """A local account."""

    name: str
    uid: int
    shell: str
    locked: bool


class Accounts(msgspec.Struct, frozen=True):
    """Local accounts, the lines of sudoers, and who owns authorized keys."""

    users: tuple[Account, ...]
    sudoers: tuple[str, ...]
    key_owners: tuple[str, ...]
    groups: dict[str, tuple[str, ...]]


def accounts(host: Host) -> Accounts:
    """Read passwd, shadow, group, sudoers and authorized keys."""
    shadow = {line.split(":")[0]: line.split(":")[1] for line in _lines(host, "/etc/shadow")}
    users, owners = [], []
    for line in _lines(host, "/etc/passwd"):
        name, _, uid, _, _, home, shell = line.split(":")
        secret = shadow.get(name, "")
        users.append(Account(name, int(uid), shell, not secret or secret[0] in "*!"))
        with suppress(AbsentError):
            if _lines(host, f"{home}/.ssh/authorized_keys"):
                owners.append(name)
    groups = {}
    for line in _lines(host, "/etc/group"):
        words = line.split(":")
        groups[words[0]] = tuple(one for one in words[3].split(",") if one)
    return Accounts(tuple(users), tuple(_sudo(host)), tuple(sorted(set(owners))), groups)


def _sudo(host: Host) -> Iterator[str]:
    with suppress(AbsentError):
        yield from _lines(host, "/etc/sudoers")
    with suppress(AbsentError):
        for name in host.names("/etc/sudoers.d"):
            yield from _lines(host, f"/etc/sudoers.d/{name}")


def _lines(host: Host, path: str) -> list[str]:
    text = host.read(path).decode("utf-8", "replace")
    return [line.strip() for line in text.splitlines() if line.strip() and line[0] != "#"]


class SshServer(msgspec.Struct, frozen=True):
    """The effective options of sshd; empty where none is installed."""

    options: dict[str, str]
    sessions: tuple[str, ...]


def ssh_server(host: Host) -> SshServer:
    """Ask sshd for its options, and who for sessions."""
    options: dict[str, str] = {}
    with suppress(AbsentError):
        for line in host.run("sshd", "-T").splitlines():
            key, _, value = line.partition(" ")
            options[key.lower()] = value
    sessions = tuple(line.split()[0] for line in host.run("who").splitlines() if line.strip())
    return SshServer(options, sessions)


class Kernel(msgspec.Struct, frozen=True):
    """What the kernel was started with, and which modules and devices it has."""

    lockdown: str
    lsm: tuple[str, ...]
    modules: frozenset[str]
    sig_enforce: bool
    has_modules: bool
    refused_modules: frozenset[str]
    wireless: tuple[str, ...]
    swaps: tuple[str, ...]
    hibernation: bool
    gpu_modes: dict[str, int]
    secure_boot: bool
    iommu: int


def kernel(host: Host) -> Kernel:
    """Read /proc/modules, securityfs and sysfs."""

    def text(path: str) -> str:
        try:
            return host.read(path).decode("utf-8", "replace").strip()
        except AbsentError:
            return ""

    def names(path: str) -> tuple[str, ...]:
        try:
            return host.names(path)
        except AbsentError:
            return ()

    listed = text("/proc/modules")
    refused: set[str] = set()
    for name in names("/etc/modprobe.d"):
        words = re.findall(
            r"^(?:blacklist|install)\s+(\S+)", text(f"/etc/modprobe.d/{name}"), re.MULTILINE
        )
        refused.update(word.replace("-", "_") for word in words)
    radios = [one for one in names("/sys/class/net") if names(f"/sys/class/net/{one}/wireless")]
    state = re.search(r"\[(\w+)\]", text("/sys/kernel/security/lockdown"))
    secure = text("/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c")
    gpus = {
        f"/dev/{one}": host.stat(f"/dev/{one}").mode & 0o777
        for one in names("/dev")
        if re.match(r"(nvidia\d+|kfd|accel\d+)$", one)
    }
    return Kernel(
        lockdown=state.group(1) if state else "",
        lsm=tuple(one for one in text("/sys/kernel/security/lsm").split(",") if one),
        modules=frozenset(line.split()[0] for line in listed.splitlines()),
        sig_enforce=text("/sys/module/module/parameters/sig_enforce") == "Y",
        has_modules="kernel/modules_disabled" in sysctls(host).values,
        refused_modules=frozenset(refused),
        wireless=(*radios, *names("/sys/class/bluetooth")),
        swaps=tuple(line.split()[0] for line in text("/proc/swaps").splitlines()[1:]),
        hibernation="disk" in text("/sys/power/state").split(),
        gpu_modes=gpus,
        secure_boot=secure.endswith("\x01"),
        iommu=len(names("/sys/class/iommu")),
    )


class Packages(msgspec.Struct, frozen=True):
    """Installed packages, where updates come from, and whether a restart is due."""

    installed: dict[str, str]
    sources: tuple[str, ...]
    restart_due: bool


def packages(host: Host) -> Packages:
    """Ask dpkg, and read the lists of apt."""
    installed = {}
    for line in host.run("dpkg-query", "-W", "-f", "${Package} ${Version}\n").splitlines():
        name, _, version = line.partition(" ")
        installed[name] = version
    sources: list[str] = []
    for folder in ("/etc/apt/sources.list.d",):
        with suppress(AbsentError):
            for name in host.names(folder):
                sources += _sources(host, f"{folder}/{name}")
    with suppress(AbsentError):
        sources += _sources(host, "/etc/apt/sources.list")
    due = True
    try:
        host.stat("/run/reboot-required")
    except AbsentError:
        due = False
    return Packages(installed, tuple(sources), due)


def _sources(host: Host, path: str) -> list[str]:
    return re.findall(r"https?://([^/\s]+)", "\n".join(_lines(host, path)))


class AuditRules(msgspec.Struct, frozen=True):
    """The rules of the kernel's audit, whether they are locked, and how many events were lost."""

    rules: tuple[str, ...]
    locked: bool
    lost: int


def audit_rules(host: Host) -> AuditRules:
    """Ask auditctl."""
    state = dict(
        line.split(None, 1) for line in host.run("auditctl", "-s").splitlines() if " " in line
    )
    return AuditRules(
        tuple(host.run("auditctl", "-l").splitlines()),
        state.get("enabled", "") == "2",
        int(state.get("lost", "-1")),
    )


class Clock(msgspec.Struct, frozen=True):
    """How the clock is kept: seconds of offset, and whether its source is authenticated."""

    offset_s: float
    authenticated: bool


def clock(host: Host) -> Clock:
    """Ask chrony for its tracking and its authentication."""
    words = host.run("chronyc", "-c", "tracking").strip().split(",")
    authenticated = "NTS" in host.run("chronyc", "-c", "authdata")
    try:
        return Clock(abs(float(words[4])), authenticated)
    except (IndexError, ValueError) as error:
        raise HostError("chronyc printed no tracking") from error


class Disks(msgspec.Struct, frozen=True):
    """Mounted file systems of disks, each with whether an encrypted layer lies below it."""

    encrypted: dict[str, bool]


def disks(host: Host) -> Disks:
    """Ask lsblk for its tree; a child of a `crypt` device is encrypted."""
    found: dict[str, bool] = {}

    def walk(nodes: list[dict[str, object]], *, below: bool) -> None:
        for node in nodes:
            inside = below or node.get("type") == "crypt"
            target = node.get("mountpoint")
            if isinstance(target, str) and target:
                found[target] = inside
            children = node.get("children")
            walk(children if isinstance(children, list) else [], below=inside)

    listed = json.loads(host.run("lsblk", "-J", "-o", "NAME,TYPE,MOUNTPOINT"))
    walk(listed["blockdevices"], below=False)
    return Disks(found)


class Privileged(msgspec.Struct, frozen=True):
    """Programs with set-uid or set-gid bits, and files with capabilities, in the usual places."""

    setuid: frozenset[str]
    capable: frozenset[str]
    world_writable: frozenset[str]


_PLACES = ("/usr/bin", "/usr/sbin", "/usr/local/bin", "/usr/local/sbin", "/usr/lib")


def privileged(host: Host) -> Privileged:
    """Look at modes in the directories of programs, and ask getcap."""
    setuid, writable = set(), set()
    for place in _PLACES:
        with suppress(AbsentError):
            for name in host.names(place):
                path = f"{place}/{name}"
                mode = host.stat(path).mode
                if mode & 0o6000 and stat.S_ISREG(mode):
                    setuid.add(path)
                if mode & 0o002 and stat.S_ISREG(mode):
                    writable.add(path)
    capable = {
        line.rsplit(" ", 1)[0] for line in host.run("getcap", "-r", *_PLACES[:2]).splitlines()
    }
    return Privileged(frozenset(setuid), frozenset(capable), frozenset(writable))
