"""Reads a model file's head in order to refuse a wrong file before C++ sees it.

ctransformers fails without a word on most wrong files and dies of a signal on some (a
truncated file is mapped and then read past its end), so a file is walked here first:
magic, version, metadata, hyper-parameters that ggml divides by or asserts on, and the extent
of every tensor against the file's size. What is only nonsense (weights of noise) still loads.

Own code rather than the `gguf` package because this runs at every start: its reader took
4.3 s on SmolLM2's 98 MB file, this walk takes milliseconds (it skips what it does not need).

Formats: GGUF versions 2 and 3 (ggml's docs/gguf.md), and the older GGML v3 container
`ggjt` (read_magic and its neighbours in ctransformers' llama-ggml.cpp).
"""

import mmap
import struct
from dataclasses import dataclass
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
    """A file whose head has been found in order."""

    path: Path
    size_bytes: int
    model_type: str  # what ctransformers wants to be told: "gguf" or "llama" (ggjt)
    chat_template: str  # the Jinja text in a GGUF file, else ""
    cache_bytes_per_token: int  # of the keys and values of all layers, in half floats


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
            f"There is no model file at {path}: take {', '.join(CATALOG)}, or a path to a file."
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
    if path.exists() and not path.is_file():  # a named pipe would be waited on for ever
        raise ModelFileError(f"{path} is not a regular file.")


def _inspect(path: Path, data: mmap.mmap) -> ModelFile:
    walk = _Walk(path, data)
    magic = walk.take(4)
    if magic == b"GGUF":
        walk.gguf()
        template = walk.metadata.get("tokenizer.chat_template")
        shown = template if isinstance(template, str) else ""
        return ModelFile(path, len(data), "gguf", shown, walk.cache_bytes_per_token)
    if magic == b"tjgg":  # "ggjt" as a little-endian word
        walk.ggjt()
        return ModelFile(path, len(data), "llama", "", walk.cache_bytes_per_token)
    raise ModelFileError(
        f"The file {path} is no model this program can load (it wants GGUF or GGML v3 'ggjt')."
    )


class _Walk:
    """One pass over the head of a model file, `at` being the offset of the next byte."""

    def __init__(self, path: Path, data: mmap.mmap) -> None:
        self.path = path
        self.data = data
        self.at = 0
        self.metadata: dict[str, Value] = {}
        self.array_lengths: dict[str, int] = {}
        self.cache_bytes_per_token = 0

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

    def number(self, code: str) -> int:
        (value,) = struct.unpack_from("<" + code, self.data, self.at)
        self.at += struct.calcsize(code)
        return int(value)

    def refuse(self, why: str) -> ModelFileError:
        return ModelFileError(f"The model file {self.path} cannot be used: {why}.")

    # -- GGUF ---------------------------------------------------------------------------

    def gguf(self) -> None:
        version = self.number("I")
        if version not in (2, 3):
            raise self.refuse(f"it is GGUF version {version}, and versions 2 and 3 are supported")
        tensor_count, pair_count = self.number("Q"), self.number("Q")
        for _ in range(pair_count):
            key = self.gguf_string()
            self.metadata[key] = self.gguf_value(key, self.number("I"))
        self.check_kind()
        self.check_gguf_shape()
        names, end = set(), 0
        for _ in range(tensor_count):
            name, tensor_end = self.gguf_tensor()
            names.add(name)
            end = max(end, tensor_end)
        if "output.weight" not in names:
            raise self.refuse("it has no output.weight (ctransformers 0.2.27 needs it untied)")
        alignment = self.metadata.get("general.alignment") or _GGUF_DEFAULT_ALIGNMENT
        if not isinstance(alignment, int) or alignment < 1:
            raise self.refuse("its alignment is not a positive number")
        self.at += -self.at % alignment
        self.skip(end)

    def gguf_string(self) -> str:
        return self.take(self.number("Q")).decode("utf-8", "replace")

    def gguf_value(self, key: str, kind: int) -> Value:
        if kind == _GGUF_STRING:
            return self.gguf_string()
        if kind == _GGUF_ARRAY:
            item_kind, count = self.number("I"), self.number("Q")
            self.array_lengths[key] = count
            self.skip_gguf_array(item_kind, count)
            return None
        if kind not in _GGUF_SCALARS:
            raise self.refuse("its metadata is damaged")
        (value,) = struct.unpack("<" + _GGUF_SCALARS[kind], self.take(_size_of(kind)))
        return value if isinstance(value, int | float) else None

    def skip_gguf_array(self, kind: int, count: int) -> None:
        if kind == _GGUF_STRING:
            for _ in range(count):
                self.skip(self.number("Q"))
        elif kind in _GGUF_SCALARS:
            self.skip(count * _size_of(kind))
        else:
            raise self.refuse("its metadata is damaged")

    def check_kind(self) -> None:
        architecture = self.metadata.get("general.architecture")
        if architecture != "llama":
            raise self.refuse(f"its architecture is {architecture}, and only llama is supported")
        if self.metadata.get("tokenizer.ggml.model") != "llama":
            raise self.refuse("its vocabulary is not SentencePiece, which ctransformers needs")
        if "tokenizer.ggml.scores" not in self.array_lengths:
            raise self.refuse("its vocabulary has no scores, which ctransformers needs")

    def check_gguf_shape(self) -> None:
        embedding = self.hyper_parameter("llama.embedding_length")
        heads = self.hyper_parameter("llama.attention.head_count")
        kv_heads = self.hyper_parameter("llama.attention.head_count_kv", heads)
        layers = self.hyper_parameter("llama.block_count")
        self.hyper_parameter("llama.feed_forward_length")
        self.check_heads(embedding, heads, self.metadata.get("llama.rope.dimension_count"))
        if heads % kv_heads:
            raise self.refuse("its numbers of attention heads do not fit together")
        width = embedding // heads * kv_heads
        self.cache_bytes_per_token = layers * width * _KEY_AND_VALUE_BYTES
        tokens = self.array_lengths.get("tokenizer.ggml.tokens", 0)
        for name in ("tokens", "scores", "token_type"):
            if self.array_lengths.get(f"tokenizer.ggml.{name}") != tokens:
                raise self.refuse("its vocabulary is incomplete")
        for name in ("bos", "eos"):
            index = self.metadata.get(f"tokenizer.ggml.{name}_token_id", 0)
            if not isinstance(index, int) or not 0 <= index < tokens:
                raise self.refuse(f"its {name} token is not in its vocabulary")

    def hyper_parameter(self, key: str, default: int = 0) -> int:
        value = self.metadata.get(key, default)
        if not isinstance(value, int) or not 0 < value <= _MAX_HYPER_PARAMETER:
            raise self.refuse(f"its {key} is {value}")
        return value

    def gguf_tensor(self) -> tuple[str, int]:
        name = self.gguf_string()
        dimensions = [self.number("Q") for _ in range(self.dimension_count())]
        kind, offset = self.number("I"), self.number("Q")
        return name, offset + self.tensor_bytes(dimensions, kind)

    # -- ggjt ---------------------------------------------------------------------------

    def ggjt(self) -> None:
        version = self.number("I")
        if version != 3:
            raise self.refuse(f"it is GGML 'ggjt' version {version}, and version 3 is supported")
        vocabulary_size, embedding, multiple = (self.number("I") for _ in range(3))
        heads, layers, rotated = (self.number("I") for _ in range(3))
        self.skip(4)  # ftype: informative, every tensor tells its own type
        if not all(0 < n <= _MAX_HYPER_PARAMETER for n in (embedding, multiple, heads, layers)):
            raise self.refuse("its hyper-parameters are damaged")
        self.check_heads(embedding, heads, rotated)
        self.cache_bytes_per_token = layers * embedding * _KEY_AND_VALUE_BYTES
        for _ in range(vocabulary_size):
            self.skip(self.number("I") + 4)  # the token's bytes and its f32 score
        if self.at == len(self.data):
            raise self.refuse("it has no tensors")
        while self.at < len(self.data):
            self.ggjt_tensor()

    def ggjt_tensor(self) -> None:
        dimension_count = self.dimension_count()
        name_length, kind = self.number("I"), self.number("I")
        dimensions = [self.number("I") for _ in range(dimension_count)]
        self.skip(name_length)
        self.at += -self.at % _GGJT_ALIGNMENT
        self.skip(self.tensor_bytes(dimensions, kind))

    # -- both ---------------------------------------------------------------------------

    # ggml divides by these, and asserts that every head is rotated whole.
    def check_heads(self, embedding: int, heads: int, rotated: Value) -> None:
        is_whole = embedding % heads == 0 and rotated in (None, embedding // heads)
        if not is_whole:
            raise self.refuse("its numbers of attention heads do not fit together")

    def dimension_count(self) -> int:
        count = self.number("I")
        if not 1 <= count <= _MAX_DIMENSIONS:
            raise self.refuse("its list of tensors is damaged")
        return count

    def tensor_bytes(self, dimensions: list[int], kind: int) -> int:
        if kind not in _BLOCKS:
            raise self.refuse(f"it uses tensor type {kind}, which ctransformers 0.2.27 cannot read")
        if len(dimensions) == 1 and kind != _F32:  # norms: ggml asserts it at the first token
            raise self.refuse("one of its one-dimensional tensors is not F32")
        values = 1
        for dimension in dimensions:
            values *= dimension
        block_values, block_bytes = _BLOCKS[kind]
        return values // block_values * block_bytes


def _size_of(kind: int) -> int:
    return struct.calcsize("<" + _GGUF_SCALARS[kind])
