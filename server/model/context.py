"""KV caches: the tokens whose keys and values a ctransformers model holds.

Owns one `ctransformers.LLM` (untyped here: only loader.py imports ctransformers). Several
contexts share the weights, which are mapped from one file; each has its own KV cache
(files/footprint.py knows its size). llama.cpp calls them slots.
"""

import ctypes
from collections.abc import Iterator, Sequence
from itertools import takewhile
from typing import Any

import numpy as np

from server.model.sampler import Logits

LARGEST_BATCH = 512  # ggml's buffers are sized for it; a larger batch aborts the process
_CONTINUED = 0.5


class Context:
    """One KV cache. Used on the model thread only."""

    def __init__(self, llm: Any, batch: int) -> None:
        self._llm = llm
        self.batch = batch  # tokens of a whole one
        # Only tokens that were evaluated in whole batches are reused: the rest are rounded
        # differently when they stand elsewhere in a batch.
        self._reusable = 0
        self._logits_address = 0
        self._logits_view: Logits = np.empty(0, dtype=np.float32)
        self.length: int = llm.context_length  # tokens that it has room for

    @property
    def tokens(self) -> Sequence[int]:
        """The tokens that it holds."""
        held: list[int] = self._llm._context
        return held

    def common_prefix(self, prompt: Sequence[int]) -> int:
        """The length of the prefix that `prompt` and this context have in common."""
        pairs = zip(prompt, self.tokens, strict=False)
        return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))

    def keep_prefix(self, prompt: Sequence[int], borders: Sequence[int]) -> int:
        """Keep the whole batches that `prompt` begins with too, and leave it a token at least.

        Returns:
            How many tokens are kept: one of `borders` (batches.py).
        """
        common = min(self.common_prefix(prompt), self._reusable, len(prompt) - 1)
        self._reusable = max(border for border in borders if border <= common)
        del self._llm._context[self._reusable :]
        return self._reusable

    def evaluate(self, tokens: Sequence[int], threads: int, is_reusable: bool) -> None:
        """Append `tokens`, at most LARGEST_BATCH, in one call into ggml.

        Whoever says that they are reusable has cut this and all before them at borders.

        Raises:
            RuntimeError: if ggml fails.
        """
        assert len(tokens) <= LARGEST_BATCH
        assert len(self.tokens) + len(tokens) <= self.length
        self._llm.eval(tokens, batch_size=len(tokens), threads=threads)
        if is_reusable:
            self._reusable = len(self.tokens)

    def logits(self) -> Logits:
        """The last token's logits, in ggml's own buffer: writable, until the next evaluation."""
        pointer = self._llm.ctransformers_llm_logits_data()
        address = ctypes.addressof(pointer.contents)
        if address != self._logits_address:  # an evaluation may move the buffer
            self._logits_address = address
            self._logits_view = np.ctypeslib.as_array(pointer, shape=(self._llm.vocab_size,))
        return self._logits_view


class Contexts:
    """Several contexts: each prompt gets the one that it continues, or the least recently used.

    Args:
        contexts: at least one.
        persona: tokens that most prompts begin with. Sharing only the persona is no match: such
            a prompt must not evict another conversation's cache.
    """

    def __init__(self, contexts: Sequence[Context], persona: Sequence[int]) -> None:
        self._by_use = list(contexts)  # the least recently used first
        self._persona = tuple(persona)

    def __iter__(self) -> Iterator[Context]:
        return iter(self._by_use)

    def persona_prefix(self, prompt: Sequence[int]) -> int:
        """How many persona tokens `prompt` begins with: all, or none with another system text."""
        length = len(self._persona)
        return length if tuple(prompt[:length]) == self._persona else 0

    def take(self, prompt: Sequence[int]) -> Context:
        """Choose the context for `prompt`, and make it the most recently used."""
        shared = self.persona_prefix(prompt)
        # Of equals, `max` returns the first, which is the least recently used.
        chosen = max(self._by_use, key=lambda context: self._likeness(context, prompt, shared))
        self._by_use.remove(chosen)
        self._by_use.append(chosen)
        return chosen

    # How many tokens `prompt` and the context have in common, not counting the persona; 0 unless
    # that is at least half of the shorter one, as it is within one conversation.
    @staticmethod
    def _likeness(context: Context, prompt: Sequence[int], shared: int) -> int:
        own = context.common_prefix(prompt) - shared
        shorter = min(len(prompt), len(context.tokens)) - shared
        return own if own > 0 and own >= _CONTINUED * shorter else 0
