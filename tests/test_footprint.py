"""Models that are refused for lack of memory, and the error message."""

from pathlib import Path

import pytest

from server.model.errors import ModelFileError
from server.model.files.footprint import available_memory, check_fits
from server.model.files.inspection import inspect
from server.model.files.modelfile import CTRANSFORMERS, ModelFile
from tests.support.tiny_model import TINY, write_tiny_model

LLAMA_2_7B = ModelFile(
    Path("llama-2.bin"),
    size_bytes=2_870_000_000,
    model_type="llama",
    engine=CTRANSFORMERS,
    cache_bytes_per_token=4 * 32 * 4096,
    trained_context=4096,
    chat_template=None,
    is_llama_2=True,
    special={"<s>": 1, "</s>": 2},
    control=frozenset({1, 2}),
    bos="<s>",
    eos="</s>",
    adds_bos=True,
)


@pytest.mark.parametrize(
    ("memory", "context", "advice"),
    [
        (8e9, 4096, None),
        (4.2e9, 2048, None),
        (3.9e9, 2048, "1.07 GB for a context of 2,048 tokens, but there is only 3.90 GB of memory: use a smaller model, or --context 1792."),
        (3.0e9, 256, "but there is only 3.00 GB of memory: use a smaller model."),
        (512e6, 256, "needs 2.87 GB for its weights and 134 MB for a context of 256 tokens, but there is only 512 MB"),
        (None, 131072, None),
    ],
)  # fmt: skip
def test_what_plainly_cannot_fit_is_refused(memory, context, advice):
    if advice is None:
        check_fits(LLAMA_2_7B, context, 1, memory)
        return
    with pytest.raises(ModelFileError) as refused:
        check_fits(LLAMA_2_7B, context, 1, int(memory))
    assert advice in str(refused.value)


def test_every_context_counts():
    check_fits(LLAMA_2_7B, 2048, 4, int(8e9))
    with pytest.raises(ModelFileError) as refused:
        check_fits(LLAMA_2_7B, 2048, 5, int(8e9))
    assert "5.37 GB for 5 contexts of 2,048 tokens" in str(refused.value)
    assert str(refused.value).endswith("or --context 1792.")
    check_fits(LLAMA_2_7B, 1792, 5, int(8e9))


def test_limit_of_the_cgroup_counts(monkeypatch):
    monkeypatch.setattr("server.model.files.footprint.memory_limit", lambda: 1000)
    assert available_memory() == 1000
    monkeypatch.setattr("server.model.files.footprint.memory_limit", lambda: 2**63)
    assert 2**20 < available_memory() < 2**60


def test_cache_is_two_half_floats_a_layer_and_channel(tmp_path):
    file = inspect(write_tiny_model(tmp_path / "tiny.bin"))
    assert file.cache_bytes_per_token == 2 * 2 * TINY.layers * TINY.embedding


@pytest.mark.model
def test_grouped_heads_share_the_cache(socrates):
    # 30 layers, 576 channels, 9 heads of which 3 have keys and values
    assert inspect(socrates).cache_bytes_per_token == 2 * 2 * 30 * 192
