"""Thresholds from traffic keep their promise, and their record is enough to make them again."""

import asyncio
import json
import re
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from safehold.cli._traffic import traffic_in_ledger
from safehold.cli.calibrate import calibrate
from safehold.errors import DataError
from safehold.exchange import Exchange, Role, TextPart, Turn, user_says
from safehold.guard.bundle.load import UnsafeUnsigned, load_bundle
from safehold.guard.ledger.interface import Action, LedgerVerdict
from safehold.guard.ledger.writer import Ledger
from safehold.guard.session.cascade import TextKind
from safehold.improve.training.traffic import (
    BenignTraffic,
    TrafficSettings,
    TrafficText,
    at_record,
    calibrated,
)
from safehold.progress import Progress
from safehold.testing.bundles import WORDS, tiny_bundle, write_tiny
from safehold.testing.ledger import RowMaker
from safehold.testing.scorers import PhraseStage2

_HOT = " ".join(sorted(WORDS))


def traffic(hot: int, n: int = 400, near: int = 0) -> BenignTraffic:
    """Benign texts, of which some score as the subject does; near texts all do."""
    cold = [TrafficText(user_says(f"number {i} of many"), f"answer {i}") for i in range(n - hot)]
    warm = [TrafficText(user_says(f"{_HOT} {i}"), f"{_HOT} {i}") for i in range(hot)]
    close = tuple(TrafficText(user_says(f"{_HOT} near {i}"), "") for i in range(near))
    return BenignTraffic((*cold, *warm), close, {"made": "0" * 64})


def settings(**changes: float) -> TrafficSettings:
    """Settings for a few hundred texts."""
    return msgspec.structs.replace(TrafficSettings(alpha=0.02, near_alpha=0.5), **changes)


def test_no_more_than_alpha_of_the_traffic_is_above() -> None:
    """Whatever the traffic scores, the umbrella rule leaves at most alpha of it above."""
    for hot in (0, 1, 8, 40):
        _, record = calibrated(tiny_bundle(), traffic(hot), settings(), Progress())
        for surface in record.surfaces.values():
            assert surface.above[0] <= 0.02 * surface.n


def test_contamination_is_not_mistaken_for_benign() -> None:
    """Attacks in the traffic do not raise the threshold when their share is stated."""
    _, clean = calibrated(tiny_bundle(), traffic(0), settings(), Progress())
    _, dirty = calibrated(tiny_bundle(), traffic(20), settings(), Progress())
    _, robust = calibrated(tiny_bundle(), traffic(20), settings(contamination=0.05), Progress())
    assert dirty.surfaces["prompt"].block > clean.surfaces["prompt"].block
    assert robust.surfaces["prompt"].block == pytest.approx(clean.surfaces["prompt"].block, abs=0.2)


def test_what_only_joined_turns_say_raises_the_margin_of_joined_turns_alone() -> None:
    """Conversations that look restricted when joined cost single requests nothing, and are let be.

    Without a margin of their own the one threshold would rise for all.
    """
    hot = sorted(WORDS)
    turns = [Turn(role=Role.USER, parts=(TextPart(text=word),)) for word in hot]
    talks = [
        TrafficText(
            Exchange(turns=(*turns, Turn(role=Role.USER, parts=(TextPart(text=f"{n}"),)))), ""
        )
        for n in range(60)
    ]
    stage2 = PhraseStage2("\n".join(hot[:3]))
    usual = traffic(0)
    beside = BenignTraffic((*usual.general, *talks), (), usual.sources)
    cascade, record = calibrated(tiny_bundle(stage2), beside, settings(), Progress())
    _, before = calibrated(tiny_bundle(PhraseStage2("never")), usual, settings(), Progress())
    assert record.surfaces["prompt"].block < before.surfaces["prompt"].block + 1
    assert cascade.prompt.joined > 8
    assert cascade.prompt.earlier == cascade.prompt.part == 2.0
    assert record.surfaces["prompt"].above[0] <= 0.02 * record.surfaces["prompt"].n


def test_what_only_answers_say_raises_the_margin_of_answers_alone() -> None:
    """Conversations whose earlier answers look restricted cost what users say nothing.

    A record from before answers counted apart gives them the margin of a part.
    """
    hot = "\n".join(sorted(WORDS)[:3])
    talks = [
        TrafficText(
            Exchange(
                turns=(
                    Turn(role=Role.ASSISTANT, parts=(TextPart(text=hot),)),
                    Turn(role=Role.USER, parts=(TextPart(text=f"{n}"),)),
                )
            ),
            "",
        )
        for n in range(60)
    ]
    usual = traffic(0)
    beside = BenignTraffic((*usual.general, *talks), (), usual.sources)
    bundle = tiny_bundle(PhraseStage2(hot))
    cascade, record = calibrated(bundle, beside, settings(), Progress())
    _, before = calibrated(tiny_bundle(PhraseStage2("never")), usual, settings(), Progress())
    assert record.surfaces["prompt"].block < before.surfaces["prompt"].block + 1
    assert cascade.prompt.margin(TextKind.ANSWER) > 8
    assert cascade.prompt.earlier == cascade.prompt.part == cascade.prompt.joined == 2.0
    assert at_record(bundle.cascade, record).prompt == cascade.prompt
    surface = record.surfaces["prompt"]
    older = msgspec.structs.replace(surface, margins=surface.margins[:3])
    surfaces = {**record.surfaces, "prompt": older}
    placed = at_record(bundle.cascade, msgspec.structs.replace(record, surfaces=surfaces)).prompt
    assert placed.margin(TextKind.ANSWER) == placed.part


def test_texts_near_the_subject_raise_the_threshold() -> None:
    """Their own bound must hold as well."""
    _, without = calibrated(tiny_bundle(), traffic(0), settings(), Progress())
    _, beside = calibrated(tiny_bundle(), traffic(0, near=40), settings(), Progress())
    assert beside.surfaces["prompt"].block > without.surfaces["prompt"].block


def test_stage_2_reads_the_wanted_share_of_replies_and_every_request() -> None:
    """About that share of the replies escalates; requests are scored as they are served, all."""
    stage2 = PhraseStage2("never")
    calibrated(tiny_bundle(stage2), traffic(24), settings(escalate=0.06), Progress())
    assert len({item.reply for item in stage2.seen if item.reply}) <= 40
    assert {item.prompt for item in stage2.seen if not item.reply} >= {
        part.text for text in traffic(24).general for part in text.exchange.texts()
    }


def test_replies_may_bear_rates_of_their_own() -> None:
    """A rate of replies moves their threshold alone; the prompts' stays where it was."""
    both = traffic(40, near=60)
    _, usual = calibrated(tiny_bundle(), both, settings(), Progress())
    for rates in ({"reply_alpha": 0.3}, {"reply_escalate": 0.3}):
        _, own = calibrated(tiny_bundle(), both, settings(**rates), Progress())
        assert own.surfaces["prompt"] == usual.surfaces["prompt"]
        assert own.surfaces["reply"] != usual.surfaces["reply"]
        _, alike = calibrated(
            tiny_bundle(),
            both,
            settings(**{name.removeprefix("reply_"): rate for name, rate in rates.items()}),
            Progress(),
        )
        assert own.surfaces["reply"] == alike.surfaces["reply"]


def test_too_little_traffic_is_an_error() -> None:
    """A promise that so few texts can't keep is not made."""
    with pytest.raises(DataError, match="needs"):
        calibrated(tiny_bundle(), traffic(0, n=50), settings(), Progress())


def test_a_record_makes_the_same_bundle_without_the_traffic(tmp_path: Path) -> None:
    """A bundle that loads is written; its record alone makes it again, byte by byte."""
    write_tiny(tmp_path / "tiny")
    rows = [json.dumps({"text": f"a line of traffic, number {n}"}) for n in range(200)]
    (tmp_path / "traffic.jsonl").write_text("\n".join(rows))
    base = [str(tmp_path / "tiny"), "--unsafe-unsigned-bundle", "--unsigned"]
    record = str(tmp_path / "record.json")
    first = CliRunner().invoke(
        calibrate,
        [*base, "--benign", str(tmp_path / "traffic.jsonl"), "--alpha", "0.05",
         "--out", str(tmp_path / "one"), "--record", record],
    )  # fmt: skip
    assert first.exit_code == 0, first.output
    again = CliRunner().invoke(
        calibrate, [*base, "--from-record", record, "--out", str(tmp_path / "two")]
    )
    assert again.exit_code == 0, again.output
    one, two = (load_bundle(tmp_path / name, UnsafeUnsigned()) for name in ("one", "two"))
    assert one.digest == two.digest
    assert one.manifest.traffic is not None
    assert "traffic, number" not in (tmp_path / "one" / "manifest.json").read_text()


_TEXTS = [{"text": f"a line of traffic, number {n}"} for n in range(100)]
_SAID = {"role": "assistant", "content": "Hello there"}


@pytest.mark.parametrize(
    ("name", "rows", "options", "said"),
    [
        ("t", [{**row, "label": "restricted"} for row in _TEXTS], [], "prompts .*, got 0"),
        ("neighbour_t", _TEXTS, [], "prompts that are not near the subject, got 0"),
        ("t", [{"messages": [{**_SAID, "role": "system"}]}] * 100, [], "replies .*, got 0"),
        ("t", [{"messages": [_SAID]}] * 100, [], "replies .*, got 0"),
        ("t", _TEXTS[:58], [], "59 benign prompts .*, got 58"),
        ("t", _TEXTS, ["--contamination", "0.45"], "59 benign prompts .*, got 55"),
        ("t", _TEXTS, ["--reply-alpha", "0.01"], "299 benign replies .*, got 100"),
    ],
)
def test_traffic_that_bears_no_bound_is_refused_before_it_is_scored(
    tmp_path: Path, name: str, rows: list[dict[str, object]], options: list[str], said: str
) -> None:
    """Whatever is missing is said in a line: nothing general, no replies, or too few."""
    write_tiny(tmp_path / "tiny")
    file = tmp_path / f"{name}.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    words = [str(tmp_path / "tiny"), "--unsafe-unsigned-bundle", "--unsigned", "--alpha", "0.05"]
    words += ["--benign", str(file), "--out", str(tmp_path / "o"), *options]
    made = CliRunner().invoke(calibrate, words)
    assert isinstance(made.exception, DataError)
    assert re.search(said, str(made.exception))
    assert "stage 1" not in made.output


def test_near_texts_are_enough_for_their_own_bound() -> None:
    """Too few of them are refused as well, and say which they are."""
    with pytest.raises(DataError, match="benign prompts near the subject, got 3"):
        calibrated(tiny_bundle(), traffic(0, near=3), settings(), Progress())


async def _kept(url: str, rows: RowMaker) -> None:
    ledger = await Ledger.open(url)
    for number in range(60):
        asked = user_says(f"question {number} of a client")
        prompt = rows.prompt(exchange=asked)
        await ledger.append(prompt)
        await ledger.append(rows.final(prompt.decision_id, f"answer {number}"))
    changes = ({"use_case": "canary"}, {"action": Action.REFUSE}, {"exchange": None})
    for change in changes:
        prompt = rows.prompt(**change)
        await ledger.append(prompt)
        await ledger.append(rows.final(prompt.decision_id, "not traffic"))
    blocked = rows.prompt(verdict=LedgerVerdict.BLOCK, action=Action.BLOCK)
    await ledger.append(blocked)
    await ledger.append(rows.final(blocked.decision_id, ""))
    await ledger.close()


def test_a_gateways_ledger_is_traffic(tmp_path: Path) -> None:
    """What clients asked and got is calibrated on, blocked or not; probes and refusals are not."""
    url = str(tmp_path / "ledger.db")
    asyncio.run(_kept(url, RowMaker()))
    found = traffic_in_ledger(url)
    assert [text.reply for text in found.general] == [*(f"answer {n}" for n in range(60)), ""]
    assert traffic_in_ledger(url, 10).general == found.general[-10:]
    assert found.sources == traffic_in_ledger(url).sources != traffic_in_ledger(url, 10).sources
    write_tiny(tmp_path / "tiny")
    base = [str(tmp_path / "tiny"), "--unsafe-unsigned-bundle", "--unsigned", "--alpha", "0.1"]
    made = CliRunner().invoke(
        calibrate, [*base, "--ledger", url, "--out", str(tmp_path / "ours"), "--json"]
    )
    assert made.exit_code == 0, made.output
    assert json.loads(made.stdout)["surfaces"]["prompt"]["n"] == 61


def test_a_calibration_needs_traffic_or_a_record(tmp_path: Path) -> None:
    """Neither, or a record beside traffic, is an error of one line."""
    write_tiny(tmp_path / "tiny")
    base = [str(tmp_path / "tiny"), "--unsafe-unsigned-bundle", "--out", str(tmp_path / "ours")]
    made = CliRunner().invoke(calibrate, base)
    assert made.exit_code != 0
