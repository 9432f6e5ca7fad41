"""How many prompt tokens to evaluate between two looks at the cancel event.

Pure: from the time that each slice took, it finds the size of the next. (llama.cpp calls a
slice a batch.) Large slices
read faster (SmolLM2, 2 threads: 110 tokens/s by ones, 172 by eights, 185 by 64s); small ones
let a cancelled prompt go sooner. So: as large as the target allows, and of equal size, since
a short rest would cost as much as a slice.

Where one token alone takes longer than the target, as with a 7B model on a Pi, a slice is one
token: cancelling comes first, though reading is slower by what batches would have saved (on
2 cores of an EPYC, 7B in q2_K: 8.8 prompt tokens/s instead of 10.1).
"""

_TARGET_S = 0.12  # with the odd slow slice, an event is still noticed within a quarter of a second
_LARGEST = 64  # beyond it nothing was gained (195 tokens/s by 128s)
_FIRST = 8


class SliceSize:
    """The size of the next slice, in tokens; starts small and learns the machine's speed."""

    def __init__(self) -> None:
        self._most = _FIRST

    def next(self, left: int) -> int:
        """The size of the next slice of a prompt with `left` tokens to go."""
        slices = -(-left // self._most)
        return -(-left // slices)

    def record(self, tokens: int, seconds: float) -> None:
        """Learn that a slice of `tokens` took `seconds`."""
        if tokens < min(self._most, _FIRST):  # a short last slice says nothing about full ones
            return
        within = int(tokens * _TARGET_S / seconds)
        # At most doubled: one lucky slice is no proof.
        self._most = max(1, min(within, 2 * self._most, _LARGEST))
