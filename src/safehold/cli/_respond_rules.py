"""The hot rule of a case: made and measured, in shadow, approved by two, acting, ended."""

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from safehold.cli._respond_options import (
    benign_option,
    case_option,
    json_option,
    keys_option,
    person_key_option,
    person_option,
    rules_option,
)
from safehold.cli._trust import log_options, ssh_key_option
from safehold.cli._values import SENTENCE, WHO

if TYPE_CHECKING:
    from safehold.improve.response.case import IncidentCase
    from safehold.improve.response.rule_book import RuleBook


@click.command("rule")
@case_option
@benign_option
@click.option("--owner", type=WHO, required=True, help="Who answers for the rule.")
@click.option("--days", default=7, show_default=True, type=click.IntRange(1, 30), help="Its life.")
@json_option
def rule_(folder: Path, benign: tuple[Path, ...], owner: str, days: int, as_json: bool) -> None:
    """Make the hot rule and measure what it would have cost your own benign traffic.

    \b
    Examples:
      safehold respond rule --case c1 --benign traffic.jsonl --owner anna
      safehold respond rule --case c1 --benign traffic/ --owner anna --days 1
    """
    from safehold.cli._respond_options import say, traffic
    from safehold.improve.response.case import IncidentCase
    from safehold.improve.response.hotrule import hot_rule
    from safehold.stats import Rate

    case = IncidentCase(folder)
    texts, sources = traffic(benign)
    found = hot_rule(
        case.incident(),
        case.dress(),
        case.variants(),
        [text for slice_ in texts.values() for text in slice_],
        sources=sources,
        owner=owner,
        now=int(time.time()),
        days=days,
    )
    case.keep_rule(found)
    say(as_json, msgspec.to_builtins(found))
    if not as_json:
        cost = found.rule.cost
        click.echo(f"{found.rule.id}: catches {found.caught.at_least()} of its own family")
        click.echo(f"benign traffic: {Rate(cost.hits, cost.n).at_most() if cost else 'unknown'}")
        click.echo(f"permitted requests in the same dress: {found.twins.at_most()}")


@click.command("begin-rules")
@rules_option
@person_option
@person_key_option
@keys_option
def begin_rules(rules: Path, person: str, person_key: Path, publics: tuple[str, ...]) -> None:
    """Make an empty signed file of hot rules, for a gateway to follow.

    \b
    Examples:
      safehold respond begin-rules --hot-rules hot.json --as anna --person-key anna.pem \\
          --person-pub anna=anna.pub --person-pub bela=bela.pub
    """
    book_of(rules, person, person_key, publics).begin(int(time.time()))
    click.echo(f"{rules}: no rule yet")


@click.command("shadow")
@case_option
@rules_option
@person_option
@person_key_option
@keys_option
def shadow(
    folder: Path, rules: Path, person: str, person_key: Path, publics: tuple[str, ...]
) -> None:
    """Put the case's rule in shadow: it is counted on live traffic and stops nothing.

    \b
    Examples:
      safehold respond shadow --case c1 --hot-rules hot.json --as anna --person-key anna.pem \\
          --person-pub anna=anna.pub --person-pub bela=bela.pub
    """
    from safehold.improve.response.case import IncidentCase

    case = IncidentCase(folder)
    rule = case.rule()
    serial = book_of(rules, person, person_key, publics).shadow(rule, int(time.time()))
    case.keep_rules_file(rules)
    click.echo(f"{rules}: serial {serial}, {rule.id} in shadow")


@click.command("approve")
@case_option
@person_option
@person_key_option
@keys_option
def approve(folder: Path, person: str, person_key: Path, publics: tuple[str, ...]) -> None:
    """Sign that the case's rule may act, after reading it and its cost.

    The public key says that --person-key is the signer's own: another signature counts for nobody.

    \b
    Examples:
      safehold respond approve --case c1 --as bela --person-key bela.pem \\
          --person-pub bela=bela.pub
    """
    from safehold.cli._respond_options import private_key, quorum
    from safehold.guard.bundle.overlay_file import approve as signed_by
    from safehold.improve.response.case import IncidentCase

    case = IncidentCase(folder)
    rule, key = case.rule(), private_key(person_key)
    quorum(publics).check_signer(person, key)
    case.keep_approval(signed_by(rule, person, key))
    click.echo(f"{rule.id}: approved by {person} ({rule.digest[:16]})")


@click.command("ask-grant")
@case_option
@ssh_key_option
@click.option("--purpose", type=SENTENCE, default="", help="Why, for those who approve it.")
@click.option("--ticket", type=SENTENCE, default="none", help="Where it is written up.")
@log_options
def ask_grant(
    folder: Path,
    ssh_key: Path,
    purpose: str,
    ticket: str,
    log_dir: Path,
    key_dir: Path | None,
) -> None:
    """Ask the log to let the case's rule act; print the request's id for `act --grant`.

    It holds once the quorum approved it (`safehold grant approve`): a leaf before the rule acts.

    \b
    Examples:
      safehold respond ask-grant --case c1 --ssh-key ~/.ssh/id_ed25519 --log trust-log
    """
    from safehold.cli._trust import file_request, open_desk, owner_of
    from safehold.cli._trust_requests import governing_request
    from safehold.improve.response.case import IncidentCase
    from safehold.trust.grants.details import ACTIVATE_RULE, RuleActivation

    case = IncidentCase(folder)
    rule = case.rule()
    desk = open_desk(log_dir, key_dir)
    asked = governing_request(
        desk.state,
        owner_of(ssh_key, desk.state.roster),
        ACTIVATE_RULE,
        RuleActivation(rule=rule.id, sha256=rule.digest, until=rule.expires),
        desk.now(),
        purpose=purpose or f"hot rule {rule.id}",
        ticket=ticket,
    )
    click.echo(file_request(desk, asked, ssh_key))


@click.command("act")
@case_option
@rules_option
@person_option
@person_key_option
@keys_option
@click.option("--grant", default="", help="The request in the log that lets it act.")
@click.option("--break-glass", is_flag=True, help="One person alone: a rule of a day at most.")
def act(
    folder: Path,
    rules: Path,
    person: str,
    person_key: Path,
    publics: tuple[str, ...],
    break_glass: bool,
    grant: str,
) -> None:
    """Let the case's rule act, once two persons approved it.

    \b
    Examples:
      safehold respond act --case c1 --hot-rules hot.json --as anna --person-key anna.pem \\
          --person-pub anna=anna.pub --person-pub bela=bela.pub
    """
    from safehold.improve.response.case import IncidentCase

    case = IncidentCase(folder)
    book = book_of(rules, person, person_key, publics)
    serial = book.act(
        case.rule().id, case.approvals(), int(time.time()), broken_glass=break_glass, grant=grant
    )
    click.echo(f"{rules}: serial {serial}, {case.rule().id} acts")


@click.command("end")
@case_option
@rules_option
@person_option
@person_key_option
@keys_option
def end(folder: Path, rules: Path, person: str, person_key: Path, publics: tuple[str, ...]) -> None:
    """Take the case's rule out before its end.

    A trial that rests on the rule is named in a warning: it takes no further step.

    \b
    Examples:
      safehold respond end --case c1 --hot-rules hot.json --as anna --person-key anna.pem \\
          --person-pub anna=anna.pub --person-pub bela=bela.pub
    """
    from safehold.improve.response.case import IncidentCase

    case = IncidentCase(folder)
    rule = case.rule()
    serial = book_of(rules, person, person_key, publics).end(rule.id, int(time.time()))
    click.echo(f"{rules}: serial {serial}, {rule.id} ended")
    for file in case.trials():
        # The rule's end is never held up: it may stop honest people. The trial is.
        said = _resting(file, case, rule.id, publics)
        if said:
            click.echo(f"safehold: warning: {said}", err=True)


def _resting(file: Path, case: "IncidentCase", rule: str, publics: tuple[str, ...]) -> str:
    """Return what to do about a trial that rests on a rule; empty where none does."""
    from safehold.cli._respond_options import quorum
    from safehold.guard.gateway.bundles.trial_file import TrialError, opened_plan
    from safehold.guard.gateway.bundles.trial_steps import TrialStep

    report = case.report()
    if report.rule_stays != rule:
        return ""
    try:
        plan = opened_plan(file.read_bytes(), quorum(publics))
    except FileNotFoundError:
        return ""
    except (OSError, TrialError):
        return f"{file}: a trial may rest on rule {rule}, and its file can't be read"
    if plan.report != report.digest or plan.step is TrialStep.ROLLED_BACK:
        return ""
    return (
        f"trial {plan.id} ({file}, step {plan.step}) rests on rule {rule} and takes no further "
        "step: let the rule act again, or end it with `safehold respond trial back`"
    )


def book_of(rules: Path, person: str, person_key: Path, publics: tuple[str, ...]) -> "RuleBook":
    """Return the file of hot rules and who signs it."""
    from safehold.cli._respond_options import private_key, quorum
    from safehold.improve.response.rule_book import RuleBook

    return RuleBook(rules, quorum(publics), person, private_key(person_key))


RULE_COMMANDS = (rule_, begin_rules, shadow, approve, ask_grant, act, end)
