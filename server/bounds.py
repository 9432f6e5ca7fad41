"""Numbers within bounds, from text or from JSON: one sentence for whatever is outside."""

from dataclasses import dataclass
from typing import ClassVar, Generic, TypeVar

_MOST_DIGITS = 20  # more would only cost time: no bound is that large

N = TypeVar("N", int, float)


@dataclass(frozen=True, slots=True)
class Bounds(Generic[N]):
    """Numbers from `least` to `most`, both finite. Use `Whole` or `Real`."""

    least: N
    most: N

    _types: ClassVar[tuple[type, ...]]
    _noun: ClassVar[str]
    _format: ClassVar[str]

    def parse(self, text: str) -> N:
        """The number that `text` spells.

        Raises:
            ValueError: if it spells none within the bounds; the message says what is wanted.
        """
        try:
            number = self._spelled(text)
        except ValueError:
            raise self._refusal() from None
        return self.check(number)

    def check(self, value: object) -> N:
        """`value`, if it is such a number; True, False, infinities and NaN are none.

        Raises:
            ValueError: if it is not.
        """
        is_number = isinstance(value, self._types) and not isinstance(value, bool)
        if not is_number or not self.least <= value <= self.most:  # type: ignore[operator]
            raise self._refusal()
        number: N = self._types[0](value)
        return number

    @staticmethod
    def _spelled(text: str) -> N:
        raise NotImplementedError

    def _refusal(self) -> ValueError:
        if self.least == self.most:
            return ValueError(f"must be {self.least:{self._format}}")
        span = f"from {self.least:{self._format}} to {self.most:{self._format}}"
        return ValueError(f"must be a {self._noun} {span}")


class Whole(Bounds[int]):
    """Whole numbers, spelled in decimal digits."""

    _types = (int,)
    _noun = "whole number"
    _format = "d"

    @staticmethod
    def _spelled(text: str) -> int:
        if not (text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS):
            raise ValueError
        return int(text)


class Real(Bounds[float]):
    """Numbers, spelled as Python spells a float."""

    _types = (float, int)
    _noun = "number"
    _format = "g"

    @staticmethod
    def _spelled(text: str) -> float:
        return float(text)
