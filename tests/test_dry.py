"""DRY compared with a naive implementation of its definition."""

import random

import numpy as np
import pytest

from server.model.dry import Dry


def penalties(multiplier, said, answer):
    dry = Dry(multiplier, said)
    for token in answer:
        dry.accept(token)
    logits = np.zeros(100, dtype=np.float32)
    dry.penalise(logits)
    return {int(token): -float(logits[token]) for token in logits.nonzero()[0]}


def expected(multiplier, said, answer):
    """Return each token's penalty, by the longest suffix of the answer that it followed."""
    pieces = [*map(list, said), list(answer)]
    longest = {}
    for piece in pieces:
        for end in range(1, len(piece)):
            for length in range(2, end + 1):
                before = piece[end - length : end]
                is_itself = piece is pieces[-1] and end == len(piece)
                if not is_itself and len(answer) >= length and before == answer[-length:]:
                    longest[piece[end]] = max(length, longest.get(piece[end], 0))
    return {token: multiplier * 1.75 ** (length - 2) for token, length in longest.items()}


def test_longer_repetitions_cost_more():
    assert penalties(0.8, [[1, 2, 3, 4, 5]], [2]) == {}
    assert penalties(0.8, [[1, 2, 3, 4, 5]], [1, 2]) == {3: pytest.approx(0.8)}
    assert penalties(0.8, [[1, 2, 3, 4, 5]], [1, 2, 3]) == {4: pytest.approx(0.8 * 1.75)}


def test_answer_must_not_repeat_itself_either():
    assert penalties(1.0, [], [7, 8, 9, 7, 8]) == {9: pytest.approx(1.0)}


def test_no_sequence_goes_from_one_answer_to_the_next():
    assert penalties(1.0, [[1, 2], [3, 4]], [1, 2]) == {}
    assert penalties(1.0, [[1, 2], [3, 4]], [2, 3]) == {}


def test_multiplier_of_0_is_off():
    assert penalties(0, [[1, 2, 3]], [1, 2]) == {}


def test_the_same_answer_word_for_word_becomes_impossible():
    answer = list(range(30))
    assert penalties(0.8, [answer], answer[:29])[29] > 1e6


def test_as_the_plain_definition_has_it():
    draw = random.Random(1)
    for _ in range(200):
        said = [[draw.randrange(4) for _ in range(draw.randrange(9))] for _ in range(3)]
        answer = [draw.randrange(4) for _ in range(draw.randrange(1, 9))]
        assert penalties(0.5, said, answer) == pytest.approx(expected(0.5, said, answer))
