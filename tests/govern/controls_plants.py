"""Planted faults: what somebody did to the host, and exactly which controls must turn red."""

from collections.abc import Callable
from dataclasses import replace

import msgspec

from safehold.canonical import sha256_hex
from safehold.govern.controls.interface import DAY
from safehold.testing.hosts import DRILLS, NOW, RecordedHost, header, used

Plant = tuple[Callable[[RecordedHost], RecordedHost], set[str]]
NFT = ("nft", "-j", "list", "ruleset")
FLOWS, PLAN = "/etc/safehold/flows.toml", "/etc/safehold/egress.toml"
STATE = "/var/lib/safehold/egress/enforcement.json"
TIMELINE = "/var/lib/safehold/egress/timeline.jsonl"
MODEL = "/var/lib/safehold/weights/brewer"
DRILL_OF = {
    "egress-drift": "egr-10", "egress-slow": "egr-11", "egress-ratio": "egr-12",
    "egress-beacon": "egr-13", "egress-direct-https": "egr-15", "egress-icmp": "egr-16",
    "egress-kill-switch": "egr-17", "weights-archiving": "egr-26", "weights-open": "wac-09",
    "weights-gate-killed": "wac-10", "grant-revoked": "wac-11", "weights-verify": "war-06",
    "weights-sample": "war-07", "endpoint-killed": "bin-12", "metadata-service": "lat-09",
    "failed-logins": "iam-08", "exfiltration": "mon-12", "decoy-weights": "dec-01",
    "decoy-credential": "dec-02", "decoy-service": "dec-03", "incident": "res-01",
    "mass-revocation": "res-02", "loss-estimate": "res-05", "sample-audit": "gov-04",
}  # fmt: skip


def _sys(name: str, value: str) -> Callable[[RecordedHost], RecordedHost]:
    return lambda host: host.file(f"/proc/sys/{name}", value)


def _flows(old: str, new: str) -> Callable[[RecordedHost], RecordedHost]:
    return lambda host: host.swapped(FLOWS, old, new)


def _nft(old: str, new: str) -> Callable[[RecordedHost], RecordedHost]:
    return lambda host: host.said(*NFT, old=old, new=new)


def _doc(name: str, **changes: object) -> Callable[[RecordedHost], RecordedHost]:
    return lambda host: host.stated(name, **changes)


def _row(
    name: str, key: str, number: int = 0, **changes: object
) -> Callable[[RecordedHost], RecordedHost]:
    return lambda host: host.rows(name, key, number, **changes)


def _case(operation: str, **changes: object) -> Callable[[RecordedHost], RecordedHost]:
    return lambda host: host.case_changed(operation, **changes)


def _more(
    operation: str, *carried: str, **changes: object
) -> Callable[[RecordedHost], RecordedHost]:
    return lambda host: host.with_case(used(operation, *carried, **changes))


def _header(old: str, new: str) -> Callable[[RecordedHost], RecordedHost]:
    """Change a header, and register the changed copy as if it had been sealed so."""

    def plant(host: RecordedHost) -> RecordedHost:
        changed = host.swapped(f"{MODEL}/header.json", old, new)
        return _register(changed)

    return plant


def _register(host: RecordedHost) -> RecordedHost:
    digest = sha256_hex(host.files[f"{MODEL}/header.json"])
    records = tuple(
        msgspec.structs.replace(one, digests={"header": digest}) if one.kind == "seal" else one
        for one in host.reading.records
    )
    return host.logged(records=records)


def _records(keep: Callable[..., bool]) -> Callable[[RecordedHost], RecordedHost]:
    return lambda host: host.logged(records=tuple(one for one in host.reading.records if keep(one)))


def _old_seal(host: RecordedHost) -> RecordedHost:
    return host.logged(
        records=tuple(
            msgspec.structs.replace(one, time=NOW - 91 * DAY) if one.kind == "seal" else one
            for one in host.reading.records
        )
    )


def _rule(operation: str, **changes: object) -> Callable[[RecordedHost], RecordedHost]:
    return lambda host: host.logged(
        rules=tuple(
            msgspec.structs.replace(one, **changes) if one.operation == operation else one
            for one in host.reading.rules
        )
    )


def _person(name: str, **changes: object) -> Callable[[RecordedHost], RecordedHost]:
    return lambda host: host.logged(
        persons=tuple(
            msgspec.structs.replace(one, **changes) if one.name == name else one
            for one in host.reading.persons
        )
    )


def _reader(kind: str, name: str) -> Callable[[RecordedHost], RecordedHost]:
    return lambda host: host.swapped(f"/proc/{name}/fdinfo/3", "fanotify ino", kind)


def _without_review(what: str) -> Callable[[RecordedHost], RecordedHost]:
    return _records(lambda one: one.facts.get("of") != what)


PLANTS: dict[str, Plant] = {
    **{
        f"drill {name} failed": ((lambda host, name=name: host.undrilled(name)), {DRILL_OF[name]})
        for name in DRILLS
    },
    # egress
    "ruleset changed: a way out accepts by default": (
        _nft('"hook": "output", "policy": "drop"', '"hook": "output", "policy": "accept"'),
        {"egr-01"},
    ),
    "a chain that no row declares": (_nft('"name": "f_names"', '"name": "f_other"'), {"egr-02"}),
    "quota raised by hand": (_nft('"bytes": 40000000,', '"bytes": 90000000,'), {"egr-03"}),
    "quota that does not match when spent": (
        _nft(
            '"q_names_hour", "bytes": 200000, "used": 0, "inv": true',
            '"q_names_hour", "bytes": 200000, "used": 0, "inv": false',
        ),
        {"egr-03"},
    ),
    "link without a shape": (
        lambda host: host.command("tc", "-j", "qdisc", "show", said="[]"),
        {"egr-04"},
    ),
    "a smaller model behind the same budgets": (
        _header('"plain_bytes": 500000000000', '"plain_bytes": 500000000'),
        {"egr-05"},
    ),
    "a flow above a window's budget": (
        lambda host: host.swapped(
            STATE, '"names": {}', '"names": {"passed": 300000, "samples": [[999.0, 300000]]}'
        ),
        {"egr-06"},
    ),
    "odometers of another boot": (_sys("kernel/random/boot_id", "boot-2"), {"egr-07"}),
    "a budget that nobody approved": (
        lambda host: host.swapped(STATE, '"hour": 200000', '"hour": 100000'),
        {"egr-08"},
    ),
    "a budget that one person raised": (
        _more("egress.raise", "p-dev2", request="7" * 64),
        {"egr-08"},
    ),
    "unexplained bytes above the line": (
        lambda host: host.swapped(TIMELINE, "1000.0", "2000000.0"),
        {"egr-09"},
    ),
    "names asked of a stranger": (
        _flows('destination = ["192.0.2.53/32"]', 'destination = ["198.51.100.53/32"]'),
        {"egr-14"},
    ),
    "web past the proxy": (_flows("ports = [4317]", "ports = [443]"), {"egr-15"}),
    "ICMP to a whole network": (
        _flows(
            'protocol = "tcp"\nports = [4317]\ndestination = ["192.0.2.10/32"]',
            'protocol = "icmp"\ndestination = ["192.0.2.0/24"]',
        ),
        {"egr-16"},
    ),
    "undeclared bytes tried to leave": (
        lambda host: host.file(
            TIMELINE,
            host.files[TIMELINE]
            .decode()[::-1]
            .replace('"undeclared": 0'[::-1], '"undeclared": 9'[::-1], 1)[::-1],
        ),
        {"egr-18"},
    ),
    "flow records with a gap": (_doc("flows", longest_gap_s=900.0), {"egr-19"}),
    "kernel that counts no connections": (_sys("net/netfilter/nf_conntrack_acct", "0"), {"egr-19"}),
    "bytes without a process": (_doc("flows", bytes_unattributed=10**8), {"egr-20"}),
    "a stick's driver is loaded": (
        lambda host: host.file("/proc/modules", "usb_storage 1 0 - Live 0\n"),
        {"egr-21"},
    ),
    "a radio": (lambda host: host.file("/sys/class/bluetooth/hci0", ""), {"egr-22"}),
    "a key above its quota": (_doc("outputs", bytes_per_key={"k1": 10**9}), {"egr-24"}),
    # access to weights
    "weights open to others": (
        lambda host: _modes(host, f"{MODEL}/model-1.safetensors.sealed", 0o644),
        {"wac-01"},
    ),
    "a person in the serving group": (
        lambda host: host.swapped("/etc/group", "vllm:x:990:", "vllm:x:990:ops"),
        {"wac-01"},
    ),
    "a key released on one approval": (
        _more("weights.load", "p-dev2", releases=1, request="6" * 64, used_at=NOW - 60),
        {"wac-02"},
    ),
    "an own approval": (_more("people.enrol", "p-dev1", "p-dev2"), {"wac-03"}),
    "approval by a software key": (_rule("weights.load", keys=("ssh",)), {"wac-04"}),
    "a forged approval in the log": (
        lambda host: host.logged(voids=("leaf 9: the signature does not verify",)),
        {"wac-05"},
    ),
    "a rule for a week": (_rule("weights.shred", max_duration_s=7 * DAY), {"wac-06"}),
    "a request without a ticket": (_case("weights.shred", ticket="none"), {"wac-07"}),
    "a grant for everything": (
        _more("weights.load", "p-dev2", "p-sec1", parts=("*",), request="5" * 64),
        {"wac-08"},
    ),
    "the read meter is gone": (lambda host: host.file("/proc/101/fdinfo/3", ""), {"wac-09"}),
    "break-glass that nobody reviewed": (
        _more(
            "weights.load",
            "p-sec1",
            request="4" * 64,
            broken_at=NOW - 3 * DAY,
            used_at=None,
            reviews_until=NOW - 2 * DAY,
        ),
        {"wac-12"},
    ),
    "a use of weights that nobody heard of": (
        lambda host: host.logged(alarms=host.reading.alarms[1:]),
        {"wac-13"},
    ),
    "too few approvers": (
        _doc(
            "staff",
            present=["p-dev1", "p-dev2", "p-sec1", "p-ops1"],
            departed={"p-dev3": NOW - 60, "p-sec2": NOW - 60},
        ),
        {"wac-14"},
    ),
    "an unknown program loaded weights": (
        _more("weights.load", "p-dev2", "p-sec1", workload_sha256="ef" * 32, request="3" * 64),
        {"wac-15"},
    ),
    "a shell without a grant": (
        lambda host: host.command("who", said="ops pts/0 x\nmallory pts/1 y\n"),
        {"wac-16"},
    ),
    "a copy of weights that nobody registered": (
        lambda host: _owned(
            host.file("/var/lib/safehold/weights/copy/header.json", header() + b"\n")
        ),
        {"wac-18"},
    ),
    "memory open to ptrace": (_sys("kernel/yama/ptrace_scope", "0"), {"wac-19"}),
    "a refusal that nobody heard of": (
        lambda host: host.logged(alarms=host.reading.alarms[:1]),
        {"wac-20"},
    ),
    "plain weights on disk": (
        lambda host: _owned(
            host.file(f"{MODEL}/x.safetensors", (64).to_bytes(8, "little") + b'{"a":1}')
        ),
        {"war-01"},
    ),
    "a closed file that no header names": (
        lambda host: _owned(
            replace(host.file(f"{MODEL}/y.sealed", b"?"), closed=frozenset({f"{MODEL}/y.sealed"}))
        ),
        {"war-01"},
    ),
    "the key lies beside the data": (_header('"vault"', '"local"'), {"war-02"}),
    "one share opens": (_header("2-of-3", "1-of-3"), {"war-03"}),
    "two shards with one key": (_header("2" * 0 + f"{2:064x}", f"{1:064x}"), {"war-04"}),
    "a key that was never changed": (_old_seal, {"war-05"}),
    "swap": (
        lambda host: host.file("/proc/swaps", "Filename\n/dev/sda3 partition 1 0 -2\n"),
        {"war-08"},
    ),
    "a backup in the clear": (_row("copies", "copies", 0, sealed=False), {"war-10"}),
    "shredded by one": (_more("weights.shred", "p-dev2", request="2" * 64), {"war-11"}),
    "a transfer that lost bytes": (_row("copies", "copies", 1, received=8), {"war-12"}),
    # change
    "a change approved by one": (
        _row(
            "changes",
            "changes",
            1,
            emergency=False,
            approvers=["p-dev2"],
            reviewed_at=0,
            security_approvers=["p-dev2"],
        ),
        {"chg-01"},
    ),
    "a change signed by software": (_row("changes", "changes", hardware_signed=False), {"chg-02"}),
    "a change that no owner saw": (_row("changes", "changes", owners=["p-dev9"]), {"chg-03"}),
    "a critical change without security": (
        _row("changes", "changes", security_approvers=[]),
        {"chg-04"},
    ),
    "a rewritten history": (_doc("changes", refs={"main": [True, False]}), {"chg-05"}),
    "a ref that nobody remembers": (_doc("changes", refs={"main": []}), {"chg-05"}),
    "one person changed the policy": (_case("policy.change", carried_by=()), {"chg-06"}),
    "a risky change without a way back": (_row("changes", "changes", rollback=""), {"chg-07"}),
    "drift": (_doc("deployments", drift=["nft"]), {"chg-08"}),
    "bundle unreleased": (_row("deployments", "deployed", 1, sha256="9" * 64), {"chg-09"}),
    "a replaced program still runs": (
        lambda host: _link(host, "/proc/100/exe", "/usr/bin/python3.11 (deleted)"),
        {"chg-10"},
    ),
    "an emergency that nobody reviewed": (_row("changes", "changes", 1, reviewed_at=0), {"chg-11"}),
    "a merge in a freeze": (_row("changes", "changes", merged_at=NOW - 10 * DAY + 60), {"chg-12"}),
    "deployed by its author": (_row("changes", "changes", deployer="p-dev1"), {"chg-13"}),
    "changed after its approval": (_row("changes", "changes", merged_tree="2" * 64), {"chg-15"}),
    "a build that differs": (_row("deployments", "deployed", rebuilt_sha256="0" * 64), {"chg-16"}),
    "no list of parts": (_row("deployments", "deployed", sbom_written=0), {"sup-01"}),
    "an unpinned dependency": (_doc("supply", unpinned=["requests"]), {"sup-02"}),
    "a known fault left open": (_doc("supply", advisories={"CVE-1": NOW - 20 * DAY}), {"sup-03"}),
    "built by a stranger": (_row("deployments", "deployed", builder="laptop"), {"sup-04"}),
    "a pickle": (_doc("supply", pickles=["x.pt"]), {"sup-05"}),
    "a model without a signature": (_doc("supply", models_unsigned=["x"]), {"sup-06"}),
    "packages from elsewhere": (
        lambda host: host.file("/etc/apt/sources.list", "deb http://evil.example x main\n"),
        {"lat-10"},
    ),
    "updates that wait for a restart": (
        lambda host: host.file("/run/reboot-required", ""),
        {"hst-01"},
    ),
    # binary allowlisting
    "endpoint guard only learns": (_doc("endpoint", mode="learn"), {"bin-01"}),
    "a row keyed by path": (_row("endpoint", "rows", keyed_by="path"), {"bin-02"}),
    "an inventory without a signature": (_doc("endpoint", inventory_signed=False), {"bin-03"}),
    "a foreign library ran": (_doc("endpoint", ran=["unknown-library"]), {"bin-04"}),
    "a foreign script ran": (_doc("endpoint", ran=["shell-script"]), {"bin-05"}),
    "programs from /tmp": (
        lambda host: host.swapped(
            "/proc/self/mountinfo", "/tmp rw,nosuid,nodev,noexec", "/tmp rw,nosuid,nodev"
        ),
        {"bin-06"},
    ),
    "a row that expired": (_row("endpoint", "rows", expires=NOW - 1), {"bin-07"}),
    "enforced after a day": (_doc("endpoint", learn_days=1), {"bin-08"}),
    "dropped events": (_doc("endpoint", dropped_events=3), {"bin-09"}),
    "a compiler that nobody approved": (_doc("endpoint", compilers=["apt", "gcc"]), {"bin-10"}),
    "unsigned modules": (
        lambda host: _many(
            host,
            {
                "/proc/sys/kernel/modules_disabled": "0",
                "/sys/kernel/security/lockdown": "[none] integrity\n",
                "/sys/module/module/parameters/sig_enforce": "N\n",
            },
        ),
        {"bin-11", "hst-06"},
    ),
    "decisions that differ": (_doc("endpoint", replay_differences=2), {"bin-13"}),
    "an engine that decides otherwise": (_doc("endpoint", engines_differing=["ima"]), {"bin-14"}),
    "too few engines": (_doc("endpoint", engines_equal=["ima"]), {"bin-14"}),
    "endpoint guard dead": (lambda host: host.without("/proc/102"), {"bin-15"}),
    # host
    "a hardening rule failed": (_doc("baseline", hardening={"ssh": False}), {"hst-02"}),
    "a new set-uid program": (lambda host: _modes(host, "/usr/bin/bash", 0o4755), {"hst-03"}),
    "sudo without a password": (
        lambda host: host.file("/etc/sudoers", "ops ALL=(ALL) NOPASSWD: ALL\n"),
        {"hst-04"},
    ),
    "user namespaces": (_sys("user/max_user_namespaces", "1000"), {"hst-05"}),
    "no lockdown": (
        lambda host: host.file("/sys/kernel/security/lockdown", "[none] integrity\n"),
        {"hst-06"},
    ),
    "a privileged container": (
        _doc("baseline", containers={"gateway": ["privileged"]}),
        {"hst-07"},
    ),
    "a service without a sandbox": (
        lambda host: host.swapped("/proc/100/status", "Seccomp:\t2", "Seccomp:\t0"),
        {"hst-08"},
    ),
    "no mandatory access control": (
        lambda host: host.file("/sys/kernel/security/lsm", "lockdown,yama\n"),
        {"hst-09"},
    ),
    "accelerator open to all": (lambda host: _modes(host, "/dev/nvidia0", 0o666), {"hst-10"}),
    "a new unit": (
        _doc("baseline", found={"safehold.service": "5" * 64, "x": "6" * 64}),
        {"hst-11"},
    ),
    "a new account": (
        lambda host: host.file(
            "/etc/passwd",
            host.files["/etc/passwd"].decode() + "mallory:x:1001:1001::/home/mallory:/bin/sh\n",
        ),
        {"hst-12"},
    ),
    "a clock without authentication": (
        lambda host: host.said("chronyc", "-c", "authdata", old="NTS", new="-"),
        {"hst-13"},
    ),
    "a disk in the clear": (
        lambda host: host.said(
            "lsblk", "-J", "-o", "NAME,TYPE,MOUNTPOINT", old='"crypt"', new='"lvm"'
        ),
        {"hst-14"},
    ),
    # lateral movement and identity
    "a new listener": (
        lambda host: host.command("ss", "-Hltn", said="LISTEN 0 8 0.0.0.0:4444 *:*\n"),
        {"lat-01"},
    ),
    "passwords over SSH": (
        lambda host: host.said(
            "sshd", "-T", old="\npermitrootlogin no", new="\npermitrootlogin yes"
        ),
        {"lat-02"},
    ),
    "a certificate for a year": (_doc("secrets", certificates={"gateway": 365 * DAY}), {"lat-03"}),
    "one secret in two zones": (
        _doc("secrets", zones={"enclave": ["f1"], "office": ["f1"]}),
        {"lat-04"},
    ),
    "a secret in a file": (_doc("secrets", exposed=["/etc/x"]), {"lat-05"}),
    "a new edge between hosts": (
        _doc("flows", edges=["gateway-serving", "office-serving"]),
        {"lat-06"},
    ),
    "a session without a record": (_records(lambda one: one.kind != "session"), {"lat-07"}),
    "somebody who left is enrolled": (_person("sec2", id="p-old"), {"iam-03"}),
    "a team that nobody recertified": (_doc("staff", recertified={"t-dev": NOW - DAY}), {"iam-04"}),
    "a service account of nobody": (
        _doc("staff", services=[{"name": "vllm", "owner": "p-old", "rotated": NOW}]),
        {"iam-05"},
    ),
    "a vendor for a month": (_case("vendor.access", expires=NOW + 30 * DAY), {"iam-07"}),
    # monitoring and the rest
    "a log that stands still": (lambda host: host.logged(last_time=NOW - 2 * DAY), {"mon-01"}),
    "witness late": (
        lambda host: host.logged(witnesses={"w1": NOW - 60, "w2": NOW - 7200}),
        {"mon-02"},
    ),
    "log not cosigned": (lambda host: host.logged(witnesses={}), {"mon-02"}),
    "audit rules that can be changed": (
        lambda host: host.said("auditctl", "-s", old="enabled 2", new="enabled 1"),
        {"mon-03"},
    ),
    "lost events": (_doc("monitoring", lost={"nflog": 7}), {"mon-04"}),
    "ledger gap": (_doc("outputs", coverage=0.9999), {"mon-04"}),
    "a detection without a test": (_doc("monitoring", untested=["d1"]), {"mon-06"}),
    "a case that nobody looked at": (_row("monitoring", "cases", triaged=0), {"mon-07"}),
    "gateway down": (_doc("outputs", gateway_up=False), {"mon-08"}),
    "uses of weights that nobody reviewed": (_without_review("weight-access"), {"mon-09"}),
    "no outside time": (_doc("monitoring", timestamped=NOW - 3 * DAY), {"mon-10"}),
    "deleted without a proof": (_doc("monitoring", deleted_without_proof=1), {"mon-11"}),
    "two roles that must be apart": (_person("dev3", roles=("approver", "auditor")), {"ins-01"}),
    "one administrator alone": (_doc("staff", admin_sets=[["p-dev1"]]), {"ins-02"}),
    "alerts on everybody": (_doc("insider", alerts_per_day=40.0), {"ins-03"}),
    "a pair that approves everything": (_doc("insider", pair_share=0.9), {"ins-04"}),
    "a leaver with the usual quorum": (_doc("staff", at_risk=["p-dev1"]), {"ins-05"}),
    "decoy removed": (
        _doc(
            "decoys",
            decoys=[
                {"name": kind, "kind": kind, "where": "x", "watched": True}
                for kind in ("credential", "service", "identity")
            ],
        ),
        {"dec-01"},
    ),
    "decoy credential unwatched": (_row("decoys", "decoys", 1, watched=False), {"dec-02"}),
    "decoy service unwatched": (_row("decoys", "decoys", 2, watched=False), {"dec-03"}),
    "decoy identity unwatched": (_row("decoys", "decoys", 3, watched=False), {"dec-04"}),
    "decoys that stand out": (_doc("decoys", separable=0.95), {"dec-05"}),
    "gaps that nobody reviewed": (_without_review("coverage-review"), {"gov-02"}),
    "an exception of one person": (
        _more(
            "controls.except",
            "p-dev2",
            details={
                "control": "iam-01",
                "owner": "p-sec1",
                "reason": "r",
                "expires": str(NOW + DAY),
            },
        ),
        {"gov-05"},
    ),
    "no determination": (
        lambda host: host.logged(
            cases=tuple(one for one in host.reading.cases if one.operation != "standards.determine")
        ),
        {"gov-08"},
    ),
    "a standard activated by one": (
        _case("standards.activate", carried_by=("p-dev2",)),
        {"gov-09"},
    ),
    "a threat model out of date": (_without_review("threat-model-review"), {"gov-10"}),
}


def _modes(host: RecordedHost, path: str, mode: int) -> RecordedHost:
    return replace(host, modes={**host.modes, path: mode})


def _owned(host: RecordedHost) -> RecordedHost:
    inside = {name: 990 for name in host.files if name.startswith("/var/lib/safehold/weights")}
    return replace(host, owners=inside)


def _link(host: RecordedHost, path: str, to: str) -> RecordedHost:
    return replace(host, links={**host.links, path: to})


def _many(host: RecordedHost, files: dict[str, str]) -> RecordedHost:
    for path, content in files.items():
        host = host.file(path, content)
    return host
