"""`safehold people`: persons, teams and keys; every change is a two-party request."""

import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from safehold.cli._places import out_file
from safehold.cli._reads import json_file, read_bytes, read_json, read_text, text_file, toml_file
from safehold.cli._trust import json_option, log_options, ssh_key_option
from safehold.errors import UsageError
from safehold.trust.people.interface import Kind

if TYPE_CHECKING:
    from safehold.trust.grants.details import AddKey, EnrolPerson, PeopleChange
    from safehold.trust.grants.events import Founding
    from safehold.trust.people.interface import Person, SshKey, Team

kinds = click.Choice([kind.value for kind in Kind])


@click.group()
def people() -> None:
    """Persons, roles, teams and their keys.

    \b
    The founding needs at least two people, each with their own SSH key:
      safehold people draft founding.json --origin example.org/enclave --policy policy.toml \\
          --team t-ops=Operations --person "Ada,t-ops,ada.pub" --person "Ben,t-ops,ben.pub"
      safehold people sign founding.json --ssh-key ~/.ssh/id_ed25519     (each founder's key)
      safehold people found founding.json founding.json.*.sig
    Afterwards every change is a request that others approve:
      safehold people offer cleo.json --name Cleo --team t-ops --log-keys pinned-log.json \\
          --ssh-key ~/.ssh/id_ed25519                                    (Cleo's own key)
      safehold people enrol cleo.json --ssh-key ~/.ssh/id_ed25519
      safehold grant approve ID --ssh-key ~/.ssh/id_ed25519
    """


def new_person_id() -> str:
    """Return a fresh, random id."""
    return f"p-{secrets.token_hex(8)}"


def _team(text: str) -> "Team":
    from safehold.trust.people.interface import Team

    head, separator, name = text.partition("=")
    team_id, _, parents = head.partition("<")
    if not separator:
        raise UsageError(f"expected a team as ID=Name or ID<PARENT=Name, got {text[:60]!r}")
    team = Team(team_id, name, tuple(parents.split(",")) if parents else ())
    try:
        return msgspec.convert(msgspec.to_builtins(team), Team)
    except msgspec.ValidationError as error:
        raise UsageError(f"the team: {error}") from error


@people.command()
@click.argument("path", type=out_file())
@click.option("--origin", required=True, help="The log's origin.")
@click.option(
    "--policy",
    type=toml_file(),
    required=True,
    help="The policy of grants that the founders sign too.",
)
@click.option("--team", "teams", multiple=True, help="ID=Name, or ID<PARENT,PARENT=Name.")
@click.option(
    "--person",
    "persons",
    multiple=True,
    help='"Name,TEAM[,TEAM],FILE.pub": a founder. Prefix the name with service: for a service.',
)
def draft(
    path: Path, origin: str, policy: Path, teams: tuple[str, ...], persons: tuple[str, ...]
) -> None:
    """Write the founding document that every founder will sign.

    \b
    Example:
      safehold people draft founding.json --origin example.org/enclave --policy policy.toml \\
          --team t-ops=Operations --person "Ada,t-ops,ada.pub" --person "Ben,t-ops,ben.pub"
    """
    from safehold.canonical import canonical
    from safehold.trust.grants.changes import check_roster
    from safehold.trust.grants.events import Founding
    from safehold.trust.grants.policy import check_achievable, check_governing, load_policy
    from safehold.trust.people.interface import Roster

    roster = Roster(
        persons=tuple(_founder(text) for text in persons), teams=tuple(_team(one) for one in teams)
    )
    check_roster(roster)
    text = read_text(policy)
    checked = load_policy(text)
    check_governing(checked)
    check_achievable(checked, roster)
    founding = Founding(origin=origin, roster=roster, policy_text=text)
    path.write_bytes(canonical(founding))
    click.echo(f"wrote {path}; every founder reads it and signs it: safehold people sign {path}")


def _founder(text: str) -> "Person":
    name, *rest = text.split(",")
    if not rest:
        raise UsageError(f"expected a person as Name,TEAM,FILE.pub, got {text[:60]!r}")
    kind = Kind.SERVICE if name.startswith("service:") else Kind.HUMAN
    return _person(name.removeprefix("service:"), kind, (), tuple(rest[:-1]), Path(rest[-1]))


def _person(
    name: str, kind: Kind, roles: tuple[str, ...], teams: tuple[str, ...], key: Path
) -> "Person":
    from safehold.trust.people.interface import Person

    person = Person(new_person_id(), name, kind, roles, teams, (_public_key(key),))
    try:
        return msgspec.convert(msgspec.to_builtins(person), Person)
    except msgspec.ValidationError as error:
        raise UsageError(f"the person: {error}") from error


def _public_key(path: Path) -> "SshKey":
    from safehold.trust.people.sshsig import parse_public_key

    return parse_public_key(read_text(path))


def _founding(path: Path) -> "Founding":
    from safehold.canonical import parse_canonical
    from safehold.trust.grants.events import Founding

    return parse_canonical(read_bytes(path), Founding, what="a founding document")


@people.command("sign")
@click.argument("path", type=json_file())
@ssh_key_option
def sign_(path: Path, ssh_key: Path) -> None:
    """Show the founding document and sign it with your key.

    \b
    Example:
      safehold people sign founding.json --ssh-key ~/.ssh/id_ed25519
    """
    from safehold.cli._trust import show_words, sign
    from safehold.trust.grants.approval_text import founding_words
    from safehold.trust.people.sshsig import armour
    from safehold.trust.people.statement import Act

    founding = _founding(path)
    show_words(founding_words(founding))
    proof = sign(ssh_key, Act.FOUND, founding)
    target = path.with_name(f"{path.name}.{proof.key_id[7:15].replace('/', '_')}.sig")
    target.write_text(armour(proof.signature))
    click.echo(f"signed: {target}")


@people.command()
@click.argument("path", type=json_file())
@click.argument("signatures", nargs=-1, type=text_file())
@log_options
def found(path: Path, signatures: tuple[Path, ...], log_dir: Path, key_dir: Path | None) -> None:
    """Found the enclave: record the document with every founder's signature.

    \b
    Example:
      safehold people found founding.json founding.json.*.sig --log trust-log
    """
    from safehold.canonical import canonical, sha256_hex
    from safehold.cli._trust import open_desk, proof_of
    from safehold.trust.log.keys import read_keys, write_keys

    founding = _founding(path)
    proofs = tuple(proof_of(read_text(one)) for one in signatures)
    open_desk(log_dir, key_dir).found(founding, proofs)
    digest = sha256_hex(canonical(founding))
    keys = read_keys(log_dir / "log.json")
    write_keys(log_dir / "log.json", msgspec.structs.replace(keys, founding=digest))
    click.echo(f"founded with {len(proofs)} signatures; log.json now pins {digest}")


@people.command("list")
@json_option
@log_options
def list_(as_json: bool, log_dir: Path, key_dir: Path | None) -> None:
    """List who is enrolled.

    \b
    Example:
      safehold people list --json
    """
    from safehold.cli._trust import emit, open_desk, plain

    roster = open_desk(log_dir, key_dir).state.roster
    if as_json:
        shown = plain(roster)
        for one, person in zip(shown["persons"], roster.persons, strict=True):
            for entry, key in zip(one["keys"], person.keys, strict=True):
                entry["key_id"] = key.key_id
        emit(shown)
        return
    for person in roster.persons:
        click.echo(f"{person.id}  {person.kind.value:<8} {person.name}")
        click.echo(f"    teams {', '.join(sorted(roster.teams_of(person))) or 'none'}")
        for key in person.keys:
            click.echo(f"    {key.kind.value} {key.key_id}")


def _ask(
    *, log_dir: Path, key_dir: Path | None, operation: str, change: "PeopleChange", ssh_key: Path
) -> None:
    from safehold.cli._trust import file_request, open_desk, owner_of
    from safehold.cli._trust_requests import governing_request
    from safehold.trust.grants.changes import changed_roster
    from safehold.trust.grants.holding import check_held

    desk = open_desk(log_dir, key_dir)
    state = desk.state
    changed_roster(state.roster, change)
    check_held(state.founding_sha256, change, state.policy.relying_party)
    requester = owner_of(ssh_key, state.roster)
    request = governing_request(state, requester, operation, change, desk.now())
    click.echo(file_request(desk, request, ssh_key))


@people.command()
@click.argument("path", type=out_file())
@click.option("--person", "person_id", help="Whose key this will be; without it: a new person.")
@click.option("--name", help="The new person's name.")
@click.option(
    "--kind",
    type=kinds,
    default=Kind.HUMAN.value,
    show_default=True,
    help="Whether a human or a service holds the key.",
)
@click.option("--team", "teams", multiple=True, help="A team of the person; may be repeated.")
@click.option("--role", "roles", multiple=True, help="A role of the person; may be repeated.")
@click.option(
    "--log-keys",
    type=json_file(),
    required=True,
    help="Your pinned copy of the log's log.json: the offer is for that enclave alone.",
)
@ssh_key_option
def offer(
    *,
    path: Path,
    person_id: str | None,
    name: str | None,
    kind: str,
    teams: tuple[str, ...],
    roles: tuple[str, ...],
    log_keys: Path,
    ssh_key: Path,
) -> None:
    """Have a new key sign its own enrolment: its holder does this, on their own machine.

    The offer changes nothing. A member asks with it (`people enrol`, `people add-key`), and others
    approve. Only this key, for this person, in this enclave, can be enrolled with it.

    \b
    Examples:
      safehold people offer cleo.json --name Cleo --team t-ops --log-keys pinned-log.json \\
          --ssh-key ~/.ssh/id_ed25519
      safehold people offer spare.json --person p-0123456789abcdef --log-keys pinned-log.json \\
          --ssh-key ~/.ssh/spare
    """
    from safehold.canonical import canonical
    from safehold.cli._trust import public_half, sign
    from safehold.trust.grants.details import AddKey, EnrolPerson
    from safehold.trust.grants.holding import holding_of
    from safehold.trust.log.keys import read_keys
    from safehold.trust.people.statement import Act

    enclave = read_keys(log_keys).founding
    if not enclave:
        raise UsageError(f"expected {log_keys.name} to pin a founding: take it after the founding")
    if (person_id is None) == (name is None):
        raise UsageError("expected either --person (one more key) or --name (a new person)")
    public = public_half(ssh_key)
    if person_id is not None:
        change: EnrolPerson | AddKey = AddKey(person_id, _public_key(public))
    else:
        change = EnrolPerson(_person(name or "", Kind(kind), roles, teams, public))
    proof = sign(ssh_key, Act.HOLD, holding_of(enclave, change))
    path.write_bytes(canonical(msgspec.structs.replace(change, held=(proof,))))
    click.echo(f"wrote {path}: give it to a member, who asks for it and compares {proof.key_id}")


def _offer(path: Path) -> "EnrolPerson | AddKey":
    from safehold.trust.grants.details import AddKey, EnrolPerson

    what = "an offer of `safehold people offer`, or of the page /enrol"
    either: Any = EnrolPerson | AddKey
    offer: EnrolPerson | AddKey = read_json(path, either, what)
    return offer


@people.command()
@click.argument("offered", type=json_file())
@ssh_key_option
@log_options
def enrol(offered: Path, ssh_key: Path, log_dir: Path, key_dir: Path | None) -> None:
    """Ask to enrol the identity of an offer; print the request's id.

    \b
    Example:
      safehold people enrol cleo.json --ssh-key ~/.ssh/id_ed25519
    """
    from safehold.trust.grants.details import EnrolPerson

    change = _offer(offered)
    if not isinstance(change, EnrolPerson):
        raise UsageError(
            "expected the offer of a new person, got one key more: safehold people add-key"
        )
    _ask(log_dir=log_dir, key_dir=key_dir, operation="people.enrol", change=change, ssh_key=ssh_key)


@people.command()
@click.argument("person_id")
@ssh_key_option
@log_options
def remove(person_id: str, ssh_key: Path, log_dir: Path, key_dir: Path | None) -> None:
    """Ask to remove a person; their approvals in flight end with them.

    \b
    Example:
      safehold people remove p-0123456789abcdef --ssh-key ~/.ssh/id_ed25519
    """
    from safehold.trust.grants.details import RemovePerson

    _ask(
        log_dir=log_dir,
        key_dir=key_dir,
        operation="people.remove",
        change=RemovePerson(person_id),
        ssh_key=ssh_key,
    )


@people.command("add-key")
@click.argument("offered", type=json_file())
@ssh_key_option
@log_options
def add_key(offered: Path, ssh_key: Path, log_dir: Path, key_dir: Path | None) -> None:
    """Ask to give a person the key of an offer: an SSH key, or a passkey from the page /enrol.

    \b
    Examples:
      safehold people add-key spare.json --ssh-key ~/.ssh/id_ed25519
      safehold people add-key passkey.json --ssh-key ~/.ssh/id_ed25519
    """
    from safehold.trust.grants.details import AddKey

    change = _offer(offered)
    if not isinstance(change, AddKey):
        raise UsageError(
            "expected the offer of one key more, got a new person: safehold people enrol"
        )
    _ask(
        log_dir=log_dir, key_dir=key_dir, operation="people.add-key", change=change, ssh_key=ssh_key
    )


@people.command("remove-key")
@click.argument("person_id")
@click.argument("key_id")
@ssh_key_option
@log_options
def remove_key(
    *, person_id: str, key_id: str, ssh_key: Path, log_dir: Path, key_dir: Path | None
) -> None:
    """Ask to take a lost key from a person.

    \b
    Example:
      safehold people remove-key p-0123456789abcdef SHA256:... --ssh-key ~/.ssh/id_ed25519
    """
    from safehold.trust.grants.details import RemoveKey

    _ask(
        log_dir=log_dir,
        key_dir=key_dir,
        operation="people.remove-key",
        change=RemoveKey(person_id, key_id),
        ssh_key=ssh_key,
    )


@people.command()
@click.argument("person_id")
@click.option(
    "--team", "teams", multiple=True, help="A team that the person gets; may be repeated."
)
@click.option(
    "--role", "roles", multiple=True, help="A role that the person gets; may be repeated."
)
@ssh_key_option
@log_options
def assign(
    *,
    person_id: str,
    teams: tuple[str, ...],
    roles: tuple[str, ...],
    ssh_key: Path,
    log_dir: Path,
    key_dir: Path | None,
) -> None:
    """Ask to give a person exactly these teams and roles.

    \b
    Example:
      safehold people assign p-0123456789abcdef --team t-security --ssh-key ~/.ssh/id_ed25519
    """
    from safehold.trust.grants.details import AssignPerson

    change = AssignPerson(person_id, roles, teams)
    _ask(
        log_dir=log_dir, key_dir=key_dir, operation="people.assign", change=change, ssh_key=ssh_key
    )


@people.command("add-team")
@click.argument("team")
@ssh_key_option
@log_options
def add_team(team: str, ssh_key: Path, log_dir: Path, key_dir: Path | None) -> None:
    """Ask to create a team: ID=Name, or ID<PARENT=Name for a team inside another.

    \b
    Example:
      safehold people add-team "t-serving<t-development=Serving" --ssh-key ~/.ssh/id_ed25519
    """
    from safehold.trust.grants.details import AddTeam

    _ask(
        log_dir=log_dir,
        key_dir=key_dir,
        operation="people.add-team",
        change=AddTeam(_team(team)),
        ssh_key=ssh_key,
    )
