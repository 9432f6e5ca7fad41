"""Writes a tiny random Llama in the legacy `ggjt` version 3 container.

Layout (llama_file_loader in ctransformers' llama-ggml.cpp): magic, version, seven u32
hyper-parameters, the vocabulary with a score per token, then each tensor's head and its data
aligned to 32 bytes.
"""

import random
import struct
from pathlib import Path

EMBEDDING = 32
HEADS = 2
LAYERS = 2
MULTIPLE = 32
FEED_FORWARD = 96  # what llama.cpp computes from EMBEDDING and MULTIPLE
F32 = 0


def vocabulary(bytes_left_out=0):
    """<unk>, <s>, </s>, the 256 bytes, and a few words."""
    tokens = [b"", b"<s>", b"</s>"]
    tokens += [bytes([byte]) for byte in range(256 - bytes_left_out)]
    return [*tokens, b" the", b" a", b" to", b" of", b"th", b"[INST]"]


def write_tiny_model(path: Path, bytes_left_out=0, version=3) -> Path:
    """Write the model to `path`; with `bytes_left_out` its vocabulary cannot spell them."""
    draw = random.Random(1)
    tokens = vocabulary(bytes_left_out)
    with path.open("wb") as file:
        file.write(struct.pack("<4sI", b"tjgg", version))
        file.write(struct.pack("<7I", len(tokens), EMBEDDING, MULTIPLE, HEADS, LAYERS, EMBEDDING // HEADS, F32))  # fmt: skip
        for index, token in enumerate(tokens):
            file.write(struct.pack("<I", len(token)) + token + struct.pack("<f", -index))
        for name, shape in _tensors(len(tokens)):
            _write_tensor(file, name, shape, draw)
    return path


def _tensors(vocabulary_size):
    yield "tok_embeddings.weight", (EMBEDDING, vocabulary_size)
    yield "norm.weight", (EMBEDDING,)
    yield "output.weight", (EMBEDDING, vocabulary_size)
    for layer in range(LAYERS):
        prefix = f"layers.{layer}."
        for part in ("wq", "wk", "wv", "wo"):
            yield f"{prefix}attention.{part}.weight", (EMBEDDING, EMBEDDING)
        yield f"{prefix}attention_norm.weight", (EMBEDDING,)
        yield f"{prefix}ffn_norm.weight", (EMBEDDING,)
        yield f"{prefix}feed_forward.w1.weight", (EMBEDDING, FEED_FORWARD)
        yield f"{prefix}feed_forward.w2.weight", (FEED_FORWARD, EMBEDDING)
        yield f"{prefix}feed_forward.w3.weight", (EMBEDDING, FEED_FORWARD)


def _write_tensor(file, name, shape, draw):
    raw_name = name.encode()
    file.write(struct.pack("<3I", len(shape), len(raw_name), F32))
    file.write(struct.pack(f"<{len(shape)}I", *shape) + raw_name)
    file.write(b"\0" * (-file.tell() % 32))
    count = shape[0] * (shape[1] if len(shape) > 1 else 1)
    file.write(struct.pack(f"<{count}f", *(draw.gauss(0, 0.3) for _ in range(count))))
