"""A random Llama of some 200 KB as GGUF: whole, or with one thing changed."""

from pathlib import Path

import numpy as np
from gguf import GGUFValueType, GGUFWriter, TokenType

SIZES = {"embedding": 64, "feed_forward": 96, "heads": 4, "kv_heads": 2, "layers": 1}
TOKENS = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
TOKENS += [f"\u2581{letter}" for letter in "abcdefghij"] + ["\u2581", "<|user|>", "<|end|>"]
TYPES = [TokenType.UNKNOWN, TokenType.CONTROL, TokenType.CONTROL, *[TokenType.BYTE] * 256]
TYPES += [TokenType.NORMAL] * 11 + [TokenType.USER_DEFINED, TokenType.CONTROL]
TEMPLATE = (
    "{% for m in messages %}{{ '<|' + m['role'] + '|>\n' + m['content'] + eos_token + '\n' }}"
    "{% endfor %}{{ '<|assistant|>\n' }}"
)
_U32, _F32, _STRING = GGUFValueType.UINT32, GGUFValueType.FLOAT32, GGUFValueType.STRING


def keys():
    """The metadata of a whole file: value and type by key."""
    prefix = "tokenizer.ggml."
    return {
        "llama.context_length": (512, _U32),
        "llama.embedding_length": (SIZES["embedding"], _U32),
        "llama.block_count": (SIZES["layers"], _U32),
        "llama.feed_forward_length": (SIZES["feed_forward"], _U32),
        "llama.attention.head_count": (SIZES["heads"], _U32),
        "llama.attention.head_count_kv": (SIZES["kv_heads"], _U32),
        "llama.rope.dimension_count": (SIZES["embedding"] // SIZES["heads"], _U32),
        "llama.attention.layer_norm_rms_epsilon": (1e-5, _F32),
        f"{prefix}model": ("llama", _STRING),
        f"{prefix}bos_token_id": (1, _U32),
        f"{prefix}eos_token_id": (2, _U32),
        f"{prefix}unknown_token_id": (0, _U32),
        "tokenizer.chat_template": (TEMPLATE, _STRING),
    }


def arrays():
    prefix = "tokenizer.ggml."
    scores = [-float(index) for index in range(len(TOKENS))]
    return {
        f"{prefix}tokens": (TOKENS, _STRING),
        f"{prefix}scores": (scores, _F32),
        f"{prefix}token_type": ([int(kind) for kind in TYPES], GGUFValueType.INT32),
    }


def tensors():
    """Name -> array of float32, the outermost dimension first, as numpy has it."""
    draw = np.random.default_rng(1)
    width, inner = SIZES["embedding"], SIZES["feed_forward"]
    narrow = width // SIZES["heads"] * SIZES["kv_heads"]

    def matrix(rows, columns):
        return draw.normal(scale=0.2, size=(rows, columns)).astype(np.float32)

    found = {
        "token_embd.weight": matrix(len(TOKENS), width),
        "output_norm.weight": np.ones(width, np.float32),
        "output.weight": matrix(len(TOKENS), width),
    }
    shapes = {
        "attn_q": (width, width),
        "attn_k": (narrow, width),
        "attn_v": (narrow, width),
        "attn_output": (width, width),
        "ffn_gate": (inner, width),
        "ffn_up": (inner, width),
        "ffn_down": (width, inner),
    }
    for layer in range(SIZES["layers"]):
        for name in ("attn_norm", "ffn_norm"):
            found[f"blk.{layer}.{name}.weight"] = np.ones(width, np.float32)
        for name, shape in shapes.items():
            found[f"blk.{layer}.{name}.weight"] = matrix(*shape)
    return found


def write_gguf(path: Path, metadata=None, lists=None, weights=None, architecture="llama") -> Path:
    """Write the file, with these keys, arrays and tensors changed, or left out where None."""
    writer = GGUFWriter(path, architecture)
    for key, pair in (keys() | (metadata or {})).items():
        if pair is not None:
            writer.add_key_value(key, *pair)
    for key, pair in (arrays() | (lists or {})).items():
        if pair is not None:
            items, kind = pair
            writer.add_key_value(key, items, GGUFValueType.ARRAY, sub_type=kind)
    for name, data in (tensors() | (weights or {})).items():
        if data is not None:
            writer.add_tensor(name, data)
    finish(writer)
    return path


def finish(writer: GGUFWriter) -> None:
    """Write all that was added to `writer`, and close its file."""
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
