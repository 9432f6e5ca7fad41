"""The tensors that ctransformers' Llama has: their names, shapes and types."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from server.model.files.cursor import Cursor

# ggml type -> (values in a block, bytes of a block), from ggml.c of ctransformers 0.2.27 ...
_BLOCKS = {
    0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34),
    10: (256, 84), 11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210),
}  # fmt: skip
# ... and what llama.cpp has added since.
_NEWER_BLOCKS = {
    16: (256, 66), 17: (256, 74), 18: (256, 98), 19: (256, 50), 20: (32, 18), 21: (256, 110),
    22: (256, 82), 23: (256, 136), 24: (1, 1), 25: (1, 2), 26: (1, 4), 27: (1, 8), 28: (1, 8),
    29: (256, 56), 30: (1, 2), 34: (256, 54), 35: (256, 66), 39: (32, 17), 40: (64, 36),
    41: (128, 18),
}  # fmt: skip
_ALL_BLOCKS = _BLOCKS | _NEWER_BLOCKS
_F32 = 0
_MAX_DIMENSIONS = 4
_MAX_NAME = 63  # bytes; ggml copies names into 64

Shape = tuple[int, ...]  # the innermost dimension first, as the file has it


@dataclass(frozen=True, slots=True)
class Sizes:
    """The hyper-parameters from which all shapes follow."""

    vocabulary: int
    embedding: int
    feed_forward: int
    heads: int
    kv_heads: int
    layers: int

    def shapes(self) -> Iterator[tuple[str, Shape]]:
        """Every tensor of the model in a GGUF file."""
        width, narrow = self.embedding, self.embedding // self.heads * self.kv_heads
        yield "token_embd.weight", (width, self.vocabulary)
        yield "output_norm.weight", (width,)
        yield "output.weight", (width, self.vocabulary)
        for layer in range(self.layers):
            yield f"blk.{layer}.attn_norm.weight", (width,)
            yield f"blk.{layer}.attn_q.weight", (width, width)
            yield f"blk.{layer}.attn_k.weight", (width, narrow)
            yield f"blk.{layer}.attn_v.weight", (width, narrow)
            yield f"blk.{layer}.attn_output.weight", (width, width)
            yield f"blk.{layer}.ffn_norm.weight", (width,)
            yield f"blk.{layer}.ffn_gate.weight", (width, self.feed_forward)
            yield f"blk.{layer}.ffn_down.weight", (self.feed_forward, width)
            yield f"blk.{layer}.ffn_up.weight", (width, self.feed_forward)


def heads_fit(embedding: int, heads: int, rotated: object) -> bool:
    """Whether ggml's divisions work out, and every head is rotated whole, in pairs."""
    width = embedding // heads
    return not embedding % heads and not width % 2 and rotated in (None, width)


def dimension_count(cursor: Cursor) -> int:
    """Read how many dimensions a tensor has."""
    count = cursor.number("I")
    if not 1 <= count <= _MAX_DIMENSIONS:
        raise cursor.refuse("its list of tensors is damaged")
    return count


def tensor_bytes(shape: Sequence[int], kind: int) -> int:
    """The size of a tensor's data in bytes; 0 if neither engine knows its type."""
    values, size = _ALL_BLOCKS.get(kind, (1, 0))
    return math.prod(shape) // values * size


def why_unreadable(name: str, shape: Sequence[int], kind: int) -> str | None:
    """Why ctransformers cannot read that tensor, or None."""
    if len(name.encode()) > _MAX_NAME:
        return f"a tensor's name is longer than {_MAX_NAME} bytes"
    if kind not in _BLOCKS:
        return (
            f"it uses tensor type {_type_name(kind)}, which ctransformers 0.2.27 cannot read: "
            "take a file in Q4_0 to Q8_0, Q2_K to Q6_K, F16 or F32"
        )
    if len(shape) == 1 and kind != _F32:  # norms: ggml asserts it at the first token
        return f"its {name} is not F32"
    if shape[0] % _BLOCKS[kind][0]:
        return f"the rows of its {name} are not whole blocks"
    return None


def check_shapes(cursor: Cursor, found: Mapping[str, Shape], sizes: Sizes) -> None:
    """Compare what the file has with what the model needs.

    Raises:
        NotForCtransformers: naming the first tensor that is too many, missing or of another shape.
    """
    wanted = dict(sizes.shapes())
    for name in found:
        if name not in wanted:
            raise cursor.decline(_describe_foreign(name))
    for name, shape in wanted.items():
        if name not in found:
            raise cursor.decline(_describe_missing(name))
        if found[name] != shape:
            raise cursor.decline(f"its {name} is {_show(found[name])} and not {_show(shape)}")


def _describe_foreign(name: str) -> str:
    if "exps" in name or "ffn_gate_inp" in name or ".ffn_gate." in name:
        return f"it is a mixture of experts ({name}), which ctransformers does not know"
    if name.endswith(".bias"):
        return f"its matrices have biases ({name}), which no Llama of ctransformers has"
    if name.startswith("rope_"):
        return f"it scales its rotary positions by {name}, which ctransformers would ignore"
    return f"it has a tensor {name}, which no Llama of ctransformers has"


def _describe_missing(name: str) -> str:
    if name == "output.weight":
        return "it has no output.weight (ctransformers 0.2.27 needs it untied)"
    return f"it has no {name}"


def _show(shape: Shape) -> str:
    return " x ".join(map(str, shape))


def _type_name(kind: int) -> str:
    from gguf import GGMLQuantizationType  # slow to import, and only needed here

    try:
        return GGMLQuantizationType(kind).name
    except ValueError:
        return str(kind)
