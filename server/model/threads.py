"""How many threads to give ggml: what this process may really use of the machine.

ggml spins at its barriers, so one thread more than there are CPUs to be had is a disaster
(measured on 2 cores with SmolLM2: 120 tokens/s with 2 threads, 0.3 with 3). The number of
cores is therefore only the start: affinity and cgroup quotas (containers) limit it further.
"""

import os
from pathlib import Path

_CGROUP_ROOT = Path("/sys/fs/cgroup")
_PROC_CGROUP = Path("/proc/self/cgroup")


def usable_cpus() -> int:
    """CPUs this process may use: the smaller of its affinity and its quota, at least 1.

    A quota of 1.5 CPUs counts as 2: two threads made 91 tokens/s there, one 82.
    """
    try:
        count = len(os.sched_getaffinity(0))
    except AttributeError:  # macOS has no affinity to ask for
        count = os.cpu_count() or 1
    quota = cgroup_quota(_PROC_CGROUP, _CGROUP_ROOT)
    return count if quota is None else max(1, min(count, round(quota)))


def cgroup_quota(membership: Path, root: Path) -> float | None:
    """CPUs granted by the tightest quota over this process, or None if there is none.

    Args:
        membership: /proc/self/cgroup.
        root: where cgroups are mounted; version 2 at the root, version 1 under `cpu`.
    """
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        return None
    quotas = [quota for line in lines for quota in _quotas_of(line, root)]
    return min(quotas, default=None)


# One line of /proc/self/cgroup is "id:controllers:/path" (cgroups(7)). A limit on any
# ancestor binds, too; inside a container the path may name directories that only the host
# sees, so the walk ends at the mount itself.
def _quotas_of(line: str, root: Path) -> list[float]:
    _, controllers, path = line.split(":", 2)
    if controllers == "":
        base, read = root, _read_v2
    elif "cpu" in controllers.split(","):
        base, read = root / "cpu", _read_v1
    else:
        return []
    place = base / path.lstrip("/")
    places = [place, *place.parents]
    found = [read(place) for place in places if place.is_relative_to(base)]
    return [quota for quota in found if quota is not None]


def _read_v2(directory: Path) -> float | None:
    try:
        quota, period = (directory / "cpu.max").read_text().split()
        return int(quota) / int(period)
    except (OSError, ValueError):  # no such file, or "max"
        return None


def _read_v1(directory: Path) -> float | None:
    try:
        quota = int((directory / "cpu.cfs_quota_us").read_text())
        period = int((directory / "cpu.cfs_period_us").read_text())
    except (OSError, ValueError):
        return None
    return quota / period if quota > 0 else None
