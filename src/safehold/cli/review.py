"""`safehold review`: cases, blind verdicts, decisions, appeals, and what is missed."""

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from safehold.cli._replays import replay_options
from safehold.cli._review_measures import MEASURING
from safehold.cli._trust import keys_option
from safehold.cli._values import KEPT_NUMBER, SENTENCE, WHO
from safehold.detect.review.interface import CaseAction, CaseKind, ReviewVerdict
from safehold.errors import DependencyError, SafeholdError

if TYPE_CHECKING:
    from safehold.cli._replays import ReplayThrough
    from safehold.cli._review_places import ReviewPlaces

_path = click.Path(path_type=Path)


@click.group()
@click.option(
    "--ledger",
    "url",
    default="safehold-ledger.db",
    envvar="SAFEHOLD_LEDGER",
    help="The ledger: a file, or a database's URL.",
)
@click.option(
    "--review",
    "store",
    default="safehold-review.db",
    envvar="SAFEHOLD_REVIEW",
    help="The reviewers' store: a file, or a database's URL.",
)
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
    from safehold.cli._review_places import ReviewPlaces

    context.obj = ReviewPlaces(url, store, log_dir, key_dir)


@review.command("open")
@click.argument("kind", type=click.Choice([str(kind.value) for kind in CaseKind]))
@click.argument("decision_ids", nargs=-1, required=True)
@click.option("--by", type=WHO, required=True, help="Who opens the case.")
@click.option(
    "--severity",
    default=1,
    show_default=True,
    type=click.IntRange(0, 4),
    help="From 0 to 4; a step is worth a week of waiting.",
)
@click.option("--account", type=SENTENCE, help="The account that the case is about.")
@click.pass_obj
def open_command(
    places: "ReviewPlaces",
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
    number = places.desk(make=True).open_case(
        CaseKind(kind), decision_ids, severity=severity, opened_by=by, account=account
    )
    click.echo(number)


@review.command("next")
@click.argument("person", type=WHO)
@click.pass_obj
def next_command(places: "ReviewPlaces", person: str) -> None:
    """Take the next item; nothing of a score or another verdict is told.

    \b
    Example:
      safehold review next ann
    """
    from safehold.detect.review.reading import PAUSE_AFTER_S, ReviewReading

    item = places.desk().next(person)
    click.echo("null" if item is None else msgspec.json.encode(item))
    reading = ReviewReading(places.review, time.time).reading_for(person)
    if reading >= PAUSE_AFTER_S:
        click.echo(f"you have read for {reading / 60:.0f} minutes: take a break", err=True)


@review.command("keep")
@click.argument("item", type=KEPT_NUMBER)
@click.argument("person", type=WHO)
@click.pass_obj
def keep(places: "ReviewPlaces", item: int, person: str) -> None:
    """Keep an item that is yours for another fifteen minutes; print until when.

    \b
    Example:
      safehold review keep 4 ann
    """
    click.echo(places.desk().keep(item, person))


@review.command("back")
@click.argument("item", type=KEPT_NUMBER)
@click.argument("person", type=WHO)
@click.pass_obj
def back(places: "ReviewPlaces", item: int, person: str) -> None:
    """Give an item back that you do not want to judge.

    \b
    Example:
      safehold review back 4 ann
    """
    places.desk().give_back(item, person)


@review.command()
@click.argument("item", type=KEPT_NUMBER)
@click.argument("person", type=WHO)
@click.option("--reason", type=SENTENCE, required=True, help="Why you look; kept.")
@click.pass_obj
def show(places: "ReviewPlaces", item: int, person: str, reason: str) -> None:
    """Show an item's content, after its leaf is in the log.

    \b
    Example:
      safehold review show 4 ann --reason "weekly sample"
    """
    click.echo(msgspec.json.encode(places.desk().reveal(item, person, reason=reason)))


@review.command()
@click.argument("item", type=KEPT_NUMBER)
@click.argument("person", type=WHO)
@click.argument("verdict", type=click.Choice([str(one.value) for one in ReviewVerdict]))
@click.option("--note", type=SENTENCE, default="", help="Only its digest is kept.")
@click.pass_obj
def verdict(places: "ReviewPlaces", item: int, person: str, verdict: str, note: str) -> None:
    """Give your verdict, then see the score and what others said.

    \b
    Example:
      safehold review verdict 4 ann restricted_helpful
    """
    desk = places.desk()
    desk.verdict(item, person, ReviewVerdict(verdict), note=note)
    click.echo(msgspec.json.encode(desk.context(item, person)))


@review.command()
@click.argument("case", type=KEPT_NUMBER)
@click.argument("action", type=click.Choice([str(one.value) for one in CaseAction]))
@click.option("--by", type=WHO, required=True, help="Who decides.")
@click.option("--grant", "grant_id", help="The grant for stepping up or suspending.")
@click.option(
    "--consent", type=SENTENCE, default="", help="Reference of the tenant's consent, for training."
)
@click.option(
    "--examples",
    default="permitted",
    show_default=True,
    type=_path,
    help="Where an overturned appeal leaves its permitted example.",
)
@click.pass_obj
def decide(
    places: "ReviewPlaces",
    case: int,
    action: str,
    by: str,
    grant_id: str | None,
    consent: str,
    examples: Path,
) -> None:
    """End a case.

    \b
    Examples:
      safehold review decide 2 label --by ann
      safehold review decide 7 overturn --by lead --examples permitted/
      safehold review decide 9 suspend --by p-... --grant SHA256
    """
    written = places.desk(examples).decide(
        case, CaseAction(action), by=by, grant_id=grant_id, consent=consent
    )
    if written is not None:
        click.echo(written)


@review.command()
@click.argument("case", type=KEPT_NUMBER)
@click.pass_obj
def appeal(places: "ReviewPlaces", case: int) -> None:
    """Tell what a client may know of an appeal.

    \b
    Example:
      safehold review appeal 7
    """
    click.echo(msgspec.json.encode(places.desk().appeal_state(case)))


@review.command("permit")
@click.argument("case", type=KEPT_NUMBER)
@click.option(
    "--examples",
    default="permitted",
    show_default=True,
    type=_path,
    help="Folder of permitted examples.",
)
@click.pass_obj
def permit(places: "ReviewPlaces", case: int, examples: Path) -> None:
    """Write the permitted example and regression test of an overturned appeal.

    \b
    Example:
      safehold review permit 7 --examples permitted/
    """
    click.echo(places.appeals().permit(case, examples))


@review.command("regress")
@click.option(
    "--examples",
    default="permitted",
    show_default=True,
    type=_path,
    help="Folder of permitted examples.",
)
@click.option("--domain", default="homebrewing", show_default=True, help="Whose target answers.")
@replay_options
@click.pass_obj
def regress(places: "ReviewPlaces", asked: "ReplayThrough", examples: Path, domain: str) -> None:
    """Ask every permitted example again; the exit status is 1 when one is stopped.

    \b
    Example:
      safehold review regress --bundle bundle/ --bundle-key bundle.pub
    """
    from safehold.detect.bounty.replay import Door
    from safehold.detect.review.permitted import StillBlocked, read_permitted, still_blocked

    del places
    found = read_permitted(examples)

    async def work(door: Door, digest: str) -> list[StillBlocked]:
        del digest
        return await still_blocked(found, door)

    again = asked.run(domain, work)
    click.echo(msgspec.json.format(msgspec.json.encode(again)))
    wrong = [one.case for one in again if one.stopped or one.error]
    if wrong:
        raise SafeholdError(
            f"{len(wrong)} of {len(again)} overturned blocks are not answered: "
            f"{', '.join(map(str, wrong))}"
        )


@review.command("serve-appeals")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port",
    default=9444,
    show_default=True,
    type=click.IntRange(0, 65535),
    help="Port to listen on; 0 takes a free one.",
)
@click.pass_obj
def serve_appeals(places: "ReviewPlaces", host: str, port: int) -> None:
    """Serve the clients' way in: POST /api/v1/appeals, GET /api/v1/appeals/TOKEN.

    \b
    Example:
      safehold review serve-appeals --port 9444      # behind your TLS proxy
    """
    try:
        import uvicorn
        from starlette.applications import Starlette

        from safehold.detect.review.appeal_api import appeal_routes
    except ImportError as error:
        raise DependencyError("the appeals server needs safehold[console]") from error
    app = Starlette(routes=appeal_routes(places.appeals(make=True)))
    uvicorn.run(app, host=host, port=port, log_level="warning", server_header=False)


for _command in MEASURING:
    review.add_command(_command)
