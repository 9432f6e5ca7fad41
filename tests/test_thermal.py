"""The thermal governor before a simulated machine, in simulated time.

A sensor with noise and steps, a die on a heat sink, and models that are bound by computing or
by memory.
"""

import random
import statistics
from dataclasses import dataclass, field

import pytest

from server.model.machine.thermal import NoCooling, ThermalGovernor

LIMIT_C = 75.0
LOOK_S = 0.5
COMPUTE_BOUND = {1: 10.0, 2: 19.6, 3: 29.0, 4: 38.0}  # tokens/s by threads
MEMORY_BOUND = {1: 1.5, 2: 2.6, 3: 3.2, 4: 3.25}
LARGE = {1: 0.5, 2: 0.9, 3: 1.2, 4: 1.4}  # a rest behind one token takes seconds
ONE_THREAD_IS_ALL = {1: 9.0, 2: 9.1, 3: 9.1, 4: 9.1}


@dataclass
class Machine:
    """Two heat capacities in a row, and power that grows with the threads at work."""

    ambient_c: float = 25.0
    idle_w: float = 2.5
    thread_w: float = 1.6
    die: float = 42.0
    sink: float = 42.0

    def run(self, seconds, watts):
        steps = max(1, int(seconds / 0.05))
        for _ in range(steps):
            flow_w = (self.die - self.sink) / 1.2  # K/W from die to sink
            self.die += (watts - flow_w) / 1.0 * seconds / steps  # J/K of the die
            self.sink += (flow_w - (self.sink - self.ambient_c) / 7.0) / 12.0 * seconds / steps


@dataclass
class Run:
    """A model that speaks without end on a machine, governed or not."""

    speeds: dict
    cooling: object = None
    machine: Machine = field(default_factory=Machine)
    usable: int = 4
    now: float = 0.0
    log: list = field(default_factory=list)
    samples: list = field(default_factory=list)  # now, degrees, threads

    def __post_init__(self):
        self.noise = random.Random(1)
        self.next_look = 0.0
        if self.cooling is None:
            self.cooling = ThermalGovernor(LIMIT_C, self.log.append)

    def speak_for(self, seconds):
        end = self.now + seconds
        while self.now < end:
            threads = self.cooling.cap(self.usable)
            cost = 1 / self.speeds[threads]
            self._pass(cost, threads)
            self.cooling.record(threads, cost)
            self._look()
            self._rest(cost)
            self.samples.append((self.now, self.machine.die, threads))
        return self

    # As governor.py does.
    def _rest(self, busy_s):
        rested_s = 0.0
        while (left_s := self.cooling.rest_s(busy_s) - rested_s) > 0:
            self._pass(min(left_s, LOOK_S), 0)
            rested_s += min(left_s, LOOK_S)
            self._look()

    def _look(self):
        if self.now >= self.next_look:
            self.next_look = self.now + LOOK_S
            self.cooling.observe(self._sensor(), self.now)

    def be_idle_for(self, seconds):
        self._pass(seconds, 0)

    def _pass(self, seconds, threads):
        if seconds:
            self.machine.run(seconds, self.machine.idle_w + threads * self.machine.thread_w)
            self.now += seconds

    # A Pi's sensor moves in steps of some half a degree.
    def _sensor(self):
        return round((self.machine.die + self.noise.gauss(0, 0.3)) / 0.55) * 0.55

    def last(self, seconds):
        return [sample for sample in self.samples if sample[0] > self.now - seconds]

    def speed(self, seconds):
        return len(self.last(seconds)) / seconds

    def degrees(self, seconds):
        return [sample[1] for sample in self.last(seconds)]


def paced_speed(speeds, threads, machine):
    """Tokens/s that pausing alone would leave with so many threads, in the long run."""
    watts = (LIMIT_C - 1.5 - machine.ambient_c) / 8.2
    duty = (watts - machine.idle_w) / (threads * machine.thread_w)
    return speeds[threads] * min(1.0, duty)


MODELS = pytest.mark.parametrize(
    "speeds", [COMPUTE_BOUND, MEMORY_BOUND, ONE_THREAD_IS_ALL], ids=["compute", "memory", "one"]
)


@MODELS
def test_without_a_governor_this_machine_throttles(speeds):
    run = Run(speeds, NoCooling()).speak_for(1200)
    assert min(run.degrees(300)) > 85


@MODELS
def test_temperature_settles_below_the_limit(speeds):
    run = Run(speeds).speak_for(1500)
    assert max(run.degrees(600)) < LIMIT_C
    assert max(run.degrees(1500)) < LIMIT_C + 1.0
    # and no further below than the choice of threads makes it
    threads = run.samples[-1][2]
    if run.cooling.duty < 1:
        assert statistics.mean(run.degrees(300)) > LIMIT_C - 3
    else:
        hotter = Run(speeds, NoCooling(), usable=threads + 1).speak_for(1200)
        assert max(hotter.degrees(300)) > LIMIT_C - 3


@pytest.mark.parametrize("ambient_c", [35, 45, 48])
@pytest.mark.parametrize(
    "speeds", [COMPUTE_BOUND, MEMORY_BOUND, LARGE], ids=["compute", "memory", "large"]
)
def test_temperature_settles_below_the_limit_in_the_heat(speeds, ambient_c):
    run = Run(speeds, machine=Machine(ambient_c=ambient_c)).speak_for(3000)
    assert max(run.degrees(600)) < LIMIT_C
    assert max(run.degrees(3000)) < LIMIT_C + 1.0
    best = max(paced_speed(speeds, threads, run.machine) for threads in speeds)
    assert run.speed(600) > 0.75 * best
    # What is told is what is done.
    busy_s = sum(1 / speeds[threads] for _, _, threads in run.last(600))
    assert busy_s / 600 == pytest.approx(run.cooling.duty, rel=0.25)


@MODELS
def test_least_speed_is_lost(speeds):
    run = Run(speeds).speak_for(1500)
    best = max(paced_speed(speeds, threads, Machine()) for threads in speeds)
    assert run.speed(300) > 0.94 * best


def test_thread_less_is_chosen_where_memory_is_the_bottleneck():
    run = Run(MEMORY_BOUND).speak_for(1500)
    assert run.samples[-1][2] == 2
    assert run.speed(300) > 1.3 * paced_speed(MEMORY_BOUND, 4, Machine())
    assert any("at most 3 threads" in line for line in run.log)


def test_cool_machine_is_left_alone():
    run = Run(COMPUTE_BOUND, machine=Machine(thread_w=0.6)).speak_for(900)
    assert run.cooling.duty == 1
    assert {threads for _, _, threads in run.samples} == {4}
    assert run.log == []


def test_threads_come_back_when_it_gets_cool():
    run = Run(MEMORY_BOUND).speak_for(900)
    assert run.samples[-1][2] < 4
    run.machine.ambient_c = -20.0
    run.speak_for(1800)
    assert run.samples[-1][2] == 4
    assert run.cooling.duty == 1


def test_it_does_not_move_for_ever():
    # Cool enough with two threads for a third to be tried, again and again.
    run = Run(MEMORY_BOUND, machine=Machine(ambient_c=22)).speak_for(3 * 3600)
    assert 3 < sum("threads" in line for line in run.log) < 40
    assert not any("5 threads" in line for line in run.log)


def test_answers_after_a_pause_start_at_full_speed_and_never_go_far_beyond():
    run = Run(COMPUTE_BOUND).speak_for(600)
    for _ in range(20):
        run.be_idle_for(120)
        run.speak_for(3)
        assert run.cooling.duty == 1
        run.speak_for(57)
        assert max(run.degrees(60)) < LIMIT_C + 1.5


def test_however_hot_it_is_the_answer_goes_on():
    run = Run(COMPUTE_BOUND, machine=Machine(ambient_c=80.0)).speak_for(600)
    assert run.cooling.duty == pytest.approx(0.1)
    assert run.speed(60) > 0.4


def test_rest_keeps_the_duty():
    governor = ThermalGovernor(75, lambda _: None)
    assert governor.rest_s(0.1) == 0
    for second in range(100):
        governor.observe(90.0, float(second))
    assert governor.rest_s(0.1) == pytest.approx(0.9)
    assert governor.rest_s(10.0) == pytest.approx(90.0)
