"""How many threads to give ggml, chosen for every evaluation.

ggml spins at its barriers, so one thread more than there are free CPUs is a disaster
(2 cores, SmolLM2, tokens/s with 1, 2, 3 threads: idle 91, 120, 0.3; with another process burning
one core 76, 20, 0.3). And what is free changes while the model generates. `threads` is an
argument of every evaluation, so the governor measures and moves:

  * it keeps a running mean of what a token costs at the current count;
  * now and then, more and more rarely while nothing changes, it tries the next higher or lower
    count (above 8: twice or half of it) for a few tokens, stops trying as soon as that cannot win,
    and moves if it did win;
  * it tries at once when the mean rises or falls by half (other load came or went), or when
    CPU accounting reports that more or fewer CPUs are free;
  * it never exceeds what affinity and quota allow, and obeys at once when they shrink.

Pure: it is given costs and limits, and knows no clock, no model and no operating system.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

_WINDOW = 8  # tokens in the running mean
_TRIAL_TOKENS = 4
_BEHIND_TOKENS = 2  # a trial slower by this many tokens is abandoned
_WIN = 0.95  # of the current cost, or less
_SURPRISE = 1.5  # times slower or faster than before: something has changed
_CALM_WINDOW = 64  # tokens over which a change becomes the new normal
_FIRST_PATIENCE = 8  # tokens until the first trial
_LAST_PATIENCE = 512
_UNLIKELY = 32  # counts that CPU accounting contradicts are tried this many times more rarely
_CPUS_CHANGED = 0.6  # CPUs more or fewer
_CPUS_BLUR = 0.4  # slack for brief activity of other processes
# Beyond this count memory is the limit on most machines, every thread more costs at the barriers,
# and one step changes too little to be told from noise: so it begins here at most, and doubles and
# halves above.
_MANY = 8


class Threads(Protocol):
    """Chooses a thread count, and learns."""

    @property
    def count(self) -> int:
        """The count currently considered best."""

    def choose(self, usable: int) -> int:
        """The count for the next evaluation, with `usable` CPUs."""

    def record(self, cost: float) -> None:
        """Learn how long the evaluation just chosen for took, in seconds per token."""

    def hint(self, cpus: float) -> None:
        """Learn how many CPUs were available recently."""

    def follow(self, count: int) -> None:
        """Adopt a count that was found elsewhere."""


class FixedThreads:
    """Always the same count (`--threads N`)."""

    def __init__(self, count: int) -> None:
        self.count = count

    def choose(self, usable: int) -> int:
        """See `Threads`."""
        return self.count

    def record(self, cost: float) -> None:
        """See `Threads`."""

    def hint(self, cpus: float) -> None:
        """See `Threads`."""

    def follow(self, count: int) -> None:
        """See `Threads`."""


class ThreadGovernor:
    """Finds the fastest count and keeps tracking it (see the module's docstring).

    Args:
        usable: CPUs that may be used; the count to begin with, but 8 at most.
        on_move: called with old and new at every change of `count`.
    """

    def __init__(self, usable: int, on_move: Callable[[int, int], None] | None = None) -> None:
        self.count = min(usable, _MANY)
        self._usable = usable
        self._on_move = on_move
        self._cpus: float | None = None  # free recently, if known
        self._hinted_cpus = float(usable)  # what was free when it last changed
        self._last = 0.0
        self._surprises = 0  # unusual costs in a row
        self._mean = _Mean(_WINDOW)
        self._calm = _Mean(_CALM_WINDOW)
        self._trial: _Trial | None = None
        self._patience = {-1: _Patience(), +1: _Patience()}  # by direction

    def choose(self, usable: int) -> int:
        """See `Threads`."""
        if usable != self._usable:
            self._obey(usable)
        return self._trial.count if self._trial else self.count

    def record(self, cost: float) -> None:
        """See `Threads`."""
        if self._trial:
            self._go_on_trying(self._trial, cost)
            return
        last, self._last = self._last, cost
        self._mean.add(cost)
        if self._calm.count < _WINDOW:  # too early to be surprised
            self._calm.add(self._mean.value)
            return
        # Once may be the kernel's doing; twice in a row, or once but enormous, is a change.
        dear, cheap = self._calm.value * _SURPRISE, self._calm.value / _SURPRISE
        if min(last, cost) > dear or max(last, cost) < cheap:
            self._mean.reset((last + cost) / 2)
        self._surprises = self._surprises + 1 if cost > dear or cost < cheap else 0
        if self._mean.value > dear:
            target = min(self.count - 1, max(1, round(self._hinted_cpus)))
        elif self._mean.value < cheap:
            target = self._neighbour(+1)
        else:
            target = None
        # At once if CPU accounting agrees, otherwise only if it lasts: after a pause, for example,
        # the first tokens are slow until the model's pages are cached again.
        if target and (self._is_likely(target) or self._surprises >= _WINDOW):
            self._calm.reset(self._mean.value)
            self._try(target)
        else:
            self._calm.add(self._mean.value)
            self._try_now_and_then()

    def hint(self, cpus: float) -> None:
        """See `Threads`."""
        self._cpus = cpus
        if abs(cpus - self._hinted_cpus) < _CPUS_CHANGED:
            return
        self._hinted_cpus = cpus
        for patience in self._patience.values():
            patience.reset()
        self._try(max(1, min(round(cpus), max(self.count, _MANY))))

    def follow(self, count: int) -> None:
        """See `Threads`."""
        if count != self.count:
            self._move(count, None)

    def _obey(self, usable: int) -> None:
        grew, self._usable = usable > self._usable, usable
        if self.count > usable:
            self._move(usable, None)
        elif self._trial and self._trial.count > usable:
            self._trial = None
        elif grew:
            self._try(min(usable, max(self.count, _MANY)))

    def _try_now_and_then(self) -> None:
        for direction, patience in self._patience.items():
            target = self._neighbour(direction)
            if 1 <= target <= self._usable and patience.is_over(self._is_likely(target)):
                self._try(target)
                return

    def _neighbour(self, direction: int) -> int:
        if direction > 0:
            return self.count + 1 if self.count < _MANY else 2 * self.count
        return self.count - 1 if self.count <= _MANY else self.count // 2

    # Whether `target` may be better, going by CPU accounting.
    def _is_likely(self, target: int) -> bool:
        if self._cpus is None:
            return True
        enough = self._cpus + _CPUS_BLUR
        return enough >= target if target > self.count else enough < self.count

    def _try(self, count: int) -> None:
        if 1 <= count <= self._usable and count != self.count:
            self._trial = _Trial(count)

    def _go_on_trying(self, trial: "_Trial", cost: float) -> None:
        costs = trial.costs
        costs.append(cost)
        if self._mean.count == 0:  # nothing to compare with: adopt it
            self._move(trial.count, cost)
            return
        patience = self._patience[1 if trial.count > self.count else -1]
        if sum(costs) > self._mean.value * (len(costs) + _BEHIND_TOKENS):
            self._trial = None
            patience.lose(4)
        elif len(costs) == _TRIAL_TOKENS:
            self._trial = None
            # Without the worst: one in four may be the kernel's doing.
            mean = (sum(costs) - max(costs)) / (len(costs) - 1)
            if mean < _WIN * self._mean.value:
                self._move(trial.count, mean)
            else:
                patience.lose(2)

    def _move(self, count: int, cost: float | None) -> None:
        old, self.count = self.count, count
        self._trial = None
        self._mean.reset(cost)
        self._calm.reset(cost)
        for patience in self._patience.values():
            patience.reset()
        if self._on_move:
            self._on_move(old, count)


# A running mean: plain over the first `window` values, then exponential.
class _Mean:
    def __init__(self, window: int) -> None:
        self._window = window
        self.value = 0.0
        self.count = 0

    def add(self, value: float) -> None:
        self.count += 1
        self.value += (value - self.value) / min(self.count, self._window)

    def reset(self, value: float | None) -> None:
        self.value = value or 0.0
        self.count = 0 if value is None else _TRIAL_TOKENS


# When to try a direction again: later after every loss.
class _Patience:
    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self._wait = _FIRST_PATIENCE
        self._left = float(_FIRST_PATIENCE)

    def is_over(self, is_likely: bool) -> bool:
        self._left -= 1 if is_likely else 1 / _UNLIKELY
        return self._left <= 0

    def lose(self, factor: int) -> None:
        self._wait = min(self._wait * factor, _LAST_PATIENCE)
        self._left = float(self._wait)


@dataclass(slots=True)
class _Trial:
    count: int
    costs: list[float] = field(default_factory=list)
