"""Batches grow on a fast machine, shrink on a slow one, and are of equal size."""

import pytest

from server.model.batches import BatchSize


def settle(tokens_per_second):
    size = BatchSize()
    for _ in range(20):
        tokens = size.next(1000)
        size.record(tokens, tokens / tokens_per_second)
    return size.next(10_000)


@pytest.mark.parametrize(("speed", "most"), [(1000, 64), (170, 20), (40, 4), (6, 1), (0.5, 1)])
def test_batch_settles_by_speed(speed, most):
    assert most * 0.9 <= settle(speed) <= most


def test_one_lucky_batch_at_most_doubles():
    size = BatchSize()
    size.record(8, 0.0001)
    assert size.next(16) == 16
    assert size.next(17) == 9


def test_a_slow_short_rest_teaches_nothing():
    size = BatchSize()
    size.record(8, 0.02)
    size.record(1, 0.1)
    assert size.next(16) == 16


@pytest.mark.parametrize(("left", "sizes"), [(1, [1]), (8, [8]), (9, [5, 4]), (17, [6, 6, 5])])
def test_batches_are_of_equal_size(left, sizes):
    size, taken = BatchSize(), []
    while left:
        taken.append(size.next(left))
        left -= taken[-1]
    assert taken == sizes
