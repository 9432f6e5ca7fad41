"""Sampling compared with naive implementations of the same definitions."""

import random

import numpy as np
import pytest

from server.model.sampler import Sampling, _largest, penalise, sample


def logits(size, seed=0):
    return np.random.default_rng(seed).normal(size=size).astype(np.float32)


@pytest.mark.parametrize("size", [1, 5, 40, 41, 64, 2560, 2561, 32000, 49152, 49153, 49215])
@pytest.mark.parametrize("k", [1, 40])
def test_largest_are_the_k_largest(size, k):
    values = logits(size)
    assert set(_largest(values, k)) == set(values.argsort()[::-1][:k])


def test_temperature_0_takes_the_likeliest_and_draws_nothing():
    values, draw = logits(1000), random.Random(1)
    state = draw.getstate()
    assert sample(values, Sampling(1, temperature=0), draw) == values.argmax()
    assert draw.getstate() == state


def test_same_seed_same_tokens_and_every_draw_is_fresh():
    values = np.zeros(1000, dtype=np.float32)

    def tokens(seed):
        draw = random.Random(seed)
        return [sample(values, Sampling(1, top_p=1.0), draw) for _ in range(50)]

    assert tokens(1) == tokens(1)
    assert tokens(1) != tokens(2)
    assert len(set(tokens(1))) > 10


def test_frequencies_follow_softmax():
    values = np.log(np.array([0.6, 0.3, 0.1], dtype=np.float32))
    draw = random.Random(0)
    sampling = Sampling(1, temperature=1.0, top_p=1.0)
    counts = np.bincount([sample(values, sampling, draw) for _ in range(4000)], minlength=3)
    assert counts / 4000 == pytest.approx([0.6, 0.3, 0.1], abs=0.03)


def test_top_p_and_top_k_cut():
    values = np.log(np.array([0.6, 0.3, 0.1], dtype=np.float32))
    draw = random.Random(0)
    by_p = {sample(values, Sampling(1, temperature=1, top_p=0.8), draw) for _ in range(300)}
    by_k = {sample(values, Sampling(1, temperature=1, top_p=1, top_k=1), draw) for _ in range(300)}
    assert by_p == {0, 1}
    assert by_k == {0}


def test_penalty_lowers_each_recent_token_once_in_place():
    values = np.array([2.0, -2.0, 1.0], dtype=np.float32)
    penalise(values, [0, 1, 0], 2.0)
    assert values.tolist() == [1.0, -4.0, 1.0]


def test_penalty_of_1_or_of_nothing_changes_nothing():
    values = np.array([2.0, -2.0], dtype=np.float32)
    penalise(values, [0], 1.0)
    penalise(values, [], 2.0)
    assert values.tolist() == [2.0, -2.0]


@pytest.mark.parametrize("temperature", [5e-324, 1e-307, 1e-9, 1e-3])
def test_next_to_no_temperature_is_no_trouble(temperature):
    values = logits(1000)
    assert sample(values, Sampling(1, temperature=temperature), random.Random(1)) == values.argmax()


def test_extreme_logits_are_no_trouble():
    values = np.array([1e30, -np.inf, 1e30, -1e30], dtype=np.float32)
    assert sample(values, Sampling(1), random.Random(0)) in (0, 2)
