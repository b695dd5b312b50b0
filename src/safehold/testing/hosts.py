"""A recorded host: files, commands and a log in memory, healthy unless a test plants a fault."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from safehold.canonical import canonical, sha256_hex
from safehold.govern.controls.facts.host import FileFacts
from safehold.govern.controls.facts.site import Site
from safehold.govern.controls.facts.trust_log import (
    CaseFacts,
    LogReading,
    Occurrence,
    PersonFacts,
    RecordFacts,
    RuleFacts,
)
from safehold.govern.controls.interface import DAY, OPEN_PLACES, AbsentError, ClosedError, HostError
from safehold.secure.egress.simulation.example_flows import operating_flows

NOW = 1_800_000_000
_STATE = "/var/lib/safehold/state"
_EGRESS = "/var/lib/safehold/egress"
_MODEL = "/var/lib/safehold/weights/brewer"
WORKLOAD = "ab" * 32
BUNDLE = "cd" * 32


@dataclass(frozen=True)
class RecordedHost:
    """What a host answered once; every field may be replaced by a planted fault."""

    files: Mapping[str, bytes]
    commands: Mapping[tuple[str, ...], str]
    reading: LogReading
    modes: Mapping[str, int] = field(default_factory=dict)
    owners: Mapping[str, int] = field(default_factory=dict)
    links: Mapping[str, str] = field(default_factory=dict)
    killed: frozenset[str] = frozenset()
    closed: frozenset[str] = frozenset()
    now: int = NOW
    name: str = "gpu-1"
    pid: int = 0

    def read(self, path: str) -> bytes:
        """Return a recorded file."""
        if path in self.killed:
            raise HostError(f"{path}: Input/output error")
        if path in self.closed:
            raise ClosedError(f"{path}: Operation not permitted")
        if path not in self.files:
            raise AbsentError(f"{path} is not there")
        return self.files[path]

    def head(self, path: str, size: int) -> bytes:
        """Return the beginning of a recorded file."""
        return self.read(path)[:size]

    def names(self, path: str) -> tuple[str, ...]:
        """Return the names below a directory of recorded files."""
        prefix = path.rstrip("/") + "/"
        found = {one[len(prefix) :].split("/")[0] for one in self.files if one.startswith(prefix)}
        if not found:
            raise AbsentError(f"{path} is not there")
        return tuple(sorted(found))

    def stat(self, path: str) -> FileFacts:
        """Return what a recorded file's metadata say."""
        if path in self.files:
            mode = 0o100000 | self.modes.get(path, 0o600)
            return FileFacts(mode, self.owners.get(path, 0), 0, len(self.files[path]), NOW)
        self.names(path)
        return FileFacts(0o040755, 0, 0, 0, NOW)

    def link(self, path: str) -> str:
        """Return a recorded link."""
        if path not in self.links:
            raise AbsentError(f"{path} is not there")
        return self.links[path]

    def run(self, *argv: str) -> str:
        """Return what a recorded command printed."""
        if argv[0] in self.killed:
            raise HostError(f"{argv[0]} was killed by signal 9")
        if argv not in self.commands:
            raise AbsentError(f"{argv[0]} is not installed")
        return self.commands[argv]

    def log(self, folder: str, keys: str) -> LogReading:
        """Return the recorded log."""
        del folder, keys
        if "log" in self.killed:
            raise HostError("the log: the entries do not have the root that the checkpoint signs")
        return self.reading

    # ---- planting ------------------------------------------------------------------------

    def file(self, path: str, content: str | bytes) -> "RecordedHost":
        """Return the host with one file more, or another content."""
        data = content.encode() if isinstance(content, str) else content
        return replace(self, files={**self.files, path: data})

    def without(self, path: str) -> "RecordedHost":
        """Return the host without a file or folder."""
        kept = {
            one: data
            for one, data in self.files.items()
            if one != path and not one.startswith(f"{path}/")
        }
        return replace(self, files=kept)

    def command(self, *argv: str, said: str) -> "RecordedHost":
        """Return the host where a command prints something else."""
        return replace(self, commands={**self.commands, argv: said})

    def swapped(self, path: str, old: str, new: str) -> "RecordedHost":
        """Return the host with a text in a file replaced; it must be there."""
        text = self.files[path].decode()
        if old not in text:
            raise ValueError(f"{path} does not hold {old!r}")
        return self.file(path, text.replace(old, new))

    def said(self, *argv: str, old: str, new: str) -> "RecordedHost":
        """Return the host with a text in a command's answer replaced; it must be there."""
        if old not in self.commands[argv]:
            raise ValueError(f"{argv[0]} does not print {old!r}")
        return self.command(*argv, said=self.commands[argv].replace(old, new))

    def stated(self, name: str, **changes: Any) -> "RecordedHost":
        """Return the host with fields of a document replaced; `a.b` can't be a keyword: nest."""
        path = f"{_STATE}/{name}.json"
        found = json.loads(self.files[path])
        unknown = set(changes) - set(found)
        if unknown:
            raise ValueError(f"{name} has no {unknown}")
        return self.file(path, json.dumps(found | changes))

    def rows(self, name: str, key: str, number: int = 0, **changes: Any) -> "RecordedHost":
        """Return the host with fields of one row of a document replaced."""
        rows = json.loads(self.files[f"{_STATE}/{name}.json"])[key]
        rows[number] = rows[number] | changes
        return self.stated(name, **{key: rows})

    def logged(self, **changes: Any) -> "RecordedHost":
        """Return the host with fields of its log replaced."""
        return replace(self, reading=msgspec.structs.replace(self.reading, **changes))

    def with_case(self, case: CaseFacts) -> "RecordedHost":
        """Return the host with one case more in its log."""
        return self.logged(cases=(*self.reading.cases, case))

    def case_changed(self, operation: str, **changes: Any) -> "RecordedHost":
        """Return the host with the cases of an operation changed."""
        cases = tuple(
            msgspec.structs.replace(one, **changes) if one.operation == operation else one
            for one in self.reading.cases
        )
        return self.logged(cases=cases)

    def undrilled(self, name: str) -> "RecordedHost":
        """Return the host whose newest drill of a name failed."""
        failed = RecordFacts(
            time=NOW - 60, kind="drill", facts={"drill": name, "outcome": "failed", "seconds": "0"}
        )
        return self.logged(records=(*self.reading.records, failed))


SITE = Site(
    resolvers=("192.0.2.53/32",),
    proxies=("192.0.2.80/32",),
    mirrors=("mirror.example",),
    listening=(8443,),
    workloads=(WORKLOAD,),
    setuid=("/usr/bin/sudo",),
    accounts=("root", "ops"),
    weight_uids=(990,),
    freezes=((NOW - 10 * DAY, NOW - 9 * DAY),),
)

DRILLS = (
    "egress-drift",
    "egress-slow",
    "egress-ratio",
    "egress-beacon",
    "egress-direct-https",
    "egress-icmp",
    "egress-kill-switch",
    "weights-archiving",
    "weights-open",
    "weights-gate-killed",
    "grant-revoked",
    "weights-verify",
    "weights-sample",
    "endpoint-killed",
    "metadata-service",
    "failed-logins",
    "exfiltration",
    "decoy-weights",
    "decoy-credential",
    "decoy-service",
    "incident",
    "mass-revocation",
    "loss-estimate",
    "sample-audit",
)

FLOWS = f"version = 1\n\n{operating_flows()}"

PLAN = """version = 1
mode = "enforce"
[weights]
size = "1 TB"
[bound]
compression = 0.0625
steal_days = 30
[link]
interfaces = ["eth0"]
rate = "200 Mbit/s"
"""

_SIZES = {
    "metrics": {"hour": 2_000_000, "day": 40_000_000, "week": 250_000_000, "month": 10**9},
    "names": {"hour": 200_000, "day": 4_000_000, "week": 25_000_000, "month": 100_000_000},
}


def header() -> bytes:
    """Return the header of a sealed model of 1 TB."""
    inner = {
        "format": "safehold-sealed/1",
        "cipher": "AES-256-GCM",
        "seal_id": "0" * 32,
        "model": "brewer",
        "version": "1",
        "created": NOW - 10 * DAY,
        "chunk_bytes": 2**20,
        "digest": "sha256",
        "shards": [
            {
                "name": f"model-{number}.safetensors",
                "plain_bytes": 5 * 10**11,
                "salt": f"{number:064x}",
                "plain_digest": "1" * 64,
                "sealed_digest": "2" * 64,
            }
            for number in (1, 2)
        ],
        "key_check": "3" * 64,
        "revision": 1,
        "wrapped": [
            {"provider": "shares", "reference": "brewer 2-of-3", "blob": "x"},
            {"provider": "vault", "reference": "transit/brewer", "blob": "y"},
        ],
        "shredded": False,
    }
    return json.dumps({"header": inner, "key_id": "0" * 16, "signature": "s"}).encode()


def _nft() -> str:
    chains = [("output", "output"), ("forward", "forward"), ("f_metrics", ""), ("f_names", "")]
    items: list[dict[str, Any]] = []
    for name, hook in chains:
        hooked = {"hook": hook, "policy": "drop", "type": "filter", "prio": 0} if hook else {}
        items.append(
            {"chain": {"family": "inet", "table": "safehold_egress", "name": name} | hooked}
        )
    items += [
        {"quota": {"name": f"q_{flow}_{window}", "bytes": size, "used": 0, "inv": True}}
        for flow, sizes in _SIZES.items()
        for window, size in sizes.items()
    ]
    return json.dumps({"nftables": items})


def _commands() -> dict[tuple[str, ...], str]:
    sshd = "\n".join(
        f"{key} no"
        for key in (
            "passwordauthentication",
            "kbdinteractiveauthentication",
            "allowagentforwarding",
            "allowtcpforwarding",
            "permitrootlogin",
        )
    )
    tree = {
        "blockdevices": [
            {"type": "part", "mountpoint": "/boot"},
            {
                "type": "part",
                "mountpoint": None,
                "children": [{"type": "crypt", "mountpoint": "/"}],
            },
        ]
    }
    rules = ["/var/lib/safehold/weights", "/etc/sudoers", "/etc/safehold"]
    return {
        ("nft", "-j", "list", "ruleset"): _nft(),
        ("tc", "-j", "qdisc", "show"): json.dumps(
            [{"dev": "eth0", "root": True, "kind": "tbf", "options": {"rate": 25_000_000}}]
        ),
        ("ss", "-Hltn"): "LISTEN 0 128 0.0.0.0:8443 0.0.0.0:*\nLISTEN 0 8 127.0.0.1:9000 *:*\n",
        ("sshd", "-T"): sshd,
        ("who",): "ops pts/0 2027-01-15 08:00\n",
        ("dpkg-query", "-W", "-f", "${Package} ${Version}\n"): "bash 5.2\nsudo 1.9\n",
        ("auditctl", "-s"): "enabled 2\nlost 0\n",
        ("auditctl", "-l"): "\n".join(f"-w {one} -p rwa" for one in rules) + "\n-S init_module",
        ("chronyc", "-c", "tracking"): "C0000201,ntp,2,1.0,0.000100,0,0,0,0,0,0,0,0,Normal\n",
        ("chronyc", "-c", "authdata"): "ntp,NTS,1,30,128,60,0,0,8,100\n",
        ("lsblk", "-J", "-o", "NAME,TYPE,MOUNTPOINT"): json.dumps(tree),
        ("getcap", "-r", "/usr/bin", "/usr/sbin"): "",
    }


def _system_files() -> dict[str, str]:
    values = {
        "fs/suid_dumpable": "0",
        "kernel/core_pattern": "|/bin/false",
        "kernel/io_uring_disabled": "2",
        "kernel/kptr_restrict": "2",
        "kernel/dmesg_restrict": "1",
        "kernel/modules_disabled": "1",
        "kernel/perf_event_paranoid": "3",
        "kernel/unprivileged_bpf_disabled": "2",
        "kernel/yama/ptrace_scope": "2",
        "kernel/random/boot_id": "boot-1",
        "net/netfilter/nf_conntrack_acct": "1",
        "user/max_user_namespaces": "0",
        "vm/memfd_noexec": "2",
    }
    mount = "{n} 1 0:{n} / {t} rw,nosuid,nodev,noexec - tmpfs tmpfs rw"
    files = {f"/proc/sys/{name}": value + "\n" for name, value in values.items()}
    files |= {
        "/proc/self/mountinfo": "\n".join(
            mount.format(n=n, t=t) for n, t in enumerate(OPEN_PLACES)
        ),
        "/proc/modules": "ext4 1 1 - Live 0\n",
        "/proc/swaps": "Filename Type Size Used Priority\n",
        "/etc/modprobe.d/usb.conf": "install usb-storage /bin/false\nblacklist uas\n",
        "/sys/kernel/security/lockdown": "none [integrity] confidentiality\n",
        "/sys/kernel/security/lsm": "lockdown,yama,apparmor,bpf\n",
        "/sys/module/module/parameters/sig_enforce": "Y\n",
        "/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c": "\6\0\0\0\1",
        "/sys/class/net/eth0/type": "1\n",
        "/sys/power/state": "freeze mem\n",
        "/dev/nvidia0": "",
        "/etc/passwd": (
            "root:x:0:0:root:/root:/bin/bash\nops:x:1000:1000::/home/ops:/bin/bash\n"
            "vllm:x:990:990::/srv:/usr/sbin/nologin\n"
        ),
        "/etc/shadow": "root:*:1::::::\nops:!:1::::::\nvllm:!:1::::::\n",
        "/etc/group": "vllm:x:990:\nops:x:1000:\n",
        "/etc/sudoers": "ops ALL=(root) /usr/bin/systemctl status safehold\n",
        "/etc/apt/sources.list": "deb https://mirror.example/debian bookworm main\n",
        "/usr/bin/sudo": "",
        "/usr/bin/bash": "",
    }
    for pid, command in ((100, "safehold serve"), (101, "safehold weights meter run"),
                         (102, "safehold endpoint guard")):  # fmt: skip
        files |= {
            f"/proc/{pid}/cmdline": command.replace(" ", "\0"),
            f"/proc/{pid}/status": "Uid:\t990\t990\nSeccomp:\t2\nNoNewPrivs:\t1\nCapEff:\t0\n",
            f"/proc/{pid}/fdinfo/3": "fanotify flags:0\nfanotify ino:1 sdev:2 mask:3\n",
        }
    return files


def _documents() -> dict[str, dict[str, Any]]:
    change = {
        "id": "c-1",
        "author": "p-dev1",
        "approvers": ["p-dev2", "p-sec1"],
        "owners": ["p-dev2"],
        "security_approvers": ["p-sec1"],
        "critical": True,
        "touches_weights": True,
        "hardware_signed": True,
        "risk": "high",
        "test": "t-1",
        "rollback": "r-1",
        "approved_tree": "1" * 64,
        "merged_tree": "1" * 64,
        "merged_at": NOW - 5 * DAY,
        "deployer": "p-ops1",
        "emergency": False,
        "reviewed_at": 0,
    }
    hasty = change | {
        "id": "c-2",
        "emergency": True,
        "merged_at": NOW - 3 * DAY,
        "reviewed_at": NOW - 3 * DAY + 3600,
    }
    program = {
        "name": "safehold",
        "kind": "program",
        "sha256": WORKLOAD,
        "source_reviewed": True,
        "builder": "ci",
        "provenance_level": 3,
        "rebuilt_sha256": WORKLOAD,
        "sbom_written": NOW - DAY,
        "signed": True,
    }
    row = {
        "id": "r-1",
        "keyed_by": "sha256",
        "owner": "p-ops1",
        "reason": "serving",
        "ticket": "OPS-1",
        "expires": NOW + 90 * DAY,
        "approvers": ["p-dev2", "p-sec1"],
    }
    return {
        "changes": {
            "changes": [change, hasty],
            "refs": {"main": [True, True]},
            "allowed_signers_kinds": ["sk-ssh-ed25519@openssh.com"],
        },
        "deployments": {
            "deployed": [
                program,
                program | {"name": "stock", "kind": "bundle", "sha256": BUNDLE},
            ],
            "builders": ["ci"],
            "drift": [],
            "drift_checked": NOW - 60,
        },
        "endpoint": {
            "mode": "enforce",
            "rows": [row],
            "inventory": 9000,
            "inventory_signed": True,
            "unowned": 0,
            "stopped": ["unknown-elf", "unknown-library", "shell-script", "python-script"],
            "ran": [],
            "policy_sha256": "4" * 64,
            "replay_differences": 0,
            "engines_differing": [],
            "engines_equal": ["fapolicyd", "ima", "systemd"],
            "dropped_events": 0,
            "report_lag_s": 2.0,
            "learn_days": 14,
            "would_block_per_day": 0.1,
            "compilers": ["apt"],
            "approved_compilers": ["apt"],
            "preload": "",
        },
        "secrets": {
            "zones": {"enclave": ["f1"], "office": ["f2"]},
            "exposed": [],
            "scanned_files": 10_000,
            "certificates": {"gateway": DAY},
            "plaintext_services": [],
        },
        "staff": {
            "present": ["p-dev1", "p-dev2", "p-dev3", "p-sec1", "p-sec2", "p-ops1"],
            "departed": {"p-old": NOW - 30 * DAY},
            "at_risk": ["p-dev3"],
            "conflicting_roles": [["approver", "auditor"]],
            "recertified": {"t-dev": NOW - DAY, "t-sec": NOW - DAY},
            "services": [{"name": "vllm", "owner": "p-ops1", "rotated": NOW - DAY}],
            "admin_sets": [["p-dev1", "p-sec1"]],
        },
        "copies": {
            "copies": [
                {
                    "name": "b",
                    "kind": "backup",
                    "sealed": True,
                    "logged": True,
                    "sent": 0,
                    "received": 0,
                },
                {
                    "name": "t",
                    "kind": "transfer",
                    "sealed": True,
                    "logged": True,
                    "sent": 9,
                    "received": 9,
                },
            ]
        },
        "outputs": {
            "bytes_per_key": {"k1": 10_000},
            "quota": 1_000_000,
            "top_logprobs": 0,
            "coverage": 1.0,
            "gateway_up": True,
            "bundle_sha256": BUNDLE,
        },
        "flows": {
            "longest_gap_s": 60.0,
            "kept_days": 400,
            "bytes_seen": 10**9,
            "bytes_unattributed": 1000,
            "baseline_edges": ["gateway-serving"],
            "edges": ["gateway-serving"],
            "alerted_edges": [],
        },
        "decoys": {
            "decoys": [
                {"name": kind, "kind": kind, "where": f"/srv/{kind}", "watched": True}
                for kind in ("weights", "credential", "service", "identity")
            ],
            "separable": 0.55,
        },
        "monitoring": {
            "lost": {"fanotify": 0, "nflog": 0},
            "lag_s": 3.0,
            "cases": [{"id": "case-1", "opened": NOW - 2 * DAY, "triaged": NOW - 2 * DAY + 600}],
            "detections": {"d1": ["T1041", "T1048", "T1078", "T1005", "T1562"]},
            "untested": [],
            "heartbeats": {"keyd": NOW - 10},
            "timestamped": NOW - 3600,
            "deleted_without_proof": 0,
        },
        "insider": {
            "pair_share": 0.2,
            "median_approve_s": 240.0,
            "same_device": 0,
            "alerts_per_day": 0.5,
            "recall_n": 40,
            "recall_k": 30,
        },
        "supply": {
            "unpinned": [],
            "pinned": 60,
            "indexes": ["mirror.example"],
            "advisories": {},
            "advisories_written": NOW - DAY,
            "pickles": [],
            "models_unsigned": [],
            "models": 1,
        },
        "baseline": {
            "declared": {"safehold.service": "5" * 64},
            "found": {"safehold.service": "5" * 64},
            "containers": {"gateway": []},
            "hardening": {"ssh": True},
        },
    }


def used(operation: str, *carried_by: str, **changes: Any) -> CaseFacts:
    """Return the case of a grant that was asked for by p-dev1 and used an hour ago."""
    given: dict[str, Any] = {
        "operation": operation,
        "requester": "p-dev1",
        "request": sha256_hex(canonical([operation, list(carried_by)])),
        "carried_by": carried_by,
        "purpose": "Serve the home-brewing model",
        "ticket": "OPS-1",
        "parts": ("model-1.safetensors",),
        "byte_budget": 10**9,
        "not_before": NOW - 2 * 3600,
        "expires": NOW + 3600,
        "workload_sha256": WORKLOAD,
        "requested_at": NOW - 2 * 3600,
        "used_at": NOW - 3600,
    }
    return CaseFacts(**given | changes)


def _reading() -> LogReading:
    load = used("weights.load", "p-dev2", "p-sec1", releases=1)
    shell = used("host.shell", "p-dev2", "p-sec1", requester="p-ops1")
    broken = used(
        "weights.load",
        "p-sec1",
        request="9" * 64,
        requester="p-sec1x",
        broken_at=NOW - 20 * DAY,
        used_at=None,
        reviewers=("p-dev1", "p-dev2"),
        reviews_until=NOW - 19 * DAY,
    )
    cases = (
        load,
        shell,
        broken,
        used("weights.shred", "p-dev2", "p-sec1"),
        used("egress.raise", "p-dev2", "p-sec1"),
        used("policy.change", "p-dev2", "p-sec1"),
        used("vendor.access", "p-dev2", "p-sec1"),
        used("standards.determine", "p-dev2", "p-sec1"),
        used("standards.activate", "p-dev2", "p-sec1"),
    )
    records = [
        RecordFacts(
            time=NOW - 3600,
            kind="drill",
            facts={"drill": name, "outcome": "passed", "seconds": "0.5"},
        )
        for name in DRILLS
    ]
    records += [
        RecordFacts(time=NOW - DAY, kind="seal", digests={"header": sha256_hex(header())}),
        RecordFacts(time=NOW - DAY, kind="bundle-release", digests={"bundle": BUNDLE}),
        RecordFacts(time=NOW - DAY, kind="session", facts={"request": shell.request}),
        *(
            RecordFacts(time=NOW - DAY, kind="change-review", facts={"of": what})
            for what in ("weight-access", "coverage-review", "threat-model-review")
        ),
    ]
    persons = tuple(
        PersonFacts(f"p-{name}", name, "human", (team,), ("approver",), ("passkey",))
        for name, team in (
            ("dev1", "t-dev"),
            ("dev2", "t-dev"),
            ("dev3", "t-dev"),
            ("sec1", "t-sec"),
            ("sec2", "t-sec"),
        )
    )
    keys = ("passkey", "ssh-sk")
    return LogReading(
        size=100,
        last_time=NOW - 60,
        first_time=NOW - 500 * DAY,
        witnessed_size=99,
        witnesses={"w1": NOW - 60, "w2": NOW - 90},
        voids=(),
        cases=cases,
        records=tuple(records),
        uses=(Occurrence(NOW - 3600, load.request),),
        refusals=(Occurrence(NOW - 7200, "8" * 64, "quorum"),),
        alarms=(
            Occurrence(NOW - 3590, load.request, "weight-access"),
            Occurrence(NOW - 7100, "8" * 64, "refused"),
        ),
        persons=(*persons, PersonFacts("p-ops1", "ops", "human", ("t-dev",), (), ("passkey",))),
        rules=(
            RuleFacts("weights.load", 3, 8 * 3600, keys, break_glass=True),
            RuleFacts("weights.shred", 2, 8 * 3600, keys),
            RuleFacts("vendor.access", 2, DAY, keys),
        ),
    )


def healthy() -> RecordedHost:
    """Return a host on which every automatic control passes."""
    state = {
        "boot_id": "boot-1",
        "uptime_s": 1000.0,
        "at": 1000.0,
        "wall_s": NOW - 5.0,
        "accounts": {name: {} for name in _SIZES},
        "approved": _SIZES,
    }
    row = {"passed": {}, "remaining": {}, "undeclared": 0, "line": 10**6}
    timeline = [row | {"time": NOW - age, "residual": {"metrics": 1000.0}} for age in (20.0, 10.0)]
    files: dict[str, bytes] = {name: text.encode() for name, text in _system_files().items()}
    for name, content in _documents().items():
        files[f"{_STATE}/{name}.json"] = json.dumps({"written": NOW - 60} | content).encode()
    files |= {
        "/etc/safehold/flows.toml": FLOWS.encode(),
        "/etc/safehold/egress.toml": PLAN.encode(),
        f"{_EGRESS}/enforcement.json": json.dumps(state).encode(),
        f"{_EGRESS}/timeline.jsonl": "\n".join(json.dumps(one) for one in timeline).encode(),
        f"{_MODEL}/header.json": header(),
        f"{_MODEL}/model-1.safetensors.sealed": b"\x91" * 64,
    }
    owners = {name: 990 for name in files if name.startswith(_MODEL)}
    return RecordedHost(
        files=files,
        commands=_commands(),
        reading=_reading(),
        modes={"/usr/bin/sudo": 0o4755, "/usr/bin/bash": 0o755, "/dev/nvidia0": 0o660},
        owners=owners,
        links={f"/proc/{pid}/exe": "/usr/bin/python3.11" for pid in (100, 101, 102)},
    )
