"""Wrong model files: each ends in one sentence that says what it is."""

import os
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFValueType

from server.model.errors import ModelFileError
from server.model.files.inspection import inspect
from tests.support.gguf_model import TEMPLATE, TOKENS, TYPES, tensors, write_gguf
from tests.support.process import ROOT
from tests.support.tiny_model import write_tiny_model

U32, F32, STRING, I32 = (
    GGUFValueType.UINT32,
    GGUFValueType.FLOAT32,
    GGUFValueType.STRING,
    GGUFValueType.INT32,
)
GGML = "tokenizer.ggml."


def refuse(path):
    with pytest.raises(ModelFileError) as error:
        inspect(path)
    sentence = str(error.value)
    assert str(path) in sentence
    assert sentence.endswith(".")
    assert "\n" not in sentence
    return sentence


def refuse_bytes(tmp_path, data):
    path = tmp_path / "model.gguf"
    path.write_bytes(data)
    return refuse(path)


def test_good_gguf(tmp_path):
    path = write_gguf(tmp_path / "model.gguf")
    file = inspect(path)
    assert (file.model_type, file.chat_template) == ("gguf", TEMPLATE)
    assert (file.bos, file.eos, file.adds_bos) == ("<s>", "</s>", True)
    assert file.special == {"<s>": 1, "</s>": 2, "<|user|>": 270, "<|end|>": 271}
    assert file.control == {1, 2, 271}  # a user-defined token is printed
    assert file.size_bytes == path.stat().st_size
    assert file.trained_context == 512


@pytest.mark.parametrize(
    ("key", "pair", "field", "value"),
    [
        (f"{GGML}add_bos_token", (False, GGUFValueType.BOOL), "adds_bos", False),
        ("general.name", ("LLaMA v2", STRING), "is_llama_2", True),
        ("general.name", ("Llama-2-7B-Chat", STRING), "is_llama_2", True),
        ("general.name", ("Llama 3.2 1B", STRING), "is_llama_2", False),
        ("llama.rope.scaling.type", ("none", STRING), "adds_bos", True),
        ("llama.rope.scale_linear", (8.0, F32), "adds_bos", True),  # this one it knows
    ],
)
def test_what_is_read(tmp_path, key, pair, field, value):
    assert getattr(inspect(write_gguf(tmp_path / "m.gguf", {key: pair})), field) == value


def test_key_that_is_there_twice(tmp_path):
    """Ggml takes the first of them, and the check would look at the last."""
    extra = b"llama.attention.head_count"
    pair = struct.pack("<Q", len(extra)) + extra + struct.pack("<II", 4, 0)
    for key, words in ((pair, "is there twice"), (pair.replace(b"_count", b"_coun\0"), "damaged")):
        data = bytearray(write_gguf(tmp_path / "whole.gguf").read_bytes())
        (count,) = struct.unpack_from("<Q", data, 16)
        struct.pack_into("<Q", data, 16, count + 1)
        assert words in refuse_bytes(tmp_path, data[:24] + key + data[24:])


@pytest.mark.parametrize(
    ("key", "pair", "words"),
    [
        ("llama.rope.scaling.factor", (4.0, F32), "rotary positions"),
        ("llama.attention.causal", (False, GGUFValueType.BOOL), "would ignore"),
        ("llama.logit_scale", (0.5, F32), "would ignore"),
        ("llama.final_logit_softcapping", (30.0, F32), "would ignore"),
        ("llama.attention.key_length", (32, U32), "another key_length"),
        ("llama.rope.freq_base", (float("nan"), F32), "is nan"),
        ("llama.rope.freq_base", (0.0, F32), "is 0.0"),
        ("general.type", ("imatrix", STRING), "is no model, but imatrix"),
        ("general.name", (1, U32), "general.name is no text"),
        (f"{GGML}add_space_prefix", (False, GGUFValueType.BOOL), "no space before a text"),
    ],
)
def test_what_ctransformers_would_compute_otherwise(tmp_path, key, pair, words):
    assert words in refuse(write_gguf(tmp_path / "m.gguf", {key: pair}))


def test_good_ggjt(tmp_path):
    file = inspect(write_tiny_model(tmp_path / "model.bin"))
    assert (file.model_type, file.chat_template, file.is_llama_2) == ("llama", None, True)


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ({f"{GGML}model": ("gpt2", STRING)}, "not SentencePiece"),
        ({"general.type": ("adapter", STRING)}, "is a LoRA adapter"),
        (
            {"split.count": (2, GGUFValueType.UINT16), "split.no": (0, GGUFValueType.UINT16)},
            "part 1 of 2: join them with llama-gguf-split --merge",
        ),
        (
            {
                "llama.rope.scaling.type": ("linear", STRING),
                "llama.rope.scaling.factor": (8.0, F32),
            },
            "scales its rotary positions (linear, 8.0)",
        ),
        ({"llama.rope.scaling.type": ("yarn", STRING)}, "scales its rotary positions"),
        ({"llama.expert_count": (8, U32)}, "mixture of 8 experts"),
        ({"llama.attention.head_count": (0, U32)}, "head_count is 0"),
        ({"llama.attention.head_count": (4, I32)}, "head_count is no u32"),
        ({"llama.attention.head_count_kv": (0, U32)}, "head_count_kv is 0"),
        ({"llama.attention.head_count_kv": (3, U32)}, "heads do not fit"),
        ({"llama.attention.head_count": (5, U32)}, "heads do not fit"),
        ({"llama.attention.head_count": (64, U32)}, "heads do not fit"),  # one wide: no pairs
        ({"llama.rope.dimension_count": (8, U32)}, "heads do not fit"),
        ({"llama.embedding_length": ("64", STRING)}, "embedding_length is no u32"),
        ({"llama.context_length": None}, "has no llama.context_length"),
        ({"llama.attention.layer_norm_rms_epsilon": None}, "has no llama.attention.layer_norm"),
        ({"llama.rope.freq_base": (10000, U32)}, "rope.freq_base is no f32"),
        ({f"{GGML}eos_token_id": (len(TOKENS), U32)}, "eos token is not in its vocabulary"),
        ({f"{GGML}padding_token_id": (len(TOKENS), U32)}, "padding token is not in"),
        ({f"{GGML}unknown_token_id": (2**31, U32)}, "unknown token is not in"),
        ({f"{GGML}seperator_token_id": (9999, U32)}, "seperator token is not in"),
        ({f"{GGML}bos_token_id": (1, I32)}, "bos_token_id is no u32"),
    ],
    ids=str,
)
def test_wrong_metadata(tmp_path, metadata, words):
    assert words in refuse(write_gguf(tmp_path / "m.gguf", metadata))


@pytest.mark.parametrize(
    ("lists", "words"),
    [
        ({f"{GGML}scores": None}, "no scores"),
        ({f"{GGML}token_type": None}, "no token_type"),
        ({f"{GGML}scores": ([0.0, 1.0], F32)}, "vocabulary is damaged"),
        ({f"{GGML}scores": ([0] * len(TOKENS), I32)}, "vocabulary is damaged"),
        ({f"{GGML}tokens": ([1] * len(TOKENS), I32)}, "vocabulary is damaged"),
        ({f"{GGML}token_type": ([0.0] * len(TOKENS), F32)}, "vocabulary is damaged"),
        (
            {f"{GGML}tokens": (["<unk>", "<s>", "</s>", "x", *TOKENS[4:]], STRING)},
            "one of its byte tokens is malformed",
        ),
    ],
    ids=str,
)
def test_wrong_vocabulary(tmp_path, lists, words):
    assert len(TYPES) == len(TOKENS)
    assert words in refuse(write_gguf(tmp_path / "m.gguf", lists=lists))


def zeros(*shape, kind=np.float32):
    return np.zeros(shape, kind)


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        ({"output.weight": None}, "no output.weight (ctransformers 0.2.27 needs it untied)"),
        ({"blk.0.ffn_up.weight": None}, "has no blk.0.ffn_up.weight"),
        ({"blk.0.attn_q.bias": zeros(64)}, "matrices have biases (blk.0.attn_q.bias)"),
        ({"blk.0.ffn_gate_exps.weight": zeros(2, 96, 64)}, "is a mixture of experts"),
        ({"rope_freqs.weight": zeros(8)}, "scales its rotary positions by rope_freqs.weight"),
        ({"blk.1.attn_q.weight": zeros(64, 64)}, "has a tensor blk.1.attn_q.weight"),
        ({"x" * 64: zeros(4)}, "name is longer than 63 bytes"),
        ({"output_norm.weight": zeros(64, kind=np.float16)}, "output_norm.weight is not F32"),
        ({"blk.0.ffn_up.weight": zeros(95, 64)}, "ffn_up.weight is 64 x 95 and not 64 x 96"),
        ({"token_embd.weight": zeros(280, 64)}, "token_embd.weight is 64 x 280 and not 64 x 272"),
        ({"output.weight": zeros(272, 64, kind=np.int8)}, "tensor type I8"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_wrong_tensors(tmp_path, weights, words):
    assert words in refuse(write_gguf(tmp_path / "m.gguf", weights=weights))


def test_another_architecture_is_named_with_what_works(tmp_path):
    path = write_gguf(tmp_path / "m.gguf", architecture="gemma3")
    assert "architecture is gemma3, and ctransformers loads llama only, such as" in refuse(path)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "is empty"),
        (b"GG", "not a model this program can load"),
        (b"GGUF", "truncated"),
        (b"PK\3\4" + b"\0" * 100, "a PyTorch file or another zip archive: convert it"),
        (b"ggml" + b"\0" * 100, "not a model this program can load"),
        (b"lmgg" + b"\0" * 100, "of before May 2023"),
        (b"<!DOCTYPE html><html>", "a web page: download the file itself"),
        (b"\n\n<html lang=en>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "a Git LFS pointer"),
        (b'{"architectures": ["LlamaForCausalLM"]}', "is JSON"),
        (struct.pack("<Q", 30) + b'{"__metadata__":{}}', "holds safetensors: convert it to GGUF"),
        (b"\x1f\x8b\x08" + b"\0" * 50, "compressed: unpack it first"),
        (b"algg" + b"\0" * 50, "a LoRA adapter"),
        (struct.pack("<4sIQQ", b"GGUF", 1, 1, 1), "GGUF version 1"),
        (struct.pack(">4sIQQ", b"GGUF", 3, 1, 1), "big-endian"),
        (struct.pack("<4sIQQ", b"GGUF", 77, 1, 1), "GGUF version 77"),
        (struct.pack("<4sIQQ", b"GGUF", 3, 2**60, 2**60) + b"\xff" * 64, "truncated"),
    ],
)
def test_what_is_no_model(tmp_path, data, words):
    assert words in refuse_bytes(tmp_path, data)


def test_every_truncation_is_noticed(tmp_path):
    for name, write in (("m.bin", write_tiny_model), ("m.gguf", write_gguf)):
        data = write(tmp_path / name).read_bytes()
        for end in {*range(8, 4000, 37), *range(4000, len(data), 997), len(data) - 1}:
            refuse_bytes(tmp_path, data[:end])


def test_other_ggjt_version(tmp_path):
    path = write_tiny_model(tmp_path / "old.bin", version=2)
    assert "'ggjt' version 2" in refuse(path)


# The seven hyper-parameters follow magic and version.
@pytest.mark.parametrize(
    ("index", "number"), [(1, 0), (2, 0), (3, 0), (3, 3), (4, 0), (5, 0), (5, 3), (5, 0x7FFFFFFF)]
)
def test_damaged_ggjt_hyper_parameters(tmp_path, index, number):
    data = bytearray(write_tiny_model(tmp_path / "whole.bin").read_bytes())
    struct.pack_into("<I", data, 8 + 4 * index, number)
    assert "cannot be used" in refuse_bytes(tmp_path, data)


def test_what_is_no_file(tmp_path):
    with pytest.raises(ModelFileError, match="There is no model file at"):
        inspect(tmp_path / "nothing")
    with pytest.raises(ModelFileError, match="cannot be read: File name too long"):
        inspect(tmp_path / ("x" * 300))
    with pytest.raises(ModelFileError, match="is not a regular file"):
        inspect(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ModelFileError, match="is not a regular file"):
        inspect(tmp_path / "pipe")
    with pytest.raises(ModelFileError, match="not valid UTF-8"):
        inspect(Path(os.fsdecode(b"/tmp/\xff")))


def test_no_mutated_head_ends_the_process(tmp_path):
    """2,000 of them: each is refused in one sentence, or loads and answers."""
    assert len(tensors()) == 12
    command = [sys.executable, "-m", "tests.tools.mutate", str(tmp_path), "2000"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    refused, loaded = map(int, result.stdout.split())
    assert refused + loaded == 2000
    assert refused > 100
    assert loaded > 100
