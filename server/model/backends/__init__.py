"""What evaluates a model, behind one protocol: the engine knows no library.

    choice.py          which of them a file gets
    ctransformers.py   llama.cpp of 2023 inside ctransformers, the default
    llama_cpp.py       llama.cpp of today, by llama-cpp-python, if that is installed
    llama_bindings.py  its functions and its log
    bare.py            how both are imported
    cancel.py          the event that C can look at

Guarantees of both:
  * the same tokens, cut at the same places, give the same logits, on any number of threads;
  * a cache holds what was evaluated and not cut off since; a failed or cancelled evaluation adds
    nothing to it that `cut` would leave.
"""

import ctypes
import threading
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from server.model.prompt.tokenizer import Tokenizer

Buffer: TypeAlias = "ctypes.Array[ctypes.c_uint8]"
Logits = NDArray[np.float32]  # one a token of the vocabulary

LARGEST_BATCH = 512  # tokens of one evaluation; more would abort ctransformers' process
# Tokens that a byte of text becomes at most: SentencePiece writes a blank as a mark of three bytes,
# which are three tokens where the vocabulary has none for it. So a few more for a blank in front.
TOKENS_A_BYTE, MORE_TOKENS = 3, 8


class Cache(Protocol):
    """One KV cache. Used on the model thread only."""

    length: int  # tokens that it has room for

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
            threads: to compute on.
            cancelled: ends the evaluation early where the library can.
            wants_logits: whether those of the last token are asked for afterwards.

        Returns:
            False if it was cancelled before the end.

        Raises:
            RuntimeError: if ggml fails.
        """

    def cut(self, length: int) -> bool:
        """Keep the first `length` tokens; False if it had to give up all of them instead."""

    def logits(self) -> Logits:
        """The last token's logits, in the library's own buffer: writable, until `evaluate`."""

    def state_bytes(self) -> int:
        """The size of what `save` writes; 0 if it cannot be saved."""

    def save(self, buffer: Buffer) -> None:
        """Write the keys and values of all tokens into `buffer`, `state_bytes` long."""

    def restore(self, buffer: Buffer) -> bool:
        """Take the saved ones instead of its own; False, and it is empty, if they are none."""


class Backend(Protocol):
    """A model file that is loaded: weights and vocabulary."""

    build: str  # which program evaluates, as exactly as is known
    batch: int  # tokens of a whole batch (batches.py)
    caches: Sequence[Cache]  # one a context; they share the weights
    vocabulary_size: int
    special: Mapping[str, int]  # ids of the tokens that a template may name, by their text
    control: frozenset[int]  # tokens that print nothing and end an answer
    bos: int | None  # what every prompt begins with
    swallowing: frozenset[int]  # special tokens that take the blanks behind them

    def tokenizer(self) -> Tokenizer:
        """The tokenizer of the file's own vocabulary.

        Raises:
            ModelFileError: if it would not be safe.
        """


def logits_at(pointer: Any, count: int) -> Logits:
    """The floats that a ctypes pointer points to, not copied."""
    floats = (ctypes.c_float * count).from_address(ctypes.addressof(pointer.contents))
    return np.ctypeslib.as_array(floats)
