"""What the commands about weights share: options, provider files, passphrases, progress."""

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from safehold.cli._reads import any_place, in_folder, json_file
from safehold.errors import UsageError

if TYPE_CHECKING:
    from safehold.secure.weights.interface import Header, KeyProvider

_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_UNITS |= {"KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}

# Beyond this, reading is what a load waits for.
_MOST_THREADS = 8

folder_argument = click.argument("folder", type=in_folder())
publisher_option = click.option(
    "--publisher",
    type=in_folder(),
    required=True,
    envvar="SAFEHOLD_PUBLISHER",
    help="Folder with the publisher's header.pub.pem and manifest.pub.pem.",
)
signer_option = click.option(
    "--signer",
    type=in_folder(),
    required=True,
    envvar="SAFEHOLD_SIGNER",
    help="Folder with the publisher's private keys (see `safehold weights keygen`).",
)
keyd_option = click.option(
    "--keyd",
    type=any_place(),
    default="/run/safehold/keyd.sock",
    envvar="SAFEHOLD_KEYD",
    show_default=True,
    help="Socket of the key service.",
)
grant_option = click.option("--grant", required=True, help="The request's full id (64 digits).")
log_keys_option = click.option(
    "--log-keys",
    type=json_file(),
    required=True,
    envvar="SAFEHOLD_PINNED_LOG",
    help="Your own copy of the log's log.json: the release's receipt is checked against it.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")


def parse_size(text: str) -> int:
    """Return the bytes of `800GB` or `64MiB`.

    Raises:
        UsageError: another form.
    """
    number = text.strip().rstrip("KMGTBIkmgtbi ")
    unit = text.strip()[len(number) :].strip().upper()
    if not number.isdigit() or unit not in _UNITS:
        raise UsageError(f"expected bytes such as 800GB or 64MiB, got {text[:40]!r}")
    return int(number) * _UNITS[unit]


def ask_passphrase(question: str) -> str:
    """Ask the person at the terminal; a new passphrase is asked for twice."""
    answer: str = click.prompt(
        question, hide_input=True, confirmation_prompt=question.startswith("New"), err=True
    )
    return answer


def providers_of(files: Sequence[Path]) -> "list[KeyProvider]":
    """Return the providers that files describe, for wrapping."""
    from safehold.secure.weights.providers import open_provider, read_provider

    return [open_provider(read_provider(file), ask_passphrase) for file in files]


def unsafe_providers(files: Sequence[Path]) -> "list[KeyProvider]":
    """Return providers from which this very process may unwrap, without the key service.

    Raises:
        UsageError: a provider whose keys the key service alone may use.
    """
    from safehold.secure.weights.providers import open_provider, read_provider
    from safehold.secure.weights.providers.config import Shares, UnsafeLocal

    configs = [read_provider(file) for file in files]
    for config in configs:
        if not isinstance(config, UnsafeLocal | Shares):
            raise UsageError(
                "only key files and shares open without the key service; ask for a grant instead"
            )
    return [open_provider(config, ask_passphrase) for config in configs]


@contextmanager
def progress_bar(words: str, total: int, *, quiet: bool) -> Iterator[Callable[[int], None] | None]:
    """Show bytes, speed and time left on standard error; nothing at all when quiet."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    if quiet:
        yield None
        return
    with Progress(
        TextColumn("[bold]{task.description}"),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    ) as bar:
        task = bar.add_task(words, total=total)
        yield lambda count: bar.advance(task, count)


def header_facts(header: "Header", content: str) -> dict[str, object]:
    """Return what `info` says of a header."""
    return {
        "model": header.model,
        "version": header.version,
        "content_sha256": content,
        "seal_id": header.seal_id,
        "created": header.created,
        "cipher": header.cipher,
        "chunk_bytes": header.chunk_bytes,
        "digest": header.digest,
        "revision": header.revision,
        "shredded": header.shredded,
        "plain_bytes": header.plain_bytes,
        "shards": [
            {"name": one.name, "plain_bytes": one.plain_bytes, "plain_digest": one.plain_digest}
            for one in header.shards
        ],
        "wrapped": [
            {"provider": one.provider, "reference": one.reference} for one in header.wrapped
        ],
    }


def plain_size(folder: Path) -> int:
    """Return the bytes of a folder's weights, sealed or not, for a progress bar."""
    from safehold.secure.weights.interface import SEALED_SUFFIX

    with contextlib.suppress(OSError):
        sizes = {path: path.stat().st_size for path in folder.rglob("*") if path.is_file()}
        sealed = [size for path, size in sizes.items() if path.suffix == SEALED_SUFFIX]
        return sum(sealed or sizes.values())
    return 0


def decrypting_threads() -> int:
    """Return how many threads decrypt where nobody says: one for each core at hand, 8 at most."""
    return min(_MOST_THREADS, len(os.sched_getaffinity(0)))
