"""Writes a random Llama of any shape in the legacy `ggjt` version 3 container, or as GGUF.

Its text is noise, but its speed is that of the real model: how fast a model runs depends on its
shape and its quantisation, not on its weights. The default is Llama 2 7B in q2_K (2.2 GB),
written in seconds instead of downloaded; the tests write one of a few KB.

    python -m tests.support.random_model models/random-7b.bin     or .gguf
    SOCRATES_MODEL=models/random-7b.bin python -m bench.tokens

Layout (llama_file_loader in ctransformers' llama-ggml.cpp): magic, version, seven u32
hyper-parameters, the vocabulary with a score a token, then each tensor's head, and its data
aligned to 32 bytes. Blocks of 256 weights as in ggml's k_quants.h.
"""

import argparse
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from gguf import GGMLQuantizationType, GGUFWriter, TokenType

from tests.support.gguf_model import finish

_MAGIC = b"tjgg"  # "ggjt" as a little-endian number
_ALIGNMENT = 32
_BLOCK = 256
_WORDS = [b" the", b" a", b" to", b" of", b"th", b"[INST]"]


@dataclass(frozen=True, slots=True)
class Shape:
    """The hyper-parameters of a Llama; the defaults are Llama 2 7B's."""

    vocabulary: int = 32_000
    embedding: int = 4096
    multiple: int = 256  # the feed-forward length is rounded up to a multiple of it
    heads: int = 32
    layers: int = 32

    @property
    def feed_forward(self) -> int:
        """The length as llama.cpp computes it: 2/3 of four times the embedding, rounded up."""
        return -(-(2 * 4 * self.embedding // 3) // self.multiple) * self.multiple


@dataclass(frozen=True, slots=True)
class TensorType:
    """How weights are stored: ggml's number, and a function that makes random ones."""

    number: int
    fill: Callable[[np.random.Generator, int], bytes]


def _f32(draw: np.random.Generator, count: int) -> bytes:
    return draw.normal(0, 0.3, count).astype(np.float32).tobytes()


def _ones(draw: np.random.Generator, count: int) -> bytes:
    return np.ones(count, np.float32).tobytes()


# block_q2_K: 16 scales of 4 + 4 bits, 64 bytes of 2-bit weights, and the scale of the scales
# and of the minima as half floats, chosen so that the weights' mean is about 0.
def _q2_k(draw: np.random.Generator, count: int) -> bytes:
    blocks = np.frombuffer(draw.bytes(count // _BLOCK * 84), np.uint8).reshape(-1, 84).copy()
    blocks[:, 80:84] = np.frombuffer(np.array([0.002, 0.003], np.float16).tobytes(), np.uint8)
    return blocks.tobytes()


# block_q6_K: 192 bytes of 6-bit weights, 16 scales of 8 bits, and a half float for all.
def _q6_k(draw: np.random.Generator, count: int) -> bytes:
    blocks = np.frombuffer(draw.bytes(count // _BLOCK * 210), np.uint8).reshape(-1, 210).copy()
    blocks[:, 208:210] = np.frombuffer(np.array([1e-5], np.float16).tobytes(), np.uint8)
    return blocks.tobytes()


F32 = TensorType(0, _f32)
NORM = TensorType(0, _ones)
Q2_K = TensorType(10, _q2_k)
Q6_K = TensorType(14, _q6_k)


def byte_vocabulary(size: int, bytes_left_out: int = 0) -> list[bytes]:
    """`size` tokens: <unk>, <s>, </s>, the 256 bytes less some, a few words, and fillers."""
    tokens = [b"", b"<s>", b"</s>"]
    tokens += [bytes([byte]) for byte in range(256 - bytes_left_out)]
    tokens += _WORDS
    return tokens + [b" w%d" % number for number in range(size - len(tokens))]


def write_model(
    path: Path,
    shape: Shape,
    matrices: TensorType,
    output: TensorType,
    vocabulary: Sequence[bytes],
    version: int = 3,
) -> Path:
    """Write a random model to `path`; every call writes the same one."""
    draw = np.random.default_rng(1)
    rotary = shape.embedding // shape.heads
    with path.open("wb") as file:
        file.write(struct.pack("<4sI", _MAGIC, version))
        numbers = (len(vocabulary), shape.embedding, shape.multiple, shape.heads, shape.layers)
        file.write(struct.pack("<7I", *numbers, rotary, matrices.number))
        for index, token in enumerate(vocabulary):
            file.write(struct.pack("<I", len(token)) + token + struct.pack("<f", -index))
        for name, dimensions, kind in _tensors(shape, matrices, output, len(vocabulary)):
            _write_tensor(file, name, dimensions, kind, draw)
    return path


def write_gguf_model(
    path: Path, shape: Shape, matrices: TensorType, output: TensorType, name: str = "Llama 2 random"
) -> Path:
    """Write a random model as GGUF to `path`; every call writes the same one."""
    draw = np.random.default_rng(1)
    writer = GGUFWriter(path, "llama")
    writer.add_name(name)
    writer.add_context_length(4096)
    writer.add_embedding_length(shape.embedding)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.feed_forward)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.heads)
    writer.add_rope_dimension_count(shape.embedding // shape.heads)
    writer.add_layer_norm_rms_eps(1e-5)
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    kinds = [TokenType.UNKNOWN, *[TokenType.CONTROL] * 2, *[TokenType.BYTE] * 256]
    tokens += [f"\u2581w{number}" for number in range(shape.vocabulary - len(tokens))]
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds + [TokenType.NORMAL] * (len(tokens) - len(kinds)))
    writer.add_token_scores([-float(index) for index in range(len(tokens))])
    for old_name, dimensions, kind in _tensors(shape, matrices, output, len(tokens)):
        data = np.frombuffer(kind.fill(draw, int(np.prod(dimensions))), np.uint8)
        rows = data.reshape(dimensions[1], -1) if len(dimensions) > 1 else data
        writer.add_tensor(_gguf_name(old_name), rows, raw_dtype=GGMLQuantizationType(kind.number))
    finish(writer)
    return path


_GGUF_PARTS = {
    "tok_embeddings": "token_embd",
    "norm": "output_norm",
    "wq": "attn_q",
    "wk": "attn_k",
    "wv": "attn_v",
    "wo": "attn_output",
    "attention_norm": "attn_norm",
    "w1": "ffn_gate",
    "w2": "ffn_down",
    "w3": "ffn_up",
}


# layers.0.attention.wq.weight is blk.0.attn_q.weight there.
def _gguf_name(name: str) -> str:
    *place, part, _ = name.split(".")
    part = _GGUF_PARTS.get(part, part)
    return f"blk.{place[1]}.{part}.weight" if place else f"{part}.weight"


def _tensors(
    shape: Shape, matrices: TensorType, output: TensorType, tokens: int
) -> Iterator[tuple[str, tuple[int, ...], TensorType]]:
    width, inner = shape.embedding, shape.feed_forward
    yield "tok_embeddings.weight", (width, tokens), matrices
    yield "norm.weight", (width,), NORM
    yield "output.weight", (width, tokens), output
    for layer in range(shape.layers):
        prefix = f"layers.{layer}."
        for part in ("wq", "wk", "wv", "wo"):
            yield f"{prefix}attention.{part}.weight", (width, width), matrices
        yield f"{prefix}attention_norm.weight", (width,), NORM
        yield f"{prefix}ffn_norm.weight", (width,), NORM
        yield f"{prefix}feed_forward.w1.weight", (width, inner), matrices
        yield f"{prefix}feed_forward.w2.weight", (inner, width), matrices
        yield f"{prefix}feed_forward.w3.weight", (width, inner), matrices


def _write_tensor(
    file: BinaryIO,
    name: str,
    dimensions: tuple[int, ...],
    kind: TensorType,
    draw: np.random.Generator,
) -> None:
    raw_name = name.encode()
    file.write(struct.pack("<3I", len(dimensions), len(raw_name), kind.number))
    file.write(struct.pack(f"<{len(dimensions)}I", *dimensions) + raw_name)
    file.write(b"\0" * (-file.tell() % _ALIGNMENT))
    file.write(kind.fill(draw, int(np.prod(dimensions))))


def main() -> None:
    """Write Llama 2 7B's shape in q2_K, its output in q6_K as llama.cpp does it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("path", type=Path, help="the file to write")
    path = parser.parse_args().path
    shape = Shape()
    if path.suffix == ".gguf":
        write_gguf_model(path, shape, Q2_K, Q6_K)
    else:
        write_model(path, shape, Q2_K, Q6_K, byte_vocabulary(shape.vocabulary))
    print(f"{path}: {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
