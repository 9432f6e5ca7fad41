"""One deadline, moved again and again, on a clock that only the test moves."""

from server.http.deadline import Deadline
from tests.support.network import FakeLoop


def armed():
    loop, calls = FakeLoop(), []
    return loop, Deadline(loop, lambda: calls.append(loop.now)), calls


def test_calls_once_when_its_time_has_passed():
    loop, deadline, calls = armed()
    deadline.set(10)
    loop.advance(9.9)
    assert calls == []
    loop.advance(100)
    assert calls == [1010.0]


def test_moving_it_back_keeps_the_timer_and_the_later_time_counts():
    loop, deadline, calls = armed()
    for _ in range(1000):
        deadline.set(10)
        loop.advance(0.01)
    assert len(loop.timers) == 1
    loop.advance(100)
    assert len(calls) == 1
    assert abs(calls[0] - 1019.99) < 0.01


def test_moving_it_forward_replaces_the_timer():
    loop, deadline, calls = armed()
    deadline.set(100)
    deadline.set(5)
    loop.advance(200)
    assert calls == [1005.0]


def test_none_and_cancel_call_nobody():
    loop, deadline, calls = armed()
    deadline.set(5)
    deadline.set(None)
    loop.advance(10)
    deadline.set(5)
    deadline.cancel()
    loop.advance(10)
    assert calls == []


def test_it_can_be_set_from_its_own_call():
    loop = FakeLoop()
    calls = []

    def again():
        calls.append(loop.now)
        if len(calls) < 3:
            deadline.set(10)

    deadline = Deadline(loop, again)
    deadline.set(10)
    loop.advance(100)
    assert calls == [1010.0, 1020.0, 1030.0]
