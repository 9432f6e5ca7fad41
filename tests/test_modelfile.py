"""Invalid model files: each is refused with one sentence that says what is wrong."""

import os
import struct
from pathlib import Path

import pytest

from server.model.errors import ModelFileError
from server.model.files.modelfile import inspect
from tests.support.tiny_model import write_tiny_model

LLAMA = {
    "general.architecture": "llama",
    "tokenizer.ggml.model": "llama",
    "llama.embedding_length": 64,
    "llama.block_count": 1,
    "llama.feed_forward_length": 128,
    "llama.attention.head_count": 4,
    "llama.attention.head_count_kv": 2,
    "llama.rope.dimension_count": 16,
    "tokenizer.ggml.bos_token_id": 1,
    "tokenizer.ggml.eos_token_id": 2,
}
VOCABULARY = ("tokens", "scores", "token_type")


def text(value):
    return struct.pack("<Q", len(value)) + value.encode()


def value(content):
    if isinstance(content, int):
        return struct.pack("<II", 4, content)
    return struct.pack("<I", 8) + text(content)


def gguf(
    metadata=LLAMA, arrays=VOCABULARY, tensors=(("output.weight", (32,), 0),), data=128, version=3
):
    """A GGUF file's bytes: metadata, arrays of 3 floats, tensors (name, shape, type), data."""
    pairs = [text(key) + value(content) for key, content in metadata.items()]
    pairs += [
        text(f"tokenizer.ggml.{name}") + struct.pack("<IIQ3f", 9, 6, 3, 0, 0, 0) for name in arrays
    ]
    infos = [
        text(name)
        + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, 0)
        for name, shape, kind in tensors
    ]  # fmt: skip
    head = struct.pack("<4sIQQ", b"GGUF", version, len(infos), len(pairs))
    head += b"".join(pairs) + b"".join(infos)
    return head + b"\0" * (-len(head) % 32 + data)


def refuse(tmp_path, data):
    path = tmp_path / "model.gguf"
    path.write_bytes(data)
    with pytest.raises(ModelFileError) as error:
        inspect(path)
    sentence = str(error.value)
    assert str(path) in sentence
    assert sentence.endswith(".")
    assert "\n" not in sentence
    return sentence


def test_good_gguf(tmp_path):
    path = tmp_path / "model.gguf"
    path.write_bytes(gguf(LLAMA | {"tokenizer.chat_template": "<|im_start|>"}))
    file = inspect(path)
    assert (file.model_type, file.chat_template) == ("gguf", "<|im_start|>")
    assert file.size_bytes == path.stat().st_size


def test_good_ggjt(tmp_path):
    file = inspect(write_tiny_model(tmp_path / "model.bin"))
    assert (file.model_type, file.chat_template) == ("llama", "")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "is empty"),
        (b"GG", "truncated"),
        (b"GGUF", "truncated"),
        (b"PK\3\4" + b"\0" * 100, "not a model this program can load"),
        (b"ggml" + b"\0" * 100, "not a model this program can load"),
        (gguf(version=1), "GGUF version 1"),
        (gguf(version=77), "GGUF version 77"),
        (gguf(LLAMA | {"general.architecture": "gemma"}), "its architecture is gemma"),
        (gguf(LLAMA | {"tokenizer.ggml.model": "gpt2"}), "not SentencePiece"),
        (gguf({}), "its architecture is None"),
        (gguf(arrays=("tokens", "token_type")), "no scores"),
        (gguf(arrays=("scores",)), "vocabulary is incomplete"),
        (gguf(LLAMA | {"llama.attention.head_count": 0}), "head_count is 0"),
        (gguf(LLAMA | {"llama.attention.head_count_kv": 0}), "head_count_kv is 0"),
        (gguf(LLAMA | {"llama.attention.head_count_kv": 3}), "heads do not match"),
        (gguf(LLAMA | {"llama.attention.head_count": 5}), "heads do not match"),
        (gguf(LLAMA | {"llama.rope.dimension_count": 8}), "heads do not match"),
        (gguf(LLAMA | {"llama.embedding_length": "64"}), "embedding_length is 64"),
        (gguf(LLAMA | {"tokenizer.ggml.eos_token_id": 3}), "eos token is not in its vocabulary"),
        (gguf(LLAMA | {"tokenizer.ggml.bos_token_id": 0x7FFFFFF0}), "bos token is not"),
        (gguf(tensors=[("output.weight", (32,), 1)]), "not F32"),
        (gguf(tensors=[("norm", (32,), 0)]), "no output.weight"),
        (gguf(tensors=[("output.weight", (32,), 99)]), "tensor type 99"),
        (gguf(tensors=[("output.weight", (1,) * 5, 0)]), "damaged"),
        (gguf(data=127), "truncated"),
        (gguf()[:150], "truncated"),
        (struct.pack("<4sIQQ", b"GGUF", 3, 2**60, 2**60) + b"\xff" * 64, "truncated"),
    ],
)
def test_wrong_file(tmp_path, data, words):
    assert words in refuse(tmp_path, data)


def test_every_truncation_of_a_ggjt_file_is_noticed(tmp_path):
    data = write_tiny_model(tmp_path / "whole.bin").read_bytes()
    ends = {*range(0, 4000, 37), *range(4000, len(data), 997), len(data) - 1}
    for end in ends:
        refuse(tmp_path, data[:end])


def test_other_ggjt_version(tmp_path):
    data = write_tiny_model(tmp_path / "old.bin", version=2).read_bytes()
    assert "'ggjt' version 2" in refuse(tmp_path, data)


# The seven hyper-parameters follow magic and version.
@pytest.mark.parametrize(
    ("index", "number"), [(1, 0), (2, 0), (3, 0), (3, 3), (4, 0), (5, 0), (5, 3), (5, 0x7FFFFFFF)]
)
def test_damaged_ggjt_hyper_parameters(tmp_path, index, number):
    data = bytearray(write_tiny_model(tmp_path / "whole.bin").read_bytes())
    struct.pack_into("<I", data, 8 + 4 * index, number)
    assert "cannot be used" in refuse(tmp_path, data)


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
