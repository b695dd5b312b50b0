"""`safehold change tuf`: a release as a repository of The Update Framework."""

import datetime as dt
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from safehold.cli._places import key_file, out_file, out_folder
from safehold.cli._reads import json_file, read_bytes, read_text, text_file
from safehold.cli._trust import log_options, ssh_key_option
from safehold.cli._values import WholeNumber
from safehold.errors import UsageError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

_out = click.option(
    "--out",
    type=out_file(makes_folders=True),
    required=True,
    help="The metadata file to write.",
)
_desk_key = click.option(
    "--desk-key",
    type=key_file(),
    required=True,
    help="Ed25519 key (PEM) of the release desk; it is made if it is not there.",
)
_files = click.option(
    "--file",
    "files",
    multiple=True,
    help="PATH=FILE: an artefact whose digest is its file's (release.json always comes along).",
)


@click.group("tuf")
def tuf() -> None:
    """Export releases for clients of The Update Framework; persons sign with their SSH keys.

    \b
    Examples:
      safehold change tuf root --person ID --person ID --desk-key desk.pem --out root.json
      safehold change tuf sign root.json --ssh-key ~/.ssh/id_ed25519        (each person)
      safehold change tuf targets release.json --file rules.toml=rules.toml --out targets.json
      safehold change tuf sign targets.json --ssh-key ~/.ssh/id_ed25519     (each person)
      safehold change tuf write repo/ release.json --root root.json --targets targets.json \\
          --signature root.json.SIG --signature targets.json.SIG --file rules.toml=rules.toml \\
          --desk-key desk.pem
    """


def _read(path: Path) -> dict[str, Any]:
    from safehold.canonical import parse_canonical

    return parse_canonical(read_bytes(path), dict[str, Any], what="metadata")


def _bytes(files: tuple[str, ...]) -> dict[str, bytes]:
    found = {}
    for text in files:
        path, separator, file = text.partition("=")
        if not separator:
            raise UsageError(f"expected PATH=FILE, got {text[:60]!r}")
        found[path] = read_bytes(Path(file), most=None)
    return found


def _desk(path: Path) -> "Ed25519PrivateKey":
    from safehold.guard.bundle.signing import load_or_make_key

    return load_or_make_key(path)


@tuf.command("root")
@click.option("--person", "ids", multiple=True, required=True, help="Id of a person who signs.")
@click.option(
    "--version",
    type=WholeNumber(1),
    default=1,
    show_default=True,
    help="One more than the root before.",
)
@click.option(
    "--days",
    type=click.IntRange(1, 3650),
    default=365,
    show_default=True,
    help="It expires after so many days.",
)
@_desk_key
@_out
@log_options
def root_(
    *,
    ids: tuple[str, ...],
    version: int,
    days: int,
    desk_key: Path,
    out: Path,
    log_dir: Path,
    key_dir: Path | None,
) -> None:
    """Write the `root` that names who signs; each person has one SSH key in it.

    \b
    Example:
      safehold change tuf root --person p-0123456789abcdef --person p-fedcba9876543210 \\
          --desk-key desk.pem --out root.json
    """
    from safehold.canonical import canonical
    from safehold.cli._trust import open_desk
    from safehold.secure.change.tuf_export import root
    from safehold.trust.log.files import write_durably

    roster = open_desk(log_dir, key_dir).state.roster
    persons = []
    for one in ids:
        person = roster.person(one)
        if person is None:
            raise UsageError(f"expected the id of an enrolled person, got {one}")
        persons.append(person)
    expires = dt.datetime.now(dt.UTC) + dt.timedelta(days=days)
    made = root(persons, _desk_json(desk_key), version=version, expires=expires)
    write_durably(out, canonical(made))
    click.echo(f"wrote {out}: {len(persons)} persons, two of them sign; now `change tuf sign`")


def _desk_json(path: Path) -> dict[str, Any]:
    from safehold.secure.change.tuf_export import desk_key

    return desk_key(_desk(path))


@tuf.command("targets")
@click.argument("release_file", type=json_file())
@_files
@click.option(
    "--days",
    type=click.IntRange(1, 3650),
    default=90,
    show_default=True,
    help="They expire after so many days.",
)
@_out
@log_options
def targets_(
    *,
    release_file: Path,
    files: tuple[str, ...],
    days: int,
    out: Path,
    log_dir: Path,
    key_dir: Path | None,
) -> None:
    """Write the `targets` of a release that took effect, with the log's proof beside each file.

    \b
    Example:
      safehold change tuf targets release.json --file rules.toml=rules.toml --out targets.json
    """
    from safehold.canonical import canonical
    from safehold.cli._trust import open_desk
    from safehold.secure.change.tuf_export import targets
    from safehold.trust.log.files import write_durably
    from safehold.trust.release.interface import PublishRelease, parse_release

    made = parse_release(read_bytes(release_file))
    desk = open_desk(log_dir, key_dir)
    granted = [
        (digest, case)
        for digest, case in desk.state.cases.live()
        if isinstance(case.signed.request.details, PublishRelease)
        and case.signed.request.details.release_sha256 == made.sha256
        and case.used_at is not None
        and not case.closed
    ]
    if not granted:
        raise UsageError(f"release {made.version} has not taken effect in this log")
    proof = {"origin": desk.state.origin, "request": granted[0][0], "size": desk.store.size}
    expires = dt.datetime.now(dt.UTC) + dt.timedelta(days=days)
    write_durably(out, canonical(targets(made, _bytes(files), proof, expires=expires)))
    click.echo(f"wrote {out}: {len(files)} files and release.json; now `change tuf sign`")


@tuf.command("sign")
@click.argument("path", type=json_file())
@ssh_key_option
def sign(path: Path, ssh_key: Path) -> None:
    """Show metadata and sign it with your SSH key.

    \b
    Example:
      safehold change tuf sign targets.json --ssh-key ~/.ssh/id_ed25519
    """
    from safehold.cli._trust import sign_text
    from safehold.secure.change.tuf_export import NAMESPACE, to_sign
    from safehold.trust.log.files import write_durably

    metadata = _read(path)
    click.echo(json.dumps(metadata, indent=2, ensure_ascii=True))
    place = path.with_name(f"{path.name}.{ssh_key.name}.sig")
    write_durably(place, sign_text(ssh_key, to_sign(metadata), NAMESPACE).encode())
    click.echo(f"signed: {place}")


@tuf.command("write")
@click.argument("folder", type=out_folder())
@click.argument("release_file", type=json_file())
@click.option(
    "--root", "root_file", type=json_file(), required=True, help="The signed root's file."
)
@click.option(
    "--targets", "targets_file", type=json_file(), required=True, help="The signed targets' file."
)
@click.option(
    "--signature",
    "signatures",
    multiple=True,
    type=text_file(),
    required=True,
    help="A person's signature; give each of them.",
)
@_files
@click.option(
    "--hours",
    type=click.IntRange(1, 720),
    default=24,
    show_default=True,
    help="The timestamp expires after so many hours.",
)
@_desk_key
def write(
    *,
    folder: Path,
    release_file: Path,
    root_file: Path,
    targets_file: Path,
    signatures: tuple[Path, ...],
    files: tuple[str, ...],
    hours: int,
    desk_key: Path,
) -> None:
    """Write the repository, if two persons signed each of `root` and `targets`.

    Run it again before --hours are over: a client takes nothing that is older.

    \b
    Example:
      safehold change tuf write repo/ release.json --root root.json --targets targets.json \\
          --signature root.json.ada.sig --signature root.json.ben.sig \\
          --signature targets.json.ada.sig --signature targets.json.ben.sig \\
          --file rules.toml=rules.toml --desk-key desk.pem
    """
    from safehold.secure.change.tuf_export import collected, write_repository
    from safehold.trust.release.interface import parse_release

    holder, listed = _read(root_file), _read(targets_file)
    given = [read_text(one) for one in signatures]
    write_repository(
        folder,
        root_file=collected(holder, holder, "root", given),
        targets_file=collected(listed, holder, "targets", given),
        files=_bytes(files),
        release=parse_release(read_bytes(release_file)),
        desk=_desk(desk_key),
        now=dt.datetime.now(dt.UTC),
        fresh_for=dt.timedelta(hours=hours),
    )
    click.echo(f"wrote {folder}: a client is fresh for {hours} h")
