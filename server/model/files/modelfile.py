"""Reads a model file's head in order to refuse a bad file before C++ sees it.

ctransformers fails without a message on most bad files and dies of a signal on some (a
truncated file is mapped and then read past its end), so a file is walked here first:
magic, version, metadata, hyper-parameters that ggml divides by or asserts on, and the extent
of every tensor against the file's size. Valid nonsense (weights of noise) still loads.

Own code rather than the `gguf` package because this runs at every start: its reader took
4.3 s on SmolLM2's 98 MB file, this walk takes milliseconds (it skips what it does not need).

Formats: GGUF versions 2 and 3 (ggml's docs/gguf.md), and the older GGML v3 container
`ggjt` (read_magic and its neighbours in ctransformers' llama-ggml.cpp).
"""

import math
import mmap
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from server.model.errors import ModelFileError
from server.model.files.catalog import CATALOG

# ggml type -> (values in a block, bytes of a block), from ggml.c of ctransformers 0.2.27.
_BLOCKS = {
    0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34),
    10: (256, 84), 11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210),
}  # fmt: skip
_GGUF_SCALARS = {
    0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d",
}  # fmt: skip
_GGUF_STRING = 8
_GGUF_ARRAY = 9
_GGUF_DEFAULT_ALIGNMENT = 32
_GGJT_ALIGNMENT = 32
_MAX_DIMENSIONS = 4
_MAX_HYPER_PARAMETER = 2**20
_KEY_AND_VALUE_BYTES = 2 * 2
_F32 = 0

Value = int | float | str | None  # None stands for an array: its items are skipped


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A file whose head has been checked and is valid."""

    path: Path
    size_bytes: int
    model_type: str  # as ctransformers names it: "gguf" or "llama" (ggjt)
    chat_template: str  # the Jinja text in a GGUF file, else ""
    cache_bytes_per_token: int  # in the KV cache: all layers' keys and values, in half floats


def inspect(path: Path) -> ModelFile:
    """Walk the head of the file at `path`.

    Raises:
        ModelFileError: if the file is missing, empty, truncated or of another kind.
    """
    try:
        _check_path(path)
        with path.open("rb") as file:
            if path.stat().st_size == 0:
                raise ModelFileError(f"The model file {path} is empty.")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return _inspect(path, data)
    except (FileNotFoundError, NotADirectoryError):
        raise ModelFileError(
            f"There is no model file at {path}: use {', '.join(CATALOG)}, or the path of a file."
        ) from None
    except OSError as error:
        raise ModelFileError(f"The model file {path} cannot be read: {error.strerror}.") from error
    except (struct.error, IndexError):  # the walk ran past the end
        raise ModelFileError(f"The model file {path} is truncated or damaged.") from None


def _check_path(path: Path) -> None:
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise ModelFileError("The model file's path is not valid UTF-8.") from None
    if path.exists() and not path.is_file():  # opening a named pipe would block forever
        raise ModelFileError(f"{path} is not a regular file.")


def _inspect(path: Path, data: mmap.mmap) -> ModelFile:
    cursor = _Cursor(path, data)
    magic = cursor.take(4)
    if magic == b"GGUF":
        return _read_gguf(cursor)
    if magic == b"tjgg":  # "ggjt" as a little-endian word
        return _read_ggjt(cursor)
    raise ModelFileError(
        f"The file {path} is not a model this program can load (GGUF, or GGML v3 'ggjt')."
    )


class _Cursor:
    """A position in a model file; `at` is the offset of the next byte."""

    def __init__(self, path: Path, data: mmap.mmap) -> None:
        self.path = path
        self.data = data
        self.at = 0

    def take(self, length: int) -> bytes:
        self.skip(length)
        return self.data[self.at - length : self.at]

    def skip(self, length: int) -> None:
        if length > len(self.data) - self.at:
            raise ModelFileError(
                f"The model file {self.path} is truncated: it ends at byte {len(self.data):,} "
                f"and needs at least {self.at + length:,}."
            )
        self.at += length

    def align(self, alignment: int) -> None:
        self.at += -self.at % alignment

    def number(self, code: str) -> int:
        (value,) = struct.unpack_from("<" + code, self.data, self.at)
        self.at += struct.calcsize(code)
        return int(value)

    def refuse(self, why: str) -> ModelFileError:
        return ModelFileError(f"The model file {self.path} cannot be used: {why}.")


# -- GGUF -------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Metadata:
    """The key-value pairs of a GGUF file; of its arrays, the lengths."""

    values: dict[str, Value] = field(default_factory=dict)
    array_lengths: dict[str, int] = field(default_factory=dict)


def _read_gguf(cursor: _Cursor) -> ModelFile:
    version = cursor.number("I")
    if version not in (2, 3):
        raise cursor.refuse(f"it is GGUF version {version}, but only 2 and 3 are supported")
    tensor_count, pair_count = cursor.number("Q"), cursor.number("Q")
    metadata = _read_metadata(cursor, pair_count)
    _check_architecture(cursor, metadata)
    _check_vocabulary(cursor, metadata)
    cache_bytes = _check_gguf_shape(cursor, metadata.values)
    _check_gguf_tensors(cursor, metadata.values, tensor_count)
    template = metadata.values.get("tokenizer.chat_template")
    shown = template if isinstance(template, str) else ""
    return ModelFile(cursor.path, len(cursor.data), "gguf", shown, cache_bytes)


def _read_metadata(cursor: _Cursor, pair_count: int) -> _Metadata:
    metadata = _Metadata()
    for _ in range(pair_count):
        key, kind = _read_string(cursor), cursor.number("I")
        if kind == _GGUF_ARRAY:
            metadata.array_lengths[key] = _skip_array(cursor)
            metadata.values[key] = None
        else:
            metadata.values[key] = _read_value(cursor, kind)
    return metadata


def _read_string(cursor: _Cursor) -> str:
    return cursor.take(cursor.number("Q")).decode("utf-8", "replace")


def _read_value(cursor: _Cursor, kind: int) -> Value:
    if kind == _GGUF_STRING:
        return _read_string(cursor)
    if kind not in _GGUF_SCALARS:
        raise cursor.refuse("its metadata is damaged")
    (value,) = struct.unpack("<" + _GGUF_SCALARS[kind], cursor.take(_size_of(kind)))
    return value if isinstance(value, int | float) else None


# Returns the number of items.
def _skip_array(cursor: _Cursor) -> int:
    kind, count = cursor.number("I"), cursor.number("Q")
    if kind == _GGUF_STRING:
        for _ in range(count):
            cursor.skip(cursor.number("Q"))
    elif kind in _GGUF_SCALARS:
        cursor.skip(count * _size_of(kind))
    else:
        raise cursor.refuse("its metadata is damaged")
    return count


def _size_of(kind: int) -> int:
    return struct.calcsize("<" + _GGUF_SCALARS[kind])


def _check_architecture(cursor: _Cursor, metadata: _Metadata) -> None:
    architecture = metadata.values.get("general.architecture")
    if architecture != "llama":
        raise cursor.refuse(f"its architecture is {architecture}, but only llama is supported")
    if metadata.values.get("tokenizer.ggml.model") != "llama":
        raise cursor.refuse("its vocabulary is not SentencePiece, which ctransformers needs")
    if "tokenizer.ggml.scores" not in metadata.array_lengths:
        raise cursor.refuse("its vocabulary has no scores, which ctransformers needs")


def _check_vocabulary(cursor: _Cursor, metadata: _Metadata) -> None:
    lengths = metadata.array_lengths
    tokens = lengths.get("tokenizer.ggml.tokens", 0)
    if any(
        lengths.get(f"tokenizer.ggml.{name}") != tokens
        for name in ("tokens", "scores", "token_type")
    ):
        raise cursor.refuse("its vocabulary is incomplete")
    for name in ("bos", "eos"):
        index = metadata.values.get(f"tokenizer.ggml.{name}_token_id", 0)
        if not isinstance(index, int) or not 0 <= index < tokens:
            raise cursor.refuse(f"its {name} token is not in its vocabulary")


# Returns the bytes that a token takes in the KV cache.
def _check_gguf_shape(cursor: _Cursor, values: Mapping[str, Value]) -> int:
    def size(key: str, default: int = 0) -> int:
        value = values.get(f"llama.{key}", default)
        if not isinstance(value, int) or not 0 < value <= _MAX_HYPER_PARAMETER:
            raise cursor.refuse(f"its llama.{key} is {value}")
        return value

    embedding, heads = size("embedding_length"), size("attention.head_count")
    kv_heads = size("attention.head_count_kv", heads)
    layers = size("block_count")
    size("feed_forward_length")
    _check_heads(cursor, embedding, heads, values.get("llama.rope.dimension_count"))
    if heads % kv_heads:
        raise cursor.refuse("its numbers of attention heads do not match")
    return layers * (embedding // heads * kv_heads) * _KEY_AND_VALUE_BYTES


def _check_gguf_tensors(cursor: _Cursor, values: Mapping[str, Value], count: int) -> None:
    names, end = set(), 0
    for _ in range(count):
        names.add(_read_string(cursor))
        dimensions = [cursor.number("Q") for _ in range(_dimension_count(cursor))]
        kind, offset = cursor.number("I"), cursor.number("Q")
        end = max(end, offset + _tensor_bytes(cursor, dimensions, kind))
    if "output.weight" not in names:
        raise cursor.refuse("it has no output.weight (ctransformers 0.2.27 needs it untied)")
    alignment = values.get("general.alignment") or _GGUF_DEFAULT_ALIGNMENT
    if not isinstance(alignment, int) or alignment < 1:
        raise cursor.refuse("its alignment is not a positive number")
    cursor.align(alignment)
    cursor.skip(end)


# -- ggjt -------------------------------------------------------------------------------------


def _read_ggjt(cursor: _Cursor) -> ModelFile:
    version = cursor.number("I")
    if version != 3:
        raise cursor.refuse(f"it is GGML 'ggjt' version {version}, but only 3 is supported")
    vocabulary_size, embedding, multiple = (cursor.number("I") for _ in range(3))
    heads, layers, rotated = (cursor.number("I") for _ in range(3))
    cursor.skip(4)  # ftype: informative, every tensor has its own type
    if not all(0 < n <= _MAX_HYPER_PARAMETER for n in (embedding, multiple, heads, layers)):
        raise cursor.refuse("its hyper-parameters are damaged")
    _check_heads(cursor, embedding, heads, rotated)
    for _ in range(vocabulary_size):
        cursor.skip(cursor.number("I") + 4)  # the token's bytes and its f32 score
    if cursor.at == len(cursor.data):
        raise cursor.refuse("it has no tensors")
    while cursor.at < len(cursor.data):
        _skip_ggjt_tensor(cursor)
    cache_bytes = layers * embedding * _KEY_AND_VALUE_BYTES
    return ModelFile(cursor.path, len(cursor.data), "llama", "", cache_bytes)


def _skip_ggjt_tensor(cursor: _Cursor) -> None:
    dimension_count = _dimension_count(cursor)
    name_length, kind = cursor.number("I"), cursor.number("I")
    dimensions = [cursor.number("I") for _ in range(dimension_count)]
    cursor.skip(name_length)
    cursor.align(_GGJT_ALIGNMENT)
    cursor.skip(_tensor_bytes(cursor, dimensions, kind))


# -- both -------------------------------------------------------------------------------------


# ggml divides by these, and asserts that every head is rotated whole.
def _check_heads(cursor: _Cursor, embedding: int, heads: int, rotated: Value) -> None:
    is_whole = embedding % heads == 0 and rotated in (None, embedding // heads)
    if not is_whole:
        raise cursor.refuse("its numbers of attention heads do not match")


def _dimension_count(cursor: _Cursor) -> int:
    count = cursor.number("I")
    if not 1 <= count <= _MAX_DIMENSIONS:
        raise cursor.refuse("its list of tensors is damaged")
    return count


def _tensor_bytes(cursor: _Cursor, dimensions: Sequence[int], kind: int) -> int:
    if kind not in _BLOCKS:
        raise cursor.refuse(f"it uses tensor type {kind}, which ctransformers 0.2.27 cannot read")
    if len(dimensions) == 1 and kind != _F32:  # norms: ggml asserts it at the first token
        raise cursor.refuse("one of its one-dimensional tensors is not F32")
    block_values, block_bytes = _BLOCKS[kind]
    return math.prod(dimensions) // block_values * block_bytes
