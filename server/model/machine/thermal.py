"""How hard the model may work without getting hotter than a limit (`--max-celsius`).

A Pi without a fan reaches 80 C in minutes; its firmware then halves the clock, in jumps. So
the governor gives up speed first, and only as much as needed, in one of two ways:

  * pauses: behind every evaluation a rest, so that the model works for a share of the time,
    its `duty`. A proportional-integral controller moves the duty so that the temperature
    settles a little below the limit;
  * a thread less, where that loses less speed than pausing does. Both heat and speed grow
    with threads, but where memory is the bottleneck the last thread brings hardly any speed
    (on a Pi 5, with a 7B). Which way is better depends on model and machine, so it is found
    out: once the temperature has settled, a thread less is tried until it has settled again,
    and the better one stays.

Pure: it is told temperatures, costs and the time, and knows no sensor, clock or model.
"""

import math
from collections.abc import Callable
from typing import Protocol

_MARGIN_C = 1.5  # how far below the limit to settle: sensors are noisy and lag
_LEAST_DUTY = 0.1  # however hot it is, the answer goes on
_PER_DEGREE = 0.15  # of duty, for what the temperature is away from its target now
_PER_DEGREE_SECOND = 0.01  # and for how long it has been
_SMOOTHING_S = 2.0
_LONGEST_STEP_S = 2.0  # between answers nobody looks: that time says nothing of this duty
_SETTLED_C = 1.0
_SETTLED_S = 30.0
_COOL_C = 3.0  # below the target, and for so long: a thread may come back
_COOL_S = 60.0
_LONGEST_COOL_S = 960.0  # every thread that had to be given up again waits twice as long
_PACED = 0.97  # a duty below it is worth looking for a better way
_WIN = 1.03  # times faster, or it is not worth moving
_KNOWN_S = 900.0  # how long a settled speed stays true
_COST_WEIGHT = 1 / 16


class Cooling(Protocol):
    """Says how many threads, and what rests."""

    @property
    def duty(self) -> float:
        """The share of the time in which the model may work: 1 is all of it."""

    def cap(self, usable: int) -> int:
        """The most threads to use of `usable`."""

    def rest_s(self, busy_s: float) -> float:
        """Seconds to rest behind `busy_s` seconds of work."""

    def record(self, threads: int, cost: float) -> None:
        """Learn that a token took `cost` seconds with so many threads."""

    def observe(self, celsius: float, now: float) -> None:
        """Learn the temperature at `now`, in seconds on any steady clock."""


class NoCooling:
    """Never rests (no `--max-celsius`)."""

    duty = 1.0

    def cap(self, usable: int) -> int:
        """See `Cooling`."""
        return usable

    def rest_s(self, busy_s: float) -> float:
        """See `Cooling`."""
        return 0.0

    def record(self, threads: int, cost: float) -> None:
        """See `Cooling`."""

    def observe(self, celsius: float, now: float) -> None:
        """See `Cooling`."""


class ThermalGovernor:
    """Keeps the temperature below a limit at the least loss of speed (see above).

    Args:
        limit_c: degrees Celsius that are not to be passed for long.
        on_change: hears one clause for the log when pacing begins or ends, or the most
            threads change.
    """

    def __init__(self, limit_c: float, on_change: Callable[[str], None]) -> None:
        self._target_c = limit_c - _MARGIN_C
        self._on_change = on_change
        # the controller
        self.duty = 1.0
        self._integral = 1.0
        self._celsius: float | None = None  # smoothed
        self._now = 0.0
        self._is_pacing = False
        # the search for the best thread count
        self._cap: int | None = None  # None: as many as there are
        self._usable = 1
        self._costs: dict[int, float] = {}  # seconds a token, by threads
        self._threads = 1  # of the last token
        self._settled = _Settled()
        self._cool_s = 0.0
        self._wait_s = _COOL_S

    def cap(self, usable: int) -> int:
        """See `Cooling`."""
        self._usable = usable
        return usable if self._cap is None else min(usable, self._cap)

    def rest_s(self, busy_s: float) -> float:
        """See `Cooling`."""
        return busy_s * (1 / self.duty - 1)

    def record(self, threads: int, cost: float) -> None:
        """See `Cooling`."""
        known = self._costs.get(threads, cost)
        self._costs[threads] = known + (cost - known) * _COST_WEIGHT
        self._threads = threads

    def observe(self, celsius: float, now: float) -> None:
        """See `Cooling`."""
        if self._celsius is None:
            self._celsius, self._now = celsius, now
            return
        step_s = min(now - self._now, _LONGEST_STEP_S)
        self._now = now
        self._celsius += (celsius - self._celsius) * min(1.0, step_s / _SMOOTHING_S)
        self._control(self._target_c - self._celsius, step_s)
        self._search(step_s)

    # The integral stays within what can be done: it must not remember a cool hour as credit.
    def _control(self, room_c: float, step_s: float) -> None:
        self._integral += _PER_DEGREE_SECOND * room_c * step_s
        self._integral = min(1.0, max(_LEAST_DUTY, self._integral))
        self.duty = min(1.0, max(_LEAST_DUTY, self._integral + _PER_DEGREE * room_c))
        is_pacing = self.duty < (1.0 if self._is_pacing else _PACED)
        if is_pacing != self._is_pacing:
            self._is_pacing = is_pacing
            self._tell("resting between tokens" if is_pacing else "no more rests")

    def _search(self, step_s: float) -> None:
        assert self._celsius is not None
        room_c = self._target_c - self._celsius
        is_cool = self.duty == 1.0 and room_c > _COOL_C and self._cap is not None
        self._cool_s = self._cool_s + step_s if is_cool else 0.0
        is_even = abs(room_c) < _SETTLED_C or self.duty in (_LEAST_DUTY, 1.0)
        self._settled.observe(step_s if is_even else None, self.duty)
        if self._cool_s >= self._wait_s:
            self._give_back()
        elif self._settled.seconds >= _SETTLED_S and self._threads in self._costs:
            self._compare(self._threads)

    # What was settled at now is compared with what is known of one thread less and one more.
    def _compare(self, threads: int) -> None:
        duty = self._settled.duty
        speed = duty / self._costs[threads]
        self._settled.know(threads, speed, self._now)
        fewer = self._settled.speed(threads - 1, self._now)
        more = self._settled.speed(threads + 1, self._now) or 0.0
        if fewer is None:
            fewer = self._promise(threads - 1) if duty < _PACED else 0.0
        if max(fewer, more) > speed * _WIN:
            self._move(threads - 1 if fewer > more else threads + 1)

    # Tokens a second that a count not yet settled at may reach at most.
    def _promise(self, threads: int) -> float:
        if threads < 1:
            return 0.0
        return 1 / self._costs[threads] if threads in self._costs else math.inf

    def _give_back(self) -> None:
        assert self._cap is not None
        if self._cap > self._threads or self._cap >= self._usable:  # it binds nobody
            self._cap = None
            return
        self._wait_s = min(2 * self._wait_s, _LONGEST_COOL_S)
        self._settled.forget()
        self._move(self._cap + 1)

    def _move(self, cap: int) -> None:
        self._cap = cap
        self._cool_s = 0.0
        self._settled.reset()
        self._tell(f"at most {cap} threads")

    def _tell(self, what: str) -> None:
        assert self._celsius is not None
        self._on_change(f"{self._celsius:.1f} C: {what}")


class _Settled:
    """How long the temperature has stood still, at what mean duty, and what was found so."""

    def __init__(self) -> None:
        self._found: dict[int, tuple[float, float]] = {}  # threads: speed, when
        self.reset()

    def reset(self) -> None:
        self.seconds = 0.0
        self.duty = 1.0  # the mean over them
        self._sum = 0.0

    # None: it moved.
    def observe(self, step_s: float | None, duty: float) -> None:
        if step_s is None:
            self.reset()
            return
        self.seconds += step_s
        self._sum += duty * step_s
        if self.seconds:
            self.duty = self._sum / self.seconds

    def know(self, threads: int, speed: float, now: float) -> None:
        self._found[threads] = (speed, now)
        self.reset()

    def speed(self, threads: int, now: float) -> float | None:
        speed, at = self._found.get(threads, (0.0, -_KNOWN_S))
        return speed if now - at < _KNOWN_S else None

    def forget(self) -> None:
        self._found.clear()
