"""The usual request, for speed: a head that came whole and alone, with nothing odd about it.

Two passes of compiled patterns over its bytes do what parser.py does in steps that can wait
for more. It answers None for whatever it does not know to be plain and right: the parser
then reads the same bytes, and must come to the same head where this one does (the tests
hold the two against each other on every case and on made-up bytes).
"""

import re

from server.http.request import (
    FIELD_LINE,
    TOKEN,
    ParserLimits,
    RequestHead,
    is_authority,
    keeps_alive,
)

# A head whose target needs no second look, and whose every line is in order.
_PLAIN_HEAD = re.compile(
    rb"(" + TOKEN + rb") (/[A-Za-z0-9\-._~:/?@!$&'()*+,;=]*+) HTTP/1\.(\d)\r\n"
    rb"(?:" + TOKEN + rb":[\t\x20-\x7e\x80-\xff]*+\r\n)*+\r\n"
)  # fmt: skip
_ODD_FIELDS = frozenset({b"content-length", b"transfer-encoding", b"expect"})


def read_plain_head(data: bytes, limits: ParserLimits) -> RequestHead | None:
    """The head that `data` is, if it is a plain one without a body; else None."""
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
