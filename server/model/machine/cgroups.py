"""The limits that control groups (versions 1 and 2) set on this process: CPU time and memory.

A container engine's `--cpus` and `--memory` are such limits. Pure, apart from reading files.
"""

from collections.abc import Callable
from pathlib import Path

CGROUP_ROOT = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")

Read = Callable[[Path], float | None]  # the limit that one group's directory sets


def cpu_quota(membership: Path = MEMBERSHIP, root: Path = CGROUP_ROOT) -> float | None:
    """CPUs granted by the tightest quota over this process, or None if there is none.

    Args:
        membership: /proc/self/cgroup.
        root: where cgroups are mounted; version 2 at the root, version 1 under `cpu`.
    """
    return _tightest(membership, root, "cpu", _read_cpu_v1, _read_cpu_v2)


def memory_limit(membership: Path = MEMBERSHIP, root: Path = CGROUP_ROOT) -> int | None:
    """Bytes that the tightest group over this process may use, or None if there is no limit."""
    limit = _tightest(membership, root, "memory", _read_memory_v1, _read_memory_v2)
    return None if limit is None else int(limit)


def _tightest(
    membership: Path, root: Path, controller: str, read_v1: Read, read_v2: Read
) -> float | None:
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        return None
    limits = [
        limit
        for line in lines
        for place, read in _places(line, root, controller, read_v1, read_v2)
        if (limit := read(place)) is not None
    ]
    return min(limits, default=None)


# One line of /proc/self/cgroup is "id:controllers:/path" (cgroups(7)). A limit on any
# ancestor binds, too; inside a container the path may name directories that only the host
# sees, so the walk ends at the mount itself.
def _places(
    line: str, root: Path, controller: str, read_v1: Read, read_v2: Read
) -> list[tuple[Path, Read]]:
    _, controllers, path = line.split(":", 2)
    if controllers == "":
        base, read = root, read_v2
    elif controller in controllers.split(","):
        base, read = root / controller, read_v1
    else:
        return []
    place = base / path.lstrip("/")
    return [(at, read) for at in (place, *place.parents) if at.is_relative_to(base)]


def _read_cpu_v2(directory: Path) -> float | None:
    try:
        quota, period = (directory / "cpu.max").read_text().split()
        return int(quota) / int(period)
    except (OSError, ValueError):  # no such file, or "max"
        return None


def _read_cpu_v1(directory: Path) -> float | None:
    quota = _read_number(directory / "cpu.cfs_quota_us")
    period = _read_number(directory / "cpu.cfs_period_us")
    return quota / period if quota and period and quota > 0 else None


def _read_memory_v2(directory: Path) -> float | None:
    return _read_number(directory / "memory.max")


# Without a limit, version 1 reports a number near 2^63, larger than any real limit.
def _read_memory_v1(directory: Path) -> float | None:
    return _read_number(directory / "memory.limit_in_bytes")


def _read_number(file: Path) -> int | None:
    try:
        return int(file.read_text())
    except (OSError, ValueError):  # no such file, or "max"
        return None
