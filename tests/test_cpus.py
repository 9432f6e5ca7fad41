"""What the system reports about CPUs: affinity, quota, and CPU time accounting."""

import os

import pytest

from server.model.machine import cpus
from server.model.machine.cpus import Cpus


@pytest.mark.parametrize(
    ("cores", "quota", "count"),
    [(4, None, 4), (4, 1.5, 2), (4, 0.2, 1), (4, 8.0, 4), (4, 3.2, 3), (1, 2.0, 1)],
)
def test_usable_cpus(monkeypatch, cores, quota, count):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)))
    monkeypatch.setattr(cpus, "cpu_quota", lambda: quota)
    assert Cpus().usable() == count


class Accounts:
    """A fake clock and fake CPU time accounting."""

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


def test_available_cpus_are_the_idle_ones_and_ours(monkeypatch, tmp_path):
    accounts = Accounts(monkeypatch, tmp_path)
    looked = Cpus()
    accounts.now += 0.05
    assert looked.available() is None
    accounts.now += 0.15
    accounts.own += 0.1
    accounts.write(0.08, 50, 0.06)  # the second is not ours to use
    assert looked.available() == pytest.approx((0.1 + 0.08 + 0.06) / 0.2)


def test_what_was_before_can_be_forgotten(monkeypatch, tmp_path):
    accounts = Accounts(monkeypatch, tmp_path)
    looked = Cpus()
    accounts.now += 5
    looked.forget()
    assert looked.available() is None
    accounts.now += 0.2
    accounts.write(0.2, 0, 0.2)
    assert looked.available() == pytest.approx(2)


def test_no_accounts_at_all(monkeypatch, tmp_path):
    monkeypatch.setattr(cpus, "_PROC_STAT", tmp_path / "missing")
    assert Cpus().available() is None


def test_accounts_of_other_cpus_than_before_tell_nothing(monkeypatch, tmp_path):
    accounts = Accounts(monkeypatch, tmp_path)
    looked = Cpus()
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})
    accounts.now += 0.2
    accounts.write(500, 0, 0)
    assert looked.available() is None
