"""How many prompt tokens to evaluate between two looks at the cancel event.

Pure: told how long each slice took, it answers how large the next one may be. Large slices
read faster (SmolLM2, 2 threads: 110 tokens/s by ones, 172 by eights, 185 by 64s); small ones
let a cancelled prompt go sooner. So: the largest power of two that stays within the target.
"""

_TARGET_S = 0.2  # a person who presses Stop does not notice a quarter of a second
_LARGEST = 64  # beyond it nothing was gained (195 tokens/s by 128s)
_FIRST = 8


class SliceSize:
    """The size of the next slice, in tokens; starts small and learns the machine's speed."""

    def __init__(self) -> None:
        self.tokens = _FIRST

    def record(self, tokens: int, seconds: float) -> None:
        """Learn that a slice of `tokens` took `seconds`."""
        if seconds > _TARGET_S and self.tokens > 1:
            self.tokens //= 2
        elif tokens == self.tokens < _LARGEST and seconds < _TARGET_S / 2:
            self.tokens *= 2
