"""`safehold race`: an adaptive attacker against the whole defence, through the real gateway."""

import contextlib
import hashlib
import json
import tempfile
import time
import urllib.error
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from safehold.cli._values import WholeNumber
from safehold.errors import SafeholdError
from safehold.improve.response.interface import Defence

if TYPE_CHECKING:
    from safehold.detect.redteam.interface import QuestionSet
    from safehold.improve.response.race import RaceResult, RaceSettings, Send

_DOMAIN = "homebrewing"
_PERSONS = ("duty-officer", "safety-lead")
_FOLLOWED_S = 1.2
"""By then every worker follows a changed file of rules."""
_REFUSED = 400
_POINTS = 10


@click.command("race")
@click.option(
    "--attacker",
    type=click.Choice(["boundary", "best-of-n"]),
    default="boundary",
    show_default=True,
    help="Search along the boundary with one bit a query, or draw anew each time.",
)
@click.option(
    "--defence",
    type=click.Choice([one.value for one in Defence]),
    multiple=True,
    help="Guard alone, with accounts, with response as well (default: all three).",
)
@click.option("--accounts", multiple=True, type=click.IntRange(1, 1_000), help="Default: 1.")
@click.option(
    "--queries",
    default=200,
    show_default=True,
    type=click.IntRange(1, 100_000),
    help="Queries that the attacker has.",
)
@click.option(
    "--found-after",
    default=20,
    show_default=True,
    type=WholeNumber(1),
    help="Queries until a find.",
)
@click.option(
    "--seeds",
    default=1,
    show_default=True,
    type=click.IntRange(1, 100),
    help="Races of each kind, each with a seed of its own.",
)
@click.option("--draw", type=click.Path(dir_okay=False, path_type=Path), help="SVG of the curve.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")
def race_command(
    attacker: str,
    defence: tuple[str, ...],
    accounts: tuple[int, ...],
    queries: int,
    found_after: int,
    seeds: int,
    draw: Path | None,
    as_json: bool,
) -> None:
    """Race an attacker who learns one bit a query against guard, accounts and response.

    The gateway is a real one with the stock bundle, before a target that always complies. An
    account that is labelled is ended by the race itself; a hot rule acts through the gateway.

    \b
    Examples:
      safehold race --queries 200
      safehold race --attacker best-of-n --accounts 1 --accounts 1000 --seeds 10
      safehold race --defence response --accounts 1000 --seeds 10 --json
      safehold race --accounts 1 --accounts 10 --accounts 1000 --seeds 10 --draw race.svg
    """
    from rich.console import Console

    from safehold.cli._respond_stage import complying_target
    from safehold.detect.redteam.questions import questions
    from safehold.improve.response.race import RaceResult, RaceSettings
    from safehold.improve.response.race_curve import drawn

    console = Console(stderr=as_json, highlight=False)
    found: list[RaceResult] = []
    named = ", ".join(map(str, range(1, seeds + 1)))
    console.print(f"seeds, named before the run: {named}", soft_wrap=True)
    with contextlib.ExitStack() as stack:
        ground = _Ground(questions(_DOMAIN))
        target = stack.enter_context(complying_target(ground.questions))
        for count in accounts or (1,):
            for one in defence or tuple(Defence):
                for seed in range(1, seeds + 1):
                    settings = RaceSettings(
                        attacker=attacker,
                        defence=Defence(one),
                        accounts=count,
                        queries=queries,
                        found_after=found_after,
                        seed=seed,
                    )
                    with _field(ground, settings, target) as result:
                        found.append(result)
                    console.print(_line(found[-1]), soft_wrap=True)
    if draw is not None:
        draw.write_text(drawn(found), encoding="utf-8")
    if as_json:
        click.echo(msgspec.json.encode(found).decode())
        return
    console.print(_summary(found), soft_wrap=True)


class _Ground:
    """What all races share."""

    def __init__(self, found: "QuestionSet") -> None:
        from safehold.constitution.library import load
        from safehold.guard.bundle.load import Bundle, load_bundle
        from safehold.guard.bundle.stock import stock_bundle
        from safehold.improve.response.corpus import Corpus, of_seed_books

        folder, pinned = stock_bundle(_DOMAIN)
        self.questions = found
        self.folder, self.sha256 = folder, pinned.sha256
        self.bundle: Bundle = load_bundle(folder, pinned)
        self.corpus: Corpus = of_seed_books(load(_DOMAIN), 1)


@contextlib.contextmanager
def _field(ground: _Ground, settings: "RaceSettings", target: str) -> "Iterator[RaceResult]":
    """Run one race before a gateway of its own."""
    from safehold.demo.gateways import gateway
    from safehold.detect.redteam.questions import wrappers
    from safehold.guard.bundle.overlay_file import approve, quorum_of
    from safehold.guard.bundle.signing import load_or_make_key
    from safehold.improve.response.hotrule import hot_rule
    from safehold.improve.response.incident import dress_of
    from safehold.improve.response.interface import Incident, IncidentKind, ResponseError
    from safehold.improve.response.judged import Judge
    from safehold.improve.response.proliferate import ProliferateSettings, variants
    from safehold.improve.response.race import race
    from safehold.improve.response.rule_book import RuleBook

    with tempfile.TemporaryDirectory(prefix="safehold-race-") as place, contextlib.ExitStack() as s:
        folder = Path(place)
        persons = {name: load_or_make_key(folder / f"{name}.pem") for name in _PERSONS}
        pubs = {name: str(folder / f"{name}.pub") for name in _PERSONS}
        book = RuleBook(folder / "hot.json", quorum_of(pubs, 2), _PERSONS[0], persons[_PERSONS[0]])
        book.begin(int(time.time()))
        names = [f"attacker-{number}" for number in range(settings.accounts)]
        names += [f"benign-{number}" for number in range(settings.benign_accounts)]
        config = {
            "keys": [
                {"id": name, "sha256": hashlib.sha256(_secret(name).encode()).hexdigest()}
                for name in names
            ],
            "canary": {"enabled": False},
            "log": "none",
            "hot_rules": {
                "file": str(folder / "hot.json"),
                "memory": str(folder / "hot.memory"),
                "keys": pubs,
            },
        }
        (folder / "safehold.yaml").write_text(json.dumps(config), encoding="utf-8")
        options = (
            *("--config", str(folder / "safehold.yaml")),
            *("--bundle", str(ground.folder), "--bundle-sha256", ground.sha256),
        )
        served = s.enter_context(gateway(folder, "gateway", target, 0, options))
        count = 0

        def respond(text: str, ask: str) -> None:
            nonlocal count
            count += 1
            incident = Incident(
                id=f"race-{count}",
                kind=IncidentKind.MISS,
                at=int(time.time()),
                text=text,
                clause="beer-production",
                source="race",
                reporter=_PERSONS[0],
                confirmed_by=_PERSONS[1],
            )
            dress = dress_of(incident, Judge(ground.bundle), ask=ask if ask in text else "")
            made = variants(dress, ground.corpus.asks(), ProliferateSettings(learnt=8, held_out=16))
            now = int(time.time())
            try:
                found = hot_rule(
                    incident, dress, made, ground.corpus.benign(300, 1),
                    sources={}, owner=_PERSONS[0], now=now,
                )  # fmt: skip
            except ResponseError:
                return  # no dress to tell by; a warm start would be next
            if found.rule.cost is None or found.rule.cost.hits:
                return  # it would cost benign traffic: nobody lets it act
            book.shadow(found.rule, now)
            signed = tuple(approve(found.rule, name, key) for name, key in persons.items())
            book.act(found.rule.id, signed, now)
            time.sleep(_FOLLOWED_S)

        yield race(
            settings,
            ground.questions.topics,
            wrappers(),
            [one.text for one in ground.questions.benign],
            send=_sender(served.url),
            respond=respond,
        )


def _secret(name: str) -> str:
    return f"sk-race-{hashlib.sha256(name.encode()).hexdigest()}"


def _sender(url: str) -> "Send":
    from safehold.cli._respond_stage import post
    from safehold.improve.response.race import RaceAnswer

    def send(account: str, text: str) -> RaceAnswer:
        body = {"model": "race", "messages": [{"role": "user", "content": text}]}
        try:
            answer = post(f"{url}/v1/chat/completions", body, _secret(account))
        except urllib.error.HTTPError as error:
            if error.code >= _REFUSED:
                raise SafeholdError(f"the race's gateway answered {error.code}") from error
            raise
        choice = answer["choices"][0]
        stopped = choice["finish_reason"] == "content_filter"
        return RaceAnswer(str(choice["message"]["content"] or ""), stopped)

    return send


def _line(one: "RaceResult") -> str:
    settings, curve = one.settings, one.curve
    step = max(1, len(curve) // _POINTS)
    points = " ".join(str(curve[at]) for at in range(step - 1, len(curve), step))
    return (
        f"{settings.attacker} against {settings.defence}, {settings.accounts} accounts, seed "
        f"{settings.seed}: cleared {one.cleared} of {settings.questions} (curve {points}); "
        f"universal {_at(one.universal_at)}, acted on {_at(one.acted_at)}; benign accounts ended "
        f"{one.benign_ended.at_most()}, benign texts stopped {one.benign_stopped.at_most()}"
    )


def _at(query: int | None) -> str:
    return "never" if query is None else f"at {query + 1}"


def _summary(found: "list[RaceResult]") -> str:
    """Say how the races ended: three ways, and which were lost."""
    from safehold.stats import Rate

    universal = [one for one in found if one.universal_at is not None]
    before = Rate(sum(one.won for one in universal), len(universal))
    never = Rate(len(found) - len(universal), len(found))
    acted = Rate(sum(one.acted_at is not None for one in found), len(found))
    ended = Rate(
        sum(one.benign_ended.events for one in found), sum(one.benign_ended.n for one in found)
    )
    lost = [f"{one.settings.defence}/{one.settings.seed}" for one in found if not one.won]
    return "\n".join(
        (
            f"never universal within the budget  {never.at_least()}",
            f"acted on before universal          {before.at_least()} of those that became so",
            f"acted on at all                    {acted.at_least()}",
            f"benign accounts ended              {ended.at_most()}",
            f"lost (defence/seed)                {', '.join(lost) or 'none'}",
        )
    )
