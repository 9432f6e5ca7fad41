"""How many prompt tokens to evaluate between two checks of the cancel event.

Pure: derives the size of the next batch from the time that the last one took. Large batches are
faster (SmolLM2, 2 threads: 110 tokens/s one by one, 172 in batches of 8, 185 in batches of 64);
small ones let a prompt be cancelled sooner. So a batch is as large as the target allows, and all
are of equal size, since a short last one would cost as much as a full one.

Where one token alone takes longer than the target, as with a 7B model on a Pi, a batch is one
token: cancelling comes first, though prefill loses what larger batches would save (on 2 cores of
an EPYC, 7B in q2_K: 8.8 prompt tokens/s instead of 10.1).
"""

_TARGET_S = 0.12  # even with a slow batch now and then, a cancel is noticed within 0.25 s
_LARGEST = 64  # beyond it little is gained (195 tokens/s in batches of 128)
_FIRST = 8


class BatchSize:
    """The size of the next batch, in tokens; starts small and learns the machine's speed."""

    def __init__(self) -> None:
        self._most = _FIRST

    def next(self, left: int) -> int:
        """The size of the next batch of a prompt with `left` tokens to go."""
        batches = -(-left // self._most)
        return -(-left // batches)

    def record(self, tokens: int, seconds: float) -> None:
        """Learn that a batch of `tokens` took `seconds`."""
        if tokens < min(self._most, _FIRST):  # a short last batch says nothing about full ones
            return
        within = int(tokens * _TARGET_S / seconds)
        # At most doubled: one lucky batch is no proof.
        self._most = max(1, min(within, 2 * self._most, _LARGEST))
