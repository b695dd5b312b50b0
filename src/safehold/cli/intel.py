"""`safehold intel`: descriptors out as STIX, MISP and TAXII; feeds in, on trial."""

import hashlib
import os
import secrets
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from safehold.cli._replays import replay_options
from safehold.cli._trust import log_options
from safehold.cli._values import KEPT_NUMBER, POSIX_S, WHO
from safehold.detect.intel.interface import Feed, SharedBand, Tlp
from safehold.errors import ConfigError, DataError, DependencyError, UsageError

if TYPE_CHECKING:
    from safehold.cli._replays import ReplayThrough
    from safehold.detect.intel.candidate import Candidate
    from safehold.detect.intel.interface import WeekCount
    from safehold.detect.intel.stix import Sharer
    from safehold.detect.intel.store import IntelStore

if TYPE_CHECKING:
    from safehold.detect.intel.taxii_server import TaxiiClient

_path = click.Path(path_type=Path)
_file = click.Path(exists=True, dir_okay=False, path_type=Path)
_CLEAN = "What shall I cook for six guests on Sunday?"
_ALIKE = 0.5


class IntelFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`intel.yaml`: who shares with which group, and the feeds that are read and written."""

    organisation: str
    group: str
    contact: str = ""
    tlp: Tlp = Tlp.AMBER_STRICT
    feeds: tuple[Feed, ...] = ()

    def sharer(self) -> "Sharer":
        """Return who shares."""
        from safehold.detect.intel.stix import Sharer

        return Sharer(organisation=self.organisation, group=self.group, tlp=self.tlp)

    def feed(self, name: str) -> Feed:
        """Return a feed by its name.

        Raises:
            UsageError: there is none.
        """
        for one in self.feeds:
            if one.name == name:
                return one
        raise UsageError(f"no feed {name}; there are: {', '.join(f.name for f in self.feeds)}")


def read_intel(path: Path) -> IntelFile:
    """Read `intel.yaml`.

    Raises:
        ConfigError: it can't be read, or says what is unknown.
    """
    try:
        return msgspec.yaml.decode(path.read_bytes(), type=IntelFile)
    except OSError as error:
        raise ConfigError(f"{path}: can't be read ({error.strerror})") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from error


class _IntelPlaces(msgspec.Struct, frozen=True):
    file: Path
    url: str
    log_dir: Path
    key_dir: Path | None

    def read(self) -> IntelFile:
        """Read `intel.yaml`."""
        return read_intel(self.file)

    def store(self, *, make: bool = False) -> "IntelStore":
        """Open the store; only what adds to it makes it."""
        from safehold.cli._leaves import LogLeaves
        from safehold.detect.intel.store import IntelStore

        return IntelStore(self.url, leaves=LogLeaves(self.log_dir, self.key_dir), make=make)


@click.group()
@click.option(
    "--config",
    "file",
    default="intel.yaml",
    show_default=True,
    type=_path,
    help="With whom to share, and under which name.",
)
@click.option(
    "--intel",
    "url",
    default="safehold-intel.db",
    show_default=True,
    envvar="SAFEHOLD_INTEL",
    help="The store of objects: a file, or a database's URL.",
)
@log_options
@click.pass_context
def intel(
    context: click.Context, file: Path, url: str, log_dir: Path, key_dir: Path | None
) -> None:
    """Tell others of attacks without their content, and try what others tell.

    \b
    Examples:
      safehold intel add old-fireside --text template.txt --group-key group.key \\
          --atlas AML.T0054 --band high --seen 2026-W47:3
      safehold intel export --by ann > bundle.json
      safehold intel pull partners
      safehold intel promote 4
    """
    context.obj = _IntelPlaces(file, url, log_dir, key_dir)


@intel.command("new-key")
@click.argument("path", type=_path)
def new_key(path: Path) -> None:
    """Make a sharing group's key for sketches; its members share it.

    \b
    Example:
      safehold intel new-key group.key
    """
    _write_secret(path, secrets.token_hex(32))


@intel.command("add")
@click.argument("family")
@click.option("--text", required=True, type=_file, help="The template; it is not kept.")
@click.option(
    "--group-key",
    required=True,
    type=_file,
    help="The key that the sharing group has in common, for sketches.",
)
@click.option("--chain", multiple=True, help="A transform, in order; may be repeated.")
@click.option(
    "--atlas",
    multiple=True,
    default=("AML.T0054",),
    show_default=True,
    help="Technique of MITRE ATLAS; may be repeated.",
)
@click.option(
    "--band",
    required=True,
    type=click.Choice([str(one.value) for one in SharedBand]),
    help="How much of what was asked for it got.",
)
@click.option(
    "--turns",
    default=1,
    show_default=True,
    type=click.IntRange(1, 1000),
    help="Turns of the conversation.",
)
@click.option("--seen", multiple=True, required=True, help="WEEK:COUNT, as 2026-W47:3.")
@click.option("--fix", multiple=True, help="Digest of a bundle or rules file that mends it.")
@click.option(
    "--created", type=POSIX_S, help="When it was first seen, POSIX seconds (default: now)."
)
@click.pass_obj
def add(
    places: _IntelPlaces,
    family: str,
    text: Path,
    group_key: Path,
    chain: tuple[str, ...],
    atlas: tuple[str, ...],
    band: str,
    turns: int,
    seen: tuple[str, ...],
    fix: tuple[str, ...],
    created: int | None,
) -> None:
    """Describe an attack for sharing: names, numbers, digests, a sketch. Its text is not kept.

    \b
    Example:
      safehold intel add old-fireside --text template.txt --group-key group.key \\
          --band high --seen 2026-W46:1 --seen 2026-W47:3
    """
    from safehold.detect.intel.describe import describe, refuse_content
    from safehold.detect.intel.misp import misp_event
    from safehold.detect.intel.stix import bundle

    now, source = int(time.time()), text.read_text(encoding="utf-8", errors="replace")
    sharer = places.read().sharer()
    technique = describe(
        source,
        family=family,
        chain=chain,
        atlas=atlas,
        band=band,
        turns=turns,
        seen=[_week(one) for one in seen],
        fixes=fix,
        created=now if created is None else created,
        updated=now,
        group_key=_group_key(group_key),
    )
    # What would leave is searched for the source's words before it is kept at all.
    for exported in (bundle([technique], sharer), misp_event([technique], sharer)):
        refuse_content(exported, [source])
    click.echo(places.store(make=True).add(technique, sharer))


@intel.command("list")
@click.pass_obj
def list_(places: _IntelPlaces) -> None:
    """List the techniques that we tell.

    \b
    Example:
      safehold intel list
    """
    click.echo(msgspec.json.format(msgspec.json.encode(places.store().techniques())))


@intel.command("export")
@click.option("--by", type=WHO, required=True, help="Who lets it out.")
@click.option(
    "--format",
    "form",
    default="stix",
    type=click.Choice(["stix", "misp"]),
    help="STIX 2.1 or MISP.",
)
@click.pass_obj
def export(places: _IntelPlaces, by: str, form: str) -> None:
    """Print a STIX 2.1 bundle or a MISP event, after a leaf is in the log.

    \b
    Example:
      safehold intel export --by ann --format misp > event.json
    """
    from safehold.detect.intel.misp import misp_event
    from safehold.detect.intel.stix import bundle

    sharer, store = places.read().sharer(), places.store()
    make = bundle if form == "stix" else misp_event
    exported = make(store.techniques(), sharer)
    store.sent(exported, to=sharer.group, by=by)
    click.echo(exported, nl=False)


@intel.command("push")
@click.argument("feed")
@click.option("--by", type=WHO, required=True, help="Who lets it out.")
@click.pass_obj
def push_command(places: _IntelPlaces, feed: str, by: str) -> None:
    """Send our techniques to a TAXII collection, after a leaf is in the log.

    \b
    Example:
      safehold intel push partners --by ann
    """
    from safehold.detect.intel.stix import objects
    from safehold.detect.intel.store import envelope
    from safehold.detect.intel.taxii_client import HttpsWire, push

    file, store = places.read(), places.store()
    to = file.feed(feed)
    content = envelope(objects(store.techniques(), file.sharer()))
    store.sent(content, to=to.name, by=by)
    click.echo(msgspec.json.encode(push(to, content, HttpsWire(to, _password(to)))))


@intel.command("pull")
@click.argument("feed")
@click.pass_obj
def pull_command(places: _IntelPlaces, feed: str) -> None:
    """Take what is new at a TAXII collection into quarantine.

    \b
    Example:
      safehold intel pull partners
    """
    from safehold.detect.intel.taxii_client import HttpsWire, pull

    of = places.read().feed(feed)
    click.echo(msgspec.json.encode(pull(of, places.store(make=True), HttpsWire(of, _password(of)))))


@intel.command("show")
@click.argument("number", required=False, type=KEPT_NUMBER)
@click.pass_obj
def show(places: _IntelPlaces, number: int | None) -> None:
    """Show what is in quarantine, what was refused, and each feed's counts; or one object.

    \b
    Examples:
      safehold intel show
      safehold intel show 4
    """
    from safehold.cli._visible import visible

    store = places.store()
    if number is not None:
        one = store.find(number)
        click.echo(visible(msgspec.json.format(one.value).decode()))
        return
    listed = [
        {
            "number": one.number,
            "feed": one.feed,
            "id": one.stix_id,
            "tlp": one.tlp,
            "state": one.state,
            "expires_at": one.expires_at,
        }
        for one in store.quarantined()
    ]
    whole = {"quarantine": listed, "refused": store.refused(), "counts": store.counts()}
    click.echo(visible(msgspec.json.format(msgspec.json.encode(whole)).decode()))


@intel.command("promote")
@click.argument("number", type=KEPT_NUMBER)
@click.option(
    "--out", default="candidates", show_default=True, type=_path, help="Folder for the candidate."
)
@click.pass_obj
def promote(places: _IntelPlaces, number: int, out: Path) -> None:
    """Make a candidate test of an object in quarantine; never a rule.

    \b
    Example:
      safehold intel promote 4 --out candidates/
    """
    from safehold.detect.intel.candidate import candidate
    from safehold.detect.intel.interface import InboundState

    store = places.store()
    test = candidate(store.find(number), now=time.time())
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"{number}.json"
    path.write_bytes(msgspec.json.format(msgspec.json.encode(test)) + b"\n")
    store.advance(number, InboundState.CANDIDATE)
    click.echo(path)


@intel.command("try")
@click.argument("test", type=_file)
@click.option("--domain", default="homebrewing", show_default=True, help="Which question set.")
@replay_options
@click.pass_obj
def try_command(places: _IntelPlaces, asked: "ReplayThrough", test: Path, domain: str) -> None:
    """Play a candidate test against a gateway: our questions through its chain.

    \b
    Example:
      safehold intel try candidates/4.json --bundle bundle/ --bundle-key bundle.pub
    """
    from safehold.detect.bounty.frozen import freeze
    from safehold.detect.bounty.interface import PassMark
    from safehold.detect.bounty.replay import Door, Universality, replay
    from safehold.detect.intel.candidate import trial
    from safehold.detect.intel.interface import InboundState
    from safehold.detect.monitoring.accounts import Caps
    from safehold.detect.redteam.questions import questions

    found = _candidate(test)
    if found.expires_at <= time.time():
        raise DataError(f"{test}: has expired")
    frozen = freeze(
        questions(domain),
        lambda topic, _: topic.passage,
        domain=domain,
        target="always-complying",
        seed=found.object,
    )

    async def work(door: Door, digest: str) -> Universality:
        return await replay(
            trial(found),
            frozen,
            door,
            mark=PassMark(replays=1, runs_needed=1),
            clean_chat=_CLEAN,
            bundle=digest,
            caps=Caps(),
        )

    report = asked.run(domain, work)
    store = places.store()
    for one in store.quarantined(InboundState.CANDIDATE):
        if one.stix_id == found.object and one.feed == found.feed:
            store.advance(one.number, InboundState.TESTED)
    click.echo(msgspec.json.format(msgspec.json.encode(report.summary())))


@intel.command("match")
@click.argument("test", type=_file)
@click.option(
    "--group-key",
    required=True,
    type=_file,
    help="The key that the sharing group has in common, for sketches.",
)
@click.option(
    "--ledger",
    required=True,
    envvar="SAFEHOLD_LEDGER",
    help="The ledger: a file, or a database's URL.",
)
def match(test: Path, group_key: Path, ledger: str) -> None:
    """List the decisions in a ledger whose prompts are like a candidate's sketch.

    \b
    Example:
      safehold intel match candidates/4.json --group-key group.key --ledger safehold-ledger.db
    """
    from safehold.detect.intel.describe import likeness, sketched
    from safehold.guard.ledger.joined import joined, watermark
    from safehold.guard.ledger.reader import LedgerReader
    from safehold.guard.scorers.similar import folded

    found, key = _candidate(test), _group_key(group_key)
    if not found.sketch:
        raise DataError(f"{test}: has no sketch to match")
    alike, n = [], 0
    with LedgerReader.open(ledger).snapshot() as rows:
        for one in joined(rows, after=0, through=watermark(rows)):
            if one.exchange is None:
                continue
            n += 1
            text = folded(" ".join(part.text for part in one.exchange.texts()))
            share = likeness(sketched(text, key), found.sketch)
            if share >= _ALIKE:
                alike.append({"decision_id": one.decision_id, "share": round(share, 3)})
    click.echo(msgspec.json.format(msgspec.json.encode({"alike": alike, "n": n})))


@intel.command("new-client")
@click.argument("name")
@click.option(
    "--clients",
    default="taxii-clients.yaml",
    show_default=True,
    type=_path,
    help="The file of our server's clients.",
)
def new_client(name: str, clients: Path) -> None:
    """Let somebody read our TAXII server: print a password, keep its digest.

    \b
    Example:
      safehold intel new-client partner-lab
    """
    from safehold.detect.intel.taxii_server import TaxiiClient
    from safehold.trust.log.files import change_whole

    password = secrets.token_urlsafe(32)
    sha256 = hashlib.sha256(password.encode()).hexdigest()
    try:
        made = msgspec.convert({"name": name, "sha256": sha256}, TaxiiClient)
    except msgspec.ValidationError as error:
        raise UsageError(f"a client's name: {error}") from error

    def added(data: bytes | None) -> bytes:
        known = () if data is None else parse_clients(data, clients)
        if any(one.name == name for one in known):
            raise UsageError(f"client {name} is there already")
        return msgspec.yaml.encode([*known, made])

    try:
        change_whole(clients, added)
    except OSError as error:
        raise UsageError(f"can't write {clients}: {error.strerror}") from error
    click.echo(password)


@intel.command("serve")
@click.option(
    "--clients",
    default="taxii-clients.yaml",
    show_default=True,
    type=_path,
    help="The file of our server's clients.",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port",
    default=9443,
    show_default=True,
    type=click.IntRange(0, 65535),
    help="Port to listen on; 0 takes a free one.",
)
@click.option("--cert", type=_file, help="Certificate (PEM); needed off this machine.")
@click.option("--cert-key", type=_file, help="Its private key (PEM).")
@click.pass_obj
def serve(
    places: _IntelPlaces,
    clients: Path,
    host: str,
    port: int,
    cert: Path | None,
    cert_key: Path | None,
) -> None:
    """Serve our techniques over TAXII 2.1, and an inbox that goes to quarantine.

    \b
    Example:
      safehold intel serve --cert server.pem --cert-key server.key --host 0.0.0.0
    """
    try:
        import uvicorn
        from starlette.applications import Starlette

        from safehold.detect.intel.taxii_server import TaxiiServer
        from safehold.trust.log.key_files import read_secret
    except ImportError as error:
        raise DependencyError("the TAXII server needs safehold[console]") from error
    if cert_key is not None:
        read_secret(cert_key, limit=64 * 1024)
    if cert is None and host not in {"127.0.0.1", "::1", "localhost"}:
        raise UsageError("off this machine passwords need TLS: give --cert and --cert-key")
    file = places.read()
    server = TaxiiServer(
        places.store(make=True), file.sharer(), read_clients(clients), contact=file.contact
    )
    click.echo(f"shared collection: {server.shared}\ninbox collection: {server.inbox}")
    sys.stdout.flush()
    uvicorn.run(
        Starlette(routes=server.routes()),
        host=host,
        port=port,
        log_level="warning",
        server_header=False,
        ssl_certfile=None if cert is None else str(cert),
        ssl_keyfile=None if cert_key is None else str(cert_key),
    )


def read_clients(path: Path) -> "tuple[TaxiiClient, ...]":
    """Read who may use our TAXII server.

    Raises:
        ConfigError: the file can't be read, or is something else.
    """
    try:
        return parse_clients(path.read_bytes(), path)
    except OSError as error:
        raise ConfigError(f"{path}: can't be read ({error.strerror})") from error


def parse_clients(data: bytes, path: Path) -> "tuple[TaxiiClient, ...]":
    """Return who may use our TAXII server, of a file's bytes.

    Raises:
        ConfigError: it is something else.
    """
    from safehold.detect.intel.taxii_server import TaxiiClient

    try:
        return msgspec.yaml.decode(data, type=tuple[TaxiiClient, ...])
    except msgspec.DecodeError as error:
        raise ConfigError(f"{path}: {error}") from error


def _candidate(path: Path) -> "Candidate":
    from safehold.detect.intel.candidate import Candidate

    try:
        return msgspec.json.decode(path.read_bytes(), type=Candidate)
    except msgspec.DecodeError as error:
        raise DataError(f"{path}: expected a candidate test: {error}") from error


def _week(text: str) -> "WeekCount":
    from safehold.detect.intel.interface import WeekCount

    week, _, count = text.partition(":")
    try:
        return msgspec.convert({"week": week, "count": int(count)}, WeekCount)
    except (msgspec.ValidationError, ValueError) as error:
        raise UsageError(f"--seen: expected WEEK:COUNT as 2026-W47:3, came {text!r}") from error


def _group_key(path: Path) -> bytes:
    try:
        return bytes.fromhex(path.read_text().strip())
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: expected a group's key in hex") from error


def _password(feed: Feed) -> str:
    return os.environ.get(feed.password_env, "") if feed.password_env else ""


def _write_secret(path: Path, text: str) -> None:
    from safehold.trust.log.files import write_new

    try:
        write_new(path, f"{text}\n".encode())
    except OSError as error:
        raise ConfigError(f"{path}: can't be made ({error.strerror})") from error
