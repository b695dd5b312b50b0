"""The command line: one module per command group, loaded only when it is used."""

import importlib
import re
import sys
import warnings
from importlib import metadata
from typing import Any, TextIO

import click

from safehold import __version__
from safehold.errors import DependencyError, DiskError, SafeholdError, told_by_system

_DISTRIBUTIONS = {"google": "protobuf", "opentelemetry": "opentelemetry-sdk", "yaml": "pyyaml"}
"""Names under which packages are installed, where they are imported by another one."""

# name: (module, attribute, what it is for). Adding a group is one line here and one module.
COMMANDS: dict[str, tuple[str, str, str]] = {
    "bounty": ("safehold.cli.bounty", "bounty", "Jailbreaks that others find: in, judged, paid."),
    "calibrate": ("safehold.cli.calibrate", "calibrate", "Set a bundle's thresholds on traffic."),
    "completion": ("safehold.cli.completion", "completion", "Complete commands in your shell."),
    "console": ("safehold.cli.console", "console", "Pages where people see and decide."),
    "capability": (
        "safehold.cli.capability",
        "capability",
        "What a model can do without its guard.",
    ),
    "change": (
        "safehold.cli.change",
        "change",
        "Releases, drift, the settings' history.",
    ),
    "constitution": ("safehold.cli.constitution", "constitution", "Check and show constitutions."),
    "controls": ("safehold.cli.controls", "controls", "More than a hundred controls, each alive."),
    "demo": ("safehold.cli.demo", "demo", "Play real exchanges through a guarded model."),
    "drill": ("safehold.cli.drill", "drill", "Try the controls against a thief."),
    "egress": ("safehold.cli.egress", "egress", "Limit and explain every byte that leaves."),
    "endpoint": ("safehold.cli.endpoint", "endpoint", "Let only allowed software run."),
    "eval": ("safehold.cli.evaluate", "evaluate_command", "Measure a bundle on labelled data."),
    "exemption": ("safehold.cli.exemption", "exemption", "Vetted exemptions for named users."),
    "govern": ("safehold.cli.govern", "govern", "What falls due, and an incident's clocks."),
    "grant": ("safehold.cli.grant", "grant", "Two-party authorization: request and approve."),
    "init": ("safehold.cli.init", "init", "Write a starter configuration."),
    "intel": ("safehold.cli.intel", "intel", "Share attack descriptors; take others' on trial."),
    "keyd": ("safehold.cli.keyd", "keyd", "Run the key service that releases weight keys."),
    "keys": ("safehold.cli.keys", "keys", "Keys, tenants and budgets of a running gateway."),
    "ledger": ("safehold.cli.ledger", "ledger", "Read the ledger of exchanges."),
    "log": ("safehold.cli.log", "log", "The transparency log: append, prove, verify."),
    "monitor": ("safehold.cli.monitor", "monitor", "Look again at what was served."),
    "people": ("safehold.cli.people", "people", "Persons, roles, teams and their keys."),
    "race": ("safehold.cli.race", "race_command", "Race an adaptive attacker against it all."),
    "redteam": ("safehold.cli.redteam", "redteam", "Attack a guard and measure what gets through."),
    "report": ("safehold.cli.report", "report", "The safeguards report: claims over evidence."),
    "respond": ("safehold.cli.respond", "respond", "Answer a jailbreak: rule, retrain, release."),
    "review": ("safehold.cli.review", "review", "Judge what was served, blind at first."),
    "serve": ("safehold.cli.serve", "serve", "Run the guarded gateway."),
    "standards": ("safehold.cli.standards", "standards", "Capability thresholds and standards."),
    "synth": ("safehold.cli.synth", "synth", "Make a labelled dataset from a constitution."),
    "train": ("safehold.cli.train", "train_command", "Train and calibrate a bundle."),
    "up": ("safehold.cli.up", "up", "From a constitution to a guard in service, in one go."),
    "weights": ("safehold.cli.weights", "weights", "Seal, check and load model weights."),
}


class LazyGroup(click.Group):
    """A group whose commands are imported when they are named."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands."""
        del ctx
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return one command."""
        del ctx
        if cmd_name not in COMMANDS:
            return None
        module, attribute, _ = COMMANDS[cmd_name]
        command = getattr(importlib.import_module(module), attribute)
        if not isinstance(command, click.Command):
            raise TypeError(f"{module}.{attribute} is not a command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing any of them."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl([(name, COMMANDS[name][2]) for name in sorted(COMMANDS)])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="safehold")
def safehold() -> None:
    """Safeguards around a language model that you serve.

    \b
    Examples:
      safehold serve --upstream local          guard the embedded model
      safehold serve --upstream http://127.0.0.1:8000/v1
      safehold constitution show homebrewing
      safehold eval BUNDLE --data DIR
    """


def main(argv: list[str] | None = None) -> Any:
    """Run the command line; an error or a warning of ours becomes one line, an error a status.

    So does what the operating system refuses; a traceback is a defect of ours.
    """
    warnings.showwarning = _show_warning
    try:
        return safehold.main(args=argv, prog_name="safehold", standalone_mode=True)
    except SafeholdError as error:
        click.echo(f"safehold: error: {error}", err=True)
        sys.exit(error.exit_status)
    except ModuleNotFoundError as error:
        click.echo(f"safehold: error: {_missing(error)}", err=True)
        sys.exit(DependencyError.exit_status)
    except OSError as error:
        click.echo(f"safehold: error: {told_by_system(error)}", err=True)
        sys.exit(DiskError.exit_status)


def _missing(error: ModuleNotFoundError) -> str:
    """Say which extra brings a module that is not installed; a module of ours is a defect."""
    module = (error.name or "").partition(".")[0]
    if module in ("", __package__.partition(".")[0]):
        raise error
    name = _DISTRIBUTIONS.get(module, module)
    for line in metadata.requires("safehold") or ():
        said = re.fullmatch(r"([\w.-]+)(?:\[.*\])?[^;]*; extra == ['\"]([\w-]+)['\"]", line)
        if said is not None and said[1].lower() == name:
            return f"this command needs {name}: pip install 'safehold[{said[2]}]'"
    return f"this command needs the package {name}, which is not installed"


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Print a warning as one line: where it was raised in our code tells its reader nothing."""
    del category, filename, lineno, file, line
    click.echo(f"safehold: warning: {message}", err=True)
