"""`safehold capability`: staged tasks without the guard, two-arm trials, and trends."""

import json
import time
from contextlib import ExitStack
from pathlib import Path

import click
import msgspec

from safehold.cli._places import out_file, out_folder
from safehold.cli._reads import any_file, json_file, read_json
from safehold.cli._trust import json_option
from safehold.cli._values import (
    POSIX_S,
    Address,
    Finite,
    HeaderKey,
)
from safehold.errors import UsageError

_YEAR_S = 365 * 86_400

# As in `govern/capability/run.py`; a test compares.
ELICITATIONS = ("plain", "stepwise", "expert", "example")


@click.group()
def capability() -> None:
    """What a model can do without its guard: the evidence of a determination.

    \b
    Examples:
      safehold capability run --upstream local --plan p1 --compute 1e20 --out run/
      safehold capability run --upstream http://127.0.0.1:8000/v1 --model SHA256 \\
          --model-name small --plan p1 --compute 1e24 --out run/
      safehold capability uplift trial.json
      safehold capability trend run-1/run.json run-2/run.json
    """


@capability.command("run")
@click.option(
    "--upstream",
    type=Address("local"),
    required=True,
    help="Base URL of the model server, or `local`.",
)
@click.option("--suite", default="homebrewing", show_default=True, help="Stock suite, or a .toml.")
@click.option("--model", help="SHA-256 of the model's weights (`local` knows its own).")
@click.option("--model-name", help="The model's name on the wire.")
@click.option(
    "--api-key",
    type=HeaderKey(),
    default="",
    envvar="SAFEHOLD_UPSTREAM_KEY",
    help="Key of the server.",
)
@click.option("--plan", default="unplanned", show_default=True, help="The plan that asks for it.")
@click.option(
    "--compute", type=Finite(0, min_open=True), required=True, help="The model's effective compute."
)
@click.option(
    "--attempts",
    type=click.IntRange(1, 100),
    default=1,
    show_default=True,
    help="Answers to draw for each task and way.",
)
@click.option("--elicit", multiple=True, type=click.Choice(ELICITATIONS), help="All if none.")
@click.option(
    "--max-tokens",
    type=click.IntRange(16, 8192),
    default=512,
    show_default=True,
    help="Tokens of an answer at most.",
)
@click.option("--gap", multiple=True, help="What elicitation is known to lack.")
@click.option(
    "--effort-hours",
    type=Finite(0),
    default=0.0,
    show_default=True,
    help="Hours that people spent on drawing it out.",
)
@click.option(
    "--timeout",
    "timeout_s",
    default=600.0,
    show_default=True,
    type=Finite(0, min_open=True),
    help="Seconds for one call.",
)
@click.option(
    "--out",
    type=out_folder(),
    required=True,
    help="A folder; one with an unfinished run of the same kind goes on where that was.",
)
@json_option
def run(
    upstream: str,
    suite: str,
    model: str | None,
    model_name: str | None,
    api_key: str,
    plan: str,
    compute: float,
    attempts: int,
    elicit: tuple[str, ...],
    max_tokens: int,
    gap: tuple[str, ...],
    effort_hours: float,
    timeout_s: float,
    out: Path,
    as_json: bool,
) -> None:
    """Put the staged tasks to a model; write samples, the run, and the record for the log.

    \b
    Example:
      safehold capability run --upstream local --plan p1 --compute 1e20 --out run/
    """
    from safehold.canonical import canonical, sha256_hex
    from safehold.cli._trust import emit
    from safehold.govern.capability.progress import RunFolder, RunPlan
    from safehold.govern.capability.run import run_on, run_record, stock_suite
    from safehold.stats import Rate

    tasks = stock_suite(suite)
    chosen = elicit or ELICITATIONS
    with ExitStack() as stack:
        if upstream == "local":
            from safehold.guard.gateway.upstreams.embedded import MODEL, SHA256, LocalServer

            model, model_name = model or SHA256, MODEL
        if model is None or model_name is None:
            raise UsageError("expected --model SHA256 and --model-name for a server of your own")
        asked = RunPlan(
            suite_sha256=sha256_hex(canonical(tasks)),
            model=model,
            model_name=model_name,
            elicitations=chosen,
            attempts=attempts,
            max_tokens=max_tokens,
            started=int(time.time()),
        )
        folder = stack.enter_context(RunFolder(out, asked))
        started = folder.plan.started
        url, key = upstream, api_key
        if upstream == "local":
            child = stack.enter_context(LocalServer(threads=2, slots=1))
            url, key = child.url, child.key
        samples = run_on(
            tasks,
            url,
            key=key,
            model_name=model_name,
            elicitations=chosen,
            attempts=attempts,
            max_tokens=max_tokens,
            timeout_s=timeout_s,
            folder=folder,
        )
    found = run_record(
        tasks, samples, model=model, model_name=model_name, started=started, attempts=attempts
    )
    record = {
        "plan": plan,
        "suite": tasks.id,
        "model": model,
        "started": started,
        "items": found.items,
        "successes": found.successes,
        "unscorable": found.unscorable,
        "errors": found.errors,
        "compute": compute,
        "elicitation": {
            "method": f"{', '.join(chosen)}; best of {attempts} each",
            "effort_h": effort_hours,
            "tools": [],
            "guard_off": True,
            "gaps": list(gap),
        },
        "log_sha256": found.samples_sha256,
        "expires": found.ended + _YEAR_S,
    }
    _write(out / "run.json", msgspec.json.format(msgspec.json.encode(found), indent=1))
    _write(out / "record.json", json.dumps(record, indent=1).encode())
    if as_json:
        emit(found)
        return
    click.echo(f"{found.model_name} on {tasks.title}")
    for stage, (solved, items) in found.by_stage.items():
        click.echo(f"  {stage}: {Rate(solved, items).at_most()}")
    click.echo(f"solved: {Rate(found.successes, found.items).at_most()}")
    counted = found.successes + found.unscorable + found.errors
    click.echo(f"counted for a rule-out: {Rate(counted, found.items).at_most()}")
    click.echo(f"plans with critical faults: {found.with_critical_faults} of {found.items}")
    click.echo(f"the record for `standards.evaluation`: {out / 'record.json'}")


@capability.command("import-eval")
@click.argument("file", type=any_file())
@click.option("--model", required=True, help="SHA-256 of the model's weights.")
@click.option("--suite", required=True, help="The plan's name for this suite.")
@click.option("--plan", default="unplanned", show_default=True, help="The plan that asks for it.")
@click.option(
    "--compute", type=Finite(0, min_open=True), required=True, help="The model's effective compute."
)
@click.option("--started", type=POSIX_S, required=True, help="POSIX seconds when the run began.")
@click.option("--method", required=True, help="How the capability was drawn out.")
@click.option("--guard-off", is_flag=True, help="The run was made without the guard.")
@click.option(
    "--out", type=out_file(makes_folders=True), required=True, help="The record to write."
)
def import_eval(
    file: Path,
    model: str,
    suite: str,
    plan: str,
    compute: float,
    started: int,
    method: str,
    guard_off: bool,
    out: Path,
) -> None:
    """Read a log of Inspect (.eval), and write the record for `standards.evaluation`.

    \b
    Example:
      safehold capability import-eval log.eval --model SHA256 --suite tasks --compute 1e20 \\
          --started 1800000000 --method 'few-shot' --guard-off --out record.json
    """
    from safehold.govern.capability.inspect_log import read_inspect
    from safehold.stats import Rate

    found = read_inspect(file)
    record = {
        "plan": plan,
        "suite": suite,
        "model": model,
        "started": started,
        "items": found.items,
        "successes": found.successes,
        "unscorable": found.unscorable,
        "errors": found.errors,
        "compute": compute,
        "elicitation": {
            "method": method,
            "effort_h": 0.0,
            "tools": [],
            "guard_off": guard_off,
            "gaps": [],
        },
        "log_sha256": found.sha256,
        "expires": started + _YEAR_S,
    }
    _write(out, json.dumps(record, indent=1).encode())
    counted = found.successes + found.unscorable + found.errors
    click.echo(
        f"{found.task} on {found.model_name}: {Rate(found.successes, found.items).at_most()}"
    )
    click.echo(f"counted for a rule-out: {Rate(counted, found.items).at_most()}")


@capability.command("uplift")
@click.argument("trial", type=json_file())
@json_option
def show_uplift(trial: Path, as_json: bool) -> None:
    """Compare two arms: plans without critical faults, by an exact test.

    \b
    Example:
      safehold capability uplift trial.json
    """
    from safehold.cli._trust import emit, plain
    from safehold.govern.capability.interface import UpliftTrial
    from safehold.govern.capability.score import uplift

    found = uplift(read_json(trial, UpliftTrial, "an uplift trial"))
    if as_json:
        emit(plain(found))
        return
    click.echo(f"control: plans without critical faults {found.control.at_least()}")
    click.echo(f"with the model: plans without critical faults {found.treated.at_least()}")
    click.echo(
        f"plans with critical faults: {found.control_with_faults.events} of "
        f"{found.control_with_faults.n}, and {found.treated_with_faults.events} of "
        f"{found.treated_with_faults.n} with the model"
    )
    click.echo(f"median critical faults: {found.median_faults[0]:g} and {found.median_faults[1]:g}")
    click.echo(f"Fisher's exact test, one-sided: p = {found.p_value:.4f}")


@capability.command("trend")
@click.argument("runs", nargs=-1, required=True, type=json_file())
@json_option
def trend(runs: tuple[Path, ...], as_json: bool) -> None:
    """Show solved tasks over versions of a model, and whether each solves more than the first.

    \b
    Example:
      safehold capability trend run-1/run.json run-2/run.json
    """
    from safehold.cli._trust import emit
    from safehold.govern.capability.interface import CapabilityError, CapabilityRun
    from safehold.govern.capability.score import fisher_greater
    from safehold.stats import Rate

    found = sorted(
        (read_json(one, CapabilityRun, "a capability run") for one in runs),
        key=lambda one: one.started,
    )
    if len({one.suite_sha256 for one in found}) != 1:
        raise CapabilityError("expected runs of one suite: the tasks differ")
    first = Rate(found[0].successes, found[0].items)
    rows = [
        {
            "model": one.model_name,
            "sha256": one.model,
            "started": one.started,
            "solved": one.successes,
            "items": one.items,
            "upper": Rate(one.successes, one.items).upper,
            "p_more_than_first": fisher_greater(first, Rate(one.successes, one.items)),
        }
        for one in found
    ]
    if as_json:
        emit(rows)
        return
    for one, row in zip(found, rows, strict=True):
        rate = Rate(one.successes, one.items).at_most()
        click.echo(
            f"{one.model_name}: {rate}; more than the first: p = {row['p_more_than_first']:.3f}"
        )


def _write(path: Path, data: bytes) -> None:
    from safehold.govern.capability.interface import CapabilityError

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    except OSError as error:
        raise CapabilityError(f"can't write {path}: {error.strerror}") from error
