"""A long simulation is kept in pieces: killed and started again it ends as if never killed."""

from pathlib import Path

import msgspec
import numpy as np
import pytest

from safehold.errors import DataError
from safehold.secure.egress.detectors.traffic_model import Traffic
from safehold.secure.egress.simulation.by_volume import Study, study
from safehold.secure.egress.simulation.example_host import shipped_setup
from safehold.secure.egress.simulation.pieces import Pieces
from safehold.secure.egress.simulation.report import SimulationReport, simulation_text
from safehold.secure.egress.simulation.simulate import containment, residual_delay

ASKED = Study(Traffic(level=1e9), 0.1, runs=12, hosts=6, years=6, weeks=4, calibrated=6, told=10)


class Killed(Exception):  # noqa: N818 - an event, not an error of ours
    """The process ended here."""


def test_killed_study_goes_on_and_ends_the_same(tmp_path: Path) -> None:
    """What was finished is read, the rest is made; the figures are those of one go."""
    kept = Pieces(tmp_path, ASKED)
    first = study(ASKED, kept)
    files = sorted(tmp_path.iterdir())
    assert len(files) == 3
    times = {path: path.stat().st_mtime_ns for path in files}
    lost = next(path for path in files if "hosts-5" in path.name)
    lost.unlink()
    again = study(ASKED, Pieces(tmp_path, ASKED))
    assert again == first
    assert all(path.stat().st_mtime_ns == times[path] for path in files if path != lost)


def test_piece_that_was_not_finished_leaves_nothing(tmp_path: Path) -> None:
    """A run that is killed within a piece makes it again, whole."""
    kept = Pieces(tmp_path, "a setting")

    def killed() -> int:
        raise Killed

    with pytest.raises(Killed):
        kept.once("one", int, killed)
    assert kept.once("one", int, lambda: 4) == 4
    assert kept.once("one", int, killed) == 4


def test_pieces_of_another_setting_are_not_taken(tmp_path: Path) -> None:
    """Another seed, correlation or number of weeks keeps pieces of its own in the same folder."""
    settings = [
        ASKED,
        msgspec.structs.replace(ASKED, seed=8),
        msgspec.structs.replace(ASKED, weeks=5),
        msgspec.structs.replace(ASKED, traffic=Traffic(level=1e9, phi=0.5)),
    ]
    made = [
        Pieces(tmp_path, one).once("x", int, lambda at=at: at) for at, one in enumerate(settings)
    ]
    assert made == [0, 1, 2, 3]


@pytest.mark.parametrize("content", [b"", b"\x00", b"\xc1", b"not a piece"])
def test_damaged_piece_is_said_not_used(tmp_path: Path, content: bytes) -> None:
    """A piece that no release of this form wrote is an error that names the file."""
    kept = Pieces(tmp_path, 1)
    kept.once("one", list[float], lambda: [1.0])
    path = next(tmp_path.iterdir())
    path.write_bytes(content)
    with pytest.raises(DataError, match="delete it"):
        kept.once("one", list[float], lambda: [1.0])


def test_report_prints_what_an_optimum_finds_beside_the_detector() -> None:
    """Delay, share in time and false alarms stand beside those of one who is told everything."""
    setup, rng = shipped_setup(), np.random.default_rng(3)
    report = SimulationReport(
        setup=setup,
        seed=7,
        volume=study(ASKED),
        reconciled=residual_delay(setup, 0.1, runs=20, rng=rng),
        contained=containment(setup, runs=20, rng=rng),
        mimicry=(),
    )
    best = report.volume.optimum
    text = simulation_text(report)
    assert f"the sum over 110 h: {best.window_in_time.at_least()} in time" in text
    assert best.cusum_in_time.at_least() in text
    assert "learned from 4 weeks" in text
    figures = msgspec.json.decode(msgspec.json.encode(report.summary()))
    volume = figures["volume"]
    assert volume["optimum_window_in_time"] == [best.window_in_time.events, best.window_in_time.n]
    assert volume["in_time_lower_over_hosts"] <= volume["in_time"] / volume["runs"]
    assert volume["years_with_false_alarm_upper"] >= (
        volume["years_with_false_alarm"] / volume["years"]
    )
