"""Bounded numbers from text or JSON, with one error sentence for whatever is out of bounds."""

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
        """Parse `text` as a number.

        Raises:
            ValueError: if it is not a number within the bounds; the message says what is accepted.
        """
        try:
            number = self._spelled(text)
        except ValueError:
            raise self._refusal() from None
        return self.check(number)

    def check(self, value: object) -> N:
        """Return `value` if it is within the bounds; booleans, infinities and NaN never are.

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
    """Whole numbers, written in decimal digits."""

    _types = (int,)
    _noun = "whole number"
    _format = "d"

    @staticmethod
    def _spelled(text: str) -> int:
        digits = text.removeprefix("-")
        if not (digits.isascii() and digits.isdigit() and len(digits) <= _MOST_DIGITS):
            raise ValueError
        return int(text)


class Real(Bounds[float]):
    """Numbers, in any notation that Python's `float` accepts."""

    _types = (float, int)
    _noun = "number"
    _format = "g"

    @staticmethod
    def _spelled(text: str) -> float:
        return float(text)


TEMPERATURE = Real(0, 2)  # of sampling, in options and in requests
