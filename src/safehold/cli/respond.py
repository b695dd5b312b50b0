"""`safehold respond`: from one jailbreak, or one false alarm, to a rule and a released bundle."""

import contextlib
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from safehold.cli._respond_options import (
    benign_option,
    case_option,
    data_option,
    file_path,
    guard_options,
    json_option,
    keys_option,
    seed_option,
)
from safehold.cli._respond_rules import RULE_COMMANDS
from safehold.cli._respond_trial import trial
from safehold.cli._values import WHO, Finite, WholeNumber
from safehold.errors import SafeholdError, UsageError
from safehold.improve.response.interface import IncidentKind

if TYPE_CHECKING:
    from safehold.improve.response.corpus import Corpus
    from safehold.improve.response.measure import Shadow


@click.group()
def respond() -> None:
    """Answer a jailbreak or a false alarm: a rule in minutes, a new bundle within half an hour.

    \b
    Examples:
      safehold respond drill --short
      safehold respond open --case c1 --text found.txt --clause beer-production --reporter anna
      safehold respond variants --case c1
      safehold respond rule --case c1 --benign traffic.jsonl --owner anna
      safehold respond retrain --case c1 --benign traffic.jsonl --signing-key key.pem
      safehold respond gate --case c1 --benign traffic.jsonl --shadow 5000,12,12
    """


@respond.command("open")
@case_option
@click.option("--text", "source", type=file_path, help="The example, as it was sent.")
@click.option(
    "--kind",
    type=click.Choice([one.value for one in IncidentKind]),
    default="miss",
    show_default=True,
    help="What went wrong.",
)
@click.option("--clause", required=True, help="The clause that it is about.")
@click.option("--reporter", type=WHO, required=True, help="Who reported it.")
@click.option("--decision", default="", help="The decision's id: of a block, or of an appeal.")
@click.option("--ledger", help="Read the decision's prompt from this ledger.")
@click.option("--ask", default="", help="The request inside the example (default: looked for).")
@click.option(
    "--confirmed-by", type=WHO, default="", help="Who read it, where the guard sees nothing."
)
@guard_options
@json_option
def open_(
    folder: Path,
    source: Path | None,
    kind: str,
    clause: str,
    reporter: str,
    decision: str,
    ledger: str | None,
    ask: str,
    confirmed_by: str,
    bundle: str,
    keys: tuple[str, ...],
    sha256: str | None,
    unsafe: bool,
    as_json: bool,
) -> None:
    """Open a case: find the request in the example and the dress around it.

    \b
    Examples:
      safehold respond open --case c1 --text found.txt --clause beer-production --reporter anna
      safehold respond open --case c2 --text refused.txt --kind false-alarm --clause general \\
          --reporter bela --decision sh_01
      safehold respond open --case c3 --decision sh_02 --ledger safehold-ledger.db \\
          --kind false-alarm --clause general --reporter bela
    """
    from safehold.cli._respond_options import say
    from safehold.guard.bundle.find import open_bundle
    from safehold.improve.response.case import IncidentCase
    from safehold.improve.response.decided import decided
    from safehold.improve.response.incident import dress_of
    from safehold.improve.response.interface import Incident
    from safehold.improve.response.judged import Judge

    if (source is None) is (ledger is None):
        raise UsageError("expected --text FILE, or --decision ID with --ledger URL")
    if source is not None:
        text, named = _text(source), source.name
    else:
        text, named = decided(str(ledger), decision, IncidentKind(kind)), decision
    incident = Incident(
        id=_named(folder),
        kind=IncidentKind(kind),
        at=int(time.time()),
        text=text,
        clause=clause,
        source=decision or named,
        reporter=reporter,
        confirmed_by=confirmed_by,
    )
    judge = Judge(open_bundle(bundle, keys, sha256, unsigned=unsafe))
    dress = dress_of(incident, judge, ask=ask)
    IncidentCase(folder).begin(incident, dress)
    known = dress.known_as or "new"
    chain = " then ".join(dress.chain) or "plain"
    say(as_json, {"case": str(folder), "family": known, "chain": list(dress.chain)})
    if not as_json:
        click.echo(f"{folder}: family {known}, the request is {chain}")


def _text(source: Path) -> str:
    from safehold.improve.response.interface import MOST_CHARS, checked

    try:
        with source.open("rb") as file:
            data = file.read(4 * MOST_CHARS + 1)
    except OSError as error:
        raise UsageError(f"{source}: can't be read ({error.strerror})") from error
    return checked(data.decode("utf-8", "replace"))


def _named(folder: Path) -> str:
    name = "".join(c if c.isalnum() or c in "._-" else "-" for c in folder.name.lower())
    return name.strip("._-")[:64] or "case"


@respond.command("variants")
@case_option
@data_option
@click.option(
    "--count",
    default=128,
    show_default=True,
    type=WholeNumber(1),
    help="Of each side, to learn from.",
)
@seed_option
@guard_options
@json_option
def variants_(
    folder: Path,
    data: Path | None,
    count: int,
    seed: int,
    bundle: str,
    keys: tuple[str, ...],
    sha256: str | None,
    unsafe: bool,
    as_json: bool,
) -> None:
    """Make variants: restricted and permitted requests in the same dress.

    \b
    Examples:
      safehold respond variants --case c1
      safehold respond variants --case c1 --data data/ --count 256 --seed 7
    """
    from safehold.cli._respond_options import say
    from safehold.guard.bundle.find import open_bundle
    from safehold.improve.response.case import IncidentCase
    from safehold.improve.response.proliferate import ProliferateSettings, variants

    case = IncidentCase(folder)
    domain = open_bundle(bundle, keys, sha256, unsigned=unsafe).manifest.constitution
    settings = ProliferateSettings(learnt=count, held_out=max(32, count // 2), seed=seed)
    made = variants(case.dress(), _corpus(domain, data, seed).asks(), settings)
    case.keep_variants(made)
    sides = {True: 0, False: 0}
    for one in made:
        sides[one.restricted] += 1
    say(as_json, {"restricted": sides[True], "permitted": sides[False]})
    if not as_json:
        click.echo(f"{sides[True]} restricted and {sides[False]} permitted variants")


@respond.command("retrain")
@case_option
@benign_option
@data_option
@click.option("--signing-key", type=file_path, help="Private key that signs the challenger.")
@click.option("--stage2", "deep", is_flag=True, help="Fine-tune stage 2 too: minutes, not seconds.")
@seed_option
@guard_options
@json_option
def retrain(
    folder: Path,
    benign: tuple[Path, ...],
    data: Path | None,
    signing_key: Path | None,
    deep: bool,
    seed: int,
    bundle: str,
    keys: tuple[str, ...],
    sha256: str | None,
    unsafe: bool,
    as_json: bool,
) -> None:
    """Make the challenger: the bundle in use, warm-started on the variants, thresholds set anew.

    \b
    Examples:
      safehold respond retrain --case c1 --benign traffic.jsonl --signing-key key.pem
      safehold respond retrain --case c1 --benign traffic/ --data data/ --bundle bundles/mine
    """
    from rich.console import Console

    from safehold.cli._progress_bars import Bars
    from safehold.cli._respond_options import say, traffic
    from safehold.guard.bundle.find import open_bundle
    from safehold.guard.bundle.signing import load_or_make_key
    from safehold.guard.bundle.stock import stock_bundle
    from safehold.improve.response.case import IncidentCase
    from safehold.improve.response.refine import RefineSettings, refined
    from safehold.improve.response.warm import WarmSettings, challenger

    case = IncidentCase(folder)
    champion = open_bundle(bundle, keys, sha256, unsigned=unsafe)
    place = Path(bundle) if Path(bundle).is_dir() else stock_bundle(bundle)[0]
    corpus = _corpus(champion.manifest.constitution, data, seed)
    texts, _ = traffic(benign)
    settings = WarmSettings(seed=seed)
    began = time.process_time()
    with Bars(Console(file=sys.stderr)) as bars:
        stage2 = None
        if deep and champion.manifest.stage2 is not None:
            known = corpus.pairs(champion.manifest.stage2.clauses, seed)
            refine = RefineSettings(seed=seed)
            stage2 = refined(champion, place, case.incident(), case.variants(), known, refine, bars)
        fresh = challenger(
            champion,
            place,
            incident=case.incident(),
            made=case.variants(),
            replay=corpus.replay(settings.replayed, seed),
            benign=[text for slice_ in texts.values() for text in slice_],
            settings=settings,
            out=case.challenger,
            key=None if signing_key is None else load_or_make_key(signing_key),
            progress=bars,
            stage2=stage2,
            replies=corpus.benign_replies(300, seed) if deep else (),
        )
    seconds = time.process_time() - began
    say(as_json, {"digest": fresh.digest, "cpu_s": seconds})
    if not as_json:
        click.echo(f"{case.challenger}: {fresh.digest} ({seconds:.1f} s CPU)")


@respond.command("gate")
@case_option
@benign_option
@data_option
@click.option(
    "--shadow",
    "seen",
    help="EXCHANGES,DISAGREED,REVIEWED of the shadow run; without it that gate refuses.",
)
@click.option("--slice-budget", type=Finite(0, 1), help="Most refused of a slice.")
@click.option(
    "--hot-rules",
    "rules",
    type=file_path,
    help="The signed file in which the case's rule acts: the family is measured beside it, too.",
)
@click.option("--person-pub", "publics", multiple=True, help="NAME=FILE: a key of --hot-rules.")
@seed_option
@guard_options
@json_option
def gate(
    folder: Path,
    benign: tuple[Path, ...],
    data: Path | None,
    seen: str | None,
    slice_budget: float | None,
    rules: Path | None,
    publics: tuple[str, ...],
    seed: int,
    bundle: str,
    keys: tuple[str, ...],
    sha256: str | None,
    unsafe: bool,
    as_json: bool,
) -> None:
    """Put the challenger before the gates; what was not measured is not passed. Exit 1: refused.

    \b
    Examples:
      safehold respond gate --case c1 --benign traffic/ --shadow 5000,12,12
      safehold respond gate --case c1 --benign traffic/ --json
      safehold respond gate --case c1 --benign traffic/ --shadow 5000,12,12 --hot-rules hot.json \\
          --person-pub anna=anna.pub --person-pub bela=bela.pub
    """
    from rich.console import Console

    from safehold.cli._progress_bars import Bars
    from safehold.cli._respond_options import quorum, traffic
    from safehold.detect.redteam.questions import questions, wrappers
    from safehold.guard.bundle.find import open_bundle
    from safehold.improve.response.case import IncidentCase
    from safehold.improve.response.gates import GateLimits, gates, shown
    from safehold.improve.response.measure import MeasureSettings, measured
    from safehold.improve.response.proliferate import gate_twins
    from safehold.improve.response.rule_book import standing_in

    case = IncidentCase(folder)
    acting = None
    if rules is not None:
        if not publics:
            raise UsageError("--hot-rules: expected --person-pub NAME=FILE for who signed it, too")
        acting = standing_in(rules, quorum(publics), case.rule(), int(time.time()))
    digest = case.challenger_digest()
    champion = open_bundle(bundle, keys, sha256, unsigned=unsafe)
    corpus = _corpus(champion.manifest.constitution, data, seed)
    fresh = open_bundle(str(case.challenger), (), digest)
    texts, _ = traffic(benign)
    with Bars(Console(file=sys.stderr)) as bars:
        given = measured(
            champion,
            fresh,
            incident=case.incident(),
            dress=case.dress(),
            questions=questions(champion.manifest.constitution),
            wrappers=wrappers(),
            benign=texts,
            settings=MeasureSettings(seed=seed),
            progress=bars,
            shadow=_shadow(seen),
            twins=gate_twins(case.dress(), corpus.asks(), 230, seed),
            acting=acting,
        )
    limits = GateLimits() if slice_budget is None else GateLimits(slice_budget=slice_budget)
    report = gates(given, limits)
    case.keep_report(report)
    click.echo(msgspec.json.encode(report).decode() if as_json else shown(report))
    if not report.passed:
        raise SafeholdError("the challenger may not be released; the report says why")


def _shadow(seen: str | None) -> "Shadow | None":
    from safehold.improve.response.measure import Shadow

    if seen is None:
        return None
    try:
        exchanges, disagreed, reviewed = (int(one) for one in seen.split(","))
    except ValueError as error:
        raise UsageError("--shadow: expected three counts, as 5000,12,12") from error
    return Shadow(exchanges, disagreed, reviewed)


@respond.command("status")
@case_option
@keys_option
@json_option
def status(folder: Path, publics: tuple[str, ...], as_json: bool) -> None:
    """Say how far a case has come, by its clock, and what it waits for.

    Of its rule and of each of its trials it says whether they are in shadow, acting or ended, by
    the signed files. `respond trial status` says what a gateway made of a trial.

    \b
    Examples:
      safehold respond status --case c1 --person-pub anna=anna.pub --person-pub bela=bela.pub
    """
    from safehold.cli._respond_options import quorum, say
    from safehold.guard.bundle.overlay_file import approvers
    from safehold.guard.overlay.interface import PlacedRule
    from safehold.improve.response.case import STEPS, IncidentCase
    from safehold.improve.response.in_force import rule_in_force, trial_in_force

    case = IncidentCase(folder)
    began, done = case.incident().at, case.done()
    persons: tuple[str, ...] = ()
    counted, rule, trials = quorum(publics), None, []
    if "rule" in done:
        placed = PlacedRule(case.rule(), approvals=case.approvals())
        persons = tuple(sorted(approvers(placed, counted)))
        rule = rule_in_force(case.rules_file(), counted, case.rule(), int(time.time()))
    if "report" in done:
        report = case.report().digest
        trials = [trial_in_force(file, counted, report) for file in case.trials()]
    rows = {step: done[step] - began if step in done else None for step in STEPS}
    whole = {"steps": rows, "approved_by": list(persons), "rule": rule, "trials": trials}
    say(as_json, whole)
    if not as_json:
        for step, after in rows.items():
            click.echo(f"{step:12} {'waits' if after is None else f'{after:9.1f} s'}")
        click.echo(f"approved by  {', '.join(persons) or 'nobody yet'}")
        if rule is not None:
            click.echo(f"hot rule     {rule.line()}")
        for one in trials:
            click.echo(f"trial        {one.name} {one.line()}")


@respond.command("drill")
@click.option("--short", is_flag=True, help="Fewer texts and attacks: within three minutes.")
@click.option(
    "--kind",
    type=click.Choice(["miss", "false-alarm"]),
    default="miss",
    show_default=True,
    help="What went wrong: a jailbreak that passed, or a prompt that was refused wrongly.",
)
@click.option("--stage2", is_flag=True, help="Fine-tune stage 2 too.")
@click.option("--folder", type=click.Path(path_type=Path), help="A new folder to keep it in.")
@seed_option
@json_option
def drill(
    short: bool, kind: str, stage2: bool, folder: Path | None, seed: int, as_json: bool
) -> None:
    """Go through the whole response on this machine, with scripted approvals, and print its clock.

    A false alarm is appealed by its decision's id, and there is no rule: a rule can only stop.

    \b
    Examples:
      safehold respond drill --short
      safehold respond drill --short --kind false-alarm
      safehold respond drill --stage2 --folder drill/ --json
    """
    from safehold.cli._respond_drill import run_drill
    from safehold.cli._respond_false_alarm import run_false_alarm_drill

    def tell(line: str) -> None:
        click.echo(line, err=as_json)

    run = run_drill if kind == "miss" else run_false_alarm_drill
    with contextlib.ExitStack() as stack:
        if folder is None:
            place = stack.enter_context(tempfile.TemporaryDirectory(prefix="safehold-drill-"))
            folder = Path(place) / "drill"
        found = run(folder, short=short, say=tell, seed=seed, stage2=stage2)
    if as_json:
        click.echo(msgspec.json.encode(found).decode())
    if not found.verified:
        raise SafeholdError("the drill did not end with a verified bundle; its gates say why")


def _corpus(domain: str, data: Path | None, seed: int) -> "Corpus":
    from safehold.constitution.library import load
    from safehold.improve.response.corpus import of_dataset, of_seed_books

    return of_dataset(data) if data is not None else of_seed_books(load(domain), seed)


for _one in (*RULE_COMMANDS, trial):
    respond.add_command(_one)
