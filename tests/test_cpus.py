"""What the system tells of CPUs: quotas of both cgroup versions, read from made-up files."""

import os

import pytest

from server.model import cpus
from server.model.cpus import Cpus, cgroup_quota


def make(tmp_path, membership, files):
    (tmp_path / "membership").write_text(membership)
    for name, text in files.items():
        path = tmp_path / "cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return cgroup_quota(tmp_path / "membership", tmp_path / "cgroup")


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
    assert cgroup_quota(tmp_path / "missing", tmp_path) is None


@pytest.mark.parametrize(
    ("cores", "quota", "count"),
    [(4, None, 4), (4, 1.5, 2), (4, 0.2, 1), (4, 8.0, 4), (4, 3.2, 3), (1, 2.0, 1)],
)
def test_usable_cpus(monkeypatch, cores, quota, count):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)))
    monkeypatch.setattr(cpus, "cgroup_quota", lambda *_: quota)
    assert Cpus().usable() == count
