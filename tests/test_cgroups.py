"""Limits of both cgroup versions, read from made-up files."""

import pytest

from server.model.machine.cgroups import cpu_quota, memory_limit


def make(tmp_path, membership, files, read=cpu_quota):
    (tmp_path / "membership").write_text(membership)
    for name, text in files.items():
        path = tmp_path / "cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return read(tmp_path / "membership", tmp_path / "cgroup")


@pytest.mark.parametrize(
    ("membership", "files", "quota"),
    [
        ("0::/\n", {"cpu.max": "max 100000\n"}, None),
        ("0::/a/b\n", {"a/b/cpu.max": "150000 100000\n"}, 1.5),
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000", "a/cpu.max": "50000 100000"}, 0.5),
        ("0::/a\n", {"a/cpu.max": "300000 100000", "cpu.max": "200000 100000"}, 2.0),
        ("4:cpu,cpuacct:/a\n", {"cpu/a/cpu.cfs_quota_us": "250000", "cpu/a/cpu.cfs_period_us": "100000"}, 2.5),
        ("4:cpu:/a\n", {"cpu/a/cpu.cfs_quota_us": "-1", "cpu/a/cpu.cfs_period_us": "100000"}, None),
        ("4:memory:/a\n", {"cpu/a/cpu.cfs_quota_us": "1"}, None),
        ("0::/only/on/the/host\n", {"cpu.max": "100000 100000"}, 1.0),
        ("0::/a\n", {}, None),
        ("0::/a\n", {"a/cpu.max": "nonsense"}, None),
    ],
)  # fmt: skip
def test_quota(tmp_path, membership, files, quota):
    assert make(tmp_path, membership, files) == quota


def test_no_cgroups_at_all(tmp_path):
    assert cpu_quota(tmp_path / "missing", tmp_path) is None


@pytest.mark.parametrize(
    ("membership", "files", "limit"),
    [
        ("0::/\n", {"memory.max": "max\n"}, None),
        ("0::/a/b\n", {"a/b/memory.max": "max", "a/memory.max": "4294967296\n"}, 2**32),
        ("0::/a\n", {"a/memory.max": "1000", "memory.max": "2000"}, 1000),
        ("9:memory:/a\n", {"memory/a/memory.limit_in_bytes": "1000", "memory/memory.limit_in_bytes": "9223372036854771712"}, 1000),
        ("9:cpu:/a\n", {"memory/a/memory.limit_in_bytes": "1000"}, None),
        ("0::/a\n", {}, None),
    ],
)  # fmt: skip
def test_memory_limit(tmp_path, membership, files, limit):
    assert make(tmp_path, membership, files, memory_limit) == limit
