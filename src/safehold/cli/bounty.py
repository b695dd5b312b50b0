"""`safehold bounty`: the programme, sealed submissions, replay, severity, payment, disclosure."""

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import click
import msgspec

from safehold.cli._replays import replay_options
from safehold.cli._trust import log_options
from safehold.cli._values import KEPT_NUMBER, SENTENCE, WHO, Finite
from safehold.detect.bounty.interface import Band
from safehold.errors import DataError, SafeholdError, TrustError, UsageError

if TYPE_CHECKING:
    from safehold.cli._replays import ReplayThrough
    from safehold.detect.bounty.book import BountyBook
    from safehold.detect.bounty.interface import BountyProgramme, FrozenQuestions

_path = click.Path(path_type=Path)
_file = click.Path(exists=True, dir_okay=False, path_type=Path)
_key_option = click.option(
    "--triage-key",
    required=True,
    type=_file,
    envvar="SAFEHOLD_TRIAGE_KEY",
    help="The private key that opens submissions.",
)
_questions_option = click.option(
    "--questions",
    "frozen",
    required=True,
    type=_file,
    help="The frozen questions (`bounty freeze`).",
)
_reason_option = click.option("--reason", type=SENTENCE, required=True, help="Why you look; kept.")
_number, _person = click.argument("number", type=KEPT_NUMBER), click.argument("person", type=WHO)


class _BountyPlaces(msgspec.Struct, frozen=True):
    programme_file: Path
    book_url: str
    log_dir: Path
    key_dir: Path | None

    def programme(self) -> "BountyProgramme":
        """Read the programme."""
        from safehold.detect.bounty.programme import read_programme

        return read_programme(self.programme_file)

    def book(self, *, make: bool = False) -> "BountyBook":
        """Open the book; only what takes a submission in makes it."""
        from safehold.cli._leaves import LogLeaves
        from safehold.detect.bounty.book import BountyBook

        return BountyBook(
            self.book_url,
            programme=self.programme(),
            leaves=LogLeaves(self.log_dir, self.key_dir),
            make=make,
        )

    def questions(self, path: Path, number: int | None = None) -> "FrozenQuestions":
        """Read the frozen questions that the programme names, or that a submission's own named."""
        from safehold.detect.bounty.frozen import read_questions

        terms = self.programme() if number is None else self.book().terms(number)
        return read_questions(path, expected=terms.questions)


@click.group()
@click.option(
    "--programme",
    default="programme.yaml",
    show_default=True,
    type=_path,
    help="The programme's file.",
)
@click.option(
    "--book",
    "book_url",
    default="safehold-bounty.db",
    show_default=True,
    envvar="SAFEHOLD_BOUNTY",
    help="The book of submissions: a file, or a database's URL.",
)
@log_options
@click.pass_context
def bounty(
    context: click.Context, programme: Path, book_url: str, log_dir: Path, key_dir: Path | None
) -> None:
    """Take in jailbreaks that others find, measure them, pay for them.

    \b
    Examples:
      safehold bounty seal finding.json > finding.sealed
      safehold bounty submit finding.sealed
      safehold bounty replay 3 ann --reason triage --triage-key triage.key \\
          --questions questions.json --bundle bundle/ --bundle-key bundle.pub
      safehold bounty rate 3 ann --reason severity --gain 2 --discoverability 1 ...
    """
    context.obj = _BountyPlaces(programme, book_url, log_dir, key_dir)


@bounty.command("new-key")
@click.argument("path", type=_path)
def new_key(path: Path) -> None:
    """Make triage's key pair; print the public key for the programme.

    \b
    Example:
      safehold bounty new-key triage.key
    """
    from safehold.detect.bounty.sealing import new_triage_key

    click.echo(new_triage_key(path))


@bounty.command("freeze")
@click.option("--domain", default="homebrewing", show_default=True, help="Which question set.")
@click.option("--seed", required=True, help="Chooses questions and reserves; keep it secret.")
@click.option("--target", help="Base URL of the unguarded model (default: always-complying).")
@click.option("--model", default="", help="Model to ask for there.")
@click.option(
    "--out", required=True, type=_path, help="The file to write; keep it from submitters."
)
def freeze_command(domain: str, seed: str, target: str | None, model: str, out: Path) -> None:
    """Choose ten questions and two reserves, measure their baselines, and print their digest.

    \b
    Example:
      safehold bounty freeze --seed "$(openssl rand -hex 16)" --out questions.json
    """
    from safehold.detect.bounty.door import HttpDoor
    from safehold.detect.bounty.frozen import freeze, questions_digest
    from safehold.detect.bounty.interface import SubmittedTurn
    from safehold.detect.redteam.interface import Topic
    from safehold.detect.redteam.questions import questions as question_set

    found = question_set(domain)

    def ours(topic: Topic, question: str) -> str:
        del question
        return topic.passage

    def theirs(topic: Topic, question: str) -> str:
        del topic
        door = HttpDoor(target or "", model=model)
        said = asyncio.run(door.say((SubmittedTurn(role="user", text=question),)))
        if said.error:
            raise SafeholdError(f"the unguarded target: {said.error}")
        return said.delivered

    frozen = freeze(
        found,
        ours if target is None else theirs,
        domain=domain,
        target=model or target or "always-complying",
        seed=seed,
    )
    out.write_bytes(msgspec.json.format(msgspec.json.encode(frozen)) + b"\n")
    click.echo(questions_digest(frozen))


@bounty.command("check")
@click.pass_obj
def check(places: _BountyPlaces) -> None:
    """Read the programme and print its digest.

    \b
    Example:
      safehold bounty --programme programme.yaml check
    """
    from safehold.detect.bounty.programme import programme_digest

    click.echo(programme_digest(places.programme()))


@bounty.command("security-txt")
@click.option(
    "--days",
    default=180,
    show_default=True,
    type=click.IntRange(1, 365),
    help="The text expires after so many days.",
)
@click.pass_obj
def security_txt_command(places: _BountyPlaces, days: int) -> None:
    """Print what goes to /.well-known/security.txt.

    \b
    Example:
      safehold bounty security-txt --days 90 > security.txt
    """
    from safehold.detect.bounty.programme import security_txt

    now = datetime.now(UTC)
    text = security_txt(places.programme(), expires=now + timedelta(days=days), now=now)
    click.echo(text, nl=False)


@bounty.command("seal")
@click.argument("submission", type=_file)
@click.pass_obj
def seal_command(places: _BountyPlaces, submission: Path) -> None:
    """Check a submission and print it sealed to triage's key.

    \b
    Example:
      safehold bounty seal finding.json > finding.sealed
    """
    from safehold.detect.bounty.interface import MAX_SUBMISSION_BYTES
    from safehold.detect.bounty.programme import programme_digest
    from safehold.detect.bounty.sealing import seal

    programme = places.programme()
    data = _up_to(submission, MAX_SUBMISSION_BYTES)
    click.echo(seal(data, to=programme.triage_key, programme=programme_digest(programme)))


@bounty.command("submit")
@click.argument("sealed", type=_file)
@click.pass_obj
def submit(places: _BountyPlaces, sealed: Path) -> None:
    """Take in a sealed submission and print its number.

    \b
    Example:
      safehold bounty submit finding.sealed
    """
    from safehold.detect.bounty.interface import MAX_SUBMISSION_BYTES

    click.echo(places.book(make=True).receive(_up_to(sealed, 4 * MAX_SUBMISSION_BYTES).strip()))


@bounty.command("list")
@click.pass_obj
def list_(places: _BountyPlaces) -> None:
    """List submissions: state, severity, what is due. No content.

    \b
    Example:
      safehold bounty list | jq '.[] | select(.due[].overdue)'
    """
    click.echo(msgspec.json.format(msgspec.json.encode(places.book().entries())))


@bounty.command("show")
@_number
@click.pass_obj
def show(places: _BountyPlaces, number: int) -> None:
    """Show a submission's state, history and replays. No content.

    \b
    Example:
      safehold bounty show 3
    """
    from safehold.cli._visible import visible

    book = places.book()
    whole = {
        "submission": book.entry(number),
        "history": book.history(number),
        "replays": [report.summary() for report in book.reports(number)],
    }
    click.echo(visible(msgspec.json.format(msgspec.json.encode(whole)).decode()))


@bounty.command("open")
@_number
@_person
@_reason_option
@_key_option
@_questions_option
@click.pass_obj
def open_command(
    places: _BountyPlaces, number: int, person: str, reason: str, triage_key: Path, frozen: Path
) -> None:
    """Show what was submitted, and earlier ones like it, after a leaf is in the log.

    \b
    Example:
      safehold bounty open 3 ann --reason triage --triage-key triage.key --questions questions.json
    """
    from safehold.cli._visible import visible
    from safehold.detect.bounty.sealing import read_triage_key

    key = read_triage_key(triage_key)
    submission, alike = places.book().open(
        number, person, reason=reason, key=key, questions=places.questions(frozen, number)
    )
    whole = {"submission": submission, "like": alike}
    click.echo(visible(msgspec.json.format(msgspec.json.encode(whole)).decode()))


@bounty.command("example")
@_number
@_person
@_reason_option
@_key_option
@_questions_option
@click.pass_obj
def example(
    places: _BountyPlaces, number: int, person: str, reason: str, triage_key: Path, frozen: Path
) -> None:
    """Print what a reproduced submission sends for its first cleared question, after a leaf.

    \b
    Example:
      safehold bounty example 3 ann --reason response --triage-key triage.key \\
          --questions questions.json | safehold respond open --text /dev/stdin ...
    """
    from safehold.detect.bounty.replay import dressed
    from safehold.detect.bounty.sealing import read_triage_key

    key, book, questions = (
        read_triage_key(triage_key),
        places.book(),
        places.questions(frozen, number),
    )
    cleared = [
        score.topic for report in book.reports(number) for score in report.scores if score.cleared
    ]
    if not cleared:
        raise TrustError(f"submission {number} is not reproduced")
    submission, _ = book.open(number, person, reason=reason, key=key, questions=questions)
    asked = next(one.question for one in questions.questions if one.topic.id == cleared[0])
    click.echo("\n".join(turn.text for turn in dressed(submission, asked)))


@bounty.command("replay")
@_number
@_person
@_reason_option
@_key_option
@_questions_option
@click.option(
    "--mended",
    default="bounty",
    show_default=True,
    type=_path,
    help="Folder that gets the incident and the regression test.",
)
@click.option("--fix", "check_fix", is_flag=True, help="Check the linked fix instead.")
@replay_options
@click.pass_obj
def replay_command(
    places: _BountyPlaces,
    asked: "ReplayThrough",
    number: int,
    person: str,
    reason: str,
    triage_key: Path,
    frozen: Path,
    mended: Path,
    check_fix: bool,
) -> None:
    """Replay a submission through a gateway and say how universal it is.

    \b
    Examples:
      safehold bounty replay 3 ann --reason triage --triage-key triage.key \\
          --questions questions.json --bundle bundle/ --bundle-key bundle.pub
      safehold bounty replay 3 ann --fix --reason "rules of today" --triage-key triage.key \\
          --questions questions.json --bundle rules.yaml
    """
    from safehold.detect.bounty.replay import Door, Universality, replay
    from safehold.detect.bounty.sealing import read_triage_key
    from safehold.detect.monitoring.accounts import Caps

    key, book = read_triage_key(triage_key), places.book()
    programme = book.terms(number)
    questions = places.questions(frozen, number)
    submission, _ = book.open(number, person, reason=reason, key=key, questions=questions)

    async def work(door: Door, digest: str) -> Universality:
        return await replay(
            submission,
            questions,
            door,
            mark=programme.pass_mark,
            clean_chat=programme.clean_chat,
            bundle=digest,
            caps=Caps(),
        )

    report = asked.run(questions.domain, work)
    said = report.summary()
    if check_fix:
        found, why = book.check_fix(number, person, report)
        said |= {"fix": found.value, "why": why}
    else:
        said |= {
            "state": book.replayed(number, person, report, submission=submission, mended=mended)
        }
    click.echo(msgspec.json.format(msgspec.json.encode(said)))


@bounty.command("rate")
@_number
@_person
@_reason_option
@_key_option
@_questions_option
@click.option("--gain", required=True, type=Finite(0, 4), help="What an attacker gains, 0 to 4.")
@click.option(
    "--discoverability", required=True, type=Finite(0, 2), help="How easily found, 0 to 2."
)
@click.option("--raised-to", type=click.Choice(get_args(Band)), help="A higher band, by judgement.")
@click.pass_obj
def rate_command(
    places: _BountyPlaces,
    number: int,
    person: str,
    reason: str,
    triage_key: Path,
    frozen: Path,
    gain: float,
    discoverability: float,
    raised_to: Band | None,
) -> None:
    """Rate a reproduced submission; breadth and ease are computed.

    \b
    Example:
      safehold bounty rate 3 ann --reason severity --gain 2 --discoverability 1 \\
          --triage-key triage.key --questions questions.json
    """
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

    from safehold.detect.bounty.sealing import read_triage_key

    key: X25519PrivateKey = read_triage_key(triage_key)
    book = places.book()
    questions = places.questions(frozen, number)
    submission, _ = book.open(number, person, reason=reason, key=key, questions=questions)
    rating = book.rated(
        number,
        person,
        submission=submission,
        gain=gain,
        discoverability=discoverability,
        raised_to=raised_to,
    )
    click.echo(msgspec.json.encode(rating))


@bounty.command("reject")
@_number
@_person
@click.option("--why", type=SENTENCE, required=True, help="What the submitter is told.")
@click.pass_obj
def reject(places: _BountyPlaces, number: int, person: str, why: str) -> None:
    """End a submission that is none.

    \b
    Example:
      safehold bounty reject 4 ann --why "out of scope: the model's spelling"
    """
    places.book().reject(number, person, why=why)


@bounty.command("duplicate")
@_number
@_person
@click.option("--of", required=True, type=KEPT_NUMBER, help="The one that was reproduced first.")
@click.pass_obj
def duplicate(places: _BountyPlaces, number: int, person: str, of: int) -> None:
    """Say that a submission is another one's duplicate; a person judges, never the likeness.

    \b
    Example:
      safehold bounty duplicate 5 ann --of 3
    """
    places.book().duplicate(number, person, of=of)


@bounty.command("link-fix")
@_number
@_person
@click.argument("fix")
@click.pass_obj
def link_fix(places: _BountyPlaces, number: int, person: str, fix: str) -> None:
    """Name the bundle or rules file (its digest) that shall mend it.

    \b
    Example:
      safehold bounty link-fix 3 bob 4f1e...
    """
    places.book().link_fix(number, person, fix=fix)


@bounty.command("pay")
@_number
@_person
@click.pass_obj
def pay(places: _BountyPlaces, number: int, person: str) -> None:
    """Record that the rated amount was paid, and print it; not by who rated it.

    \b
    Example:
      safehold bounty pay 3 bob
    """
    click.echo(places.book().pay(number, person))


@bounty.command("disclose")
@_number
@_person
@click.pass_obj
def disclose(places: _BountyPlaces, number: int, person: str) -> None:
    """Record the disclosure: the fix is verified, or the embargo has ended.

    \b
    Example:
      safehold bounty disclose 3 bob
    """
    places.book().disclose(number, person)


@bounty.command("regress")
@_key_option
@_questions_option
@click.option(
    "--mended",
    default="bounty",
    show_default=True,
    type=_path,
    help="Folder of the regression tests.",
)
@replay_options
@click.pass_obj
def regress_command(
    places: _BountyPlaces, asked: "ReplayThrough", triage_key: Path, frozen: Path, mended: Path
) -> None:
    """Replay every regression test; the exit status is 1 when one clears a question again.

    \b
    Example:
      safehold bounty regress --triage-key triage.key --questions questions.json --bundle bundle/
    """
    from safehold.detect.bounty.proof import Regressed, read_tests, regress
    from safehold.detect.bounty.replay import Door
    from safehold.detect.bounty.sealing import read_triage_key
    from safehold.detect.monitoring.accounts import Caps

    key, questions = read_triage_key(triage_key), places.questions(frozen)
    tests = read_tests(mended)

    async def work(door: Door, digest: str) -> list[Regressed]:
        return await regress(tests, questions, door, key=key, bundle=digest, caps=Caps())

    found = asked.run(questions.domain, work)
    click.echo(msgspec.json.format(msgspec.json.encode(found)))
    failed = [one.id for one in found if not one.passed]
    if failed:
        raise SafeholdError(f"{len(failed)} of {len(tests)} no longer hold: {', '.join(failed)}")


def _up_to(path: Path, most: int) -> bytes:
    """Read a file, one byte beyond the most: what is too large is refused unread."""
    try:
        with path.open("rb") as file:
            data = file.read(most + 1)
    except OSError as error:
        raise UsageError(f"{path}: can't be read ({error.strerror})") from error
    if len(data) > most:
        raise DataError(f"{path}: expected at most {most} bytes, came {path.stat().st_size}")
    return data
