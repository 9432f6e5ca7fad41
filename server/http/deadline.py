"""One deadline that is moved again and again, at next to no cost.

Owns at most one timer of the loop, and needs only the loop's `time` and `call_at`.
"""

from collections.abc import Callable
from typing import Protocol


class Timer(Protocol):
    """Like `asyncio.TimerHandle`."""

    def cancel(self) -> None:
        """Cancel the callback."""


class Loop(Protocol):
    """The part of an event loop that is needed here."""

    def time(self) -> float:
        """Seconds on the loop's own clock."""

    def call_at(self, when: float, callback: Callable[[], None], /) -> Timer:
        """Call once at `when`."""


class Deadline:
    """Calls back once when its time has passed. Setting it again costs next to nothing.

    A timer that would fire too late is replaced; one that would fire too early is left, and armed
    again when it fires: a connection that answers 30,000 requests a second arms one every 30 s.
    """

    __slots__ = ("_armed_for", "_call", "_loop", "_timer", "_when")

    def __init__(self, loop: Loop, call: Callable[[], None]) -> None:
        self._loop = loop
        self._call = call
        self._when: float | None = None
        self._timer: Timer | None = None
        self._armed_for = 0.0

    @property
    def when(self) -> float | None:
        """The time of the call, on the loop's clock; None if there is none."""
        return self._when

    def set(self, seconds: float | None) -> None:
        """Call back in `seconds`, unless set again before that; None means never."""
        if seconds is None:
            self._when = None
            return
        when = self._when = self._loop.time() + seconds
        if self._timer is None or when < self._armed_for:
            self._arm(when)

    def cancel(self) -> None:
        """Never call back again."""
        self._when = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arm(self, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._armed_for = when
        self._timer = self._loop.call_at(when, self._fire)

    def _fire(self) -> None:
        self._timer = None
        if self._when is None:
            return
        # libuv's timers count whole milliseconds and may fire one early.
        if self._when > self._loop.time() + 0.002:
            self._arm(self._when)
        else:
            self._when = None
            self._call()
