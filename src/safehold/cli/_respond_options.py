"""Options and readers that the commands of `safehold respond` share."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from safehold.cli._values import SEED, WHO
from safehold.errors import UsageError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from safehold.guard.bundle.overlay_file import RuleQuorum

file_path = click.Path(dir_okay=False, path_type=Path)
case_option = click.option(
    "--case", "folder", required=True, type=click.Path(path_type=Path), help="The case's folder."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")
seed_option = click.option(
    "--seed", type=SEED, default=1, show_default=True, help="Equal seeds give equal results."
)
data_option = click.option(
    "--data",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="A dataset of `safehold synth` (default: the domain's seed books).",
)
benign_option = click.option(
    "--benign",
    multiple=True,
    required=True,
    type=click.Path(exists=True, path_type=Path),
    help="JSONL of your own benign traffic: a file or a folder; may be repeated.",
)
person_option = click.option(
    "--as", "person", type=WHO, required=True, help="Who signs, as in the key files."
)
person_key_option = click.option(
    "--person-key", required=True, type=file_path, help="Their private key."
)
rules_option = click.option(
    "--hot-rules", "rules", required=True, type=file_path, help="The signed file."
)
keys_option = click.option(
    "--person-pub", "publics", multiple=True, required=True, help="NAME=FILE: a public key."
)


def guard_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that name the bundle in use and whom to trust for it."""
    for option in (
        click.option("--unsafe-unsigned-bundle", "unsafe", is_flag=True, help="Trust any."),
        click.option("--bundle-sha256", "sha256", help="Digest of the one manifest to trust."),
        click.option("--bundle-key", "keys", multiple=True, help="Public key of bundles."),
        click.option("--bundle", default="homebrewing", show_default=True, help="In use now."),
    ):
        command = option(command)
    return command


def say(as_json: bool, found: object) -> None:
    """Print a value for machines, where that is asked."""
    if as_json:
        click.echo(msgspec.json.encode(found).decode())


def quorum(publics: tuple[str, ...]) -> "RuleQuorum":
    """Return whose signatures count."""
    from safehold.guard.bundle.overlay_file import quorum_of

    return quorum_of(pairs(publics), min(2, len(publics)))


def pairs(publics: tuple[str, ...]) -> dict[str, str]:
    """Return the files of NAME=FILE.

    Raises:
        UsageError: Another form, or a person twice: the last one would silently be the one.
    """
    found: dict[str, str] = {}
    for one in publics:
        name, _, file = one.partition("=")
        if not name or not file:
            raise UsageError(f"--person-pub: expected NAME=FILE, got {one[:60]!r}")
        if name in found:
            raise UsageError(f"--person-pub: {name} is there twice; expected each person once")
        found[name] = file
    return found


def private_key(path: Path) -> "Ed25519PrivateKey":
    """Return a person's key.

    Raises:
        UsageError: There is none.
    """
    from safehold.guard.bundle.signing import load_or_make_key

    if not path.exists():
        raise UsageError(f"{path}: expected a private key in PEM")
    return load_or_make_key(path)


def traffic(paths: tuple[Path, ...]) -> tuple[dict[str, tuple[str, ...]], dict[str, str]]:
    """Return benign prompts by slice, and the digest of each file."""
    from safehold.improve.evaluation.interface import Label
    from safehold.improve.evaluation.items import data_files, read_items

    found: dict[str, list[str]] = {}
    sources: dict[str, str] = {}
    for path in paths:
        for file in data_files(path)[0]:
            items = read_items(file, "", unlabelled=Label.BENIGN)
            sources[os.fspath(file.name)] = items.sha256
            for item in items.items:
                if item.label is Label.BENIGN:
                    text = "\n".join(part.text for part in item.prompt.texts())
                    found.setdefault(item.slice, []).append(text)
    return {name: tuple(texts) for name, texts in found.items()}, sources
