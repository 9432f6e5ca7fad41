"""Reads the head of a GGUF file, versions 2 and 3 (ggml's docs/gguf.md).

Checks what every engine needs: the file is complete, little-endian, and holds a whole model.
"""

import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field

from server.model.files.cursor import Cursor
from server.model.files.modelfile import CTRANSFORMERS, ModelFile
from server.model.files.tensors import Shape, dimension_count, tensor_bytes

_SCALARS = {
    0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d",
}  # fmt: skip
U32, F32, STRING = 4, 6, 8
_ARRAY = 9
_MOST_ITEMS = 2**24
_MOST_NUMBERS = 1024  # in an array that is kept: enough for one per layer
_DEFAULT_ALIGNMENT = 32
CONTROL, USER_DEFINED, BYTE = 3, 4, 6  # llama.cpp's token types
VOCABULARY = "tokenizer.ggml."
# llama.cpp's BOS and EOS if a file names none.
_DEFAULT_MARKS = {"llama": {"bos": 1, "eos": 2}}
_HALF_FLOAT_BYTES = 2
# A GGUF file converted from Meta's Llama 2, whose converters wrote no chat template at first.
_LLAMA_2_NAME = re.compile(r"llama[ -]?(v2|2)\b", re.I)

Value = int | float | str | tuple[int | float, ...] | None  # None: an array that is not kept


@dataclass(frozen=True, slots=True)
class Tensor:
    """What the head says of a tensor."""

    shape: Shape
    kind: int  # ggml's type


@dataclass(slots=True)
class Head:
    """The key-value pairs (value and kind by key), the vocabulary's arrays, and the tensors."""

    cursor: Cursor
    values: dict[str, Value] = field(default_factory=dict)
    kinds: dict[str, int] = field(default_factory=dict)  # of an array, that of its items
    lengths: dict[str, int] = field(default_factory=dict)
    tokens: list[bytes] = field(default_factory=list)
    types: tuple[int, ...] = ()
    tensors: dict[str, Tensor] = field(default_factory=dict)

    @property
    def architecture(self) -> Value:
        """How the model computes: "llama", "qwen3", ..."""
        return self.values.get("general.architecture")

    def number(self, key: str, default: int) -> int:
        """The whole number at `key`, in which `{}` stands for the architecture."""
        value = self.values.get(key.format(self.architecture))
        return value if isinstance(value, int) else default


def read_gguf(cursor: Cursor) -> Head:
    """Walk the head, and check the extent of every tensor.

    Raises:
        ModelFileError: if no engine can load the file.
    """
    cursor.skip(4)
    version = cursor.number("I")
    if version in (2 << 24, 3 << 24):
        raise cursor.refuse("it is big-endian: take a little-endian one")
    if version not in (2, 3):
        raise cursor.refuse(f"it is GGUF version {version}, but only 2 and 3 are supported")
    tensor_count, pair_count = cursor.number("Q"), cursor.number("Q")
    head = Head(cursor)
    for _ in range(pair_count):
        _read_pair(head)
    _check_kind(cursor, head.values)
    _read_tensors(head, tensor_count)
    return head


# -- metadata -----------------------------------------------------------------------------


def _read_pair(head: Head) -> None:
    cursor = head.cursor
    key, kind = _read_name(cursor), cursor.number("I")
    if key in head.kinds:  # ggml would use the first, and we check the last
        raise cursor.refuse(f"its {key} is there twice")
    head.kinds[key] = kind
    if kind == _ARRAY:
        _read_array(head, key)
    else:
        head.values[key] = _read_value(cursor, kind)


def _read_string(cursor: Cursor) -> str:
    return cursor.take(cursor.number("Q")).decode("utf-8", "replace")


# ggml ends a name at its first NUL.
def _read_name(cursor: Cursor) -> str:
    name = _read_string(cursor)
    if "\0" in name:
        raise cursor.refuse("its metadata is damaged")
    return name


def _read_value(cursor: Cursor, kind: int) -> Value:
    if kind == STRING:
        return _read_string(cursor)
    if kind not in _SCALARS:
        raise cursor.refuse("its metadata is damaged")
    (value,) = struct.unpack("<" + _SCALARS[kind], cursor.take(_size_of(kind)))
    return value if isinstance(value, int | float) else None


# Keeps the vocabulary's arrays, and short arrays of numbers.
def _read_array(head: Head, key: str) -> None:
    cursor = head.cursor
    kind, count = cursor.number("I"), cursor.number("Q")
    head.values[key], head.kinds[key], head.lengths[key] = None, kind, count
    if count > _MOST_ITEMS:
        raise cursor.refuse("its metadata is damaged")
    if kind == STRING:
        strings = cursor.strings(count)
        if key == f"{VOCABULARY}tokens":
            head.tokens = strings
    elif kind in _SCALARS:
        data = cursor.take(count * _size_of(kind))
        if key == f"{VOCABULARY}token_type" and _SCALARS[kind] in "iI":
            head.types = struct.unpack(f"<{count}i", data)
        elif count <= _MOST_NUMBERS:
            head.values[key] = struct.unpack(f"<{count}{_SCALARS[kind]}", data)
    else:
        raise cursor.refuse("its metadata is damaged")


def _size_of(kind: int) -> int:
    return struct.calcsize("<" + _SCALARS[kind])


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


# -- tensors ------------------------------------------------------------------------------


def _read_tensors(head: Head, count: int) -> None:
    cursor = head.cursor
    alignment = head.values.get("general.alignment", _DEFAULT_ALIGNMENT)
    if not isinstance(alignment, int) or alignment < 1 or alignment % 8:
        raise cursor.refuse("its alignment is no multiple of 8")
    end = 0
    for _ in range(count):
        name = _read_name(cursor)
        shape = tuple(cursor.number("Q") for _ in range(dimension_count(cursor)))
        kind, offset = cursor.number("I"), cursor.number("Q")
        if name in head.tensors or offset % alignment:
            raise cursor.refuse("its list of tensors is damaged")
        head.tensors[name] = Tensor(shape, kind)
        end = max(end, offset + tensor_bytes(shape, kind))
    cursor.align(alignment)
    cursor.skip(end)


# -- result -------------------------------------------------------------------------------


def describe(head: Head, engine: str) -> ModelFile:
    """What the program needs to know about the file, if `engine` is to load it."""
    values, types = head.values, head.types
    special = {
        token.decode("utf-8", "replace"): index
        for index, (token, kind) in enumerate(zip(head.tokens, types, strict=False))
        if kind in (CONTROL, USER_DEFINED)
    }
    bos, eos = (_marked(head, name, special) for name in ("bos", "eos"))
    template = values.get("tokenizer.chat_template")
    return ModelFile(
        head.cursor.path,
        len(head.cursor.data),
        "gguf",
        engine,
        _cache_bytes_per_token(head),
        trained_context=head.number("{}.context_length", 0) or None,
        chat_template=template if isinstance(template, str) else None,
        is_llama_2=bool(_LLAMA_2_NAME.search(str(values.get("general.name")))),
        special=special,
        control=frozenset(index for index, kind in enumerate(types) if kind == CONTROL),
        bos=bos,
        eos=eos,
        adds_bos=values.get(f"{VOCABULARY}add_bos_token") is not False,
        positions=_learned_positions(head),
        # llama.cpp's own tokenizer is the exact one, wherever it is safe.
        takes_tokenizer_file=engine == CTRANSFORMERS or missing_bytes(head) > 0,
    )


# The text of the BOS or EOS token, which is special whatever its type says.
def _marked(head: Head, name: str, special: dict[str, int]) -> str:
    defaults = _DEFAULT_MARKS.get(str(head.values.get(f"{VOCABULARY}model")), {})
    index = head.number(f"{VOCABULARY}{name}_token_id", defaults.get(name, -1))
    if not 0 <= index < len(head.tokens):
        return ""
    text = head.tokens[index].decode("utf-8", "replace")
    special[text] = index
    return text


def missing_bytes(head: Head) -> int:
    """How many of the 256 bytes a SentencePiece vocabulary cannot spell; 0 of another kind."""
    if head.values.get(f"{VOCABULARY}model") != "llama":
        return 0
    words = set(head.tokens)
    spelled = (b"<0x%02X>" % byte in words or bytes([byte]) in words for byte in range(256))
    return 256 - sum(spelled)


# One row a position, as GPT-2 has them.
def _learned_positions(head: Head) -> int | None:
    tensor = head.tensors.get("position_embd.weight")
    return tensor.shape[-1] if tensor else None


# Keys and values of all layers, in half floats; the KV heads may be counted layer by layer.
def _cache_bytes_per_token(head: Head) -> int:
    heads = head.number("{}.attention.head_count", 0)
    width = head.number("{}.embedding_length", 0) // heads if heads else 0
    pair = sum(head.number(f"{{}}.attention.{part}_length", width) for part in ("key", "value"))
    kv_heads = "{}.attention.head_count_kv"
    by_layer = head.values.get(kv_heads.format(head.architecture))
    if isinstance(by_layer, tuple):
        total = sum(number for number in by_layer if isinstance(number, int))
    else:
        total = head.number("{}.block_count", 0) * head.number(kv_heads, heads)
    return total * pair * _HALF_FLOAT_BYTES
