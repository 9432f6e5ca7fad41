"""Numbers within bounds, from text or from JSON: one sentence for whatever is outside."""

import math
from dataclasses import dataclass
from typing import Protocol, TypeVar

_MOST_DIGITS = 20  # more would only cost time: no bound is that large


N = TypeVar("N", bound=float, covariant=True)


class Bounds(Protocol[N]):
    """What `Whole` and `Real` have in common."""

    def parse(self, text: str) -> N:
        """The number that `text` spells."""

    def check(self, value: object) -> N:
        """`value`, if it is such a number."""


@dataclass(frozen=True, slots=True)
class Whole:
    """Whole numbers from `least` to `most`."""

    least: int
    most: int

    def parse(self, text: str) -> int:
        """The number that `text` spells in decimal digits.

        Raises:
            ValueError: if it spells none within the bounds; the message says what is wanted.
        """
        is_number = text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS
        return self.check(int(text) if is_number else None)

    def check(self, value: object) -> int:
        """`value`, if it is such a number; True and False are none.

        Raises:
            ValueError: if it is not.
        """
        is_whole = isinstance(value, int) and not isinstance(value, bool)
        if not is_whole or not self.least <= value <= self.most:  # type: ignore[operator]
            raise ValueError(self._wanted)
        return int(value)  # type: ignore[call-overload, no-any-return]

    @property
    def _wanted(self) -> str:
        if self.least == self.most:
            return f"must be {self.least}"
        return f"must be a whole number from {self.least} to {self.most}"


@dataclass(frozen=True, slots=True)
class Real:
    """Numbers from `least` to `most`."""

    least: float
    most: float

    def parse(self, text: str) -> float:
        """The number that `text` spells.

        Raises:
            ValueError: if it spells none within the bounds; the message says what is wanted.
        """
        try:
            return self.check(float(text))
        except ValueError:
            raise ValueError(self._wanted) from None

    def check(self, value: object) -> float:
        """`value`, if it is such a number; True, False, infinities and NaN are none.

        Raises:
            ValueError: if it is not.
        """
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or not self.least <= value <= self.most:  # type: ignore[operator]
            raise ValueError(self._wanted)
        number = float(value)  # type: ignore[arg-type]
        if not math.isfinite(number):
            raise ValueError(self._wanted)
        return number

    @property
    def _wanted(self) -> str:
        return f"must be a number from {self.least:g} to {self.most:g}"
