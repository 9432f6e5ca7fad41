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

LARGEST_BATCH = 512  # ggml's buffers are made for it; a larger one ends the process
_CONTINUED = 0.5


class Context:
    """Used on the model thread only."""

    def __init__(self, llm: Any, batch: int) -> None:
        self._llm = llm
        self.batch = batch  # tokens of a whole one
        # Tokens at the front that were evaluated in whole batches. Only these are reused: the rest
        # is rounded differently when it stands elsewhere in a batch.
        self._in_batches = 0
        self._logits_address = 0
        self._logits_view: Logits = np.empty(0, dtype=np.float32)
        self.length: int = llm.context_length  # tokens that it has room for

    @property
    def tokens(self) -> Sequence[int]:
        """What it holds."""
        held: list[int] = self._llm._context
        return held

    def common_prefix(self, prompt: Sequence[int]) -> int:
        """How many tokens `prompt` and this context begin with alike."""
        pairs = zip(prompt, self.tokens, strict=False)
        return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))

    def keep_prefix(self, prompt: Sequence[int]) -> int:
        """Keep the whole batches that `prompt` begins with too, and leave it a token at least.

        Returns:
            How many tokens are kept.
        """
        common = min(self.common_prefix(prompt), self._in_batches, len(prompt) - 1)
        self._in_batches = common - common % self.batch
        del self._llm._context[self._in_batches :]
        return self._in_batches

    def evaluate(self, tokens: Sequence[int], threads: int) -> None:
        """Append `tokens`, at most LARGEST_BATCH, in one call into ggml.

        Raises:
            RuntimeError: if ggml fails.
        """
        assert len(tokens) <= LARGEST_BATCH
        held = len(self.tokens)
        assert held + len(tokens) <= self.length
        self._llm.eval(tokens, batch_size=len(tokens), threads=threads)
        if held == self._in_batches and len(tokens) == self.batch:
            self._in_batches += self.batch

    def logits(self) -> Logits:
        """Those of the last token, in ggml's own buffer: writable, until the next evaluation."""
        pointer = self._llm.ctransformers_llm_logits_data()
        address = ctypes.addressof(pointer.contents)
        if address != self._logits_address:  # the next evaluation may move it
            self._logits_address = address
            self._logits_view = np.ctypeslib.as_array(pointer, shape=(self._llm.vocab_size,))
        return self._logits_view


class Contexts:
    """Several contexts: each prompt gets the one that it goes on with, or the stalest.

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
        """How many tokens of the persona `prompt` begins with: all, or with another text none."""
        length = len(self._persona)
        return length if tuple(prompt[:length]) == self._persona else 0

    def take(self, prompt: Sequence[int]) -> Context:
        """The context for `prompt`, which now is the most recently used."""
        shared = self.persona_prefix(prompt)
        # `max` takes the first, the stalest, of equals.
        chosen = max(self._by_use, key=lambda context: self._likeness(context, prompt, shared))
        self._by_use.remove(chosen)
        self._by_use.append(chosen)
        return chosen

    # How much of a talk `prompt` and what the context holds have in common, if it is one talk:
    # then at least half of the shorter one, not counting the persona.
    @staticmethod
    def _likeness(context: Context, prompt: Sequence[int], shared: int) -> int:
        own = context.common_prefix(prompt) - shared
        shorter = min(len(prompt), len(context.tokens)) - shared
        return own if own > 0 and own >= _CONTINUED * shorter else 0
