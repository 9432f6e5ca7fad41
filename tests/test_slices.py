"""Slices grow on a fast machine and shrink on a slow one."""

import pytest

from server.model.slices import SliceSize


def settle(tokens_per_second):
    size = SliceSize()
    for _ in range(20):
        size.record(size.tokens, size.tokens / tokens_per_second)
    return size.tokens


@pytest.mark.parametrize(("speed", "tokens"), [(1000, 64), (170, 32), (40, 8), (6, 1), (0.5, 1)])
def test_slice_settles_by_speed(speed, tokens):
    assert settle(speed) == tokens


def test_a_short_last_slice_teaches_nothing():
    size = SliceSize()
    size.record(1, 0.0001)
    assert size.tokens == 8
