"""The size of a batch depends on the model alone, its borders on the prompt alone."""

import pytest

from server.model.backends.ctransformers import batch_tokens
from server.model.batches import borders


@pytest.mark.parametrize(
    ("model_bytes", "tokens"),
    [
        (1_000, 64),
        (101_000_000, 16),  # SmolLM2-135M
        (270_000_000, 8),
        (670_000_000, 4),  # TinyLlama in Q4_K_M
        (2_870_000_000, 1),  # Llama 2 7B in q2_K
        (40_000_000_000, 1),
    ],
)
def test_larger_models_have_smaller_batches(model_bytes, tokens):
    assert batch_tokens(model_bytes) == tokens


@pytest.mark.parametrize(
    ("length", "persona", "size", "expected"),
    [
        (40, 0, 16, [0, 16, 32]),
        (32, 0, 16, [0, 16, 32]),
        (40, 12, 16, [0, 12, 28]),
        (12, 12, 16, [0, 12]),
        (45, 40, 16, [0, 16, 32, 40]),
        (3, 0, 1, [0, 1, 2, 3]),
    ],
)
def test_borders_are_counted_from_the_end_of_the_persona(length, persona, size, expected):
    assert borders(length, persona, size) == expected
