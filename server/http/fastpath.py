"""The fast path for the usual request: one that arrives whole and alone, with nothing unusual.

Two shortcuts past the parser. `Memo` knows the exact bytes of requests that were answered with a
cached response: the same bytes get the same response. That is as strict as before, since parser and
application have already judged these bytes. `read_plain_head` does in two regex passes what
parser.py does in steps that can wait for more bytes. It returns None unless the request is known to
be plain and valid; the parser then reads the same bytes. Whatever head it does return is the one
that the parser would return (the tests compare the two on every case and on random bytes).
"""

import re
from typing import NamedTuple

from server.http import response
from server.http.request import (
    FIELD_LINE,
    TOKEN,
    ParserLimits,
    RequestHead,
    is_authority,
    keeps_alive,
)

_MEMO_REQUESTS = 512
_MEMO_REQUEST_BYTES = 2048

# A head whose target needs no further checks, and whose lines are all valid.
_PLAIN_HEAD = re.compile(
    rb"(" + TOKEN + rb") (/[A-Za-z0-9\-._~:/?@!$&'()*+,;=]*+) HTTP/1\.(\d)\r\n"
    rb"(?:" + TOKEN + rb":[\t\x20-\x7e\x80-\xff]*+\r\n)*+\r\n"
)  # fmt: skip
_ODD_FIELDS = frozenset({b"content-length", b"transfer-encoding", b"expect"})


class Remembered(NamedTuple):
    """A prepared response, and what the log says about its request."""

    method: str
    path: str
    forwarded_for: bytes
    prepared: response.Prepared


class Memo:
    """Cached responses, keyed by the bytes of the request that they answer."""

    def __init__(self) -> None:
        self._answers: dict[bytes, Remembered] = {}

    def __len__(self) -> int:
        return len(self._answers)

    def get(self, received: bytes) -> Remembered | None:
        """The answer to these bytes, if they are one whole request that was answered before."""
        return self._answers.get(received)

    def remember(self, received: bytes, answer: Remembered) -> None:
        """Give the same bytes, one whole request, the same answer from now on."""
        if len(received) <= _MEMO_REQUEST_BYTES:
            if len(self._answers) >= _MEMO_REQUESTS:
                self._answers.clear()  # rare, and refilled at once
            self._answers[received] = answer

    def clear(self) -> None:
        """Forget all answers."""
        self._answers.clear()


def read_plain_head(data: bytes, limits: ParserLimits) -> RequestHead | None:
    """Parse `data` as one plain head without a body; None if it is anything else."""
    match = _PLAIN_HEAD.fullmatch(data)
    if match is None:
        return None
    method, target, minor = match.groups()
    start, end = match.end(3) + 2, len(data)
    if start - 2 > limits.request_line_bytes or end - start - 4 > limits.header_bytes:
        return None
    lines = FIELD_LINE.findall(data, start)
    fields = {name.lower(): value.strip(b" \t") for name, value in lines}
    # A repeated field is left to the parser, and so is CONNECT, whose target is never a path.
    if len(fields) < len(lines) or len(lines) > limits.header_count or method == b"CONNECT":
        return None
    if not _ODD_FIELDS.isdisjoint(fields) or not is_authority(fields.get(b"host", b"")):
        return None
    path, _, query = target.decode().partition("?")
    minor_version = int(minor)
    keep_alive = keeps_alive(fields, minor_version)
    return RequestHead(
        method.decode(), path, query, minor_version, fields, keep_alive, False, False
    )
