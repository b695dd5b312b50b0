"""`safehold change`: releases, drift, and the configuration's history."""

import datetime as dt
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from safehold.cli._change_source import SOURCE_COMMANDS
from safehold.cli._change_tuf import tuf
from safehold.cli._places import out_file, out_folder
from safehold.cli._reads import (
    any_place,
    in_folder,
    json_file,
    read_bytes,
    read_text,
    secret_file,
    toml_file,
)
from safehold.cli._trust import json_option, log_options, ssh_key_option
from safehold.cli._values import SENTENCE, Finite
from safehold.errors import ConfigError, UsageError, WireError
from safehold.http_ask import ask, object_of
from safehold.trust.release.needed import NOBODY

if TYPE_CHECKING:
    from safehold.trust.release.interface import Behaviour, Release, ReleaseOperation
    from safehold.trust.release.needed import Vouched

_DAY_S = 86_400
_ASK_S = 10.0

releases_option = click.option(
    "--releases",
    "releases_file",
    type=toml_file(),
    required=True,
    envvar="SAFEHOLD_RELEASES",
    help="TOML file: log, log_keys, channel, documents, memory.",
)
previous_option = click.option(
    "--previous",
    type=json_file(),
    default=None,
    help="The document of the release in force (none: this is the channel's first).",
)


@click.group()
def change() -> None:
    """Change what protects: nothing is weakened by one person.

    \b
    Examples:
      safehold change draft next.json --channel gw --previous now.json \\
          --artefact gateway=safehold.yaml --artefact bundle=bundle/
      safehold change publish next.json --previous now.json --documents releases/ \\
          --ssh-key ~/.ssh/id_ed25519
      safehold change status --releases releases.toml
      safehold change drift --releases releases.toml --artefact gateway=safehold.yaml
      safehold change verify-git BASE..TIP --repository config/
    """


for _command in (*SOURCE_COMMANDS, tuf):
    change.add_command(_command)


@change.command()
@click.argument("path", type=out_file(makes_folders=True))
@click.option("--channel", required=True, help="Whose release this is: a gateway, or a fleet.")
@previous_option
@click.option(
    "--artefact", "artefacts", multiple=True, required=True, help="KIND=PATH; one for each."
)
@click.option(
    "--comparison",
    "comparisons",
    multiple=True,
    type=json_file(),
    help="A comparison of `change compare` that two signed (`change vouch`).",
)
@click.option(
    "--provenance",
    "provenances",
    multiple=True,
    help="NAME=ENVELOPE: who vouches for the artefact of that name (see `change vouch`).",
)
@click.option(
    "--days",
    type=click.IntRange(1, 366),
    default=90,
    show_default=True,
    help="The release holds for so many days.",
)
@json_option
def draft(
    *,
    path: Path,
    channel: str,
    previous: Path | None,
    artefacts: tuple[str, ...],
    comparisons: tuple[Path, ...],
    provenances: tuple[str, ...],
    days: int,
    as_json: bool,
) -> None:
    """Write the document of the next release, and say what it changes.

    \b
    Example:
      safehold change draft next.json --channel gw --artefact gateway=safehold.yaml
    """
    from safehold.canonical import canonical
    from safehold.cli._artefacts import parse_artefact
    from safehold.trust.log.files import write_durably
    from safehold.trust.release.interface import Release, parse_release

    before = None if previous is None else _read(previous)
    now = int(time.time())
    made = Release(
        channel=channel,
        version=1 if before is None else before.version + 1,
        previous="" if before is None else before.sha256,
        artefacts=tuple(parse_artefact(one) for one in artefacts),
        not_before=now,
        expires=now + days * _DAY_S,
        behaviour=tuple(_comparison(one) for one in comparisons),
        provenance=dict(_provenance(one) for one in provenances),
    )
    made = parse_release(canonical(made))
    write_durably(path, canonical(made))
    _show(before, made, as_json=as_json)


@change.command()
@click.argument("path", type=json_file())
@previous_option
@json_option
def show(path: Path, previous: Path | None, as_json: bool) -> None:
    """Say what a release changes, which operation it needs, and its digest.

    \b
    Example:
      safehold change show next.json --previous now.json
    """
    _show(None if previous is None else _read(previous), _read(path), as_json=as_json)


@change.command()
@click.argument("path", type=json_file())
@previous_option
@click.option(
    "--envelope",
    "envelopes",
    multiple=True,
    type=json_file(),
    help="Signed provenance or comparison; it is kept beside the documents.",
)
@click.option(
    "--documents",
    type=out_folder(),
    required=True,
    help="Folder of release documents, from which every verifier reads.",
)
@click.option("--emergency", is_flag=True, help="Ask as release.emergency; it weakens nothing.")
@click.option("--purpose", type=SENTENCE, default="", help="Why, in one line.")
@click.option(
    "--ticket",
    type=SENTENCE,
    default="none",
    show_default=True,
    help="The ticket that this belongs to.",
)
@ssh_key_option
@log_options
def publish(
    *,
    path: Path,
    previous: Path | None,
    documents: Path,
    envelopes: tuple[Path, ...],
    emergency: bool,
    purpose: str,
    ticket: str,
    ssh_key: Path,
    log_dir: Path,
    key_dir: Path | None,
) -> None:
    """Ask for a release by the operation that its changes need; print the request's id.

    It takes effect when the quorum has approved it (`safehold grant approve`).

    \b
    Example:
      safehold change publish next.json --previous now.json --documents releases/ \\
          --ssh-key ~/.ssh/id_ed25519
    """
    from safehold.canonical import canonical, sha256_hex
    from safehold.cli._trust import file_request, open_desk, owner_of
    from safehold.cli._trust_requests import checked, governing_request
    from safehold.trust.log.files import write_durably
    from safehold.trust.release.interface import PublishRelease, ReleaseOperation
    from safehold.trust.release.needed import permits
    from safehold.trust.released.vouching import SUFFIX, vouched_in

    before, made = None if previous is None else _read(previous), _read(path)
    desk = open_desk(log_dir, key_dir)
    state, now = desk.state, desk.now()
    for one in envelopes:
        data = read_bytes(one)
        write_durably(documents / f"{sha256_hex(data)}{SUFFIX}", data)
    vouched = vouched_in(documents, made, state.roster)
    operation = _needed(before, made, vouched)
    if emergency:
        if not permits(ReleaseOperation.EMERGENCY, before, made, vouched):
            raise UsageError("expected a release that weakens nothing for --emergency")
        operation = ReleaseOperation.EMERGENCY
    if (made.previous, made.version) != (
        ("", 1) if before is None else (before.sha256, before.version + 1)
    ):
        raise UsageError("expected --previous to be the release that this one follows")
    details = PublishRelease(
        channel=made.channel,
        version=made.version,
        previous=made.previous,
        release_sha256=made.sha256,
    )
    requester = owner_of(ssh_key, state.roster)
    asked = governing_request(
        state, requester, operation, details, now, purpose=purpose, ticket=ticket
    )
    asked = msgspec.structs.replace(
        asked, host=made.channel, workload_sha256=made.sha256, break_glass=False
    )
    write_durably(documents / f"{made.sha256}.json", canonical(made))
    click.echo(file_request(desk, checked(asked), ssh_key))


@change.command()
@click.argument("path", type=out_file(makes_folders=True))
@click.option("--channel", required=True, help="The channel of releases that the verifier follows.")
@click.option(
    "--log-keys",
    type=json_file(),
    required=True,
    help="Your pinned copy of the log's log.json.",
)
def memory(path: Path, channel: str, log_keys: Path) -> None:
    """Make the memory of a verifier that has seen nothing: once, when it is set up.

    \b
    Example:
      safehold change memory seen.json --channel gw --log-keys pinned-log.json
    """
    from safehold.trust.log.keys import read_keys
    from safehold.trust.released.memory import begin_memory

    begin_memory(path, origin=read_keys(log_keys).origin, channel=channel)
    click.echo(f"memory made: {path}; keep it: without it nothing loads")


@change.command()
@releases_option
@json_option
def status(releases_file: Path, as_json: bool) -> None:
    """Verify the channel's releases and say which one is in force.

    \b
    Example:
      safehold change status --releases releases.toml --json
    """
    from safehold.cli._trust import emit
    from safehold.trust.released.follow import ReleaseLog
    from safehold.trust.released.interface import read_release_settings

    found = ReleaseLog(read_release_settings(releases_file), time.time).current()
    release = found.current
    if as_json:
        emit(
            {
                "channel": release.channel,
                "version": release.version,
                "sha256": release.sha256,
                "operation": found.operation,
                "expires": release.expires,
                "artefacts": [[one.kind, one.path, one.sha256] for one in release.artefacts],
            }
        )
        return
    click.echo(f"release {release.version} of {release.channel} ({found.operation})")
    click.echo(f"document {release.sha256}")
    for one in release.artefacts:
        click.echo(f"  {one.kind.value:<16} {one.sha256[:16]}  {one.path}")


@change.command()
@releases_option
@click.option("--artefact", "artefacts", multiple=True, help="KIND=PATH of what is on disk here.")
@click.option("--gateway", help="Base URL of the running gateway, to ask what it has loaded.")
@click.option(
    "--admin-key-file",
    type=secret_file(),
    help="File with the gateway's admin key.",
)
@click.option(
    "--state",
    "state_dir",
    type=in_folder(),
    default=None,
    help="State folder of egress enforcement: what the kernel was given.",
)
@click.option(
    "--policy",
    "policy_file",
    type=toml_file(),
    default=None,
    help="The host's software policy: the guard must run, with marks, by exactly this file.",
)
@click.option(
    "--socket",
    "socket_path",
    type=any_place(),
    default="/run/safehold/endpoint.sock",
    show_default=True,
    help="With --policy: where the guard answers.",
)
@click.option("--every", type=Finite(1, 60), help="Look again every so many seconds.")
@click.option("--record", is_flag=True, help="Record each finding in the log (needs --log).")
@json_option
@log_options
def drift(
    *,
    releases_file: Path,
    artefacts: tuple[str, ...],
    gateway: str | None,
    admin_key_file: Path | None,
    state_dir: Path | None,
    policy_file: Path | None,
    socket_path: Path,
    every: float | None,
    record: bool,
    as_json: bool,
    log_dir: Path,
    key_dir: Path | None,
) -> None:
    """Compare what runs, what is on disk and what is released; exit 1 if they differ.

    \b
    Examples:
      safehold change drift --releases releases.toml --artefact gateway=safehold.yaml
      safehold change drift --releases releases.toml --gateway http://127.0.0.1:8000 \\
          --admin-key-file admin.key --every 30
      safehold change drift --releases releases.toml --policy /etc/safehold/endpoint.toml
    """
    from safehold.cli._artefacts import parse_artefact
    from safehold.cli._trust import emit, plain
    from safehold.secure.change.drift import drift as find_drift
    from safehold.trust.released.follow import ReleaseLog
    from safehold.trust.released.interface import read_release_settings

    log = ReleaseLog(read_release_settings(releases_file), time.time)
    told: set[str] = set()
    while True:
        running, unread = _running(gateway, admin_key_file, state_dir)
        if policy_file is not None:
            _guarded(policy_file, socket_path, running, unread)
        rows = find_drift(
            log.current().current,
            [parse_artefact(one) for one in artefacts],
            running,
            unread=unread,
        )
        problems = [f"{one.kind} {one.path}: {one.problem}" for one in rows if one.problem]
        if as_json:
            emit([plain(one) for one in rows])
        for one in problems:
            if one not in told:
                click.echo(f"drift: {one}", err=True)
                if record:
                    _record(one, log_dir, key_dir)
        told = set(problems)
        if every is None:
            if problems:
                raise SystemExit(1)
            if not as_json:
                click.echo(f"no drift: {len(rows)} artefacts as released")
            return
        time.sleep(every)


@change.command()
@click.argument("old", type=in_folder())
@click.argument("new", type=in_folder())
@click.option(
    "--out",
    type=out_file(makes_folders=True),
    required=True,
    help="The comparison to write.",
)
def compare(old: Path, new: Path, out: Path) -> None:
    """Compare two bundles by two folders of `safehold eval` on the golden set.

    Two persons measure it and sign what is written (`change vouch`): the same bytes.

    \b
    Example:
      safehold change compare eval-old/ eval-new/ --out comparison.json
    """
    from safehold.canonical import canonical
    from safehold.improve.evaluation.comparing import compare_bundles
    from safehold.trust.log.files import write_durably
    from safehold.trust.release.comparison import comparison_statement

    found = compare_bundles(old, new)
    write_durably(out, canonical(comparison_statement(found)))
    click.echo(f"golden set {found.golden}")
    click.echo(f"{found.items} scores compared; {len(found.lost)} no longer stopped")
    for item in found.lost:
        click.echo(f"lost: {item}")


@change.command("verify-git")
@click.argument("span")
@click.option(
    "--repository",
    type=in_folder(),
    default=".",
    show_default=True,
    help="The git repository of BASE and TIP.",
)
@click.option(
    "--memory",
    "memory_file",
    type=any_place(),
    default=None,
    help="File that remembers what was verified last; the next range must begin there.",
)
@click.option("--uri", default="", help="The repository's name in the verification summary.")
@json_option
def verify_git(
    span: str, repository: Path, memory_file: Path | None, uri: str, as_json: bool
) -> None:
    """Verify every commit of BASE..TIP: signed, reviewed by others, by the policy before it.

    Reviews are notes (`refs/notes/reviews`), which git fetches only if told to.

    \b
    Example:
      safehold change verify-git v1..main --repository config/ --memory verified.json
    """
    from safehold.secure.change.git_verify import Git, summary, verify_range
    from safehold.trust.log.files import change_whole

    base, separator, tip = span.partition("..")
    if not separator or not base or not tip:
        raise UsageError(f"expected BASE..TIP, got {span[:60]!r}")
    remembered = None
    if memory_file is not None and memory_file.exists():
        remembered = read_text(memory_file).strip()
    git = Git(repository)
    now = dt.datetime.now(dt.UTC)
    found = verify_range(git, base, tip, today=now.date(), allowed_base=remembered)
    end = git.oid(tip)
    if memory_file is not None:

        def next_of(data: bytes | None) -> bytes:
            now = None if data is None else data.decode(errors="replace").strip()
            if now != remembered:
                raise UsageError(f"{memory_file} says {now} meanwhile: another one verified; again")
            return end.encode() + b"\n"

        try:
            change_whole(memory_file, next_of)
        except OSError as error:
            raise ConfigError(f"can't write {memory_file}: {error.strerror}") from error
    if as_json:
        told = summary(uri or repository.resolve().name, found, end, now.isoformat())
        click.echo(json.dumps(told, indent=2))
        return
    click.echo(f"ok: {len(found)} commits up to {end[:12]}")
    for one in found:
        by = ", ".join(one.reviewers)
        click.echo(f"  {one.oid[:12]}  {one.author}, reviewed by {by}: {', '.join(one.paths)}")


@change.command()
@click.argument("commit")
@click.option(
    "--repository",
    type=in_folder(),
    default=".",
    show_default=True,
    help="The git repository of the commit.",
)
@click.option("--yes", is_flag=True, help="Do not ask again after naming the commit.")
@ssh_key_option
def review(commit: str, repository: Path, yes: bool, ssh_key: Path) -> None:
    """Sign your review of exactly one commit and its tree, as a note.

    \b
    Example:
      safehold change review HEAD --repository config/ --ssh-key ~/.ssh/id_ed25519
    """
    from safehold.cli._trust import sign_text
    from safehold.secure.change.git_verify import NOTES, REVIEW_NAMESPACE, Git, review_message

    git = Git(repository)
    found = git.commit(git.oid(commit))
    click.echo(f"commit {found.oid}\ntree   {found.tree}")
    if not yes:
        click.confirm("Have you read exactly this?", abort=True)
    signature = sign_text(ssh_key, review_message(found), REVIEW_NAMESPACE)
    git.run("notes", f"--ref={NOTES}", "append", "-F", "-", found.oid, data=signature.encode())
    click.echo(f"reviewed: {found.oid[:12]}; push {NOTES} too")


def _read(path: Path) -> "Release":
    from safehold.trust.release.interface import parse_release

    return parse_release(read_bytes(path))


def _comparison(path: Path) -> "Behaviour":
    from safehold.canonical import sha256_hex
    from safehold.trust.people.interface import Roster
    from safehold.trust.release import comparison
    from safehold.trust.released.vouching import signers

    data = read_bytes(path)
    _, told = signers(
        data, Roster((), ()), predicate=comparison.PREDICATE, namespace=comparison.NAMESPACE
    )
    return comparison.read_comparison(told).behaviour(sha256_hex(data))


def _provenance(text: str) -> tuple[str, str]:
    from safehold.canonical import sha256_hex

    name, separator, path = text.partition("=")
    if not separator:
        raise UsageError(f"expected NAME=ENVELOPE, got {text[:60]!r}")
    return name, sha256_hex(read_bytes(Path(path)))


def _needed(
    before: "Release | None", made: "Release", vouched: "Vouched" = NOBODY
) -> "ReleaseOperation":
    from safehold.trust.release.interface import ReleaseOperation
    from safehold.trust.release.needed import permits

    plain_enough = permits(ReleaseOperation.PUBLISH, before, made, vouched)
    return ReleaseOperation.PUBLISH if plain_enough else ReleaseOperation.WEAKEN


def _show(before: "Release | None", made: "Release", *, as_json: bool) -> None:
    from safehold.cli._trust import emit, plain
    from safehold.trust.release.needed import release_changes
    from safehold.trust.release.orders import GuardDirection

    found = release_changes(before, made)
    needed = _needed(before, made)
    if as_json:
        emit(
            {
                "channel": made.channel,
                "version": made.version,
                "sha256": made.sha256,
                "needs": needed,
                "changes": [plain(one) for one in found],
            }
        )
        return
    click.echo(f"release {made.version} of {made.channel}: {made.sha256}")
    for one in found:
        if one.direction is not GuardDirection.EQUAL:
            click.echo(f"  {one.direction.value:<9} {one.path} ({one.why})")
    click.echo(f"needs {needed.value}")


def _running(
    gateway: str | None, key_file: Path | None, state_dir: Path | None
) -> tuple[dict[str, str], dict[str, str]]:
    """Return, for each kind, the digest of what runs; and why a kind could not be asked."""
    running: dict[str, str] = {}
    unread: dict[str, str] = {}
    if gateway is not None:
        try:
            told = _ask(gateway, key_file)
            for kind, name in (("bundle", "bundle"), ("rules", "bundle"), ("gateway", "settings")):
                if isinstance(told.get(name), str):
                    running[kind] = told[name]
        except (OSError, WireError) as error:
            unread = dict.fromkeys(("bundle", "rules", "gateway"), str(error)[:100])
    if state_dir is not None:
        running |= _enforced(state_dir)
    return running, unread


def _guarded(
    policy: Path, socket_path: Path, running: dict[str, str], unread: dict[str, str]
) -> None:
    """Note the digest of the policy that the guard's marks hold; or why it can't be said."""
    from safehold.canonical import sha256_hex
    from safehold.cli._artefacts import read_artefact
    from safehold.secure.endpoint.heartbeat import StaleGuardError, guarding
    from safehold.trust.release.interface import ArtefactKind

    kind = ArtefactKind.ENDPOINT
    try:
        guarding(socket_path, sha256_hex(read_bytes(policy)))
        running[kind.value] = read_artefact(kind, policy).sha256
    except StaleGuardError as error:
        unread[kind.value] = str(error)


def _ask(gateway: str, key_file: Path | None) -> dict[str, Any]:
    from safehold.trust.log.key_files import read_bearer

    headers = {}
    if key_file is not None:
        headers["authorization"] = f"Bearer {read_bearer(key_file)}"
    url = f"{gateway.rstrip('/')}/admin/status"
    return object_of(ask(url, headers=headers, timeout_s=_ASK_S), of=gateway)


def _enforced(state_dir: Path) -> dict[str, str]:
    """Return the digests of the register and plan that enforcement was last given."""
    from safehold.canonical import canonical, sha256_hex
    from safehold.secure.egress.enforcement.state import StateFile

    state = StateFile(state_dir).load()
    documents = {} if state is None else state.documents
    return {
        kind: sha256_hex(canonical(documents[kind]))
        for kind in ("egress-plan", "egress-register")
        if kind in documents
    }


def _record(problem: str, log_dir: Path, key_dir: Path | None) -> None:
    from safehold.cli._trust import open_desk
    from safehold.trust.log.log_entries import Record

    desk = open_desk(log_dir, key_dir)
    facts = {"control": "drift", "finding": problem[:390]}
    desk.record(Record(time=desk.now(), kind="control-result", facts=facts, digests={}))
