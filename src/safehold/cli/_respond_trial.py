"""`safehold respond trial`: a challenger beside the champion, one signed step after another."""

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from safehold.cli._respond_options import (
    case_option,
    file_path,
    json_option,
    keys_option,
    person_key_option,
    person_option,
)
from safehold.cli._values import WholeNumber
from safehold.errors import SafeholdError, UsageError

if TYPE_CHECKING:
    from safehold.improve.response.gates import GateReport
    from safehold.improve.response.trial_book import TrialBook

_trial = click.option(
    "--trial", "file", required=True, type=file_path, help="The trial's signed file."
)

_rules = click.option(
    "--hot-rules", "rules", type=file_path, help="The signed file, where the report names a rule."
)


def _passed(folder: Path, rules: Path | None, publics: tuple[str, ...]) -> "GateReport":
    """Return the case's report, whose gates passed and whose rule still stands.

    A rule that ended, or that one person alone let act, holds up every step forward and none back.
    """
    from safehold.cli._respond_options import quorum
    from safehold.improve.response.case import IncidentCase
    from safehold.improve.response.rule_book import standing_in

    case = IncidentCase(folder)
    report = case.report()
    if not report.passed:
        raise SafeholdError(f"{folder}: the gates refused this challenger; it is not tried")
    if report.rule_stays:
        if rules is None:
            raise UsageError(f"the gates passed beside rule {report.rule_stays}: give --hot-rules")
        standing_in(rules, quorum(publics), case.rule(), int(time.time()))
    return report


def _still_passed(
    book: "TrialBook", folder: Path, rules: Path | None, publics: tuple[str, ...]
) -> None:
    """Refuse a step of a trial that began on another case, or whose rule does not stand."""
    plan = book.plan()
    if _passed(folder, rules, publics).digest != plan.report:
        raise SafeholdError(f"{folder}: is not the case that trial {plan.id} began with")


def _book(file: Path, person: str, person_key: Path, publics: tuple[str, ...]) -> "TrialBook":
    from safehold.cli._respond_options import private_key, quorum
    from safehold.improve.response.trial_book import TrialBook

    return TrialBook(file, quorum(publics), person, private_key(person_key))


@click.group()
def trial() -> None:
    """Try a challenger beside the bundle in use: shadow, then 5, 25 and 100 % of the accounts.

    \b
    Examples:
      safehold respond trial begin --case c1 --trial trial.json --name challenger \\
          --as anna --person-key anna.pem --person-pub anna=anna.pub --person-pub bela=bela.pub
      safehold respond trial status --memory trial.memory
    """


@trial.command("begin")
@case_option
@_trial
@click.option("--name", required=True, help="The challenger's name in the gateway's bundles.")
@click.option(
    "--least",
    default=1_000,
    show_default=True,
    type=WholeNumber(1),
    help="Exchanges that both bundles judge before each next step.",
)
@_rules
@person_option
@person_key_option
@keys_option
def begin(
    folder: Path,
    file: Path,
    name: str,
    least: int,
    rules: Path | None,
    person: str,
    person_key: Path,
    publics: tuple[str, ...],
) -> None:
    """Begin in shadow, where the challenger decides nothing; its gates must have passed.

    Where they passed beside a hot rule, that rule must still act in --hot-rules.

    \b
    Examples:
      safehold respond trial begin --case c1 --trial trial.json --name challenger \\
          --as anna --person-key anna.pem --person-pub anna=anna.pub --person-pub bela=bela.pub
    """
    from safehold.guard.gateway.bundles.trial_file import TrialPlan
    from safehold.improve.response.case import IncidentCase

    report = _passed(folder, rules, publics)
    plan = TrialPlan(
        id=f"{IncidentCase(folder).incident().id}-{report.challenger[:8]}",
        serial=1,
        champion=report.champion,
        challenger=report.challenger,
        folder=name,
        report=report.digest,
        least=least,
    )
    plan = _book(file, person, person_key, publics).begin(plan)
    IncidentCase(folder).keep_trial(file)
    click.echo(f"{file}: trial {plan.id} in shadow")


@trial.command("next")
@case_option
@_trial
@_rules
@person_option
@person_key_option
@keys_option
def next_(
    folder: Path,
    file: Path,
    rules: Path | None,
    person: str,
    person_key: Path,
    publics: tuple[str, ...],
) -> None:
    """Propose the next step; others approve it.

    Where the gates passed beside a hot rule, that rule must still act in --hot-rules.

    \b
    Examples:
      safehold respond trial next --case c1 --trial trial.json --as anna --person-key anna.pem \\
          --person-pub anna=anna.pub --person-pub bela=bela.pub
    """
    book = _book(file, person, person_key, publics)
    _still_passed(book, folder, rules, publics)
    plan = book.propose()
    click.echo(f"{file}.next: trial {plan.id}, step {plan.step} proposed ({plan.digest[:16]})")


@trial.command("excuse")
@_trial
@click.option("--decision", "decisions", multiple=True, required=True, help="May be repeated.")
@person_option
@person_key_option
@keys_option
def excuse(
    file: Path,
    decisions: tuple[str, ...],
    person: str,
    person_key: Path,
    publics: tuple[str, ...],
) -> None:
    """Propose to count decisions as restricted, as a reviewer judged them: no false alarms.

    \b
    Examples:
      safehold respond trial excuse --trial trial.json --decision sh_1 --decision sh_2 \\
          --as anna --person-key anna.pem --person-pub anna=anna.pub --person-pub bela=bela.pub
    """
    plan = _book(file, person, person_key, publics).excuse(decisions)
    click.echo(f"{file}.next: {len(plan.restricted)} decisions proposed ({plan.digest[:16]})")


@trial.command("approve")
@_trial
@person_option
@person_key_option
@keys_option
def approve(file: Path, person: str, person_key: Path, publics: tuple[str, ...]) -> None:
    """Sign what is proposed.

    \b
    Examples:
      safehold respond trial approve --trial trial.json --as bela --person-key bela.pem \\
          --person-pub anna=anna.pub --person-pub bela=bela.pub
    """
    plan, persons = _book(file, person, person_key, publics).approve()
    click.echo(f"{file}.next: step {plan.step} signed by {', '.join(sorted(persons))}")


@trial.command("step")
@case_option
@_trial
@_rules
@person_option
@person_key_option
@keys_option
def step(
    folder: Path,
    file: Path,
    rules: Path | None,
    person: str,
    person_key: Path,
    publics: tuple[str, ...],
) -> None:
    """Put what is proposed in force, once enough persons signed it.

    Where the gates passed beside a hot rule, that rule must still act in --hot-rules: a rule may
    end while the trial goes on, and the challenger alone leaves what it stopped open.

    \b
    Examples:
      safehold respond trial step --case c1 --trial trial.json --as anna --person-key anna.pem \\
          --person-pub anna=anna.pub --person-pub bela=bela.pub
    """
    book = _book(file, person, person_key, publics)
    _still_passed(book, folder, rules, publics)
    plan = book.take()
    click.echo(f"{file}: trial {plan.id}, serial {plan.serial}, step {plan.step}")


@trial.command("back")
@_trial
@person_option
@person_key_option
@keys_option
def back(file: Path, person: str, person_key: Path, publics: tuple[str, ...]) -> None:
    """End the trial at once: the champion serves everybody. One person is enough.

    \b
    Examples:
      safehold respond trial back --trial trial.json --as anna --person-key anna.pem \\
          --person-pub anna=anna.pub --person-pub bela=bela.pub
    """
    plan = _book(file, person, person_key, publics).back()
    click.echo(f"{file}: trial {plan.id} goes back")


@trial.command("status")
@click.option("--memory", required=True, type=file_path, help="What the gateway's workers share.")
@json_option
def status(memory: Path, as_json: bool) -> None:
    """Say how far the trial is, by the gateway's own memory.

    \b
    Examples:
      safehold respond trial status --memory trial.memory
    """
    from safehold.cli._respond_options import say
    from safehold.guard.gateway.bundles.trial_memory import TrialMemory

    kept = TrialMemory(memory).read()
    if kept is None:
        raise UsageError(f"{memory}: expected the memory of a trial; no gateway followed one yet")
    now, evidence = kept.trial, kept.trial.evidence
    say(as_json, {**msgspec.to_builtins(now), "id": kept.plan.id, "alarms": list(kept.alarms)})
    if not as_json:
        click.echo(f"trial {kept.plan.id}: {now.step} {now.reason}".rstrip())
        click.echo(f"exchanges in this step {now.seen} of {kept.plan.least}")
        click.echo(f"false alarms of the challenger's own {evidence.own_alarms}")
        click.echo(f"false alarms of the champion's own {evidence.champions}")
