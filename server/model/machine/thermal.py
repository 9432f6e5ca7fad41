"""How hard the model may work without getting hotter than a limit (`--max-celsius`).

A Pi without a fan reaches 80 C in minutes; its firmware then halves the clock, in jumps. So the
governor gives up speed first, and only as much as needed: it pauses after every evaluation, so that
the model works for a share of the time, its `duty`. A proportional-integral controller moves the
duty so that the temperature settles a little below the limit.

Pure: it is given temperatures and times, and knows no sensor, clock or model.
"""

from collections.abc import Callable
from typing import Protocol

_MARGIN_C = 1.5  # how far below the limit to settle: sensors are noisy and lag
_LEAST_DUTY = 0.1  # however hot it is, the answer goes on
_PER_DEGREE = 0.15  # of duty, for the distance from the target now
_PER_DEGREE_SECOND = 0.01  # of duty, for that distance times its duration
_SMOOTHING_S = 2.0
_LONGEST_STEP_S = 2.0  # cap on one step: the sensor is not read between answers
_PACED = 0.97  # once the duty falls below it, the log reports pacing


class Cooling(Protocol):
    """Says how long to pause."""

    @property
    def duty(self) -> float:
        """The share of the time in which the model may work: 1 is all of it."""

    def pause_s(self, busy_s: float) -> float:
        """Seconds to pause after `busy_s` seconds of work."""

    def observe(self, celsius: float, now: float) -> None:
        """Learn the temperature at `now`, in seconds on any steady clock."""


class NoCooling:
    """Never pauses (no `--max-celsius`)."""

    duty = 1.0

    def pause_s(self, busy_s: float) -> float:
        """See `Cooling`."""
        return 0.0

    def observe(self, celsius: float, now: float) -> None:
        """See `Cooling`."""


class ThermalGovernor:
    """Keeps the temperature below a limit at the least loss of speed (see above).

    Args:
        limit_c: degrees Celsius that are not to be exceeded for long.
        on_change: is called with one clause for the log when pacing begins or ends.
    """

    def __init__(self, limit_c: float, on_change: Callable[[str], None]) -> None:
        self._target_c = limit_c - _MARGIN_C
        self._on_change = on_change
        self.duty = 1.0
        self._integral = 1.0
        self._celsius: float | None = None  # smoothed
        self._now = 0.0
        self._is_pacing = False

    def pause_s(self, busy_s: float) -> float:
        """See `Cooling`."""
        return busy_s * (1 / self.duty - 1)

    def observe(self, celsius: float, now: float) -> None:
        """See `Cooling`."""
        if self._celsius is None:
            self._celsius, self._now = celsius, now
            return
        step_s = min(now - self._now, _LONGEST_STEP_S)
        self._now = now
        self._celsius += (celsius - self._celsius) * min(1.0, step_s / _SMOOTHING_S)
        self._control(self._target_c - self._celsius, step_s)
        self._report(self._celsius)

    # The integral is clamped to possible duties: it must not save up a cool hour as credit.
    def _control(self, room_c: float, step_s: float) -> None:
        self._integral += _PER_DEGREE_SECOND * room_c * step_s
        self._integral = min(1.0, max(_LEAST_DUTY, self._integral))
        self.duty = min(1.0, max(_LEAST_DUTY, self._integral + _PER_DEGREE * room_c))

    def _report(self, celsius: float) -> None:
        is_pacing = self.duty < (1.0 if self._is_pacing else _PACED)
        if is_pacing != self._is_pacing:
            self._is_pacing = is_pacing
            what = "pausing between tokens" if is_pacing else "no more pauses"
            self._on_change(f"{celsius:.1f} C: {what}")
