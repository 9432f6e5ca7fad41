"""HTTP/1.1 requests from bytes, without I/O: RFC 9112, read strictly.

Feed bytes in any portions with `receive`; read a message in two steps, `read_head` and
then `read_body`, each of which returns None until enough has arrived. Between the two, the
server decides on the body: refuse it, or send `100 Continue`.

Guarantees:
  * Any split of the same bytes gives the same heads, bodies and errors.
  * Only `HttpError`s are raised. After one, the parser must not be used again: what follows
    on the connection must not be read as a request (RFC 9112 section 11.2).
  * Memory is bounded: the limits below, plus what one `receive` brought.

Strictness. Wherever RFC 9112 lets a recipient be lenient and a proxy in front might read
the same bytes differently, the message is refused (request smuggling, section 11.2):
  * lines end in CRLF; a bare LF or CR is an error (section 2.2 would allow a bare LF);
  * one space between the parts of the request line (section 3 allows more);
  * no line folding (section 5.2), no whitespace before the colon (section 5.1, a MUST);
  * Content-Length is given once, as digits, and never together with Transfer-Encoding;
  * the only transfer coding is `chunked`, given once, in exactly that word; empty list
    members around it (RFC 9110 section 5.6.1 would ignore some) are refused as well.
"""

import re
from enum import Enum

from server.http.errors import (
    BadRequest,
    ContentTooLarge,
    ExpectationFailed,
    FieldsTooLarge,
    HttpError,
    NotImplementedHere,
    TargetTooLong,
    VersionNotSupported,
)
from server.http.request import (
    FIELD_LINE,
    MAX_SIZE_DIGITS,
    TOKEN,
    ParserLimits,
    RequestHead,
    check_coding,
    check_host,
    keeps_alive,
    parse_length,
    split_target,
)

# RFC 3986's characters for the target; in a query also those that browsers leave as they are
# (WHATWG URL standard, query percent-encode set).
_REQUEST_LINE = re.compile(
    rb"(" + TOKEN + rb") ([A-Za-z0-9\-._~:/\[\]@!$&'()*+,;=%]+"
    rb"(?:\?[A-Za-z0-9\-._~:/?\[\]@!$&'()*+,;=%|{}^\\`]*)?) HTTP/(\d)\.(\d)\r\n"
)  # fmt: skip
_STRAY_LINE_END = re.compile(rb"(?<!\r)\n|\r[^\n]")
_LONGEST_METHOD = 64  # far longer than any that exists
# RFC 9112 section 7.1.1; possessive, so that nothing can be made to backtrack.
_QUOTED = rb'"(?:[\t \x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t\x20-\x7e\x80-\xff])*+"'
_CHUNK_LINE = re.compile(
    rb"([0-9A-Fa-f]+)((?:[\t ]*+;[\t ]*+" + TOKEN
    + rb"(?:[\t ]*+=[\t ]*+(?:" + TOKEN + rb"|" + _QUOTED + rb"))?+)*+)\r\n"
)  # fmt: skip
_MAX_CHUNK_LINE_BYTES = 256
_MAX_EXTENSION_BYTES = 4096  # per message, all chunks together
_CRLF = b"\r\n"

_ONCE = frozenset({b"host", b"content-length", b"transfer-encoding", b"content-type", b"expect"})


class _State(Enum):
    START = "before a request line"
    FIELDS = "among the fields"
    COUNTED = "in a body of known length"
    CHUNK_LINE = "before a chunk"
    CHUNK_DATA = "in a chunk"
    CHUNK_END = "after a chunk's data"
    TRAILERS = "after the last chunk"
    DONE = "body complete"


class RequestParser:
    """Parses one connection's requests, one after the other."""

    __slots__ = (
        "_at",
        "_authority",
        "_blank_lines",
        "_body",
        "_buffer",
        "_extension_bytes",
        "_field_bytes",
        "_field_count",
        "_fields",
        "_limits",
        "_line",
        "_missing",
        "_searched",
        "_state",
    )

    def __init__(self, limits: ParserLimits) -> None:
        self._limits = limits
        self._buffer = bytearray()
        self._at = 0  # everything before it has been read
        self._searched = 0  # everything before it has been searched for a line's end
        self._state = _State.START
        # Of the request being read.
        self._blank_lines = 0
        self._line: tuple[str, str, str, int] = ("", "", "", 0)
        self._authority: bytes | None = None  # of the target, which takes the place of Host
        self._fields: dict[bytes, bytes] = {}
        self._field_bytes = 0
        self._field_count = 0
        self._body = bytearray()
        self._missing = 0  # bytes of the body or the chunk still to come
        self._extension_bytes = 0

    def receive(self, data: bytes) -> None:
        """Append the next bytes of the connection."""
        self._buffer += data

    @property
    def is_between_requests(self) -> bool:
        """Whether no byte of the next request has arrived."""
        return not self._buffer and self._state is _State.START and not self._blank_lines

    # -- head ---------------------------------------------------------------------------

    def read_head(self) -> RequestHead | None:
        """The next request's head, or None until all of it has arrived.

        Raises:
            HttpError: 400, 414, 417, 431, 501 or 505.
        """
        if self._is_line_unfinished():
            return None
        if self._state is _State.START and self._read_request_line():
            self._state = _State.FIELDS
            self._start_fields()
        is_whole = self._state is _State.FIELDS and self._read_fields()
        self._compact()
        return self._make_head() if is_whole else None

    # True if the new bytes cannot complete the pending line, so searching again is useless. Without
    # this, a line that trickles in would be searched from its start for every byte: 7 s of work for
    # 16 KiB.
    def _is_line_unfinished(self) -> bool:
        buffer, start = self._buffer, max(self._at, self._searched - 1)
        self._searched = len(buffer)
        if buffer.find(b"\n", start) >= 0 or buffer.find(b"\r", start) >= 0:
            return False
        most = self._limits.request_line_bytes
        if self._state is not _State.START:
            most = self._limits.header_bytes - self._field_bytes
        return len(buffer) - self._at <= most

    @property
    def request_line(self) -> tuple[str, str]:
        """Method and path of the request being read, as far as they are known, else "-"."""
        if self._state is not _State.START:
            return self._line[0], self._line[1]
        return ("HEAD" if self._buffer.startswith(b"HEAD ", self._at) else "-"), "-"

    def _read_request_line(self) -> bool:
        match = _REQUEST_LINE.match(self._buffer, self._at)
        limit = self._limits.request_line_bytes
        if match is None or match.end() - self._at - 2 > limit:
            return self._explain_request_line(limit)
        method, target, major, minor = match.groups()
        if major != b"1":
            raise VersionNotSupported("Only HTTP/1.1 and HTTP/1.0 are supported.")
        path, query, self._authority = split_target(method, target)
        self._line = (method.decode(), path.decode(), query.decode(), int(minor))
        self._at = match.end()
        return True

    # False if the line is incomplete; skips one empty line; raises if the line is wrong.
    def _explain_request_line(self, limit: int) -> bool:
        end = self._line_end(limit, self._line_too_long(limit))
        if end is None:
            return False
        # RFC 9112 section 2.2: ignore at least one empty line before the request line.
        if end == self._at and self._blank_lines == 0:
            self._blank_lines = 1
            self._at += 2
            return self._read_request_line()
        raise BadRequest("The request line is not valid HTTP/1.1.")

    # RFC 9112 section 3: 501 for a method longer than any known one, 414 for a long target.
    def _line_too_long(self, limit: int) -> HttpError:
        if self._buffer.find(b" ", self._at, self._at + _LONGEST_METHOD) < 0:
            return NotImplementedHere("That method is not implemented.")
        return TargetTooLong(f"The request line is over {limit} bytes.")

    def _start_fields(self) -> None:
        self._blank_lines = 0
        self._fields = {}
        self._field_bytes = self._field_count = 0

    # True when the empty line after the fields has been read; used for trailers, too.
    def _read_fields(self) -> bool:
        buffer, fields = self._buffer, self._fields
        while match := FIELD_LINE.match(buffer, self._at):
            self._count_field(match.end() - self._at)
            self._at = match.end()
            name, value = match[1].lower(), match[2].strip(b" \t")
            if name not in fields:
                fields[name] = value
            elif name in _ONCE:
                raise BadRequest(f"The field {name.decode()} was sent more than once.")
            else:
                fields[name] += b", " + value
        if buffer.startswith(_CRLF, self._at):
            self._at += 2
            return True
        left = max(0, self._limits.header_bytes - self._field_bytes)
        end = self._line_end(left, self._fields_too_large())
        if end is None:
            return False
        raise BadRequest("A header line is not valid HTTP/1.1.")

    def _count_field(self, line_bytes: int) -> None:
        self._field_bytes += line_bytes
        self._field_count += 1
        # Size before count: a line that never ends is judged by its size alone.
        if self._field_bytes - 2 > self._limits.header_bytes:
            raise self._fields_too_large()
        if self._field_count > self._limits.header_count:
            raise FieldsTooLarge(f"There are over {self._limits.header_count} header lines.")

    def _fields_too_large(self) -> HttpError:
        return FieldsTooLarge(f"The header is over {self._limits.header_bytes} bytes.")

    # Where the line at `_at` ends, or None if its end has not arrived. Only the first `limit`
    # bytes are looked at, so that any split of the same bytes gives the same result.
    def _line_end(self, limit: int, too_long: HttpError) -> int | None:
        last = self._at + limit + 2
        end = self._buffer.find(_CRLF, self._at, last)
        stop = min(last, len(self._buffer)) if end < 0 else end + 2
        if _STRAY_LINE_END.search(self._buffer, self._at, stop):
            raise BadRequest("Lines must end in CRLF; CR and LF are allowed nowhere else.")
        if end >= 0:
            return end
        if len(self._buffer) >= last:
            raise too_long
        return None

    def _make_head(self) -> RequestHead:
        method, path, query, minor = self._line
        fields = self._fields
        check_host(fields, minor)
        if self._authority is not None:
            fields[b"host"] = self._authority
        has_body = self._frame_body(minor)
        keep_alive = keeps_alive(fields, minor)
        expects = b"expect" in fields and self._check_expectation(minor, has_body)
        return RequestHead(method, path, query, minor, fields, keep_alive, has_body, expects)

    # RFC 9112 section 6.3: find the body's length, and refuse whatever makes it ambiguous.
    def _frame_body(self, minor: int) -> bool:
        length = self._fields.get(b"content-length")
        coding = self._fields.get(b"transfer-encoding")
        if coding is not None:
            if length is not None:
                raise BadRequest("Content-Length and Transfer-Encoding must not be combined.")
            if minor == 0:
                raise BadRequest("Transfer-Encoding does not exist in HTTP/1.0.")
            check_coding(coding)
            self._state = _State.CHUNK_LINE
            return True
        self._missing = 0 if length is None else parse_length(length)
        self._state = _State.COUNTED if self._missing else _State.START
        return self._missing > 0

    # RFC 9110 section 10.1.1: an HTTP/1.0 expectation is ignored, and so is one without body.
    def _check_expectation(self, minor: int, has_body: bool) -> bool:
        if minor == 0:
            return False
        if self._fields[b"expect"].lower() != b"100-continue":
            raise ExpectationFailed("Only Expect: 100-continue is supported.")
        return has_body

    # -- body ---------------------------------------------------------------------------

    def read_body(self, limit: int) -> bytes | None:
        """The whole body of the request whose head was read, or None until it has arrived.

        Only for a head that has one (`has_body`).

        Args:
            limit: the maximum size in bytes.

        Raises:
            HttpError: 400, 413 or 431.
        """
        if self._state is _State.COUNTED:
            self._check_size(limit)
            self._take_body_bytes()
            if not self._missing:
                self._state = _State.DONE
        while self._state not in (_State.COUNTED, _State.DONE):
            if not self._read_chunk_part(limit):
                break
        self._compact()
        if self._state is not _State.DONE:
            return None
        body = bytes(self._body)
        self._body.clear()
        self._extension_bytes = 0
        self._state = _State.START
        return body

    @property
    def has_body_begun(self) -> bool:
        """Whether bytes of the body have arrived, so that `100 Continue` is not needed."""
        return self._at < len(self._buffer) or bool(self._body)

    def _check_size(self, limit: int) -> None:
        if len(self._body) + self._missing > limit:
            raise ContentTooLarge(f"The body is over {limit} bytes.")

    def _take_body_bytes(self) -> None:
        part = self._buffer[self._at : self._at + self._missing]
        self._body += part
        self._at += len(part)
        self._missing -= len(part)

    # RFC 9112 section 7.1. One step; False if more bytes are needed for it.
    def _read_chunk_part(self, limit: int) -> bool:
        match self._state:
            case _State.CHUNK_LINE:
                return self._read_chunk_line(limit)
            case _State.CHUNK_DATA:
                self._take_body_bytes()
                if self._missing:
                    return False
                self._state = _State.CHUNK_END
                return True
            case _State.CHUNK_END:
                return self._read_chunk_end()
            case _:
                # Trailers are checked and counted like fields, and then dropped: none is
                # defined for what this server accepts (section 7.1.2 allows it).
                if self._is_line_unfinished() or not self._read_fields():
                    return False
                self._state = _State.DONE
                return True

    def _read_chunk_line(self, limit: int) -> bool:
        match = _CHUNK_LINE.match(self._buffer, self._at)
        if match is None or match.end() - self._at - 2 > _MAX_CHUNK_LINE_BYTES:
            too_long = BadRequest(f"A chunk's first line is over {_MAX_CHUNK_LINE_BYTES} bytes.")
            if self._line_end(_MAX_CHUNK_LINE_BYTES, too_long) is None:
                return False
            raise BadRequest("A chunk's first line is not valid HTTP/1.1.")
        self._extension_bytes += len(match[2])
        if self._extension_bytes > _MAX_EXTENSION_BYTES:
            raise BadRequest(f"The chunk extensions are over {_MAX_EXTENSION_BYTES} bytes.")
        self._at = match.end()
        digits = match[1].lstrip(b"0") or b"0"
        self._missing = int(digits[: MAX_SIZE_DIGITS + 1], 16)
        self._check_size(limit)
        if self._missing:
            self._state = _State.CHUNK_DATA
        else:
            self._state = _State.TRAILERS
            self._start_fields()
        return True

    def _read_chunk_end(self) -> bool:
        following = bytes(self._buffer[self._at : self._at + 2])
        if not _CRLF.startswith(following):
            raise BadRequest("A chunk's data is not followed by CRLF.")
        if len(following) < 2:
            return False
        self._at += 2
        self._state = _State.CHUNK_LINE
        return True

    # Forget what has been read. Deleting from the front is cheap in a bytearray.
    def _compact(self) -> None:
        if self._at:
            del self._buffer[: self._at]
            self._at = self._searched = 0
