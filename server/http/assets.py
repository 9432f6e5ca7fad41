"""The page and its files, read once at start and served from memory.

Owns a table from exact URL paths to prepared responses. A request never reaches the file
system, so no path, however written, can leave the table. Files are gzipped at start where
that makes them smaller; each encoding has its own strong ETag (RFC 9110 section 8.8.3).

No ranges (`Accept-Ranges: none`, RFC 9110 section 14.3): every file is a few KB.
"""

import gzip
import hashlib
import mimetypes
import re
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import formatdate
from functools import lru_cache
from pathlib import Path

from server.http.errors import PreconditionFailed
from server.http.request import RequestHead
from server.http.response import Prepared

# Only our own files, no inline code, no framing: what the page needs and nothing else.
_CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".webmanifest": "application/manifest+json",
}
_CONDITIONS = frozenset(
    {b"if-match", b"if-unmodified-since", b"if-none-match", b"if-modified-since"}
)
# RFC 9110 section 5.6.7: IMF-fixdate, and two obsolete forms that must still be read.
_ASCTIME = "%a %b %d %H:%M:%S %Y"
_DATE_PATTERNS = ("%a, %d %b %Y %H:%M:%S GMT", "%A, %d-%b-%y %H:%M:%S GMT", _ASCTIME)
_WEIGHT = re.compile(rb"q=(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)")
_CLOSE = "Connection: close\r\n"
_KEEP_ALIVE_1_0 = "Connection: keep-alive\r\n"  # HTTP/1.0 closes otherwise
_KEEP_ALIVE = ""
_NOT_MODIFIED = "304"


@dataclass(frozen=True, slots=True)
class _Variant:
    etag: bytes
    # Keyed by what is answered (GET, HEAD or _NOT_MODIFIED) and the Connection line.
    responses: dict[tuple[str, str], Prepared]


@dataclass(frozen=True, slots=True)
class Asset:
    """One file in all the forms it is served in."""

    identity: _Variant
    gzipped: _Variant | None
    modified_at: int  # seconds since the epoch

    def respond(self, head: RequestHead, keep_alive: bool) -> Prepared:
        """The whole response to a GET or HEAD.

        Raises:
            PreconditionFailed: if If-Match or If-Unmodified-Since does not hold.
        """
        variant = self.identity
        fields = head.fields
        accepted = fields.get(b"accept-encoding")
        if accepted is not None and self.gzipped and _accepts_gzip(accepted):
            variant = self.gzipped
        if keep_alive:
            connection = _KEEP_ALIVE if head.minor_version else _KEEP_ALIVE_1_0
        else:
            connection = _CLOSE
        if not _CONDITIONS.isdisjoint(fields) and self._is_unchanged(head, variant):
            return variant.responses[_NOT_MODIFIED, connection]
        return variant.responses[head.method, connection]

    # RFC 9110 section 13.2.2, in its order: a date counts only if no tag was sent in its place.
    def _is_unchanged(self, head: RequestHead, variant: _Variant) -> bool:
        tags = head.fields.get(b"if-match")
        if tags is not None:
            is_as_wanted = tags == b"*" or variant.etag in _split_list(tags)
        else:
            is_as_wanted = self._is_older_than(head.get(b"if-unmodified-since")) is not False
        if not is_as_wanted:
            raise PreconditionFailed("The file is not the version that was asked for.")
        tags = head.fields.get(b"if-none-match")
        if tags is not None:
            # Weak comparison (section 8.8.3.2), unlike above.
            return tags == b"*" or variant.etag in [
                tag.removeprefix(b"W/") for tag in _split_list(tags)
            ]
        return self._is_older_than(head.get(b"if-modified-since")) is True

    # None for a missing or a bad date, which is to be ignored (section 13.1.3).
    def _is_older_than(self, date: str) -> bool | None:
        seconds = _parse_date(date)
        return None if seconds is None else self.modified_at <= seconds


def _parse_date(date: str) -> float | None:
    for pattern in _DATE_PATTERNS:
        try:
            moment = datetime.strptime(date, pattern).replace(tzinfo=UTC)
        except ValueError:
            continue
        # strptime is lenient about digits, spaces, weekdays and case; the grammar is not.
        shown = moment.strftime(pattern)
        if shown == date or (pattern == _ASCTIME and _blank_day(moment) == date):
            return _in_this_age(moment, pattern).timestamp()
    return None


# asctime pads the first nine days with a space: "Nov  6".
def _blank_day(moment: datetime) -> str:
    return moment.strftime(f"%a %b {moment.day:2d} %H:%M:%S %Y")


# Section 5.6.7: a two-digit year that seems more than 50 years ahead is in the past.
def _in_this_age(moment: datetime, pattern: str) -> datetime:
    if "%y" not in pattern:
        return moment
    now = datetime.now(UTC)
    year = now.year - now.year % 100 + moment.year % 100
    return moment.replace(year=year - 100 if year > now.year + 50 else year)


def load_assets(directory: Path) -> dict[str, Asset]:
    """Read every file under `directory`: `index.html` is at `/`, `static/x` at `/static/x`.

    Raises:
        OSError: if a file cannot be read.
    """
    assets = {}
    for path in sorted(directory.rglob("*")):
        if path.is_file():
            name = path.relative_to(directory).as_posix()
            assets["/" if name == "index.html" else f"/{name}"] = _read(path)
    return assets


def _read(path: Path) -> Asset:
    body = path.read_bytes()
    # Section 8.8.2.1: never later than now (a Pi may boot with its clock wrong).
    modified_at = min(int(path.stat().st_mtime), int(time.time()))
    kind = _TYPES.get(path.suffix) or mimetypes.guess_type(path.name)[0]
    common = {
        "Content-Type": kind or "application/octet-stream",
        "Last-Modified": formatdate(modified_at, usegmt=True),
        "Content-Security-Policy": _CSP,
    }
    packed = gzip.compress(body, compresslevel=9, mtime=0)
    is_smaller = len(packed) < len(body)
    identity = _prepare(body, common, None)
    return Asset(identity, _prepare(packed, common, "gzip") if is_smaller else None, modified_at)


def _prepare(body: bytes, common: dict[str, str], encoding: str | None) -> _Variant:
    etag = f'"{hashlib.sha256(body).hexdigest()[:20]}"'
    validators = {
        "ETag": etag,
        # Revalidated every time, at the cost of a 304: a new version shows at once.
        "Cache-Control": "no-cache",
        "Vary": "Accept-Encoding",
    }
    fields = common | validators | {
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Accept-Ranges": "none",
        "Content-Length": str(len(body)),
    }  # fmt: skip
    if encoding:
        fields["Content-Encoding"] = encoding
    responses = {}
    for connection in (_CLOSE, _KEEP_ALIVE, _KEEP_ALIVE_1_0):
        start = "\r\n" + connection
        whole = f"{start}{_lines(fields)}\r\n".encode()
        not_modified = f"{start}{_lines(validators)}\r\n".encode()
        responses["GET", connection] = Prepared(200, whole + body)
        responses["HEAD", connection] = Prepared(200, whole)
        responses[_NOT_MODIFIED, connection] = Prepared(304, not_modified)
    return _Variant(etag.encode(), responses)


def _split_list(value: bytes) -> list[bytes]:
    return [member.strip(b" \t") for member in value.split(b",")]


def _lines(fields: dict[str, str]) -> str:
    return "".join(f"{name}: {value}\r\n" for name, value in fields.items())


# RFC 9110 section 12.5.3: gzip or * with a weight above zero; the more specific name wins.
# Browsers send few different values, so caching them pays.
@lru_cache(maxsize=64)
def _accepts_gzip(accepted: bytes) -> bool:
    weights = {}
    for member in accepted.lower().split(b","):
        name, _, parameter = member.partition(b";")
        weights[name.strip()] = _weight(parameter.strip())
    named = weights.get(b"gzip", weights.get(b"x-gzip"))
    weight = weights.get(b"*", 0.0) if named is None else named
    return weight > 0 and weight >= weights.get(b"identity", 0.0)


# Section 12.4.2. A parameter that is not a valid weight counts as 0: not accepted.
def _weight(parameter: bytes) -> float:
    if not parameter:
        return 1.0
    match = _WEIGHT.fullmatch(parameter)
    return float(match[1]) if match else 0.0
