"""`safehold egress`: declare, compile, enforce and explain what leaves this host."""

import datetime as dt
import functools
import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
import msgspec

from safehold.cli._egress_hidden import command as hidden_bits_command
from safehold.cli._egress_tools import TOOLS
from safehold.cli._places import out_file, out_folder
from safehold.cli._reads import (
    NamedPlace,
    any_place,
    json_file,
    log_folder,
    read_json,
    rows_file,
    text_file,
    toml_file,
)
from safehold.cli._values import SENTENCE, Finite, WholeNumber
from safehold.errors import UsageError
from safehold.secure.egress.enforcement.enforce import Enforcer
from safehold.secure.egress.interface import AuditLog, Authorizer, KernelError, WeightGrants

if TYPE_CHECKING:
    from safehold.secure.egress.declare.plan import EgressPlan
    from safehold.secure.egress.detectors.detectors import Detector
    from safehold.secure.egress.enforcement.snapshot import Snapshot
    from safehold.secure.egress.kernel.repeats import RepeatReader
    from safehold.secure.egress.watch.counts import CountsPeer
    from safehold.secure.egress.watch.watch import Watch

Command = TypeVar("Command", bound=Callable[..., Any])
_DEFAULT_STATE = "/var/lib/safehold/egress"
_LOG_MEMORY = "log-memory"


def files(command: Command) -> Command:
    """Add --register, --plan and --json."""
    register = click.option(
        "--register",
        "register_file",
        type=toml_file(made_by="`safehold egress init`"),
        default="egress.toml",
        help="The register of flows.",
    )
    plan = click.option(
        "--plan",
        "plan_file",
        type=toml_file(made_by="`safehold egress init`"),
        default="egress-plan.toml",
        help="The plan of budgets.",
    )
    as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")
    return register(plan(as_json(command)))


def host(command: Command) -> Command:
    """Add the options of commands that touch this host."""
    folder = click.option(
        "--state",
        "state_dir",
        type=NamedPlace(folder=True),
        default=_DEFAULT_STATE,
        show_default=True,
        help="Where enforcement remembers what was sent.",
    )
    netns = click.option("--netns", default=None, help="Enforce a named network namespace.")
    log = click.option(
        "--log",
        "log_dir",
        type=log_folder(),
        default=None,
        envvar="SAFEHOLD_LOG",
        help="Transparency log whose two-party grants may loosen anything (none: nothing may).",
    )
    keys = click.option(
        "--keys",
        "key_dir",
        type=log_folder(),
        default=None,
        envvar="SAFEHOLD_LOG_KEYS",
        help="The log's private keys.",
    )
    releases = click.option(
        "--releases",
        "releases_file",
        type=toml_file(),
        default=None,
        envvar="SAFEHOLD_RELEASES",
        help="TOML file that names the log of releases: only what it released is applied.",
    )
    return folder(netns(log(keys(releases(files(command))))))


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def egress() -> None:
    """Limit, account for and explain every byte that leaves the enclave.

    \b
    Examples:
      safehold egress init                      write an example register and plan
      safehold egress plan                      does the register keep the bound?
      safehold egress apply --first             enforce it in the kernel
      safehold egress run --senders senders.toml
      safehold egress drill                     try to get bytes out, in namespaces
    """


for _tool in (*TOOLS, hidden_bits_command()):
    egress.add_command(_tool)


class EnforcerHost(msgspec.Struct, frozen=True):
    """An enforcer with the trust it was opened with."""

    enforcer: Enforcer
    audit: AuditLog
    authorizer: Authorizer
    grants: WeightGrants


def _open(
    register_file: Path,
    plan_file: Path,
    state_dir: Path,
    netns: str | None,
    log_dir: Path | None,
    key_dir: Path | None,
    files: Mapping[str, Path | None] | None = None,
    releases_file: Path | None = None,
) -> EnforcerHost:
    from safehold.cli._trust import open_desk
    from safehold.secure.egress.declare.plan import load_plan
    from safehold.secure.egress.declare.register import load_register
    from safehold.secure.egress.enforcement.audit import ChainedLog
    from safehold.secure.egress.enforcement.log_adapter import (
        BothLogs,
        DeskAudit,
        DeskAuthorizer,
        DeskWeightGrants,
    )
    from safehold.secure.egress.enforcement.loosening import file_digests
    from safehold.secure.egress.enforcement.state import StateFile
    from safehold.secure.egress.explain.senders import key_files
    from safehold.secure.egress.interface import NoWeightGrants, RefuseAll
    from safehold.secure.egress.kernel.nft import NftKernel
    from safehold.trust.release.interface import ArtefactKind
    from safehold.trust.released.follow import ReleaseLog
    from safehold.trust.released.interface import read_release_settings

    rules, limits = load_register(register_file), load_plan(plan_file)
    keyed = (files or {}).get("senders")
    if releases_file is not None:
        log = ReleaseLog(read_release_settings(releases_file), time.time)
        log.admit_settings(ArtefactKind.EGRESS_REGISTER, rules)
        log.admit_settings(ArtefactKind.EGRESS_PLAN, limits)
    audit: AuditLog = ChainedLog(state_dir / "audit.jsonl")
    authorizer: Authorizer = RefuseAll()
    grants: WeightGrants = NoWeightGrants()
    if log_dir is not None:
        desk = open_desk(log_dir, key_dir)
        audit = BothLogs([audit, DeskAudit(desk, os.uname().nodename)])
        authorizer = DeskAuthorizer(desk, os.uname().nodename, state_dir / _LOG_MEMORY)
        grants = DeskWeightGrants(desk)
    enforcer = Enforcer(
        register=rules,
        plan=limits,
        store=StateFile(state_dir),
        audit=audit,
        authorizer=authorizer,
        kernel=NftKernel(netns),
        files=file_digests(files or {}, {"senders": key_files(keyed)} if keyed else {}),
    )
    return EnforcerHost(enforcer, audit, authorizer, grants)


def _today() -> dt.date:
    return dt.datetime.now(dt.UTC).date()


def _print(value: object) -> None:
    click.echo(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


@egress.command()
@files
def plan(register_file: Path, plan_file: Path, as_json: bool) -> None:
    """Say whether the register keeps the plan's bound, and what the worst case is.

    \b
    Examples:
      safehold egress plan --register egress.toml --plan egress-plan.toml
      safehold egress plan --json
    """
    from safehold.secure.egress.bounds.budget import prove
    from safehold.secure.egress.bounds.proof import proof_markdown
    from safehold.secure.egress.declare.plan import load_plan
    from safehold.secure.egress.declare.register import load_register

    rules, limits = load_register(register_file), load_plan(plan_file)
    live = rules.live(_today())
    for flow in rules.expired(_today()):
        click.echo(f"expired, so undeclared: {flow.id} ({flow.expires})", err=True)
    proof = prove(live, limits)
    if as_json:
        _print(proof)
        return
    click.echo(proof_markdown(proof, live, limits))


@egress.command("compile")
@files
@click.option(
    "--out",
    type=out_folder(),
    required=True,
    help="Folder for the transaction and the proof.",
)
def compile_(register_file: Path, plan_file: Path, as_json: bool, out: Path) -> None:
    """Write the nftables transaction and the proof, without touching the kernel.

    \b
    Examples:
      safehold egress compile --out build/
    """
    from safehold.secure.egress.bounds.budget import prove
    from safehold.secure.egress.bounds.proof import proof_markdown
    from safehold.secure.egress.declare.plan import load_plan
    from safehold.secure.egress.declare.register import load_register
    from safehold.secure.egress.kernel.ruleset import (
        Desired,
        Quota,
        budgets_of,
        transaction,
    )

    rules, limits = load_register(register_file), load_plan(plan_file)
    live = rules.live(_today())
    proof = prove(live, limits)
    quotas = {
        (name, window): Quota(limit=limit, fresh=True)
        for name, windows in budgets_of(live, limits).items()
        for window, limit in windows.items()
    }
    numbers = {flow.source.user: 0 for flow in live if flow.source.user}
    spaces = {flow.source.netns: flow.source.netns[:15] for flow in live if flow.source.netns}
    desired = Desired(live, limits, numbers, spaces, quotas)
    out.mkdir(parents=True, exist_ok=True)
    text = msgspec.json.format(msgspec.json.encode(transaction(desired)), indent=1)
    (out / "rules.nft.json").write_bytes(text + b"\n")
    (out / "proof.md").write_text(proof_markdown(proof, live, limits))
    (out / "proof.json").write_bytes(msgspec.json.encode(proof) + b"\n")
    names = ["rules.nft.json", "proof.md", "proof.json"]
    if as_json:
        _print({"files": names, "residual_line": proof.residual_line})
        return
    click.echo(f"wrote {', '.join(names)}; user ids are filled in by `apply` on its host")


def approved_files(command: Command) -> Command:
    """Add the files that `apply` approves beside register and plan."""
    senders = click.option(
        "--senders", type=toml_file(), default=None, help="Who signs rows of explained bytes."
    )
    quotas = click.option(
        "--quotas", type=toml_file(), default=None, help="TOML of bytes and tokens per account."
    )
    detectors = click.option(
        "--detectors",
        type=json_file(made_by="`safehold egress baseline`"),
        default=None,
        help="From `safehold egress baseline`.",
    )
    return senders(quotas(detectors(command)))


def _given(
    senders: Path | None, quotas: Path | None, detectors: Path | None
) -> dict[str, Path | None]:
    return {"senders": senders, "quotas": quotas, "detectors": detectors}


@egress.command()
@host
@approved_files
@click.option("--first", is_flag=True, help="This host was never enforced before.")
def apply(
    first: bool,
    senders: Path | None,
    quotas: Path | None,
    detectors: Path | None,
    as_json: bool,
    **where: Any,
) -> None:
    """Make the kernel hold the register and plan; spent budget stays spent.

    Anything that loosens (a larger budget, a new flow, map mode) needs a two-party grant of
    `egress.raise` on exactly this plan, in the log given with --log.

    \b
    Examples:
      safehold egress apply --first --senders senders.toml
      safehold egress apply --log trust-log
    """
    from safehold.secure.egress.bounds.budget import prove

    opened = _open(**where, files=_given(senders, quotas, detectors))
    prove(opened.enforcer.flows, opened.enforcer.plan)
    snapshot = opened.enforcer.apply(first=first)
    _show(snapshot, as_json=as_json)


@egress.command("reload")
@host
@approved_files
def reload_(
    senders: Path | None,
    quotas: Path | None,
    detectors: Path | None,
    as_json: bool,
    **where: Any,
) -> None:
    """Apply the files anew and tell the running watch to read them; no packet meets a gap.

    Refuses what `apply` refuses, and then nothing changes.

    \b
    Examples:
      safehold egress reload
      safehold egress reload --senders senders.toml --log trust-log
    """
    from safehold.cli._egress_run import tell_to_reload
    from safehold.secure.egress.bounds.budget import prove

    opened = _open(**where, files=_given(senders, quotas, detectors))
    prove(opened.enforcer.flows, opened.enforcer.plan)
    snapshot = opened.enforcer.apply()
    _show(snapshot, as_json=as_json)
    pid = tell_to_reload(where["state_dir"])
    said = f"process {pid} reads its files again" if pid else "no watch runs on this state"
    click.echo(said, err=True)


@egress.command()
@host
def status(as_json: bool, **where: Any) -> None:
    """Read the kernel's counters, move the windows, and say what is left.

    \b
    Examples:
      safehold egress status
      safehold egress status --json
    """
    opened = _open(**where)
    _show(opened.enforcer.tick(renew=False), as_json=as_json)
    state = _watch(opened, where["state_dir"]).state
    if as_json:
        return
    for name, value in state.scores.items():
        click.echo(f"shape: {name} {value:.2f}")
    if state.shape.skipped:
        click.echo(f"query log: {state.shape.skipped} lines skipped that were no questions")
    for name in state.over:
        click.echo(f"over its quota: {name}")
    if state.hidden_bits is not None:
        click.echo(f"hidden bits per token: at most {state.hidden_bits:.2f}")


def _show(snapshot: "Snapshot", *, as_json: bool) -> None:
    from safehold.secure.egress.units import human_bytes

    if as_json:
        _print(snapshot)
        return
    click.echo(f"{'flow':<26}{'left':>10}{'dropped':>10}   remaining")
    for name, passed in snapshot.passed.items():
        left = ", ".join(f"{w} {human_bytes(b)}" for w, b in snapshot.remaining[name].items())
        dropped = human_bytes(snapshot.dropped[name])
        click.echo(f"{name:<26}{human_bytes(passed):>10}{dropped:>10}   {left}")
    click.echo(f"undeclared: {human_bytes(snapshot.undeclared)}")
    for line in _closed(snapshot):
        click.echo(line)
    for finding in snapshot.findings:
        click.echo(f"finding: {finding}", err=True)


def _closed(snapshot: "Snapshot") -> Iterator[str]:
    """Yield what is closed now, and what opens it again."""
    if snapshot.sealed:
        yield "sealed: nothing leaves (`safehold egress release '*'`, with a grant)"
    for flow in snapshot.blocked:
        yield f"blocked: {flow} (`safehold egress release {flow}`, with a grant)"
    for flow in snapshot.throttled:
        yield f"throttled: {flow} has a tenth of its budgets (`safehold egress release {flow}`)"
    for device in snapshot.cut:
        yield f"cut: {device} is down (`safehold egress release '*'`, with a grant)"


@egress.command()
@files
@click.argument("protocol", type=click.Choice(["tcp", "udp", "icmp", "icmpv6"]))
@click.argument("destination")
@click.argument("port", type=click.IntRange(0, 65_535), default=0)
@click.option("--uid", type=WholeNumber(0, 2**32 - 1), default=None, help="Who sends, by number.")
@click.option("--user", default="", help="Who sends, by name.")
@click.option("--serve", is_flag=True, help="A reply: PORT is the local one.")
@click.option("--interface", default="", help="The interface that it leaves by.")
@click.option("--cgroup", default="", help="The cgroup of the sender.")
def explain(
    register_file: Path,
    plan_file: Path,
    as_json: bool,
    protocol: str,
    destination: str,
    port: int,
    uid: int | None,
    user: str,
    serve: bool,
    interface: str,
    cgroup: str,
) -> None:
    """Say which row a packet belongs to, and why it passes or is dropped.

    \b
    Examples:
      safehold egress explain tcp 192.0.2.10 4317 --user otel
      safehold egress explain udp 2001:db8::1 443
    """
    import ipaddress

    from safehold.secure.egress.bounds.budget import flows_to_cut
    from safehold.secure.egress.declare.plan import load_plan
    from safehold.secure.egress.declare.register import load_register
    from safehold.secure.egress.interface import Direction, Tuple5
    from safehold.secure.egress.units import human_bytes

    try:
        ipaddress.ip_address(destination)
    except ValueError as error:
        raise UsageError("DESTINATION: expected an IP address") from error
    rules, limits = load_register(register_file), load_plan(plan_file)
    way = Direction.SERVE if serve else Direction.OUT
    seen = Tuple5(
        protocol, destination, port, way, uid=uid, user=user, interface=interface, cgroup=cgroup
    )
    flow = rules.owner_of(seen, _today())
    verdict = "passes within its budgets" if flow else f"undeclared: {limits.mode} mode"
    if as_json:
        _print({"flow": flow.id if flow else None, "verdict": verdict})
        return
    if flow is None:
        action = "dropped" if limits.mode == "enforce" else "let through and recorded"
        click.echo(f"no live row declares it: {action}")
        return
    click.echo(f"{flow.id}: {flow.purpose} ({flow.owner}); expires {flow.expires}")
    for window, limit in flow.budget.items():
        click.echo(f"  at most {human_bytes(limit)} in any {window}")
    if flow.id in flows_to_cut(rules.live(_today()), limits):
        click.echo("  and it breaks the bound: `safehold egress plan` refuses the register")


@egress.command()
@host
@click.argument("flow")
@click.option("--reason", type=SENTENCE, required=True, help="Why, for the audit.")
def block(flow: str, reason: str, as_json: bool, **where: Any) -> None:
    """Drop everything of FLOW now (`*` drops everything that leaves).

    \b
    Examples:
      safehold egress block replies --reason "incident 7"
      safehold egress block '*' --reason "incident 7"
    """
    enforcer = _open(**where).enforcer
    _show(
        enforcer.close_all(reason) if flow == "*" else enforcer.block(flow, reason), as_json=as_json
    )


@egress.command()
@host
@click.argument("flow")
@click.option("--reason", type=SENTENCE, required=True, help="Why, for the audit.")
def release(flow: str, reason: str, as_json: bool, **where: Any) -> None:
    """Undo a block or throttle of FLOW (`*`: a seal); needs a grant of `egress.release`.

    \b
    Examples:
      safehold egress release replies --reason "reviewed" --log trust-log
    """
    opened = _open(**where)
    snapshot = opened.enforcer.unblock(flow, reason)
    _watch(opened, where["state_dir"]).forget(flow)
    _show(snapshot, as_json=as_json)


@egress.command()
@host
@click.option(
    "--reason", type=SENTENCE, required=True, help="What the two persons found, for the audit."
)
def review(reason: str, as_json: bool, **where: Any) -> None:
    """Clear the residual odometers after two persons looked; needs a grant of `egress.review`.

    \b
    Examples:
      safehold egress review --reason "weekly review" --log trust-log
    """
    watch = _watch(_open(**where), where["state_dir"])
    watch.review(reason)
    if as_json:
        _print({"reviewed": True})
        return
    click.echo("the residual odometers are at 0")


def _watch(opened: EnforcerHost, state_dir: Path, **more: Any) -> "Watch":
    from safehold.secure.egress.enforcement.state import BootClock
    from safehold.secure.egress.watch.watch import Watch

    return Watch(
        enforcer=opened.enforcer,
        folder=state_dir,
        clock=BootClock(),
        audit=opened.audit,
        grants=opened.grants,
        authorizer=opened.authorizer,
        **more,
    )


def _repeats(netns: str | None, plan: "EgressPlan") -> "RepeatReader | None":
    """What TCP sends again; a box has no sockets, and a kernel that does not tell costs bias."""
    from safehold.secure.egress.kernel.repeats import RepeatReader

    if plan.box.inside:
        return None
    try:
        reader = RepeatReader(netns)
    except KernelError as error:
        click.echo(f"{error}; what is sent again counts as unexplained", err=True)
        return None
    click.get_current_context().call_on_close(reader.close)
    return reader


@egress.command()
@host
@approved_files
@click.option(
    "--interval",
    type=Finite(0.1, 60),
    default=10.0,
    show_default=True,
    help="Seconds from one look to the next.",
)
@click.option(
    "--alert-file",
    type=out_file(),
    default=None,
    help="Append each alarm to this file, as a JSON line.",
)
@click.option("--webhook", default=None, help="URL that gets every alert as JSON.")
@click.option(
    "--metrics",
    type=out_file(makes_folders=True),
    default=None,
    help="Keep counters in this file, for Prometheus' textfile collector.",
)
@click.option("--sockets", is_flag=True, help="Score the shape of TCP connections (PCR, beacons).")
@click.option(
    "--dns-log", type=rows_file(), default=None, help="Resolver's log: JSON of time and name."
)
@click.option(
    "--shape-limits", type=json_file(), default=None, help="JSON of limits by shape score."
)
@click.option("--ticks", type=WholeNumber(1), default=None, help="Stop after so many looks.")
@click.option(
    "--access-log", type=out_file(), default=None, help="A line for each ended connection."
)
@click.option(
    "--page",
    type=out_file(makes_folders=True),
    default=None,
    help="Draw the timeline page anew each minute.",
)
@click.option("--otlp", is_flag=True, help="Export metrics by OpenTelemetry (OTEL_* variables).")
@click.option(
    "--counts",
    type=out_file(makes_folders=True),
    default=None,
    help="Tell the other side our counts here.",
)
@click.option(
    "--counts-key",
    type=text_file(made_by="`safehold egress sender-key`"),
    default=None,
    help="Our key, from `sender-key`.",
)
@click.option("--peer-counts", type=any_place(), default=None, help="The other side's counts.")
@click.option("--peer-key", type=text_file(), default=None, help="The other side's public key.")
def run(
    senders: Path | None,
    detectors: Path | None,
    interval: float,
    alert_file: Path | None,
    webhook: str | None,
    metrics: Path | None,
    sockets: bool,
    dns_log: Path | None,
    shape_limits: Path | None,
    quotas: Path | None,
    ticks: int | None,
    access_log: Path | None,
    page: Path | None,
    otlp: bool,
    counts: Path | None,
    counts_key: Path | None,
    peer_counts: Path | None,
    peer_key: Path | None,
    as_json: bool,
    **where: Any,
) -> None:
    """Watch: move windows, reconcile explained bytes, detect, respond. The rules hold without it.

    \b
    Examples:
      safehold egress run --senders senders.toml --alert-file alerts.jsonl
      safehold egress run --detectors detectors.json --metrics /var/lib/node/egress.prom
      safehold egress run --senders senders.toml --quotas quotas.toml --sockets \\
          --dns-log queries.jsonl --shape-limits limits.json
      safehold egress run --counts host.json --counts-key host.pem \\
          --peer-counts box.json --peer-key box.pub.pem
    """
    from safehold.cli._egress_run import After, keep_watch, to_otlp, to_page, to_textfile
    from safehold.secure.egress.explain.senders import load_sources
    from safehold.secure.egress.explain.tokens import load_quotas
    from safehold.secure.egress.kernel.attribution import tcp_sockets
    from safehold.secure.egress.kernel.holders import holders
    from safehold.secure.egress.watch.access_log import AccessLog
    from safehold.secure.egress.watch.alerts import AlertFile, AlertSink, Webhook
    from safehold.secure.egress.watch.shape_watch import load_limits
    from safehold.secure.egress.watch.watch import Inputs

    opened = _open(**where, files=_given(senders, quotas, detectors))
    opened.enforcer.refuse_missing_files()
    opened.enforcer.repeats = _repeats(where["netns"], opened.enforcer.plan)
    sinks: list[AlertSink] = [AlertFile(alert_file)] if alert_file else []
    sinks += [Webhook(webhook)] if webhook else []
    watch = _watch(
        opened,
        where["state_dir"],
        sources=load_sources(senders, opened.enforcer.register) if senders else None,
        detectors=_detectors(detectors),
        sinks=sinks,
        inputs=Inputs(
            sockets=functools.partial(tcp_sockets, where["netns"]) if sockets else None,
            names=dns_log,
            limits=load_limits(shape_limits) if shape_limits else {},
            quotas=load_quotas(quotas) if quotas else None,
            holders=functools.partial(holders, where["netns"]),
            peer=_peer(opened, counts, counts_key, peer_counts, peer_key),
        ),
    )
    after: list[After] = [to_textfile(metrics)] if metrics else []
    after += [to_otlp()] if otlp else []
    if page:
        after.append(to_page(page, where["state_dir"] / "timeline.jsonl", opened.enforcer.plan))
    if access_log:
        access = AccessLog(access_log, opened.enforcer.register, where["netns"])
        after.append(lambda _: access.look(time.time()))
    keep_watch(
        watch,
        interval=interval,
        ticks=ticks,
        as_json=as_json,
        sinks=sinks,
        after=after,
        state_dir=where["state_dir"],
    )


def _peer(opened: EnforcerHost, *given: Path | None) -> "CountsPeer | None":
    from safehold.secure.egress.explain.senders import load_signer, load_verifier
    from safehold.secure.egress.watch.counts import CountsPeer

    if not any(given):
        return None
    own, own_key, other, other_key = given
    if own is None or own_key is None or other is None or other_key is None:
        raise UsageError("give --counts, --counts-key, --peer-counts and --peer-key together")
    us, them = ("box", "host") if opened.enforcer.plan.box.inside else ("host", "box")
    return CountsPeer(
        path=other,
        party=them,
        verifier=load_verifier(other_key),
        own_path=own,
        own_party=us,
        signer=load_signer(own_key),
    )


def _detectors(path: Path | None) -> "dict[str, Detector]":
    from safehold.secure.egress.detectors.detectors import STEPS, Detector

    if path is None:
        return {}
    found = read_json(path, dict[str, Detector], "detectors from `safehold egress baseline`")
    if any(one.thresholds.steps != STEPS for one in found.values()):
        raise UsageError(
            f"{path.name}: its levels are for the steps of another release; run `safehold egress "
            "baseline` again"
        )
    return found


@egress.command()
@files
@click.option("--netns", default=None, help="The network namespace that was observed.")
@click.option(
    "--log",
    "log_dir",
    type=log_folder(),
    default=None,
    hidden=True,
    help="Where the transparency log is.",
)
def flows(
    register_file: Path, plan_file: Path, as_json: bool, netns: str | None, log_dir: Path | None
) -> None:
    """Show declared flows against what `learn --keep` has seen.

    \b
    Examples:
      safehold egress learn --seconds 3600 --keep
      safehold egress flows
      safehold egress flows --json
    """
    from safehold.secure.egress.declare.register import load_register
    from safehold.secure.egress.kernel.nft import NftKernel
    from safehold.secure.egress.units import human_bytes
    from safehold.secure.egress.watch.observe_flows import compare, seen

    del plan_file, log_dir
    rules = load_register(register_file)
    found = compare(rules, seen(NftKernel(netns)), _today())
    if as_json:
        _print(found)
        return
    for flow in rules.flows:
        state = "expired" if flow.id in found.expired else "live"
        sent = human_bytes(found.declared.get(flow.id, 0))
        click.echo(f"{flow.id:<26}{state:<9}{sent:>10}   {flow.purpose} ({flow.owner})")
    for item in found.undeclared:
        flow5 = item.flow
        where = f"{flow5.protocol} {flow5.destination} {flow5.port} uid {flow5.uid}"
        click.echo(f"{'UNDECLARED':<26}{'':<9}{human_bytes(item.sent):>10}   {where}")


@egress.command("memory")
@click.option(
    "--log-keys",
    type=json_file(),
    required=True,
    help="Your pinned copy of the founded log's log.json.",
)
@click.option(
    "--state",
    "state_dir",
    type=NamedPlace(folder=True),
    default=_DEFAULT_STATE,
    show_default=True,
    help="Where enforcement remembers what was sent.",
)
def memory(log_keys: Path, state_dir: Path) -> None:
    """Pin the log whose grants may loosen anything: once, when the host is set up.

    \b
    Example:
      safehold egress memory --log-keys pinned-log.json
    """
    from safehold.trust.log.keys import read_keys
    from safehold.trust.log.memory import begin_log_memory

    keys = read_keys(log_keys)
    begin_log_memory(state_dir / _LOG_MEMORY, keys)
    click.echo(f"memory made: {state_dir / _LOG_MEMORY}; it pins {keys.origin}, and is made once")


@egress.command("holders")
@click.option("--netns", default=None, help="Look at a named network namespace.")
@click.option("--refuse", is_flag=True, help="Exit with 1 when an unlisted program holds a socket.")
@files
def holders_(
    netns: str | None, refuse: bool, register_file: Path, plan_file: Path, as_json: bool
) -> None:
    """List who could send past the IP stack: packet, raw and XDP sockets, and capabilities.

    \b
    Examples:
      safehold egress holders
      safehold egress holders --refuse --json
    """
    from safehold.secure.egress.declare.plan import load_plan
    from safehold.secure.egress.kernel.holders import holders

    del register_file
    listed = load_plan(plan_file).judge.senders
    found = holders(netns)
    unlisted = [one for one in found if one.sockets and one.program not in listed]
    if as_json:
        _print({"holders": found, "unlisted": unlisted})
    else:
        for one in found:
            click.echo(f"{one.words()}: {', '.join((*one.sockets, *one.rights))}")
    if refuse and unlisted:
        raise SystemExit(1)
