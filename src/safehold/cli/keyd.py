"""`safehold keyd`: the key service."""

import json
import signal
import time
from pathlib import Path

import click

from safehold.cli._places import out_folder
from safehold.cli._reads import any_file, in_folder, toml_file
from safehold.cli._weights import json_option


@click.group()
def keyd() -> None:
    """Run the key service that releases weight keys.

    \b
    Examples:
      safehold keyd host                         what to pin as host_sha256
      safehold keyd memory /var/lib/safehold/keyd
      safehold keyd workload --exe /usr/bin/python3 --code /opt/safehold
      safehold keyd run --config keyd.toml
    """


@keyd.command()
@click.option(
    "--config",
    type=toml_file(),
    default="keyd.toml",
    envvar="SAFEHOLD_KEYD_CONFIG",
    show_default=True,
    help="keyd's configuration.",
)
@json_option
def run(config: Path, as_json: bool) -> None:
    """Serve until SIGTERM or SIGINT. Run it as a user of its own, with CAP_SYS_PTRACE.

    \b
    Examples:
      safehold keyd run --config /etc/safehold/keyd.toml
      setpriv --reuid safehold-keyd --clear-groups --inh-caps +sys_ptrace \\
          --ambient-caps +sys_ptrace safehold keyd run --config /etc/safehold/keyd.toml
    """
    from safehold.secure.weights.keyd.config import admit, build_service, read_config

    mode = admit(config, _now)
    settings = read_config(config)
    service = build_service(settings, _now)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: service.stop())
    line = {"listening": settings.socket, "host": settings.host, "releases": mode}
    said = f"key service listens on {settings.socket}; releases: {mode}"
    click.echo(json.dumps(line) if as_json else said)
    service.serve()


def _now() -> int:
    return int(time.time())


@keyd.command()
@json_option
def host(as_json: bool) -> None:
    """Print the digest of this host's identity, to pin as host_sha256.

    \b
    Example:
      safehold keyd host
    """
    from safehold.secure.weights.keyd.host import measure_host

    found = measure_host()
    facts = {"host": found.nodename, "host_sha256": found.sha256}
    click.echo(json.dumps(facts) if as_json else found.sha256)


@keyd.command()
@click.option(
    "--exe",
    required=True,
    type=any_file(),
    help="The program that will load (for Python: the interpreter).",
)
@click.option(
    "--code",
    multiple=True,
    type=in_folder(),
    help="The folders of keyd.toml's `code`, in the same order.",
)
@json_option
def workload(exe: Path, code: tuple[Path, ...], as_json: bool) -> None:
    """Print the digest that a request names as its workload.

    \b
    Example:
      safehold keyd workload --exe $(readlink -f $(which python3)) --code /opt/safehold
    """
    from safehold.secure.weights.keyd.peer import workload_sha256

    digest = workload_sha256(exe, code)
    click.echo(json.dumps({"workload_sha256": digest}) if as_json else digest)


@keyd.command()
@click.argument("folder", type=out_folder())
def memory(folder: Path) -> None:
    """Make keyd's memory of the log, once. It refuses to start without, and to begin anew.

    \b
    Example:
      safehold keyd memory /var/lib/safehold/keyd
    """
    from safehold.secure.weights.keyd.config import prepare_memory

    prepare_memory(folder)
    click.echo(f"memory made in {folder}; keep it: without it keyd does not start")
