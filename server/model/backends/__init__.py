"""The libraries that evaluate a model, behind one protocol: the engine knows neither.

    choice.py          picks the library for a file
    ctransformers.py   ctransformers, the default, with a llama.cpp of 2023 inside
    llama_cpp.py       a current llama.cpp, through llama-cpp-python, if installed
    llama_bindings.py  llama-cpp-python's functions, and llama.cpp's log
    bare.py            imports a library without its package's __init__
    cancel.py          a cancel event that C code can read

Both guarantee:
  * the same tokens, split into the same batches, give the same logits on any number of threads;
  * a failed or cancelled evaluation leaves nothing behind once the cache is cut back to the length
    that it had before.
"""

import ctypes
import threading
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from server.model.prompt.tokenizer import Tokenizer

Buffer: TypeAlias = "ctypes.Array[ctypes.c_uint8]"
Logits = NDArray[np.float32]  # one for each token of the vocabulary

LARGEST_BATCH = 512  # tokens in one evaluation; ctransformers aborts the process above that
# The most tokens that a byte of text can become: SentencePiece writes a space as a three-byte mark,
# which is three tokens if the vocabulary has none for it. MORE_TOKENS is for the space that it puts
# in front of the text.
TOKENS_A_BYTE, MORE_TOKENS = 3, 8


class Cache(Protocol):
    """One KV cache. Used on the model thread only."""

    length: int  # in tokens

    def evaluate(
        self,
        tokens: Sequence[int],
        threads: int,
        cancelled: threading.Event,
        wants_logits: bool = True,
    ) -> bool:
        """Append `tokens`, at most LARGEST_BATCH.

        Args:
            tokens: to append.
            threads: how many to compute on.
            cancelled: stops the evaluation midway, if the library can.
            wants_logits: whether the caller will read the last token's logits.

        Returns:
            False if it was cancelled before the end.

        Raises:
            RuntimeError: if ggml fails.
        """

    def cut(self, length: int) -> bool:
        """Keep the first `length` tokens; False if the cache had to be emptied instead."""

    def logits(self) -> Logits:
        """The last token's logits: the library's own buffer, writable, valid until `evaluate`."""

    def state_bytes(self) -> int:
        """The size of what `save` writes; 0 if it cannot be saved."""

    def save(self, buffer: Buffer) -> None:
        """Write all keys and values into `buffer`, which is `state_bytes()` long."""

    def restore(self, buffer: Buffer) -> bool:
        """Load what `save` wrote; if it is invalid, empty the cache and return False."""


class Backend(Protocol):
    """A loaded model file: its weights, its vocabulary and its KV caches."""

    build: str  # the library and its version, as exactly as it can be known
    batch: int  # tokens in a whole batch (batches.py)
    caches: Sequence[Cache]  # one for each context; they share the weights
    vocabulary_size: int
    special: Mapping[str, int]  # ids of the tokens that a template may use, by their text
    control: frozenset[int]  # tokens that print nothing and end an answer
    bos: int | None  # what every prompt begins with
    swallowing: frozenset[int]  # special tokens that swallow the whitespace after them

    def tokenizer(self) -> Tokenizer:
        """The tokenizer of the file's own vocabulary.

        Raises:
            ModelFileError: if it would crash or lose text.
        """


def logits_at(pointer: Any, count: int) -> Logits:
    """The `count` floats at a ctypes pointer, without copying them."""
    floats = (ctypes.c_float * count).from_address(ctypes.addressof(pointer.contents))
    return np.ctypeslib.as_array(floats)
