"""Responses as bytes: heads, chunks, trailers. No I/O; RFC 9112 sections 4, 6 and 7."""

import time
from collections.abc import Iterable
from email.utils import formatdate
from http import HTTPStatus

Header = tuple[str, str]

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
# Python up to 3.12 has the names that RFC 9110 replaced.
_PHRASES = {413: "Content Too Large", 414: "URI Too Long"}
STATUS_LINES = {
    code.value: f"HTTP/1.1 {code.value} {_PHRASES.get(code, code.phrase)}\r\nDate: ".encode()
    for code in HTTPStatus
}


class DateClock:
    """The Date field's value, formatted once a second (RFC 9110 section 6.6.1)."""

    def __init__(self) -> None:
        self._second = 0
        self._value = b""

    def now(self) -> bytes:
        """The current time as an IMF-fixdate, for example Sun, 06 Nov 1994 08:49:37 GMT."""
        second = int(time.time())
        if second != self._second:
            self._second = second
            self._value = formatdate(second, usegmt=True).encode()
        return self._value


class Prepared:
    """A whole response in memory except for its date, assembled at most once a second."""

    __slots__ = ("_date", "_rest", "_whole", "status")

    def __init__(self, status: int, rest: bytes) -> None:
        """`rest` is everything after the date, from its line end on."""
        self.status = status
        self._rest = rest
        self._date = b""
        self._whole = b""

    def at(self, date: bytes) -> bytes:
        """The response's bytes with `date` in its Date field."""
        if date is not self._date:  # DateClock gives the same object for a whole second
            self._date = date
            self._whole = b"".join((STATUS_LINES[self.status], date, self._rest))
        return self._whole


def head(status: int, date: bytes, headers: Iterable[Header]) -> bytes:
    """A status line, Date and `headers`, up to and including the empty line."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers)
    return b"".join((STATUS_LINES[status], date, b"\r\n", lines.encode("latin-1"), b"\r\n"))


def whole(status: int, date: bytes, headers: Iterable[Header], body: bytes, method: str) -> bytes:
    """A complete response to a request with `method`; HEAD gets it without the `body`."""
    lines = [*headers]
    if status not in (204, 304):  # RFC 9110 section 8.6
        lines.append(("Content-Length", str(len(body))))
    return head(status, date, lines) + (b"" if method == "HEAD" else body)


def chunk(data: bytes) -> bytes:
    """One chunk. `data` must not be empty: an empty chunk ends the body."""
    assert data
    return b"%x\r\n%b\r\n" % (len(data), data)


def last_chunk(trailers: Iterable[Header] = ()) -> bytes:
    """The end of a chunked body, with its trailer fields."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in trailers)
    return b"0\r\n" + lines.encode("latin-1") + b"\r\n"
