"""Detectors: thresholds hold their false-alarm rate, thieves are found, state survives."""

import msgspec
import numpy as np
import pytest

from safehold.errors import EgressError
from safehold.secure.egress.detectors.baseline import TrafficBaseline, fit
from safehold.secure.egress.detectors.calibration import Noise, autoregression, calibrate
from safehold.secure.egress.detectors.detectors import (
    Detector,
    DetectorState,
    cusum_steps,
    first_alarm,
    run_cusum,
    start,
    step,
)
from safehold.secure.egress.detectors.traffic_model import Traffic
from safehold.secure.egress.simulation.optimum import exact_steps, optimum

HOUR = 3_600


@pytest.fixture(scope="module")
def detector() -> Detector:
    """A detector fitted to nine weeks of the shipped model."""
    rng = np.random.default_rng(3)
    values = Traffic(level=1e9).draw(rng, 63 * 24, HOUR)[0]
    return calibrate(fit(values.tolist(), HOUR), alarms_per_year=1.0, rng=rng, years=200)


def test_baseline_finds_the_cycle() -> None:
    """The fitted cycle is within 10 % of the model's everywhere."""
    rng = np.random.default_rng(5)
    traffic = Traffic(level=1e9)
    fitted = fit(traffic.draw(rng, 63 * 24, HOUR)[0].tolist(), HOUR)
    assert len(fitted.mean) == 168
    assert np.asarray(fitted.mean) == pytest.approx(traffic.mean(168, HOUR), rel=0.15)


def test_noise_is_overdispersed_not_poisson() -> None:
    """The fitted variance is far above the mean, as in real traffic."""
    rng = np.random.default_rng(5)
    fitted = fit(Traffic(level=1e9).draw(rng, 63 * 24, HOUR)[0].tolist(), HOUR)
    mean = np.asarray(fitted.mean)
    assert (fitted.sigma(mean) ** 2 > 1e6 * mean).all()


def test_false_alarms_keep_their_rate(detector: Detector) -> None:
    """At one false alarm a year, at most about two thirds of the years have one."""
    rng = np.random.default_rng(9)
    traffic = Traffic(level=1e9)
    years = [traffic.draw(rng, 365 * 24, HOUR)[0] for _ in range(60)]
    alarmed = sum(first_alarm(detector, year) is not None for year in years)
    assert alarmed <= 48


def test_correlated_traffic_keeps_the_rate_too() -> None:
    """With an hourly correlation of 0.8 not every year alarms, on hosts fitted anew each time.

    Thresholds that forget correlation across days, or that the baseline is an estimate, alarm in
    nearly all of them.
    """
    rng = np.random.default_rng(9)
    traffic = Traffic(level=1e9, phi=0.8)
    alarmed = 0
    for _ in range(8):
        trained = traffic.draw(rng, 63 * 24, HOUR)[0]
        mine = calibrate(fit(trained.tolist(), HOUR), alarms_per_year=1.0, rng=rng, years=90)
        years = traffic.draw(rng, 365 * 24, HOUR, 5)
        alarmed += sum(first_alarm(mine, year) is not None for year in years)
    assert 8 <= alarmed <= 32


def test_simulated_noise_is_as_skewed_and_correlated_as_the_training() -> None:
    """What thresholds are set on has the training's mean, spread, upper tail and correlation."""
    rng = np.random.default_rng(21)
    trained = fit(Traffic(level=1e9, cv=0.6, phi=0.6).draw(rng, 63 * 24, HOUR)[0].tolist(), HOUR)
    drawn = Noise(trained).traffic(rng, 20, 63 * 24, 0)
    z = np.stack([trained.standardise(series) for series in drawn])
    source = np.asarray(trained.residuals)
    assert z.mean() == pytest.approx(source.mean(), abs=0.1)
    assert z.std() == pytest.approx(source.std(), abs=0.1)
    assert np.quantile(z, 0.99) == pytest.approx(np.quantile(source, 0.99), rel=0.1)
    around = float((z[:, 1:] * z[:, :-1]).mean() / (z**2).mean())
    assert around == pytest.approx(trained.phi, abs=0.06)


def test_white_noise_has_no_autoregression_and_a_constant_none() -> None:
    """The order is chosen by what it explains; a flow that never changes has none."""
    rng = np.random.default_rng(23)
    assert len(autoregression(rng.standard_normal(2000), 48)) <= 2
    assert len(autoregression(np.zeros(500), 48)) == 0


@pytest.mark.parametrize("phi", [0.0, 0.5, 0.8])
@pytest.mark.parametrize("theft", [0.0, 0.1])
def test_steps_are_the_optimums_where_the_baseline_is_true(phi: float, theft: float) -> None:
    """With nothing left to estimate each step is the exact log-likelihood ratio, correlation too.

    Steps on gamma densities around the conditional mean were off by more than a step can be worth.
    """
    traffic = Traffic(level=1e9, phi=phi)
    mean = traffic.mean(168, HOUR)
    true = TrafficBaseline(
        bin_s=HOUR,
        mean=tuple(mean.tolist()),
        scale=traffic.cv**2,
        power=2.0,
        phi=phi,
        trained=1680,
        residuals=(),
    )
    series = traffic.draw(np.random.default_rng(4), 4 * 168, HOUR, 2) + theft * traffic.level
    z = np.stack([true.standardise(one, true.trained) for one in series])
    size = 0.08 * true.level
    exact = np.clip(exact_steps(traffic, series, size, 0), -8.0, 4.0)
    steps = cusum_steps(true, 0.08, z, true.trained)
    usual = series[:, 1:] > 0.2 * np.tile(mean, 4)[1:]
    assert usual.mean() > 0.9
    assert steps[:, 1:][usual] == pytest.approx(exact[:, 1:][usual], abs=0.05)


def test_bulk_theft_is_found_within_two_hours(detector: Detector) -> None:
    """Three times the traffic is an alarm at once."""
    rng = np.random.default_rng(11)
    series = Traffic(level=1e9).draw(rng, 48, HOUR)[0] + 3e9
    found = first_alarm(detector, series)
    assert found is not None
    assert found <= 1


def test_slow_theft_is_found(detector: Detector) -> None:
    """A tenth of the traffic is found, in 110 hours in most runs."""
    rng = np.random.default_rng(13)
    hours = [
        first_alarm(detector, Traffic(level=1e9).draw(rng, 40 * 24, HOUR)[0] + 1e8)
        for _ in range(40)
    ]
    found = [h + 1 for h in hours if h is not None]
    assert len(found) == 40
    assert np.median(found) <= 110


def test_stepwise_and_batch_agree_over_a_restart(detector: Detector) -> None:
    """Judging bin by bin, with the state written and read in between, finds the same alarm."""
    rng = np.random.default_rng(17)
    series = Traffic(level=1e9).draw(rng, 20 * 24, HOUR)[0] + 1.5e8
    expected = first_alarm(detector, series)
    progress, found = start(detector), None
    for number, value in enumerate(series):
        raw = msgspec.json.encode(progress)
        progress, alarms = step(
            detector, msgspec.json.decode(raw, type=DetectorState), float(value)
        )
        if alarms:
            found = number
            break
    assert found == expected


def test_silent_flow_that_speaks_is_an_alarm() -> None:
    """A flow that was always silent has no spread; any real traffic on it alarms."""
    rng = np.random.default_rng(1)
    quiet = calibrate(fit([0.0] * 200, HOUR), alarms_per_year=1.0, rng=rng, years=50)
    assert first_alarm(quiet, np.full(3, 1e6)) == 0


@pytest.mark.parametrize("values", [[1.0] * 10, [float("nan")] * 100, [-1.0] * 100])
def test_useless_training_is_refused(values: list[float]) -> None:
    """Too little, not finite, or negative: no baseline."""
    with pytest.raises(EgressError):
        fit(values, HOUR)


def test_not_a_number_can_not_silence_a_detector(detector: Detector) -> None:
    """A NaN is refused; it would else disable every later comparison."""
    with pytest.raises(EgressError):
        step(detector, start(detector), float("nan"))


def test_sum_over_the_time_allowed_finds_more_within_it() -> None:
    """Told everything, the window finds more thefts in time than the CUSUM of shortest mean delay.

    So a share found in time is no fault of the theft's size before both were tried.
    """
    best = optimum(Traffic(level=1e9), 0.1, rng=np.random.default_rng(2), runs=500, years=200)
    assert best.window_in_time.value > best.cusum_in_time.value + 0.02
    assert best.window_in_time.value >= 0.9
    assert best.mean_hours <= 80


@pytest.mark.parametrize(("size", "kinds"), [(8e7, {"window"}), (1e8, {"window"}), (2e9, {"scan"})])
def test_each_theft_is_found_bin_by_bin_as_in_one_go(
    detector: Detector, size: float, kinds: set[str]
) -> None:
    """Whichever statistic is first, state that is written and read finds it at the same bin."""
    rng = np.random.default_rng(29)
    seen = set()
    for _ in range(6):
        series = Traffic(level=1e9).draw(rng, 20 * 24, HOUR)[0] + size
        expected = first_alarm(detector, series)
        progress, found = start(detector), None
        for number, value in enumerate(series):
            progress, alarms = step(detector, progress, float(value))
            if alarms:
                seen |= {alarm.statistic for alarm in alarms}
                found = number
                break
        assert found == expected
    assert kinds <= seen


def test_window_forgets_what_is_older_than_its_time(detector: Detector) -> None:
    """The state never holds more than the window, and a sum starts again after its alarm."""
    progress = start(detector)
    rng = np.random.default_rng(31)
    alarmed = 0
    for value in Traffic(level=1e9).draw(rng, 30 * 24, HOUR)[0] + 1e8:
        progress, alarms = step(detector, progress, float(value))
        assert len(progress.ratios) <= 111
        if any(alarm.statistic == "window" for alarm in alarms):
            alarmed += 1
            assert progress.ratios == (0.0,)
    assert alarmed


@pytest.mark.parametrize("begin", [0.0, 2.5])
def test_cusum_in_one_go_is_the_one_step_by_step(begin: float) -> None:
    """The sum less its lowest is the sum with a floor, from any start and over a year."""
    steps = np.random.default_rng(37).normal(-0.05, 0.4, (3, 9_000))
    paths = run_cusum(steps, begin)
    level = np.full(3, begin)
    for at in range(steps.shape[1]):
        level = np.maximum(0.0, level + steps[:, at])
        assert paths[:, at] == pytest.approx(level, abs=1e-7)


@pytest.mark.parametrize("bins", [201, 1512])
def test_noise_that_is_half_silence_leaves_a_level_that_theft_reaches(bins: int) -> None:
    """Bins below the theft say that there was none; else quiet years drift up to any level.

    An honest residual is such noise: what is over-explained counts as nothing.
    """
    rng = np.random.default_rng(41)
    honest = np.maximum(0.0, rng.normal(1e6, 3e6, bins + 48))
    mine = calibrate(fit(honest[:bins], HOUR), alarms_per_year=0.5, rng=rng, design=1.0, years=60)
    assert mine.thresholds.window < 60
    assert first_alarm(mine, honest[bins:]) is None
    found = first_alarm(mine, honest[bins:] + 7e7)
    assert found is not None
    assert found < 24


def test_traffic_of_rare_giants_leaves_a_level() -> None:
    """Where a few hours are a million times the others, every level is a number."""
    rng = np.random.default_rng(43)
    series = rng.gamma(2.0, 0.5, 240) * np.where(rng.random(240) < 0.02, 1e9, 1.0)
    mine = calibrate(fit(series, HOUR), alarms_per_year=1.0, rng=rng, years=60)
    levels = mine.thresholds
    assert np.isfinite([levels.cusum, levels.window, levels.scan]).all()
