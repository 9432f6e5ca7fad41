"""Threads and pauses together: a fake sensor, a cancel in the middle of a pause."""

import threading

import pytest

from server.model.machine.governor import Governor, GovernorSettings
from server.model.machine.thermometer import Thermometer
from tests.support.waiting import PATIENCE_S


def write(root, **zones):
    for name, text in zones.items():
        zone = root / name
        zone.mkdir(exist_ok=True)
        (zone / "temp").write_text(text)
    return Thermometer(root)


@pytest.mark.parametrize(
    ("zones", "celsius"),
    [
        ({"thermal_zone0": "51600\n"}, 51.6),
        ({"thermal_zone0": "27800\n", "thermal_zone1": "64000\n"}, 64.0),
        ({"thermal_zone0": "-273150\n", "thermal_zone1": "30000"}, 30.0),
        ({"thermal_zone0": "2147483647"}, None),
        ({"thermal_zone0": "nonsense"}, None),
        ({"cooling_device0": "40000"}, None),
        ({}, None),
    ],
)
def test_hottest_plausible_zone_counts(tmp_path, zones, celsius):
    assert write(tmp_path, **zones).celsius() == celsius


def test_zone_that_goes_away_is_left_out(tmp_path):
    thermometer = write(tmp_path, thermal_zone0="40000", thermal_zone1="50000")
    (tmp_path / "thermal_zone1" / "temp").unlink()
    assert thermometer.celsius() == 40.0


@pytest.fixture
def clock(monkeypatch):
    """A fake clock: the seconds, in a list of one, which tests advance."""
    seconds = [0.0]
    monkeypatch.setattr("server.model.machine.governor.time.monotonic", lambda: seconds[0])
    return seconds


@pytest.fixture
def hot(tmp_path, clock):
    """A governor on a machine whose sensor has read 95 C for a minute."""
    governor = Governor(GovernorSettings(2, 75.0, write(tmp_path, thermal_zone0="95000")))
    work_for_a_minute(governor, clock)
    return governor


def work_for_a_minute(governor, clock):
    for _ in range(120):
        clock[0] += 0.5
        governor.record(1, 0.1)


def pauses(governor, clock):
    """The waits that make up a pause, in simulated time."""
    waits = []

    class Cancelled:
        def wait(self, seconds):
            waits.append(seconds)
            clock[0] += seconds

    governor.pause(Cancelled())
    return waits


def test_duty_and_temperature_are_reported(hot):
    assert hot.cooling.celsius == 95.0
    assert hot.cooling.duty == pytest.approx(0.1)


def test_cancel_ends_a_pause_at_once(hot):
    cancelled = threading.Event()
    hot.record(1, 60.0)
    pausing = threading.Thread(target=lambda: hot.pause(cancelled), daemon=True)
    pausing.start()
    cancelled.set()
    pausing.join(PATIENCE_S)
    assert not pausing.is_alive()  # the pause would have been 9 minutes


def test_pause_is_taken_once(hot, clock):
    hot.record(1, 0.02)
    assert pauses(hot, clock) == [pytest.approx(0.18)]
    assert pauses(hot, clock) == []


def test_long_pause_ends_when_it_gets_cool(hot, clock, tmp_path):
    hot.record(1, 2.0)
    waits = pauses(hot, clock)
    assert sum(waits) == pytest.approx(18.0)
    assert max(waits) <= 0.5
    hot.record(1, 2.0)
    write(tmp_path, thermal_zone0="40000")
    assert sum(pauses(hot, clock)) < 6


def test_sensor_that_falls_silent_is_logged_and_changes_nothing(hot, clock, tmp_path, caplog):
    (tmp_path / "thermal_zone0" / "temp").unlink()
    work_for_a_minute(hot, clock)
    assert hot.cooling.celsius is None
    assert hot.cooling.duty == pytest.approx(0.1)
    write(tmp_path, thermal_zone0="90000")
    work_for_a_minute(hot, clock)
    assert hot.cooling.celsius == 90.0
    warnings = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert warnings == ["temperature unknown: pacing stays as it is", "temperature known again"]


def test_without_a_limit_nothing_is_read_and_nothing_pauses(tmp_path):
    governor = Governor(GovernorSettings(2, None, write(tmp_path, thermal_zone0="95000")))
    governor.record(1, 0.1)
    assert governor.cooling is None
    waited = threading.Event()
    waited.wait = lambda seconds: pytest.fail("paused")
    governor.pause(waited)


def test_threads_may_be_fixed():
    assert Governor(GovernorSettings(3)).choose(1) == 3
