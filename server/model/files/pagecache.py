"""Reads a model file into the system's page cache before it is mapped.

Mapping alone would leave the reading to page faults inside one call into C, which reports no
progress and cannot be cancelled; and a slow disk is faster when it is read in order.
"""

from collections.abc import Iterator
from pathlib import Path

PORTION_BYTES = 8 * 1024 * 1024


def read_through(path: Path) -> Iterator[int]:
    """Read the file once and discard it; yield after every portion how many bytes are done.

    Raises:
        OSError: if it cannot be read.
    """
    portion, done = bytearray(PORTION_BYTES), 0
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(portion):
            done += count
            yield done
