"""The tokens of each context, and which of them can be reused.

A context is a KV cache (backends/) with the tokens whose keys and values it holds. Several contexts
share the weights; each has its own cache (files/footprint.py knows its size). llama.cpp calls them
slots.
"""

import threading
from collections.abc import Iterator, Sequence
from itertools import takewhile

from server.model.backends import LARGEST_BATCH, Cache, Logits
from server.model.kvfile import KVFile

_CONTINUED = 0.5


class Context:
    """One KV cache and its tokens. Used on the model thread only."""

    def __init__(self, cache: Cache, batch: int) -> None:
        self._cache = cache
        self.batch = batch  # tokens of a whole one
        self._tokens: list[int] = []
        # Only tokens that were evaluated in whole batches are reused: the rest are rounded
        # differently when they stand elsewhere in a batch.
        self._reusable = 0
        self.length = cache.length  # in tokens

    @property
    def tokens(self) -> Sequence[int]:
        """The tokens that it holds."""
        return self._tokens

    def common_prefix(self, prompt: Sequence[int]) -> int:
        """The length of the prefix that `prompt` and this context have in common."""
        pairs = zip(prompt, self._tokens, strict=False)
        return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))

    def keep_prefix(self, prompt: Sequence[int], borders: Sequence[int]) -> int:
        """Keep the whole batches that `prompt` begins with too, and leave it a token at least.

        Returns:
            How many tokens are kept: one of `borders` (batches.py).
        """
        common = min(self.common_prefix(prompt), self._reusable, max(0, len(prompt) - 1))
        wanted = max(border for border in borders if border <= common)
        self._reusable = wanted if self._cache.cut(wanted) else 0
        del self._tokens[self._reusable :]
        return self._reusable

    def restore(self, kv_file: KVFile) -> bool:
        """Read the persona's keys and values; False if they must be evaluated instead."""
        if not kv_file.read(self._cache):
            return False
        self._tokens = list(kv_file.tokens)
        self._reusable = len(self._tokens)  # the persona ends with a border
        return True

    def keep(self, kv_file: KVFile, took_s: float) -> None:
        """Save the persona, which must be all that was evaluated so far, for the next start."""
        kv_file.write(self._cache, took_s)

    def evaluate(
        self,
        tokens: Sequence[int],
        threads: int,
        cancelled: threading.Event,
        is_reusable: bool,
        wants_logits: bool,
    ) -> bool:
        """Append `tokens`, at most LARGEST_BATCH, in one call into ggml.

        `is_reusable` says that these and all tokens before them were cut at borders (batches.py).

        Returns:
            False if it was cancelled before the end; call `keep_prefix` before the next `evaluate`.

        Raises:
            RuntimeError: if ggml fails.
        """
        assert len(tokens) <= LARGEST_BATCH
        assert len(self._tokens) + len(tokens) <= self.length
        if not self._cache.evaluate(tokens, threads, cancelled, wants_logits):
            return False
        self._tokens += tokens
        if is_reusable:
            self._reusable = len(self._tokens)
        return True

    def logits(self) -> Logits:
        """The last token's logits: writable, until the next evaluation."""
        return self._cache.logits()


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
