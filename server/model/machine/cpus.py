"""The CPUs that this process may use and how many are free, as the operating system reports it.

Owns nothing but the last reading of each source, so that none is read more often than is worth
it: affinity on every call (1 us), quotas once a second, CPU accounting ten times a second.
A source that does not exist (macOS, old kernels) limits nothing.
"""

import os
import time
from dataclasses import dataclass
from pathlib import Path

from server.model.machine.cgroups import cpu_quota

_PROC_STAT = Path("/proc/stat")
_PROC_CPUINFO = Path("/proc/cpuinfo")
_QUOTA_INTERVAL_S = 1.0
_ACCOUNT_INTERVAL_S = 0.1


def features() -> frozenset[str]:
    """The instruction sets that the CPU and the kernel support, as Linux names them; x86 only."""
    try:
        lines = _PROC_CPUINFO.read_text().splitlines()
    except OSError:
        return frozenset()
    flags = next((line for line in lines if line.startswith("flags")), "")
    return frozenset(flags.partition(":")[2].split())


class Cpus:
    """The CPUs of the calling thread, and what other processes leave of them."""

    def __init__(self) -> None:
        self._quota: float | None = None
        self._quota_at = -_QUOTA_INTERVAL_S
        self._account = _read_account()

    def usable(self) -> int:
        """How many CPUs may be used: the smaller of affinity and quota, at least 1.

        A quota of 1.5 CPUs counts as 2: two threads reached 91 tokens/s there, one 82.
        """
        now = time.monotonic()
        if now - self._quota_at >= _QUOTA_INTERVAL_S:
            self._quota_at = now
            self._quota = cpu_quota()
        count = len(_affinity())
        return count if self._quota is None else max(1, min(count, round(self._quota)))

    def forget(self) -> None:
        """Restart the accounting: what other processes used before says nothing about now."""
        self._account = _read_account()

    def available(self) -> float | None:
        """How many CPUs were available since the last figure: those idle and those we used.

        None if that was under 0.1 s ago (CPU accounting counts 10 ms ticks), or where /proc/stat
        does not exist.
        """
        if self._account is None or time.monotonic() - self._account.at < _ACCOUNT_INTERVAL_S:
            return None
        before, self._account = self._account, _read_account()
        if self._account is None or self._account.cpus != before.cpus:
            return None
        idle_s = self._account.idle_s - before.idle_s
        own_s = self._account.own_s - before.own_s
        return (idle_s + own_s) / (self._account.at - before.at)


@dataclass(frozen=True, slots=True)
class _Account:
    cpus: frozenset[int]
    at: float  # this and the rest in seconds
    idle_s: float  # of the CPUs we may use, together
    own_s: float  # of this process


def _affinity() -> set[int]:
    try:
        return os.sched_getaffinity(0)
    except AttributeError:  # not on macOS
        return set(range(os.cpu_count() or 1))


# A line of /proc/stat is "cpuN user nice system idle iowait ...", in ticks (proc(5)).
def _read_account() -> _Account | None:
    try:
        lines = _PROC_STAT.read_text().splitlines()
    except OSError:
        return None
    cpus = frozenset(_affinity())
    ours = {f"cpu{number}" for number in cpus}
    counts = [line.split() for line in lines if line.partition(" ")[0] in ours]
    idle = sum(int(fields[4]) + int(fields[5]) for fields in counts)
    return _Account(cpus, time.monotonic(), idle / os.sysconf("SC_CLK_TCK"), time.process_time())
