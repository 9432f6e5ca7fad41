"""The size of a batch depends on the model alone."""

import pytest

from server.model.batches import batch_tokens


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
