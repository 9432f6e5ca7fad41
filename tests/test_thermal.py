"""The thermal governor on a simulated machine, in simulated time.

A sensor with noise and steps, a die on a heat sink, a small model and a large one.
"""

import random
import statistics
from dataclasses import dataclass, field

import pytest

from server.model.machine.thermal import NoCooling, ThermalGovernor

LIMIT_C = 75.0
LOOK_S = 0.5
THREADS = 4
SMALL = 38.0  # tokens/s
LARGE = 1.4  # a pause after one token takes seconds


@dataclass
class Machine:
    """Two heat capacities in series, and power that grows with the number of busy threads."""

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
    """A model that decodes without end on a machine, governed or not."""

    speed: float  # tokens/s without pauses
    cooling: object = None
    machine: Machine = field(default_factory=Machine)
    now: float = 0.0
    log: list = field(default_factory=list)
    samples: list = field(default_factory=list)  # now, degrees

    def __post_init__(self):
        self.noise = random.Random(1)
        self.next_look = 0.0
        if self.cooling is None:
            self.cooling = ThermalGovernor(LIMIT_C, self.log.append)

    def speak_for(self, seconds):
        end = self.now + seconds
        while self.now < end:
            cost = 1 / self.speed
            self._pass(cost, THREADS)
            self._look()
            self._pause(cost)
            self.samples.append((self.now, self.machine.die))
        return self

    # As governor.py does.
    def _pause(self, busy_s):
        paused_s = 0.0
        while (left_s := self.cooling.pause_s(busy_s) - paused_s) > 0:
            self._pass(min(left_s, LOOK_S), 0)
            paused_s += min(left_s, LOOK_S)
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

    # A Pi's sensor moves in steps of about half a degree.
    def _sensor(self):
        return round((self.machine.die + self.noise.gauss(0, 0.3)) / 0.55) * 0.55

    def last(self, seconds):
        return [sample for sample in self.samples if sample[0] > self.now - seconds]

    def spoken(self, seconds):
        return len(self.last(seconds)) / seconds

    def degrees(self, seconds):
        return [sample[1] for sample in self.last(seconds)]


def paced_speed(speed, machine):
    """Tokens/s that pausing leaves in the long run."""
    watts = (LIMIT_C - 1.5 - machine.ambient_c) / 8.2
    duty = (watts - machine.idle_w) / (THREADS * machine.thread_w)
    return speed * min(1.0, duty)


MODELS = pytest.mark.parametrize("speed", [SMALL, LARGE], ids=["small", "large"])


@MODELS
def test_without_a_governor_this_machine_throttles(speed):
    run = Run(speed, NoCooling()).speak_for(1200)
    assert min(run.degrees(300)) > 85


@MODELS
@pytest.mark.parametrize("ambient_c", [25, 35, 45, 48])
def test_temperature_settles_below_the_limit_at_the_least_loss(speed, ambient_c):
    run = Run(speed, machine=Machine(ambient_c=ambient_c)).speak_for(3000)
    assert max(run.degrees(600)) < LIMIT_C
    assert max(run.degrees(3000)) < LIMIT_C + 1.0
    assert statistics.mean(run.degrees(300)) > LIMIT_C - 4  # sampled when it is coolest
    assert run.spoken(600) > 0.9 * paced_speed(speed, run.machine)
    # The duty that is reported is the one that is kept.
    assert run.spoken(600) / speed == pytest.approx(run.cooling.duty, rel=0.25)
    assert any("pausing between tokens" in line for line in run.log)


def test_cool_machine_is_left_alone():
    run = Run(SMALL, machine=Machine(thread_w=0.6)).speak_for(900)
    assert run.cooling.duty == 1
    assert run.log == []


def test_full_speed_comes_back_when_it_gets_cool():
    run = Run(SMALL).speak_for(900)
    assert run.cooling.duty < 1
    run.machine.ambient_c = -20.0
    run.speak_for(900)
    assert run.cooling.duty == 1
    assert "no more pauses" in run.log[-1]


def test_answers_after_a_pause_start_at_full_speed_and_never_go_far_beyond():
    run = Run(SMALL).speak_for(600)
    for _ in range(20):
        run.be_idle_for(120)
        run.speak_for(3)
        assert run.cooling.duty == 1
        run.speak_for(57)
        assert max(run.degrees(60)) < LIMIT_C + 1.5


def test_however_hot_it_is_the_answer_goes_on():
    run = Run(SMALL, machine=Machine(ambient_c=80.0)).speak_for(600)
    assert run.cooling.duty == pytest.approx(0.1)
    assert run.spoken(60) > 0.4


def test_pause_keeps_the_duty():
    governor = ThermalGovernor(75, lambda _: None)
    assert governor.pause_s(0.1) == 0
    for second in range(100):
        governor.observe(90.0, float(second))
    assert governor.pause_s(0.1) == pytest.approx(0.9)
    assert governor.pause_s(10.0) == pytest.approx(90.0)
