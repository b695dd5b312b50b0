"""`safehold serve`: run the guarded gateway."""

import contextlib
import functools
import json
import os
import socket
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from safehold.cli._values import Address
from safehold.errors import ConfigError, SafeholdError
from safehold.guard.interface import DeliveryMode

if TYPE_CHECKING:
    from safehold.guard.gateway.operate.byte_accounting import OutgoingBytes
    from safehold.guard.gateway.policy import Explain, Settings, Upstream
    from safehold.guard.gateway.upstreams.embedded import LocalModel, LocalServer


def read_settings(path: Path | None, changes: dict[str, Any]) -> "Settings":
    """Return the settings of a YAML file with command-line changes over them.

    Raises:
        ConfigError: The file can't be read, or a key or value is wrong.
    """
    from safehold.guard.gateway.policy import Settings

    given: Any = {}
    if path is not None:
        try:
            given = msgspec.yaml.decode(path.read_bytes()) or {}
        except (OSError, msgspec.DecodeError) as error:
            raise ConfigError(f"{path}: expected a YAML file of settings") from error
        if not isinstance(given, dict):
            raise ConfigError(f"{path}: expected keys and values")
    for name, value in changes.items():
        if isinstance(value, dict):
            given[name] = {**given.get(name, {}), **value}
        else:
            given[name] = value
    try:
        return msgspec.convert(given, Settings)
    except msgspec.ValidationError as error:
        if isinstance(error.__cause__, ConfigError):
            raise error.__cause__ from None
        raise ConfigError(f"{path or 'options'}: {error}") from error


@click.command()
@click.option("--config", type=click.Path(path_type=Path), help="YAML file; see `safehold init`.")
@click.option(
    "--upstream",
    type=Address("local", prefixes=("hf:",)),
    help="Base URL of the model server, `local`, or `hf:PATH`.",
)
@click.option("--host", help="Address to listen on (default 127.0.0.1).")
@click.option("--port", type=click.IntRange(0, 65535), help="Port (default 8400; 0: a free one).")
@click.option(
    "--bundle",
    "bundles",
    multiple=True,
    help="Folder of a bundle, or a YAML file of rules. Given again: a further class, in shadow.",
)
@click.option("--bundle-key", "bundle_keys", multiple=True, help="Public key that signs bundles.")
@click.option("--bundle-sha256", help="Digest of the one manifest to trust.")
@click.option("--unsafe-unsigned-bundle", is_flag=True, help="Trust an unsigned bundle.")
@click.option("--ledger", help="Path or URL of the ledger (default safehold-ledger.db).")
@click.option("--journal", help="Folder of the crash journal (default: beside the ledger).")
@click.option("--workers", type=click.IntRange(1, 64), help="Processes that share the port.")
@click.option(
    "--mode", type=click.Choice([str(mode) for mode in DeliveryMode]), help="How text is held."
)
@click.option("--hold-tokens", type=click.IntRange(0, 4096), help="Tokens withheld in hold mode.")
@click.option("--shadow", is_flag=True, help="Deliver everything; only record what would block.")
@click.option(
    "--sealed",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Serve this sealed model (one GGUF shard) with the embedded engine, under a grant.",
)
@click.option("--grant", help="With --sealed: the grant's full id.")
@click.option(
    "--keyd",
    type=click.Path(path_type=Path),
    default="/run/safehold/keyd.sock",
    envvar="SAFEHOLD_KEYD",
    help="With --sealed: socket of the key service.",
)
@click.option("--publisher", type=click.Path(path_type=Path), help="With --sealed: public keys.")
@click.option("--log-keys", type=click.Path(path_type=Path), help="With --sealed: your log.json.")
@click.option("--explain-to", help="Append signed rows of the bytes that leave to this file.")
@click.option("--explain-key", help="Private key of the rows (`safehold egress sender-key`).")
@click.option("--explain-flow", help="Row of the egress register that the bytes belong to.")
@click.option("--explain-as", help="This gateway's name in the senders file (default gateway).")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")
def serve(
    config: Path | None,
    upstream: str | None,
    host: str | None,
    port: int | None,
    bundles: tuple[str, ...],
    bundle_keys: tuple[str, ...],
    bundle_sha256: str | None,
    unsafe_unsigned_bundle: bool,
    ledger: str | None,
    journal: str | None,
    workers: int | None,
    mode: str | None,
    hold_tokens: int | None,
    shadow: bool,
    sealed: Path | None,
    grant: str | None,
    keyd: Path,
    publisher: Path | None,
    log_keys: Path | None,
    explain_to: str | None,
    explain_key: str | None,
    explain_flow: str | None,
    explain_as: str | None,
    as_json: bool,
) -> None:
    """Run the guarded gateway until SIGTERM; open streams are drained first.

    SIGHUP reads the configuration again: keys, policies, limits, canaries and the bundle.

    \b
    Examples:
      safehold serve --upstream local
      safehold serve --upstream http://127.0.0.1:8000/v1 --bundle ./my-bundle --bundle-key pub.pem
      safehold serve --bundle rules.yaml --upstream https://api.openai.com/v1
      safehold serve --config safehold.yaml --workers 4
      safehold serve --upstream hf:models/mine --bundle bundles/probed --bundle-key pub.pem
      safehold serve --bundle bundles/mine --bundle bundles/soap --upstream $MODEL
      safehold serve --bundle rules.yaml --sealed sealed/ --grant ID --publisher publisher/ \\
          --log-keys log.json
      safehold serve --bundle ./my-bundle --bundle-key pub.pem --explain-to explained.jsonl \\
          --explain-key gateway.pem --explain-flow replies
    """
    changes: dict[str, Any] = {
        "host": host,
        "port": port,
        "bundle": bundles[0] if bundles else None,
        "classes": further_classes(bundles[1:]) or None,
        "bundle_keys": list(bundle_keys) or None,
        "bundle_sha256": bundle_sha256,
        "unsafe_unsigned_bundle": unsafe_unsigned_bundle or None,
        "ledger": ledger,
        "journal": journal,
        "workers": workers,
    }
    changes = {name: value for name, value in changes.items() if value is not None}
    if upstream is not None:
        changes["upstream"] = {"url": upstream}
    policy = {"mode": mode, "hold_tokens": hold_tokens, "shadow": shadow or None}
    policy = {name: value for name, value in policy.items() if value is not None}
    if policy:
        changes["default"] = policy
    explain = {"to": explain_to, "key": explain_key, "flow": explain_flow, "sender": explain_as}
    explain = {name: value for name, value in explain.items() if value is not None}
    if explain:
        changes["explain"] = explain
    settings = with_defaults(read_settings(config, changes))
    if settings.unsafe_unsigned_bundle:
        warnings.warn("an unsigned bundle is trusted: anybody may have made it", stacklevel=1)
    engine: Engine = embedded
    if sealed is not None:
        # The enclave's half of the package (and its extras) is wanted here only.
        from safehold.cli._sealed import sealed_engine

        engine = sealed_engine(
            sealed,
            grant=grant,
            keyd=keyd,
            publisher=publisher,
            log_keys=log_keys,
            upstream=settings.upstream.url,
            quiet=as_json,
        )
    serve_with(
        settings,
        as_json=as_json,
        engine=engine,
        reread=functools.partial(reread_settings, config, changes),
    )


def further_classes(bundles: tuple[str, ...]) -> dict[str, dict[str, str]]:
    """Return the classes that further bundles make, each named as its folder or file.

    Raises:
        ConfigError: Two have one name, or a name is none.
    """
    from safehold.guard.gateway.class_settings import check_class_name

    found: dict[str, dict[str, str]] = {}
    for bundle in bundles:
        name = Path(bundle).stem if bundle.endswith((".yaml", ".yml")) else Path(bundle).name
        check_class_name(name)
        if name in found:
            raise ConfigError(
                f"--bundle: two further bundles are named {name}; give them names under `classes` "
                "in the configuration"
            )
        found[name] = {"bundle": bundle}
    return found


def reread_settings(config: Path | None, changes: dict[str, Any]) -> "Settings":
    """Return the settings as a start would read them now.

    Raises:
        ConfigError: The file can't be read, or a key or value is wrong.
    """
    return with_defaults(read_settings(config, changes))


def with_defaults(settings: "Settings") -> "Settings":
    """Return settings with a journal, whatever the ledger is, and the stock bundle.

    A bundle's folder that nothing says how to trust is checked against your own default key, as
    `safehold eval` does.
    """
    from safehold.guard.bundle.stock import stock_bundle
    from safehold.guard.gateway.relaying.crash_journal import default_journal

    if settings.journal is None:
        journal = str(default_journal(settings.ledger))
        settings = msgspec.structs.replace(settings, journal=journal)
    if settings.bundle is None:
        folder, pinned = stock_bundle()
        settings = msgspec.structs.replace(
            settings, bundle=str(folder), bundle_sha256=pinned.sha256
        )
    elif Path(settings.bundle).is_dir():
        settings = _own_trust(settings)
    return _classes_trust(settings)


def _classes_trust(settings: "Settings") -> "Settings":
    """Return settings whose further classes trust your own key, where nothing else is named."""
    from safehold.guard.bundle.find import OWN_KEY

    own = OWN_KEY.expanduser()
    if settings.bundle_keys or settings.unsafe_unsigned_bundle or not own.is_file():
        return settings
    classes = {
        name: one
        if one.bundle_keys or one.bundle_sha256
        else msgspec.structs.replace(one, bundle_keys=(str(own),))
        for name, one in settings.classes.items()
    }
    return msgspec.structs.replace(settings, classes=classes)


def _own_trust(settings: "Settings") -> "Settings":
    """Return settings that trust the key that `safehold train` signs with by default."""
    from safehold.guard.bundle.find import OWN_KEY

    if settings.bundle_keys or settings.bundle_sha256 or settings.unsafe_unsigned_bundle:
        return settings
    own = OWN_KEY.expanduser()
    if not own.is_file():
        raise ConfigError(
            "a bundle needs trust: --bundle-key FILE or --bundle-sha256 DIGEST "
            f"(there is no key of your own at {own})"
        )
    return msgspec.structs.replace(settings, bundle_keys=(str(own),))


Engine = Callable[["Upstream"], contextlib.AbstractContextManager["LocalModel"]]
"""What serves the model when the upstream is `local`."""


def embedded(upstream: "Upstream") -> "LocalServer":
    """Return the stock embedded model."""
    from safehold.guard.gateway.upstreams.embedded import LocalServer

    return LocalServer(threads=upstream.threads, slots=upstream.slots)


def serve_with(
    settings: "Settings",
    *,
    as_json: bool,
    engine: Engine = embedded,
    reread: "Callable[[], Settings] | None" = None,
) -> None:
    """Serve with settings that are complete; `reread` returns those that a SIGHUP takes.

    Raises:
        SafeholdError: The gateway could not start.
    """
    from safehold.guard.gateway.bundles.loading import class_loader, loader_for
    from safehold.guard.gateway.server import Parts, listen, run
    from safehold.guard.gateway.upstreams.hf import PREFIX, HfServer
    from safehold.trust.demands.ask import demand
    from safehold.trust.standing.gate import GatedAction

    declared = settings
    if settings.standing is not None:
        demand(settings.standing, GatedAction.SERVE, at=int(time.time()))
    with contextlib.ExitStack() as stack:
        key = served = None
        shown = settings.upstream.url
        if shown == "local":
            local = stack.enter_context(engine(settings.upstream))
            key = local.key
            settings = msgspec.structs.replace(settings, upstream=_at(settings.upstream, local.url))
        elif shown.startswith(PREFIX):
            model = HfServer(
                Path(shown.removeprefix(PREFIX)),
                dtype=settings.upstream.dtype,
                threads=settings.upstream.threads,
            )
            local = stack.enter_context(model)
            key, served = local.key, model.served(local)
            settings = msgspec.structs.replace(settings, upstream=_at(settings.upstream, local.url))
        loader = loader_for(settings, served)
        folder = None
        given = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
        if settings.workers == 1 and given is not None and not Path(given).is_dir():
            raise ConfigError(f"PROMETHEUS_MULTIPROC_DIR: expected a folder, came {given}")
        if settings.workers > 1:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="safehold-metrics-"))
            os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder  # prometheus_client reads only this
        sock = stack.enter_context(contextlib.closing(listen(settings)))
        bound_host, bound_port = bound_to(sock)
        announce = functools.partial(
            _announce, settings, shown, bound_host, bound_port, as_json=as_json
        )
        parts = Parts(
            loader=loader,
            class_loader=functools.partial(class_loader, settings, served=served),
            upstream_key=key,
            outgoing=explained(settings.explain),
            metrics_folder=folder,
            declared=declared,
        )
        if not run(settings, parts, sock, reread, announce):
            raise SafeholdError("the gateway did not start; the line above says why")


def bound_to(sock: socket.socket) -> tuple[str, int]:
    """Return where a socket listens; a Unix socket that was handed over has no port."""
    if sock.family == socket.AF_UNIX:
        return "localhost", 0
    host, port = sock.getsockname()[:2]
    return str(host), int(port)


def explained(explain: "Explain | None") -> "Callable[[], OutgoingBytes] | None":
    """Return what each worker opens to sign for the bytes it sends; None when nobody asks.

    Raises:
        EgressError: The key or the file of rows can't be used.
    """
    if explain is None:
        return None
    # The enclave's half of the package is wanted here only.
    from safehold.secure.egress.explain.replies import open_replies

    opener = functools.partial(
        open_replies, Path(explain.to), Path(explain.key), explain.flow, explain.sender
    )
    opener()  # What is wrong with it is said before anything is served.
    return opener


def _at(upstream: "Upstream", url: str) -> "Upstream":
    return msgspec.structs.replace(upstream, url=url)


def _announce(settings: "Settings", upstream: str, host: str, port: int, *, as_json: bool) -> None:
    """Say where the gateway listens and how to point a client at it."""
    from rich.console import Console

    base = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    if as_json:
        line = {"openai_base_url": f"{base}/v1", "anthropic_base_url": base, "upstream": upstream}
        click.echo(json.dumps(line))
        return
    console = Console(stderr=True)
    console.print(f"Guarding [bold]{upstream}[/bold] with {settings.bundle}")
    for name, one in settings.classes.items():
        console.print(f"  Class {name:<18}{one.rollout}, {one.bundle}", highlight=False)
    console.print(f"  OpenAI base URL     {base}/v1", highlight=False)
    console.print(f"  Anthropic base URL  {base}", highlight=False)
    needs = any(not key.admin for key in settings.keys)
    console.print(f"  API key             {'needed' if needs else 'none needed on loopback'}")
    console.print(f"  Ledger              {settings.ledger}", highlight=False)
    released = "UnsafeUnreleased: no log is named, any trusted bundle loads"
    if settings.releases is not None:
        released = f"enforced, channel {settings.releases.channel}"
    console.print(f"  Releases            {released}", highlight=False)
