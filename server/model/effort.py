"""How hard each evaluation works: on how many threads, and with what rest behind it.

Owns the thread governors (two, since slices of a prompt may want another count than
tokens), the cooling, and the readings that both live on: CPUs and temperature. Used on the
model thread only; `threads` and `temperature` may be read anywhere.
"""

import logging
import threading
import time
from dataclasses import dataclass

from server.model.cpus import Cpus
from server.model.thermal import Cooling, NoCooling, ThermalGovernor
from server.model.thermometer import Thermometer
from server.model.threads import FixedThreads, ThreadGovernor, Threads

log = logging.getLogger(__name__)

_TELLING_SLICE = 8  # smaller ones cost more a token, whatever the threads
_LOOK_INTERVAL_S = 0.5  # at the thermometer


@dataclass(frozen=True, slots=True)
class EffortSettings:
    """What the person who starts the server chose."""

    threads: int | None = None  # None lets the thread governor choose
    max_celsius: float | None = None  # None never rests
    thermometer: Thermometer | None = None  # wanted with max_celsius


@dataclass(frozen=True, slots=True)
class Temperature:
    """The last reading, and what is done about it."""

    celsius: float
    duty: float  # the share of the time in which the model works


class Effort:
    """Chooses before every evaluation and learns from every one."""

    def __init__(self, settings: EffortSettings) -> None:
        self._cpus = Cpus()
        self._slice_threads: Threads
        self._token_threads: Threads
        if settings.threads is None:
            usable = self._cpus.usable()
            self._slice_threads = ThreadGovernor(usable)
            self._token_threads = ThreadGovernor(usable, self._on_move)
        else:
            self._slice_threads = self._token_threads = FixedThreads(settings.threads)
        self._cooling: Cooling = NoCooling()
        self._thermometer: Thermometer | None = None
        if settings.max_celsius is not None:
            self._cooling = ThermalGovernor(settings.max_celsius, _tell_cooling)
            self._thermometer = settings.thermometer
        self._looked_at = -_LOOK_INTERVAL_S
        self._rest_s = 0.0
        self.temperature: Temperature | None = None

    @property
    def threads(self) -> int:
        """Threads that ggml gets for a token now."""
        return self._token_threads.count

    def begin_prompt(self) -> None:
        """What others did with the CPUs before tells nothing of now."""
        self._cpus.forget()

    def choose(self, tokens: int) -> int:
        """The thread count for an evaluation of so many tokens."""
        cpus = self._cpus.to_be_had()
        if cpus is not None:
            self._slice_threads.hint(cpus)
            self._token_threads.hint(cpus)
        usable = self._cooling.cap(self._cpus.usable())
        return self._cooling.cap(self._threads_for(tokens).choose(usable))  # `--threads`, too

    def record(self, tokens: int, threads: int, seconds: float) -> None:
        """Learn what that evaluation took."""
        if tokens == 1 or tokens >= _TELLING_SLICE:
            self._threads_for(tokens).record(seconds / tokens)
        if tokens == 1:
            self._cooling.record(threads, seconds)
        self._look_at_thermometer()
        self._rest_s = self._cooling.rest_s(seconds)

    def rest(self, cancelled: threading.Event) -> None:
        """Rest as long as the last evaluation asks for; a cancel ends it at once."""
        if self._rest_s:
            cancelled.wait(self._rest_s)
            self._rest_s = 0.0

    def _threads_for(self, tokens: int) -> Threads:
        return self._token_threads if tokens == 1 else self._slice_threads

    def _look_at_thermometer(self) -> None:
        now = time.monotonic()
        if self._thermometer is None or now - self._looked_at < _LOOK_INTERVAL_S:
            return
        self._looked_at = now
        celsius = self._thermometer.celsius()
        if celsius is not None:  # else it stays as it was
            self._cooling.observe(celsius, now)
            self.temperature = Temperature(celsius, self._cooling.duty)

    # Prompts are short and answers are long: what tokens find out, slices take over.
    def _on_move(self, old: int, new: int) -> None:
        self._slice_threads.follow(new)
        log.info("threads %d -> %d", old, new)


def _tell_cooling(what: str) -> None:
    log.info("temperature %s", what)
