"""Planted faults: what somebody did to the host, and exactly which controls must turn red."""

from collections.abc import Mapping
from dataclasses import replace

from safehold.govern.controls.engine import judged
from safehold.govern.controls.facts.readers import collect
from safehold.govern.controls.interface import DAY, Assurance, ControlStatus, Judge
from safehold.govern.controls.judges.table import JUDGES
from safehold.govern.controls.library import stock_catalogue
from safehold.testing.host_plants import (
    DRILL_OF,
    MODEL,
    STATE,
    TIMELINE,
    Plant,
    case_changed,
    files_changed,
    flows_changed,
    header_changed,
    link_changed,
    mode_changed,
    old_seal,
    one_more,
    owned,
    parameter,
    person_changed,
    records_kept,
    row_changed,
    rule_changed,
    rules_changed,
    stated,
    undrilled,
    without_review,
)
from safehold.testing.hosts import DRILLS, NOW, SITE, RecordedHost, header, healthy

PLANTS: dict[str, Plant] = {
    **{f"drill {name} failed": (undrilled(name), {DRILL_OF[name]}) for name in DRILLS},
    # egress
    "ruleset changed: a way out accepts by default": (
        rules_changed('"hook": "output", "policy": "drop"', '"hook": "output", "policy": "accept"'),
        {"egr-01"},
    ),
    "a chain that no row declares": (
        rules_changed('"name": "f_names"', '"name": "f_other"'),
        {"egr-02"},
    ),
    "quota raised by hand": (rules_changed('"bytes": 40000000,', '"bytes": 90000000,'), {"egr-03"}),
    "quota that does not match when spent": (
        rules_changed(
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
        header_changed('"plain_bytes": 500000000000', '"plain_bytes": 500000000'),
        {"egr-05"},
    ),
    "a flow above a window's budget": (
        lambda host: host.swapped(
            STATE, '"names": {}', '"names": {"passed": 300000, "samples": [[999.0, 300000]]}'
        ),
        {"egr-06"},
    ),
    "odometers of another boot": (parameter("kernel/random/boot_id", "boot-2"), {"egr-07"}),
    "a budget that nobody approved": (
        lambda host: host.swapped(STATE, '"hour": 200000', '"hour": 100000'),
        {"egr-08"},
    ),
    "a budget that one person raised": (
        one_more("egress.raise", "p-dev2", request="7" * 64),
        {"egr-08"},
    ),
    "unexplained bytes above the line": (
        lambda host: host.swapped(TIMELINE, "1000.0", "2000000.0"),
        {"egr-09"},
    ),
    "names asked of a stranger": (
        flows_changed('destination = ["192.0.2.53/32"]', 'destination = ["198.51.100.53/32"]'),
        {"egr-14"},
    ),
    "web past the proxy": (flows_changed("ports = [4317]", "ports = [443]"), {"egr-15"}),
    "ICMP to a whole network": (
        flows_changed(
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
    "flow records with a gap": (stated("flows", longest_gap_s=900.0), {"egr-19"}),
    "kernel that counts no connections": (
        parameter("net/netfilter/nf_conntrack_acct", "0"),
        {"egr-19"},
    ),
    "bytes without a process": (stated("flows", bytes_unattributed=10**8), {"egr-20"}),
    "a stick's driver is loaded": (
        lambda host: host.file("/proc/modules", "usb_storage 1 0 - Live 0\n"),
        {"egr-21"},
    ),
    "a radio": (lambda host: host.file("/sys/class/bluetooth/hci0", ""), {"egr-22"}),
    "a key above its quota": (stated("outputs", bytes_per_key={"k1": 10**9}), {"egr-24"}),
    # access to weights
    "weights open to others": (
        lambda host: mode_changed(host, f"{MODEL}/model-1.safetensors.sealed", 0o644),
        {"wac-01"},
    ),
    "a person in the serving group": (
        lambda host: host.swapped("/etc/group", "vllm:x:990:", "vllm:x:990:ops"),
        {"wac-01"},
    ),
    "a key released on one approval": (
        one_more("weights.load", "p-dev2", releases=1, request="6" * 64, used_at=NOW - 60),
        {"wac-02"},
    ),
    "an own approval": (one_more("people.enrol", "p-dev1", "p-dev2"), {"wac-03"}),
    "approval by a software key": (rule_changed("weights.load", keys=("ssh",)), {"wac-04"}),
    "a forged approval in the log": (
        lambda host: host.logged(voids=("leaf 9: the signature does not verify",)),
        {"wac-05"},
    ),
    "a rule for a week": (rule_changed("weights.shred", max_duration_s=7 * DAY), {"wac-06"}),
    "a request without a ticket": (case_changed("weights.shred", ticket="none"), {"wac-07"}),
    "a grant for everything": (
        one_more("weights.load", "p-dev2", "p-sec1", parts=("*",), request="5" * 64),
        {"wac-08"},
    ),
    "the read meter is gone": (lambda host: host.file("/proc/101/fdinfo/3", ""), {"wac-09"}),
    "break-glass that nobody reviewed": (
        one_more(
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
        stated(
            "staff",
            present=["p-dev1", "p-dev2", "p-sec1", "p-ops1"],
            departed={"p-dev3": NOW - 60, "p-sec2": NOW - 60},
        ),
        {"wac-14"},
    ),
    "an unknown program loaded weights": (
        one_more("weights.load", "p-dev2", "p-sec1", workload_sha256="ef" * 32, request="3" * 64),
        {"wac-15"},
    ),
    "a shell without a grant": (
        lambda host: host.command("who", said="ops pts/0 x\nmallory pts/1 y\n"),
        {"wac-16"},
    ),
    "a copy of weights that nobody registered": (
        lambda host: owned(
            host.file("/var/lib/safehold/weights/copy/header.json", header() + b"\n")
        ),
        {"wac-18"},
    ),
    "memory open to ptrace": (parameter("kernel/yama/ptrace_scope", "0"), {"wac-19"}),
    "a refusal that nobody heard of": (
        lambda host: host.logged(alarms=host.reading.alarms[:1]),
        {"wac-20"},
    ),
    "plain weights on disk": (
        lambda host: owned(
            host.file(f"{MODEL}/x.safetensors", (64).to_bytes(8, "little") + b'{"a":1}')
        ),
        {"war-01"},
    ),
    "a closed file that no header names": (
        lambda host: owned(
            replace(host.file(f"{MODEL}/y.sealed", b"?"), closed=frozenset({f"{MODEL}/y.sealed"}))
        ),
        {"war-01"},
    ),
    "the key lies beside the data": (header_changed('"vault"', '"local"'), {"war-02"}),
    "one share opens": (header_changed("2-of-3", "1-of-3"), {"war-03"}),
    "two shards with one key": (header_changed("2" * 0 + f"{2:064x}", f"{1:064x}"), {"war-04"}),
    "a key that was never changed": (old_seal, {"war-05"}),
    "swap": (
        lambda host: host.file("/proc/swaps", "Filename\n/dev/sda3 partition 1 0 -2\n"),
        {"war-08"},
    ),
    "a backup in the clear": (row_changed("copies", "copies", 0, sealed=False), {"war-10"}),
    "shredded by one": (one_more("weights.shred", "p-dev2", request="2" * 64), {"war-11"}),
    "a transfer that lost bytes": (row_changed("copies", "copies", 1, received=8), {"war-12"}),
    # change
    "a change approved by one": (
        row_changed(
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
    "a change signed by software": (
        row_changed("changes", "changes", hardware_signed=False),
        {"chg-02"},
    ),
    "a change that no owner saw": (
        row_changed("changes", "changes", owners=["p-dev9"]),
        {"chg-03"},
    ),
    "a critical change without security": (
        row_changed("changes", "changes", security_approvers=[]),
        {"chg-04"},
    ),
    "a rewritten history": (stated("changes", refs={"main": [True, False]}), {"chg-05"}),
    "a ref that nobody remembers": (stated("changes", refs={"main": []}), {"chg-05"}),
    "one person changed the policy": (case_changed("policy.change", carried_by=()), {"chg-06"}),
    "a risky change without a way back": (
        row_changed("changes", "changes", rollback=""),
        {"chg-07"},
    ),
    "drift": (stated("deployments", drift=["nft"]), {"chg-08"}),
    "bundle unreleased": (row_changed("deployments", "deployed", 1, sha256="9" * 64), {"chg-09"}),
    "a replaced program still runs": (
        lambda host: link_changed(host, "/proc/100/exe", "/usr/bin/python3.11 (deleted)"),
        {"chg-10"},
    ),
    "an emergency that nobody reviewed": (
        row_changed("changes", "changes", 1, reviewed_at=0),
        {"chg-11"},
    ),
    "a merge in a freeze": (
        row_changed("changes", "changes", merged_at=NOW - 10 * DAY + 60),
        {"chg-12"},
    ),
    "deployed by its author": (row_changed("changes", "changes", deployer="p-dev1"), {"chg-13"}),
    "changed after its approval": (
        row_changed("changes", "changes", merged_tree="2" * 64),
        {"chg-15"},
    ),
    "a build that differs": (
        row_changed("deployments", "deployed", rebuilt_sha256="0" * 64),
        {"chg-16"},
    ),
    "no list of parts": (row_changed("deployments", "deployed", sbom_written=0), {"sup-01"}),
    "an unpinned dependency": (stated("supply", unpinned=["requests"]), {"sup-02"}),
    "a known fault left open": (stated("supply", advisories={"CVE-1": NOW - 20 * DAY}), {"sup-03"}),
    "built by a stranger": (row_changed("deployments", "deployed", builder="laptop"), {"sup-04"}),
    "a pickle": (stated("supply", pickles=["x.pt"]), {"sup-05"}),
    "a model without a signature": (stated("supply", models_unsigned=["x"]), {"sup-06"}),
    "packages from elsewhere": (
        lambda host: host.file("/etc/apt/sources.list", "deb http://evil.example x main\n"),
        {"lat-10"},
    ),
    "updates that wait for a restart": (
        lambda host: host.file("/run/reboot-required", ""),
        {"hst-01"},
    ),
    # binary allowlisting
    "endpoint guard only learns": (stated("endpoint", mode="learn"), {"bin-01"}),
    "a row keyed by path": (row_changed("endpoint", "rows", keyed_by="path"), {"bin-02"}),
    "an inventory without a signature": (stated("endpoint", inventory_signed=False), {"bin-03"}),
    "a foreign library ran": (stated("endpoint", ran=["unknown-library"]), {"bin-04"}),
    "a foreign script ran": (stated("endpoint", ran=["shell-script"]), {"bin-05"}),
    "programs from /tmp": (
        lambda host: host.swapped(
            "/proc/self/mountinfo",
            "/tmp rw,nosuid,nodev,noexec",  # noqa: S108 - a line of mounts
            "/tmp rw,nosuid,nodev",  # noqa: S108 - a line of mounts
        ),
        {"bin-06"},
    ),
    "a row that expired": (row_changed("endpoint", "rows", expires=NOW - 1), {"bin-07"}),
    "enforced after a day": (stated("endpoint", learn_days=1), {"bin-08"}),
    "dropped events": (stated("endpoint", dropped_events=3), {"bin-09"}),
    "a compiler that nobody approved": (stated("endpoint", compilers=["apt", "gcc"]), {"bin-10"}),
    "unsigned modules": (
        lambda host: files_changed(
            host,
            {
                "/proc/sys/kernel/modules_disabled": "0",
                "/sys/kernel/security/lockdown": "[none] integrity\n",
                "/sys/module/module/parameters/sig_enforce": "N\n",
            },
        ),
        {"bin-11", "hst-06"},
    ),
    "decisions that differ": (stated("endpoint", replay_differences=2), {"bin-13"}),
    "an engine that decides otherwise": (stated("endpoint", engines_differing=["ima"]), {"bin-14"}),
    "too few engines": (stated("endpoint", engines_equal=["ima"]), {"bin-14"}),
    "endpoint guard dead": (lambda host: host.without("/proc/102"), {"bin-15"}),
    # host
    "a hardening rule failed": (stated("baseline", hardening={"ssh": False}), {"hst-02"}),
    "a new set-uid program": (lambda host: mode_changed(host, "/usr/bin/bash", 0o4755), {"hst-03"}),
    "sudo without a password": (
        lambda host: host.file("/etc/sudoers", "ops ALL=(ALL) NOPASSWD: ALL\n"),
        {"hst-04"},
    ),
    "user namespaces": (parameter("user/max_user_namespaces", "1000"), {"hst-05"}),
    "no lockdown": (
        lambda host: host.file("/sys/kernel/security/lockdown", "[none] integrity\n"),
        {"hst-06"},
    ),
    "a privileged container": (
        stated("baseline", containers={"gateway": ["privileged"]}),
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
    "accelerator open to all": (lambda host: mode_changed(host, "/dev/nvidia0", 0o666), {"hst-10"}),
    "a new unit": (
        stated("baseline", found={"safehold.service": "5" * 64, "x": "6" * 64}),
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
    "a certificate for a year": (
        stated("secrets", certificates={"gateway": 365 * DAY}),
        {"lat-03"},
    ),
    "one secret in two zones": (
        stated("secrets", zones={"enclave": ["f1"], "office": ["f1"]}),
        {"lat-04"},
    ),
    "a secret in a file": (stated("secrets", exposed=["/etc/x"]), {"lat-05"}),
    "a new edge between hosts": (
        stated("flows", edges=["gateway-serving", "office-serving"]),
        {"lat-06"},
    ),
    "a session without a record": (records_kept(lambda one: one.kind != "session"), {"lat-07"}),
    "somebody who left is enrolled": (person_changed("sec2", id="p-old"), {"iam-03"}),
    "a team that nobody recertified": (
        stated("staff", recertified={"t-dev": NOW - DAY}),
        {"iam-04"},
    ),
    "a service account of nobody": (
        stated("staff", services=[{"name": "vllm", "owner": "p-old", "rotated": NOW}]),
        {"iam-05"},
    ),
    "a vendor for a month": (case_changed("vendor.access", expires=NOW + 30 * DAY), {"iam-07"}),
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
    "lost events": (stated("monitoring", lost={"nflog": 7}), {"mon-04"}),
    "ledger gap": (stated("outputs", coverage=0.9999), {"mon-04"}),
    "a detection without a test": (stated("monitoring", untested=["d1"]), {"mon-06"}),
    "a case that nobody looked at": (row_changed("monitoring", "cases", triaged=0), {"mon-07"}),
    "gateway down": (stated("outputs", gateway_up=False), {"mon-08"}),
    "uses of weights that nobody reviewed": (without_review("weight-access"), {"mon-09"}),
    "no outside time": (stated("monitoring", timestamped=NOW - 3 * DAY), {"mon-10"}),
    "deleted without a proof": (stated("monitoring", deleted_without_proof=1), {"mon-11"}),
    "two roles that must be apart": (
        person_changed("dev3", roles=("approver", "auditor")),
        {"ins-01"},
    ),
    "one administrator alone": (stated("staff", admin_sets=[["p-dev1"]]), {"ins-02"}),
    "alerts on everybody": (stated("insider", alerts_per_day=40.0), {"ins-03"}),
    "a pair that approves everything": (stated("insider", pair_share=0.9), {"ins-04"}),
    "a leaver with the usual quorum": (stated("staff", at_risk=["p-dev1"]), {"ins-05"}),
    "decoy removed": (
        stated(
            "decoys",
            decoys=[
                {"name": kind, "kind": kind, "where": "x", "watched": True}
                for kind in ("credential", "service", "identity")
            ],
        ),
        {"dec-01"},
    ),
    "decoy credential unwatched": (row_changed("decoys", "decoys", 1, watched=False), {"dec-02"}),
    "decoy service unwatched": (row_changed("decoys", "decoys", 2, watched=False), {"dec-03"}),
    "decoy identity unwatched": (row_changed("decoys", "decoys", 3, watched=False), {"dec-04"}),
    "decoys that stand out": (stated("decoys", separable=0.95), {"dec-05"}),
    "gaps that nobody reviewed": (without_review("coverage-review"), {"gov-02"}),
    "an exception of one person": (
        one_more(
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
        case_changed("standards.activate", carried_by=("p-dev2",)),
        {"gov-09"},
    ),
    "a threat model out of date": (without_review("threat-model-review"), {"gov-10"}),
}


def automatic_red(host: RecordedHost, judges: Mapping[str, Judge] = JUDGES) -> set[str]:
    """Return the automatic controls that are not satisfied on a recorded host."""
    facts = collect(host, SITE)
    automatic = [one.id for one in stock_catalogue().controls if one.way is Assurance.AUTOMATIC]
    return {
        name for name in automatic if judged(judges[name], facts)[0] is not ControlStatus.PASSED
    }


def tried_judges() -> dict[str, bool]:
    """Try the judge of each automatic control by the faults that it claims.

    True: it is green on the healthy host, and each fault of the table that it claims turns red
    exactly the controls that claim that fault.
    """
    green = automatic_red(healthy())
    found: dict[str, bool] = {}
    for plant, claims in PLANTS.values():
        exact = automatic_red(plant(healthy())) == claims
        for name in claims:
            found[name] = found.get(name, name not in green) and exact
    return found
