"""The governor on simulated machines: no clock, no CPU, only costs by load and thread count."""

import random

import pytest

from server.model.machine.threads import FixedThreads, ThreadGovernor

# Seconds per token by thread count. The first table was measured (2 cores, SmolLM2); in the
# second, four cores as on a Pi, counts that do not fit are as slow as they were seen to be.
TWO_CORES = {
    "idle": {1: 1 / 91, 2: 1 / 120},
    "one core burning": {1: 1 / 76, 2: 1 / 20},
    "quota of 1.5": {1: 1 / 82, 2: 1 / 91},
    "quota of 1": {1: 1 / 96, 2: 1 / 55},
    "affinity to one": {1: 1 / 92, 2: 3.0},
}
FOUR_CORES = {
    "idle": {1: 0.30, 2: 0.16, 3: 0.115, 4: 0.095},
    "one core burning": {1: 0.31, 2: 0.17, 3: 0.125, 4: 0.5},
    "two cores burning": {1: 0.32, 2: 0.18, 3: 0.6, 4: 0.8},
    "memory is the limit": {1: 0.20, 2: 0.11, 3: 0.10, 4: 0.102},
}
CPUS = {"one core burning": -1.0, "two cores burning": -2.0}
PERIOD_S = 0.1


class Machine:
    """Simulates the cost of an evaluation; if `is_telling`, CPU accounting, too, as on Linux."""

    def __init__(self, worlds, world, is_telling=True, seed=0):
        self.worlds, self.world, self.is_telling = worlds, world, is_telling
        self.draw = random.Random(seed)
        self.cores = max(worlds["idle"])
        self.governor = ThreadGovernor(self.cores)
        self.spent = self.told_at = 0.0
        self.counts = []

    @property
    def usable(self):
        return 1 if self.world in ("affinity to one", "quota of 1") else self.cores

    def cost(self, threads):
        mean = self.worlds[self.world][threads]
        if self.world.startswith("quota") and threads > 1:
            return self._throttled(mean)
        noise = self.draw.gauss(1, 0.05)
        if self.draw.random() < 0.02:  # now and then the kernel has something else to do
            noise += 2
        return max(0.5 * mean, mean * noise)

    # A quota is spent fast and then nothing runs until the period is over.
    def _throttled(self, mean):
        fast = self.worlds["idle"][2]
        is_last = self.spent % PERIOD_S + fast > PERIOD_S * fast / mean
        return fast + (PERIOD_S * (1 - fast / mean) if is_last else 0)

    def speak(self, tokens):
        """Decode `tokens`; returns the seconds they took."""
        before = self.spent
        for _ in range(tokens):
            if self.is_telling and self.spent - self.told_at > 0.1:
                self.told_at = self.spent
                free = self.cores + CPUS.get(self.world, 0)
                self.governor.hint(free + self.draw.uniform(-0.15, 0.15))
            threads = self.governor.choose(self.usable)
            assert 1 <= threads <= self.usable
            cost = self.cost(threads)
            self.spent += cost
            self.governor.record(cost)
            self.counts.append(threads)
        return self.spent - before

    def fixed(self, tokens):
        """Return the seconds that the best fixed count would have taken."""
        totals = []
        for threads in range(1, self.usable + 1):
            other = Machine(self.worlds, self.world, seed=1)
            for _ in range(tokens):
                other.spent += other.cost(threads)
            totals.append(other.spent)
        return min(totals)


WORLDS = [(TWO_CORES, world) for world in TWO_CORES] + [(FOUR_CORES, world) for world in FOUR_CORES]
IDS = [f"{max(worlds['idle'])}-{world}" for worlds, world in WORLDS]


@pytest.mark.parametrize("is_telling", [True, False], ids=["accounts", "no_accounts"])
@pytest.mark.parametrize(("worlds", "world"), WORLDS, ids=IDS)
def test_answer_is_as_fast_as_by_the_best_fixed_count(worlds, world, is_telling):
    ratios = []
    for seed in range(20):
        machine = Machine(worlds, world, is_telling, seed)
        machine.speak(40)  # it has decoded before, under the same load
        ratios.append(machine.fixed(200) / machine.speak(200))
    assert sum(ratios) / len(ratios) >= 0.9


# Seconds a token on machines of many CPUs: the work is divided until memory is the limit, and every
# thread more costs at the barriers.
@pytest.mark.parametrize("barrier_us", [20, 50, 100])
@pytest.mark.parametrize("cpus", [8, 12, 16, 32, 64])
@pytest.mark.parametrize(("work_ms", "least_ms"), [(13.5, 1.8), (300, 60)], ids=["135M", "7B"])
def test_many_cpus_are_not_all_taken(cpus, work_ms, least_ms, barrier_us):
    costs = {
        n: max(work_ms / n, least_ms) / 1000 + barrier_us * n / 1e6 for n in range(1, cpus + 1)
    }
    ratios = []
    for seed in range(10):
        machine = Machine({"idle": costs}, "idle", seed=seed)
        machine.speak(100)
        ratios.append(machine.fixed(200) / machine.speak(200))
    assert sum(ratios) / len(ratios) >= 0.8


CHANGES = [
    (worlds, old, new)
    for worlds in (TWO_CORES, FOUR_CORES)
    for old in worlds
    for new in worlds
    if old != new and "memory" not in old + new
]


@pytest.mark.parametrize(("worlds", "old", "new"), CHANGES, ids=lambda value: value if isinstance(value, str) else str(max(value["idle"])))  # fmt: skip
def test_it_finds_its_way_within_20_tokens(worlds, old, new):
    found = 0
    for seed in range(20):
        machine = Machine(worlds, old, seed=seed)
        machine.speak(150)
        machine.world = new
        machine.speak(20)
        costs = worlds[new]
        best = min(cost for count, cost in costs.items() if count <= machine.usable)
        found += costs[machine.governor.count] <= best / 0.9 + 1e-9
    assert found >= 18


def test_without_accounts_it_finds_its_way_in_time():
    machine = Machine(TWO_CORES, "one core burning", is_telling=False)
    machine.speak(1000)
    assert machine.governor.count == 1
    machine.world = "idle"
    machine.speak(600)
    assert machine.governor.count == 2


def test_shrunken_affinity_is_obeyed_at_once():
    governor = ThreadGovernor(4)
    assert [governor.choose(4), governor.choose(2), governor.choose(1)] == [4, 2, 1]


def test_grown_affinity_is_tried_at_once():
    governor = ThreadGovernor(1)
    for _ in range(5):
        assert governor.choose(1) == 1
        governor.record(0.1)
    assert governor.choose(4) == 4


def test_moves_are_logged():
    moves = []
    governor = ThreadGovernor(2, lambda old, new: moves.append((old, new)))
    governor.choose(1)
    governor.follow(2)
    governor.follow(2)
    assert moves == [(2, 1), (1, 2)]


def test_fixed_count_is_never_left():
    threads = FixedThreads(3)
    threads.record(100.0)
    threads.hint(1.0)
    threads.follow(1)
    assert threads.choose(1) == 3
