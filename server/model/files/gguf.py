"""Reads the head of a GGUF file, versions 2 and 3 (ggml's docs/gguf.md)."""

import math
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field

from server.model.files.catalog import TOKENIZER_FILE
from server.model.files.cursor import Cursor
from server.model.files.modelfile import ModelFile
from server.model.files.tensors import (
    Shape,
    Sizes,
    check_heads,
    check_shapes,
    dimension_count,
    tensor_bytes,
)

_SCALARS = {
    0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d",
}  # fmt: skip
_U32, _F32, _STRING, _ARRAY = 4, 6, 8, 9
_MOST_ITEMS = 2**24
_DEFAULT_ALIGNMENT = 32
_MAX_HYPER_PARAMETER = 2**20
_BYTE, _CONTROL, _USER_DEFINED = 6, 3, 4  # llama.cpp's token types
_VOCABULARY = "tokenizer.ggml."
_BYTE_TOKEN = re.compile(rb"<0x[0-9A-Fa-f]{2}>")
# A GGUF file converted from Meta's Llama 2, whose converters wrote no chat template at first.
_LLAMA_2_NAME = re.compile(r"llama[ -]?(v2|2)\b", re.I)

# What newer llama.cpp reads, with the value that changes nothing.
_IGNORED = {
    "llama.attention.causal": True,
    "llama.attention.scale": None,
    "llama.attn_logit_softcapping": None,
    "llama.embedding_scale": 1,
    "llama.final_logit_softcapping": None,
    "llama.logit_scale": 1,
    "llama.residual_scale": 1,
}

Value = int | float | str | None  # None stands for an array


@dataclass(slots=True)
class _Metadata:
    """The key-value pairs: value and kind by key, and the arrays of the vocabulary."""

    values: dict[str, Value] = field(default_factory=dict)
    kinds: dict[str, int] = field(default_factory=dict)  # of an array, that of its items
    lengths: dict[str, int] = field(default_factory=dict)
    tokens: list[bytes] = field(default_factory=list)
    types: tuple[int, ...] = ()


def read_gguf(cursor: Cursor) -> ModelFile:
    """Walk the head, and check the extent of every tensor.

    Raises:
        ModelFileError: if the file cannot be loaded.
    """
    cursor.skip(4)
    version = cursor.number("I")
    if version in (2 << 24, 3 << 24):
        raise cursor.refuse("it is big-endian: take a little-endian one")
    if version not in (2, 3):
        raise cursor.refuse(f"it is GGUF version {version}, but only 2 and 3 are supported")
    tensor_count, pair_count = cursor.number("Q"), cursor.number("Q")
    metadata = _read_metadata(cursor, pair_count)
    _check_kind(cursor, metadata.values)
    _check_vocabulary(cursor, metadata)
    sizes = _read_sizes(cursor, metadata)
    check_shapes(cursor, _read_tensors(cursor, metadata.values, tensor_count), sizes)
    return _describe(cursor, metadata, sizes)


# -- metadata -----------------------------------------------------------------------------


def _read_metadata(cursor: Cursor, pair_count: int) -> _Metadata:
    metadata = _Metadata()
    for _ in range(pair_count):
        key, kind = _read_name(cursor), cursor.number("I")
        if key in metadata.kinds:  # ggml takes the first, we would check the last
            raise cursor.refuse(f"its {key} is there twice")
        if kind == _ARRAY:
            metadata.values[key] = None
            metadata.kinds[key], metadata.lengths[key] = _read_array(cursor, key, metadata)
        else:
            metadata.kinds[key] = kind
            metadata.values[key] = _read_value(cursor, kind)
    return metadata


def _read_string(cursor: Cursor) -> str:
    return cursor.take(cursor.number("Q")).decode("utf-8", "replace")


# ggml ends a name at its first NUL.
def _read_name(cursor: Cursor) -> str:
    name = _read_string(cursor)
    if "\0" in name:
        raise cursor.refuse("its metadata is damaged")
    return name


def _read_value(cursor: Cursor, kind: int) -> Value:
    if kind == _STRING:
        return _read_string(cursor)
    if kind not in _SCALARS:
        raise cursor.refuse("its metadata is damaged")
    (value,) = struct.unpack("<" + _SCALARS[kind], cursor.take(_size_of(kind)))
    return value if isinstance(value, int | float) else None


# Returns the kind and the number of the items; keeps those of the vocabulary.
def _read_array(cursor: Cursor, key: str, metadata: _Metadata) -> tuple[int, int]:
    kind, count = cursor.number("I"), cursor.number("Q")
    if count > _MOST_ITEMS:
        raise cursor.refuse("its metadata is damaged")
    if kind == _STRING:
        strings = cursor.strings(count)
        if key == f"{_VOCABULARY}tokens":
            metadata.tokens = strings
    elif kind in _SCALARS:
        data = cursor.take(count * _size_of(kind))
        if key == f"{_VOCABULARY}token_type" and _SCALARS[kind] in "iI":
            metadata.types = struct.unpack(f"<{count}i", data)
    else:
        raise cursor.refuse("its metadata is damaged")
    return kind, count


def _size_of(kind: int) -> int:
    return struct.calcsize("<" + _SCALARS[kind])


# -- checks -------------------------------------------------------------------------------


def _check_kind(cursor: Cursor, values: Mapping[str, Value]) -> None:
    kind = values.get("general.type", "model")
    if kind == "adapter":
        raise cursor.refuse("it is a LoRA adapter, which has to be merged into its model")
    if kind != "model":
        raise cursor.refuse(f"it is no model, but {kind}")
    parts = values.get("split.count")
    if isinstance(parts, int) and parts > 1:
        number = values.get("split.no")
        which = f"part {number + 1} of {parts}" if isinstance(number, int) else "one part of many"
        raise cursor.refuse(f"it is {which}: join them with llama-gguf-split --merge")
    architecture = values.get("general.architecture")
    if architecture != "llama":
        raise cursor.refuse(
            f"its architecture is {architecture}, and ctransformers loads llama only, such as "
            "Llama 2, Mistral, TinyLlama and Zephyr"
        )
    if values.get(f"{_VOCABULARY}model") != "llama":
        raise cursor.refuse(
            "its vocabulary is not SentencePiece, which ctransformers needs (SmolLM2 has models "
            "in the catalogue that are adapted)"
        )
    _check_arithmetic(cursor, values)


# What this ctransformers would ignore, and so compute something else.
def _check_arithmetic(cursor: Cursor, values: Mapping[str, Value]) -> None:
    scaling, factor = values.get("llama.rope.scaling.type"), values.get("llama.rope.scaling.factor")
    unscaled = (None, 1) if scaling is None else (1,)
    if scaling != "none" and factor not in unscaled:
        raise cursor.refuse(
            f"it scales its rotary positions ({scaling}, {factor}), which ctransformers would "
            "ignore"
        )
    experts = values.get("llama.expert_count")
    if isinstance(experts, int) and experts > 0:
        raise cursor.refuse(f"it is a mixture of {experts} experts, which ctransformers lacks")
    for key, usual in _IGNORED.items():
        if (value := values.get(key, usual)) != usual:
            raise cursor.refuse(f"its {key} is {value}, which ctransformers would ignore")
    has_tokenizer = (cursor.path.parent / TOKENIZER_FILE).exists()
    if values.get(f"{_VOCABULARY}add_space_prefix") is False and not has_tokenizer:
        raise cursor.refuse("its tokenizer puts no blank before a text, and ctransformers' does")


def _check_vocabulary(cursor: Cursor, metadata: _Metadata) -> None:
    arrays = {"tokens": (_STRING,), "scores": (_F32,), "token_type": (4, 5)}
    for name, kinds in arrays.items():
        key = f"{_VOCABULARY}{name}"
        if key not in metadata.lengths:
            raise cursor.refuse(f"its vocabulary has no {name}, which ctransformers needs")
        if metadata.kinds[key] not in kinds or metadata.lengths[key] != len(metadata.tokens):
            raise cursor.refuse("its vocabulary is damaged")
    if b"<0x0A>" not in metadata.tokens:
        raise cursor.refuse("its vocabulary has no token <0x0A> for the line feed")
    for name in ("bos", "eos", "unknown", "seperator", "padding"):  # as llama.cpp spells it
        key = f"{_VOCABULARY}{name}_token_id"
        index = metadata.values.get(key, 0)
        if metadata.kinds.get(key, _U32) != _U32 or not isinstance(index, int):
            raise cursor.refuse(f"its {key} is no u32")
        if not 0 <= index < len(metadata.tokens):
            raise cursor.refuse(f"its {name} token is not in its vocabulary")
    for token, kind in zip(metadata.tokens, metadata.types, strict=True):
        if kind == _BYTE and not _BYTE_TOKEN.fullmatch(token):
            raise cursor.refuse("one of its byte tokens is none")


def _read_sizes(cursor: Cursor, metadata: _Metadata) -> Sizes:
    def size(key: str, default: int | None = None) -> int:
        name = f"llama.{key}"
        value = metadata.values.get(name, default)
        if value is None:
            raise cursor.refuse(f"it has no {name}")
        if metadata.kinds.get(name, _U32) != _U32 or not isinstance(value, int):
            raise cursor.refuse(f"its {name} is no u32")
        if not 0 < value <= _MAX_HYPER_PARAMETER:
            raise cursor.refuse(f"its {name} is {value}")
        return value

    size("context_length")
    for name in ("attention.layer_norm_rms_epsilon", "rope.freq_base", "rope.scale_linear"):
        key = f"llama.{name}"
        if name.endswith("epsilon") and key not in metadata.values:
            raise cursor.refuse(f"it has no {key}")
        value = metadata.values.get(key, 1.0)
        if metadata.kinds.get(key, _F32) != _F32 or not isinstance(value, float):
            raise cursor.refuse(f"its {key} is no f32")
        if not 0 < value < math.inf:
            raise cursor.refuse(f"its {key} is {value}")
    if metadata.kinds.get("general.name", _STRING) != _STRING:
        raise cursor.refuse("its general.name is no text")
    heads = size("attention.head_count")
    sizes = Sizes(
        vocabulary=len(metadata.tokens),
        embedding=size("embedding_length"),
        feed_forward=size("feed_forward_length"),
        heads=heads,
        kv_heads=size("attention.head_count_kv", heads),
        layers=size("block_count"),
    )
    rotated = size("rope.dimension_count", sizes.embedding // heads or 1)
    check_heads(cursor, sizes.embedding, heads, rotated)
    width = sizes.embedding // heads
    for name in ("key_length", "value_length"):
        if size(f"attention.{name}", width) != width:
            raise cursor.refuse(f"its heads have another {name} than ctransformers expects")
    if heads % sizes.kv_heads:
        raise cursor.refuse("its numbers of attention heads do not fit together")
    return sizes


def _read_tensors(cursor: Cursor, values: Mapping[str, Value], count: int) -> dict[str, Shape]:
    alignment = values.get("general.alignment", _DEFAULT_ALIGNMENT)
    if not isinstance(alignment, int) or alignment < 1 or alignment % 8:
        raise cursor.refuse("its alignment is no multiple of 8")
    shapes: dict[str, Shape] = {}
    end = 0
    for _ in range(count):
        name = _read_name(cursor)
        dimensions = tuple(cursor.number("Q") for _ in range(dimension_count(cursor)))
        kind, offset = cursor.number("I"), cursor.number("Q")
        if name in shapes or offset % alignment:
            raise cursor.refuse("its list of tensors is damaged")
        shapes[name] = dimensions
        end = max(end, offset + tensor_bytes(cursor, name, dimensions, kind))
    cursor.align(alignment)
    cursor.skip(end)
    return shapes


# -- result -------------------------------------------------------------------------------


def _describe(cursor: Cursor, metadata: _Metadata, sizes: Sizes) -> ModelFile:
    values, types = metadata.values, metadata.types
    special = {
        token.decode("utf-8", "replace"): index
        for index, (token, kind) in enumerate(zip(metadata.tokens, types, strict=True))
        if kind in (_CONTROL, _USER_DEFINED)
    }
    bos, eos = (_marked(metadata, name, special) for name in ("bos", "eos"))
    template, trained = values.get("tokenizer.chat_template"), values["llama.context_length"]
    assert isinstance(trained, int), "_read_sizes"
    return ModelFile(
        cursor.path,
        len(cursor.data),
        "gguf",
        sizes.cache_bytes_per_token,
        trained_context=trained,
        chat_template=template if isinstance(template, str) else None,
        is_llama_2=bool(_LLAMA_2_NAME.search(str(values.get("general.name")))),
        special=special,
        control=frozenset(index for index, kind in enumerate(types) if kind == _CONTROL),
        bos=bos,
        eos=eos,
        adds_bos=values.get(f"{_VOCABULARY}add_bos_token") is not False,
    )


# The text of the BOS or EOS token, which is special whatever its type says.
def _marked(metadata: _Metadata, name: str, special: dict[str, int]) -> str:
    default = {"bos": 1, "eos": 2}[name]  # SentencePiece's
    index = metadata.values.get(f"{_VOCABULARY}{name}_token_id", default)
    assert isinstance(index, int), "_check_vocabulary"
    text = metadata.tokens[index].decode("utf-8", "replace") if index < len(metadata.tokens) else ""
    special[text] = index
    return text
