"""What is missed, on the demo's own day: real exchanges, scripted people, a known truth."""

from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from safehold.cli.monitor import monitor
from safehold.console.demo.play import Play
from safehold.detect.monitoring.account_book import stopped
from safehold.detect.monitoring.estimate import missed
from safehold.detect.monitoring.tables import RESULTS, MonitorStore
from safehold.detect.review.interface import ReviewVerdict
from safehold.detect.review.sampling import SampleBook, SampleDesign, SampledExchange, draw
from safehold.guard.ledger.joined import Joined, joined, watermark

pytestmark = pytest.mark.soak

_EDGES = (0.05, 0.2, 0.4, 0.6)


def _asked(one: Joined) -> str:
    return "" if one.exchange is None else "\n".join(part.text for part in one.exchange.texts())


def test_the_demos_day_is_estimated_by_scripted_reviewers(tmp_path: Path) -> None:
    """One sample through the desk covers the truth, and so do 93 of 100 further draws."""
    play = Play(tmp_path / "demo", origin="http://localhost:8443")
    with play.gateway() as gateway:
        play.day(gateway, lambda _: None)
    stage, results = play.stage, str(tmp_path / "scan.db")
    places = ["--ledger", stage.ledger, "--monitor", results]
    done = CliRunner().invoke(monitor, [*places, "scan", "--scanner", "session", "--json"])
    assert done.exit_code == 0, done.output
    with MonitorStore.open(results).begin() as connection:
        values = {
            row.decision_id: -99.0 if row.value is None else row.value
            for row in connection.execute(RESULTS.select())
        }
    with stage.sources.reader.snapshot() as rows:
        whole = [
            one
            for one in joined(rows, after=0, through=watermark(rows))
            if one.decision_id in values
        ]
    positive = {one.decision_id for one in whole if _asked(one) in play.restricted}
    population = [
        SampledExchange(one.decision_id, values[one.decision_id], stopped(one)) for one in whole
    ]
    caught = sum(one.caught and one.decision_id in positive for one in population)
    truth = caught / len(positive)
    assert len(population) > 400
    assert len(positive) > 40

    book = SampleBook(str(tmp_path / "demo" / "review.db"))
    design = SampleDesign(edges=_EDGES, floor=0.4, per_stratum=25, seed=1)
    desk = stage.sources.review_desk
    book.keep("day", population, design, desk=desk, by="soak")
    names = {one.decision_id for one in book.drawn("day")}
    for person in ("person-a", "person-b", "person-c"):
        while (item := desk.next(person)) is not None:
            shown = desk.reveal(item.item, person, reason="sample")
            text = ""
            if shown.exchange is not None:
                text = "\n".join(part.text for part in shown.exchange.texts())
            bad = text in play.restricted
            verdict = ReviewVerdict.RESTRICTED_NOT_GIVEN if bad else ReviewVerdict.PERMITTED
            desk.verdict(item.item, person, verdict)
    found = book.estimate("day", seed=1)
    assert found.unread == 0
    assert found.drawn == len(names)
    assert found.missed.absolute.lower <= truth <= found.missed.absolute.upper

    covered = 0
    for seed in range(100):
        strata, drawn = draw(population, msgspec.structs.replace(design, seed=seed))
        read = [
            msgspec.structs.replace(
                one,
                read=sum(each.stratum == number for each in drawn),
                positives=sum(
                    each.stratum == number and each.decision_id in positive for each in drawn
                ),
            )
            for number, one in enumerate(strata)
        ]
        one = missed(read, seed=seed).absolute
        covered += one.lower <= truth <= one.upper
    assert covered >= 93
    assert 0 < found.missed.unseen_at_most < 1
    assert found.missed.unseen_read > 0
