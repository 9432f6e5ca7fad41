"""How hard each evaluation works: on how many threads, and with what pause after it.

Owns the thread governors (two, since the best count for prompt batches may differ from the
one for single tokens), the cooling, and the readings that they need: CPUs and temperature.
Used on the model thread only; `threads` and `cooling` may be read anywhere.
"""

import logging
import threading
import time
from dataclasses import dataclass

from server.model.machine.cpus import Cpus
from server.model.machine.thermal import Cooling, NoCooling, ThermalGovernor
from server.model.machine.thermometer import Thermometer
from server.model.machine.threads import FixedThreads, ThreadGovernor, Threads

log = logging.getLogger(__name__)

_MEANINGFUL_BATCH = 8  # smaller ones cost more per token, whatever the thread count
_LOOK_INTERVAL_S = 0.5  # between two readings of the thermometer
_SHORTEST_PAUSE_S = 0.0005


@dataclass(frozen=True, slots=True)
class GovernorSettings:
    """What was chosen when the server was started."""

    threads: int | None = None  # None lets the thread governor choose
    max_celsius: float | None = None  # None never pauses
    thermometer: Thermometer | None = None  # required with max_celsius


@dataclass(frozen=True, slots=True)
class CoolingState:
    """The last temperature, and what is done about it."""

    celsius: float | None  # None while no sensor reports it
    duty: float  # the share of the time in which the model works


class Governor:
    """Chooses threads before every evaluation and a pause after it, and learns from each."""

    def __init__(self, settings: GovernorSettings) -> None:
        self._cpus = Cpus()
        self._batch_threads: Threads
        self._token_threads: Threads
        if settings.threads is None:
            usable = self._cpus.usable()
            self._batch_threads = ThreadGovernor(usable)
            self._token_threads = ThreadGovernor(usable, self._on_move)
        else:
            self._batch_threads = self._token_threads = FixedThreads(settings.threads)
        self._cooling: Cooling = NoCooling()
        self._thermometer: Thermometer | None = None
        if settings.max_celsius is not None:
            self._cooling = ThermalGovernor(settings.max_celsius, _tell_cooling)
            self._thermometer = settings.thermometer
        self._looked_at = -_LOOK_INTERVAL_S
        self._is_blind = False
        self._busy_s = 0.0  # of work that no pause has followed yet
        self.cooling: CoolingState | None = None

    @property
    def threads(self) -> int:
        """The number of threads that ggml currently uses for a token."""
        return self._token_threads.count

    def begin_prompt(self) -> None:
        """Restart the CPU accounting: what others used between prompts says nothing about now."""
        self._cpus.forget()

    def choose(self, tokens: int) -> int:
        """The thread count for an evaluation of `tokens` tokens."""
        cpus = self._cpus.available()
        if cpus is not None:
            self._batch_threads.hint(cpus)
            self._token_threads.hint(cpus)
        return self._threads_for(tokens).choose(self._cpus.usable())

    def record(self, tokens: int, seconds: float) -> None:
        """Learn how long that evaluation took."""
        if tokens == 1 or tokens >= _MEANINGFUL_BATCH:
            self._threads_for(tokens).record(seconds / tokens)
        self._look_at_thermometer()
        self._busy_s = seconds

    def pause(self, cancelled: threading.Event) -> None:
        """Pause for as long as the last evaluation requires; a cancel ends it at once.

        The length is adjusted to the temperature meanwhile, since the pause after one token of a
        large model can take seconds.
        """
        started = time.monotonic()
        while (left_s := self._owed_s(started)) > _SHORTEST_PAUSE_S:
            if cancelled.wait(min(left_s, _LOOK_INTERVAL_S)):
                break
            self._look_at_thermometer()
        self._busy_s = 0.0

    def _owed_s(self, pausing_since: float) -> float:
        return self._cooling.pause_s(self._busy_s) - (time.monotonic() - pausing_since)

    def _threads_for(self, tokens: int) -> Threads:
        return self._token_threads if tokens == 1 else self._batch_threads

    def _look_at_thermometer(self) -> None:
        now = time.monotonic()
        if self._thermometer is None or now - self._looked_at < _LOOK_INTERVAL_S:
            return
        self._looked_at = now
        celsius = self._thermometer.celsius()
        self._tell_blindness(celsius is None)
        if celsius is not None:
            self._cooling.observe(celsius, now)
        self.cooling = CoolingState(celsius, self._cooling.duty)

    # A sensor may come and go: without one, pacing stays as it was.
    def _tell_blindness(self, is_blind: bool) -> None:
        if is_blind != self._is_blind:
            self._is_blind = is_blind
            log.warning(
                "temperature unknown: pacing stays as it is"
                if is_blind
                else "temperature known again"
            )

    # Prompts are short and answers are long: batches adopt the count that tokens have found.
    def _on_move(self, old: int, new: int) -> None:
        self._batch_threads.follow(new)
        log.info("threads %d -> %d", old, new)


def _tell_cooling(what: str) -> None:
    log.info("temperature %s", what)
