"""What the parts of a request's head mean.

Owns the target's four forms, the host, the connection's persistence and the body's length;
parser.py finds these parts in the bytes. Pure functions; whatever could be read in two ways
is refused (see parser.py).
"""

import re
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv6Address

from server.http.errors import BadRequest, MisdirectedRequest, NotImplementedHere

TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"  # RFC 9110 section 5.6.2
# The value is stripped afterwards: a pattern that did it could be made to backtrack.
FIELD_LINE = re.compile(rb"(" + TOKEN + rb"):([\t\x20-\x7e\x80-\xff]*+)\r\n")
_DIGITS = re.compile(rb"[0-9]+")
# RFC 3986 section 3.2.2 and 3.2.3, without user information (RFC 9110 section 4.2.4).
_AUTHORITY = re.compile(
    rb"(?:\[([0-9A-Fa-f:.]+)\]|\[[Vv][0-9A-Fa-f]+\.[A-Za-z0-9\-._~!$&'()*+,;=:]+\]"
    rb"|(?:[A-Za-z0-9\-._~!$&'()*+,;=]|%[0-9A-Fa-f]{2})+)(?::([0-9]*))?"
)
_MAX_PORT = 65535
_ABSOLUTE = re.compile(rb"http(s?)://([^/?]*)([^?]*)(?:\?(.*))?", re.IGNORECASE)
_BAD_PERCENT = re.compile(rb"%(?![0-9A-Fa-f]{2})")
MAX_SIZE_DIGITS = 15  # more than any limit can have; leading zeros do not count


@dataclass(frozen=True, slots=True)
class ParserLimits:
    """The sizes above which a request is refused."""

    request_line_bytes: int = 8 * 1024
    header_bytes: int = 16 * 1024  # all field lines together
    header_count: int = 100


@dataclass(slots=True)
class RequestHead:
    """A request line and its fields. Treat as read-only (frozen would cost 1 us each)."""

    method: str
    path: str  # as sent, still percent-encoded; "*" for OPTIONS *
    query: str  # as sent, without the question mark
    minor_version: int  # of HTTP/1
    fields: dict[bytes, bytes]  # names in lower case, repeated ones joined by ", "
    keep_alive: bool
    has_body: bool
    expects_continue: bool

    def get(self, name: bytes) -> str:
        """The value of the field `name` (lower case), or "" if it was not sent."""
        return self.fields.get(name, b"").decode("latin-1")

    @property
    def is_json(self) -> bool:
        """Whether the body is declared to be JSON (RFC 8259, and +json of RFC 6839)."""
        media_type = self.get(b"content-type").partition(";")[0].strip().lower()
        return media_type == "application/json" or media_type.endswith("+json")

    def members(self, name: bytes) -> list[str]:
        """The members of a list field, in lower case (RFC 9110 section 5.6.1)."""
        return [member.strip(" \t").lower() for member in self.get(name).split(",")]


def split_target(method: bytes, target: bytes) -> tuple[bytes, bytes, bytes | None]:
    """Path, query and authority of a target in one of its four forms (RFC 9112 section 3.2).

    The authority is None where the target has none.

    Raises:
        BadRequest, MisdirectedRequest, NotImplementedHere: if it is malformed or not served.
    """
    # Browsers leave a stray % in a query as it is (WHATWG URL standard).
    if _BAD_PERCENT.search(target.partition(b"?")[0]):
        raise BadRequest("The request target has a broken percent-encoding.")
    if method == b"CONNECT":
        raise NotImplementedHere("This server is not a proxy: CONNECT is not implemented.")
    if target.startswith(b"/"):
        path, _, query = target.partition(b"?")
        if b"[" in path or b"]" in path:
            raise BadRequest("The request target is not valid HTTP/1.1.")
        return path, query, None
    if target == b"*":
        if method != b"OPTIONS":
            raise BadRequest("The request target * is for OPTIONS only.")
        return target, b"", None
    match = _ABSOLUTE.fullmatch(target)
    if match is None or not is_authority(match[2]) or b"[" in match[3] or b"]" in match[3]:
        raise BadRequest("The request target is not valid HTTP/1.1.")
    if match[1]:  # RFC 9110 section 7.4: it did not come over TLS
        raise MisdirectedRequest("This connection is not secured, so https is not served on it.")
    # Section 3.2.2: the authority in the target takes the place of Host.
    return match[3] or b"/", match[4] or b"", match[2]


def check_host(fields: dict[bytes, bytes], minor: int) -> None:
    """Check for one host that is not empty (RFC 9112 section 3.2, RFC 9110 section 4.2.1).

    Raises:
        BadRequest: if not.
    """
    host = fields.get(b"host")
    if host is None:
        if minor > 0:
            raise BadRequest("An HTTP/1.1 request needs a Host field.")
    elif not is_authority(host):
        raise BadRequest("The Host field is not a valid host.")


@lru_cache(maxsize=64)
def is_authority(value: bytes) -> bool:
    """Whether `value` is a host with or without a port, and without user information."""
    match = _AUTHORITY.fullmatch(value)
    if match is None or int((match[2] or b"0")[:6]) > _MAX_PORT:
        return False
    if match[1] is None:
        return True
    try:
        IPv6Address(match[1].decode())
    except ValueError:
        return False
    return True


def keeps_alive(fields: dict[bytes, bytes], minor: int) -> bool:
    """Whether the client wants the connection to stay open (RFC 9112 section 9.3)."""
    if b"connection" not in fields:
        return minor > 0
    options = {option.strip(b" \t").lower() for option in fields[b"connection"].split(b",")}
    return b"close" not in options and (minor > 0 or b"keep-alive" in options)


def parse_length(value: bytes) -> int:
    """Parse a Content-Length; a value above every limit is truncated, but stays above it.

    Raises:
        BadRequest: if it is anything but digits.
    """
    if not _DIGITS.fullmatch(value):
        raise BadRequest("Content-Length is not a number.")
    # Longer ones need no exact value: they are above every limit (and int() has a limit, too).
    return int((value.lstrip(b"0") or b"0")[: MAX_SIZE_DIGITS + 1])


def check_coding(value: bytes) -> None:
    """Check that the transfer coding is `chunked` and nothing else (RFC 9112 section 6.1).

    Raises:
        BadRequest: if the last coding is not chunked: the body's length is unknowable.
        NotImplementedHere: for another coding before it.
    """
    codings = [coding.strip(b" \t").lower() for coding in value.split(b",")]
    if codings == [b"chunked"]:
        return
    if codings[-1] != b"chunked" or codings.count(b"chunked") > 1 or b"" in codings:
        raise BadRequest("The last transfer coding, and only the last, must be chunked.")
    raise NotImplementedHere("The only transfer coding implemented is chunked.")
