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


class Accounts:
    """A made-up clock and made-up accounts of CPU time."""

    def __init__(self, monkeypatch, tmp_path):
        self.now, self.own = 100.0, 0.0
        self.stat = tmp_path / "stat"
        monkeypatch.setattr(cpus, "_PROC_STAT", self.stat)
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 2}, raising=False)
        monkeypatch.setattr(cpus.time, "monotonic", lambda: self.now)
        monkeypatch.setattr(cpus.time, "process_time", lambda: self.own)
        self.write(0, 0, 0)

    def write(self, *idle_s):
        ticks = [round(seconds * os.sysconf("SC_CLK_TCK")) for seconds in idle_s]
        lines = [f"cpu{number} 1 2 3 {idle} 0 5 6 7 0 0" for number, idle in enumerate(ticks)]
        self.stat.write_text("\n".join(["cpu 9 9 9 9 9", *lines, "intr 1 2"]))


def test_cpus_to_be_had_are_the_idle_ones_and_ours(monkeypatch, tmp_path):
    accounts = Accounts(monkeypatch, tmp_path)
    looked = Cpus()
    accounts.now += 0.05
    assert looked.to_be_had() is None
    accounts.now += 0.15
    accounts.own += 0.1
    accounts.write(0.08, 50, 0.06)  # the second is not ours to use
    assert looked.to_be_had() == pytest.approx((0.1 + 0.08 + 0.06) / 0.2)


def test_what_was_before_can_be_forgotten(monkeypatch, tmp_path):
    accounts = Accounts(monkeypatch, tmp_path)
    looked = Cpus()
    accounts.now += 5
    looked.forget()
    assert looked.to_be_had() is None
    accounts.now += 0.2
    accounts.write(0.2, 0, 0.2)
    assert looked.to_be_had() == pytest.approx(2)


def test_no_accounts_at_all(monkeypatch, tmp_path):
    monkeypatch.setattr(cpus, "_PROC_STAT", tmp_path / "missing")
    assert Cpus().to_be_had() is None


def test_accounts_of_other_cpus_than_before_tell_nothing(monkeypatch, tmp_path):
    accounts = Accounts(monkeypatch, tmp_path)
    looked = Cpus()
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})
    accounts.now += 0.2
    accounts.write(500, 0, 0)
    assert looked.to_be_had() is None
