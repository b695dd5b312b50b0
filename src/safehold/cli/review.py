"""`safehold review`: cases, blind verdicts, decisions, appeals, and what is missed."""

import hashlib
from pathlib import Path

import click
import msgspec

from safehold.cli._leaves import LogLeaves
from safehold.cli._trust import key_directory, keys_option, open_desk, read_signing_key
from safehold.detect.monitoring.estimate import Reviewers, Stratum, missed, plan
from safehold.detect.review.authority import GrantAuthority, LedgerHolds
from safehold.detect.review.desk import ReviewDesk
from safehold.detect.review.interface import CaseAction, CaseKind, ReviewVerdict
from safehold.errors import DataError
from safehold.guard.ledger.reader import LedgerReader


class _Places(msgspec.Struct, frozen=True):
    ledger: str
    review: str
    log_dir: Path
    key_dir: Path | None

    def desk(self) -> ReviewDesk:
        """Open the desk; the key that chooses second reviews comes from the log's private key."""
        emitter = read_signing_key(key_directory(self.log_dir, self.key_dir) / "emitter.key")
        return ReviewDesk(
            self.review,
            evidence=LedgerReader.open(self.ledger),
            leaves=LogLeaves(self.log_dir, self.key_dir),
            authority=GrantAuthority(open_desk(self.log_dir, self.key_dir)),
            holds=LedgerHolds(self.ledger),
            sampling_key=hashlib.sha256(f"review {emitter.text()}".encode()).digest(),
        )


@click.group()
@click.option("--ledger", "url", default="safehold-ledger.db", envvar="SAFEHOLD_LEDGER")
@click.option("--review", "store", default="safehold-review.db", envvar="SAFEHOLD_REVIEW")
@click.option(
    "--log",
    "log_dir",
    default="trust-log",
    envvar="SAFEHOLD_LOG",
    type=click.Path(path_type=Path),
    help="The transparency log that takes a leaf before every look.",
)
@keys_option
@click.pass_context
def review(
    context: click.Context, url: str, store: str, log_dir: Path, key_dir: Path | None
) -> None:
    """Judge what was served, blind at first.

    \b
    Examples:
      safehold review open sample d-3f9c2a d-77aa01 --by ann
      safehold review next ann
      safehold review show 4 ann --reason "weekly sample"
      safehold review verdict 4 ann permitted
    """
    context.obj = _Places(url, store, log_dir, key_dir)


@review.command("open")
@click.argument("kind", type=click.Choice([str(kind.value) for kind in CaseKind]))
@click.argument("decision_ids", nargs=-1, required=True)
@click.option("--by", required=True, help="Who opens the case.")
@click.option("--severity", default=1, show_default=True, type=click.IntRange(0, 4))
@click.option("--account", help="The account that the case is about.")
@click.pass_obj
def open_command(
    places: _Places,
    kind: str,
    decision_ids: tuple[str, ...],
    by: str,
    severity: int,
    account: str | None,
) -> None:
    """Open a case, hold its decisions in the ledger, and print its number.

    \b
    Example:
      safehold review open appeal d-3f9c2a --by client --severity 3
    """
    number = places.desk().open_case(
        CaseKind(kind), decision_ids, severity=severity, opened_by=by, account=account
    )
    click.echo(number)


@review.command("next")
@click.argument("person")
@click.pass_obj
def next_command(places: _Places, person: str) -> None:
    """Take the next item; nothing of a score or another verdict is told.

    \b
    Example:
      safehold review next ann
    """
    item = places.desk().next(person)
    click.echo("null" if item is None else msgspec.json.encode(item))


@review.command()
@click.argument("item", type=int)
@click.argument("person")
@click.option("--reason", required=True, help="Why you look; kept.")
@click.pass_obj
def show(places: _Places, item: int, person: str, reason: str) -> None:
    """Show an item's content, after its leaf is in the log.

    \b
    Example:
      safehold review show 4 ann --reason "weekly sample"
    """
    click.echo(msgspec.json.encode(places.desk().reveal(item, person, reason=reason)))


@review.command()
@click.argument("item", type=int)
@click.argument("person")
@click.argument("verdict", type=click.Choice([str(one.value) for one in ReviewVerdict]))
@click.option("--note", default="", help="Only its digest is kept.")
@click.pass_obj
def verdict(places: _Places, item: int, person: str, verdict: str, note: str) -> None:
    """Give your verdict, then see the score and what others said.

    \b
    Example:
      safehold review verdict 4 ann restricted_helpful
    """
    desk = places.desk()
    desk.verdict(item, person, ReviewVerdict(verdict), note=note)
    click.echo(msgspec.json.encode(desk.context(item, person)))


@review.command()
@click.argument("case", type=int)
@click.argument("action", type=click.Choice([str(one.value) for one in CaseAction]))
@click.option("--by", required=True, help="Who decides.")
@click.option("--grant", "grant_id", help="The grant for stepping up or suspending.")
@click.pass_obj
def decide(places: _Places, case: int, action: str, by: str, grant_id: str | None) -> None:
    """End a case.

    \b
    Example:
      safehold review decide 2 label --by ann
    """
    places.desk().decide(case, CaseAction(action), by=by, grant_id=grant_id)


@review.command()
@click.argument("case", type=int)
@click.pass_obj
def appeal(places: _Places, case: int) -> None:
    """Tell what a client may know of an appeal.

    \b
    Example:
      safehold review appeal 7
    """
    click.echo(msgspec.json.encode(places.desk().appeal_state(case)))


class _Sample(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    strata: tuple[Stratum, ...]
    reviewers: Reviewers | None = None


@review.command("missed")
@click.argument("sample", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--seed", default=1, show_default=True)
def missed_command(sample: Path, seed: int) -> None:
    """Estimate what is missed from a file with strata and, if measured, the reviewers' own errors.

    \b
    Example:
      safehold review missed sample.json
    """
    try:
        read = msgspec.json.decode(sample.read_bytes(), type=_Sample)
    except msgspec.DecodeError as error:
        raise DataError(f"{sample}: expected strata as in docs/detection.md: {error}") from error
    done = missed(read.strata, seed=seed, reviewers=read.reviewers)
    click.echo(msgspec.json.format(msgspec.json.encode(done)))


@review.command("plan")
@click.option("--prevalence", required=True, type=float, help="Expected share of positives.")
@click.option("--recall", required=True, type=float, help="The recall to show.")
def plan_command(prevalence: float, recall: float) -> None:
    """Print how many exchanges below the floor to read.

    \b
    Example:
      safehold review plan --prevalence 0.0002 --recall 0.5
    """
    click.echo(plan(prevalence=prevalence, recall=recall))
