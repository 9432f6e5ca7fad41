"""Adapter files: written, read, and merged to the same bytes in any order of summation."""

import numpy as np
import pytest
from gguf import GGMLQuantizationType, GGUFReader, GGUFWriter, quants

from server.model.files.adapter import Adapter, AdapterError, write_adapter

NAME = "blk.0.attn_q.weight"
SHAPE, RANK = (64, 96), 16


def matrices(scale=0.05, seed=1):
    draw = np.random.default_rng(seed)
    a = draw.normal(scale=scale, size=(RANK, SHAPE[1])).astype(np.float32)
    return a, draw.normal(scale=scale, size=(SHAPE[0], RANK)).astype(np.float32)


@pytest.fixture
def base(tmp_path):
    """A model of one matrix."""
    values = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
    writer = GGUFWriter(tmp_path / "base.gguf", "llama")
    kind = GGMLQuantizationType.Q4_1
    writer.add_tensor(NAME, quants.quantize(values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return GGUFReader(tmp_path / "base.gguf").tensors[0]


def write(path, a, b):
    write_adapter(path, {NAME: (a, b)}, "test")
    return Adapter(path)


def test_numbers_come_back_to_a_half_percent(tmp_path):
    a, b = matrices()
    read_a, read_b = write(tmp_path / "a.gguf", a, b).low_rank(NAME)
    assert np.abs(read_a - a).max() <= 0.005 * np.abs(a).max()
    assert np.abs(read_b - b).max() <= 0.001 * np.abs(b).max()


def test_sums_do_not_depend_on_their_order(tmp_path):
    adapter = write(tmp_path / "a.gguf", *matrices())
    a, b = (part.astype(np.float64) for part in adapter.low_rank(NAME))
    expected = adapter.correction(NAME)
    for seed in range(20):
        order = np.random.default_rng(seed).permutation(RANK)
        total = np.zeros(SHAPE)
        for index in order:
            total += np.outer(b[:, index], a[index])
        assert np.array_equal(total, expected)  # to the last bit


def test_merged_tensor_is_the_corrected_one_to_a_step(tmp_path, base):
    adapter = write(tmp_path / "a.gguf", *matrices())
    before = quants.dequantize(base.data, base.tensor_type)
    merged = quants.dequantize(adapter.merge(base), base.tensor_type)
    step = (before.max() - before.min()) / 15
    assert np.abs(merged - before - adapter.correction(NAME)).max() <= step
    assert adapter.merge(base).shape == base.data.shape


def test_adapter_of_another_model_is_refused(tmp_path, base):
    a, b = matrices()
    adapter = write(tmp_path / "a.gguf", a[:, :32], b)
    with pytest.raises(AdapterError, match=r"does not have this model's shape\.$"):
        adapter.merge(base)


def test_numbers_too_large_to_be_exact_are_refused(tmp_path):
    adapter = write(tmp_path / "a.gguf", *matrices(scale=10))
    with pytest.raises(AdapterError, match="too large to be exact"):
        adapter.correction(NAME)


def test_file_that_is_no_adapter_is_refused(tmp_path, base):
    with pytest.raises(AdapterError, match="is not a LoRA adapter"):
        Adapter(tmp_path / "base.gguf")
    (tmp_path / "text").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(AdapterError, match="is not a GGUF file"):
        Adapter(tmp_path / "text")


def test_adapter_without_matrices_is_not_written(tmp_path):
    with pytest.raises(ValueError, match="at least one matrix"):
        write_adapter(tmp_path / "a.gguf", {}, "test")
