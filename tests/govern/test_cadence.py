"""What falls due is found in time, and an incident's clocks run from the right moment."""

from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from safehold.cli import safehold
from safehold.govern.cadence.due import agenda, of_acceptances, of_incidents, of_records, of_results
from safehold.govern.cadence.incidents import (
    CadenceError,
    Moment,
    deadlines,
    incident_kinds,
    stock_clocks,
    template,
)
from safehold.govern.controls.engine import run_controls
from safehold.govern.controls.facts.trust_log import RecordFacts
from safehold.govern.controls.interface import DAY
from safehold.govern.controls.library import stock_catalogue
from safehold.testing.hosts import NOW, SITE, healthy, used
from safehold.trust.standing.interface import Determination, DeterminationStatus

HOUR = 3600


def test_each_clock_names_its_source_and_starts_by_a_kind() -> None:
    """No clock is without a text behind it, and each kind has a containment of its own."""
    assert all(len(one.law) > 5 and one.hours > 0 for one in stock_clocks())
    for kind in incident_kinds():
        found = {one.clock.id for one in deadlines((kind,), {Moment.AWARE: NOW})}
        assert "own-containment" in found


def test_clocks_run_from_their_own_moment() -> None:
    """A theft of weights wants a warning within a day; the final report waits for its moment."""
    found = {one.clock.id: one.due for one in deadlines(("weights-theft",), {Moment.AWARE: NOW})}
    assert found["nis2-early-warning"] == NOW + 24 * HOUR
    assert found["gpai-weights"] == NOW + 5 * DAY
    assert found["nis2-final"] is None
    later = {Moment.AWARE: NOW, Moment.NOTIFIED: NOW + DAY}
    told = {one.clock.id: one.due for one in deadlines(("weights-theft",), later)}
    assert told["nis2-final"] == NOW + 32 * DAY


@pytest.mark.parametrize(
    ("kinds", "moments"),
    [
        ((), {Moment.AWARE: NOW}),
        (("theft of a bicycle",), {Moment.AWARE: NOW}),
        (("weights-theft",), {}),
        (("weights-theft",), {Moment.AWARE: NOW, Moment.RESOLVED: NOW - 1}),
    ],
)
def test_incident_that_makes_no_sense_is_refused(
    kinds: tuple[str, ...], moments: dict[Moment, int]
) -> None:
    """An unknown kind, no beginning, or an end before it is an error."""
    with pytest.raises(CadenceError):
        deadlines(kinds, moments)


def test_template_holds_every_clock_of_its_kind() -> None:
    """The page names each clock and leaves what nobody knows open."""
    page = template("inc-1", ("personal-data",), {Moment.AWARE: NOW})
    assert "Article 33(1)" in page
    assert "NIS2" not in page


def test_open_incident_is_on_the_agenda_until_it_is_closed() -> None:
    """An open incident's clocks fall due; a closed one's don't, and nonsense is due at once."""
    leaf = RecordFacts(
        time=NOW - 2 * DAY, kind="incident", facts={"id": "i", "kinds": "weights-theft"}
    )
    log = healthy().logged(records=(leaf,)).reading
    late = [one.what for one in agenda(of_incidents(log), at=NOW, days=0)]
    assert any("nis2-early-warning" in one for one in late)
    assert not any("sb53" in one for one in late)
    closed = RecordFacts(time=NOW, kind="case-close", facts={"id": "i"})
    assert list(of_incidents(healthy().logged(records=(leaf, closed)).reading)) == []
    odd = msgspec.structs.replace(leaf, facts={"id": "i"})
    assert agenda(of_incidents(healthy().logged(records=(odd,)).reading), at=NOW, days=0)


def test_reviews_results_and_attestations_fall_due() -> None:
    """The newest determination's review, a control's period and an attestation's end are found."""
    held = Determination(
        index=1,
        time=NOW - DAY,
        model="a" * 64,
        threshold="t",
        status=DeterminationStatus.CANNOT_RULE_OUT,
        basis=(),
        rationale="r",
        next_review=NOW + DAY,
        approvers=("a", "b"),
    )
    newer = msgspec.structs.replace(held, index=2, next_review=NOW + 200 * DAY)
    assert [one.due for one in of_records((held,))] == [NOW + DAY]
    assert agenda(of_records((held, newer)), at=NOW, days=30) == ()
    run = run_controls(stock_catalogue(), healthy(), SITE)
    assert len(agenda(of_results(run.results), at=NOW, days=2)) == 148
    details = {
        "control": "iam-01", "owner": "p-sec1", "expires": str(NOW + 5 * DAY), "evidence": "a" * 64
    }  # fmt: skip
    log = healthy().with_case(used("controls.attest", "p-sec1", details=details)).reading
    assert [one.due for one in of_acceptances(log, NOW)] == [NOW + 5 * DAY]


def test_command_exits_with_1_when_something_is_overdue(tmp_path: Path) -> None:
    """`due` on a saved run: nothing overdue at once, everything two days later."""
    saved = tmp_path / "run.json"
    saved.write_bytes(msgspec.json.encode(run_controls(stock_catalogue(), healthy(), SITE)))
    words = ["govern", "due", "--controls", str(saved), "--at"]
    assert CliRunner().invoke(safehold, [*words, str(NOW)]).exit_code == 0
    late = CliRunner().invoke(safehold, [*words, str(NOW + 2 * DAY)])
    assert late.exit_code == 1
    assert "148 overdue" in late.output
