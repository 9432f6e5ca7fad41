"""A place in a model file that is being read, and the refusal of a file."""

import mmap
import struct
from pathlib import Path

from server.model.errors import ModelFileError, NotForCtransformers


class Cursor:
    """Reads a file's bytes in order, `at` being the offset of the next one.

    Every method that reads raises ModelFileError where the file ends too early.
    """

    def __init__(self, path: Path, data: "mmap.mmap | bytes") -> None:
        self.path = path
        self.data = data
        self.at = 0

    def take(self, length: int) -> bytes:
        """The next `length` bytes."""
        self.skip(length)
        return self.data[self.at - length : self.at]

    def skip(self, length: int) -> None:
        """Leave `length` bytes out."""
        if length > len(self.data) - self.at:
            raise ModelFileError(
                f"The model file {self.path} is truncated: it ends at byte {len(self.data):,} "
                f"and needs at least {self.at + length:,}."
            )
        self.at += length

    def align(self, alignment: int) -> None:
        """Go on to the next multiple of `alignment`."""
        self.at += -self.at % alignment

    def number(self, code: str) -> int:
        """The next number, a little-endian one of `struct`'s type `code`."""
        (value,) = struct.unpack("<" + code, self.take(struct.calcsize("<" + code)))
        return int(value)

    def strings(self, count: int) -> list[bytes]:
        """The next `count` strings, each after its length as a u64; a vocabulary has 50,000."""
        read_length, data, at, end = (
            struct.Struct("<Q").unpack_from,
            self.data,
            self.at,
            len(self.data),
        )
        found = []
        for _ in range(count):
            if at + 8 > end:
                break
            (length,) = read_length(data, at)
            at += 8 + length
            found.append(data[at - length : at])
        self.at = min(at, end)
        if at > end or len(found) < count:
            self.skip(max(1, at - end))
        return found

    def refuse(self, why: str) -> ModelFileError:
        """The error that says why the file cannot be used."""
        return ModelFileError(f"The model file {self.path} cannot be used: {why}.")

    def decline(self, why: str) -> NotForCtransformers:
        """The error that says why ctransformers cannot use the file, though llama.cpp may."""
        return NotForCtransformers(
            f"The model file {self.path} cannot be used by ctransformers: {why}."
        )
