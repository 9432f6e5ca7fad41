"""One request's answer, as the application sees it: whole or streamed, now or later.

Owns what has been sent of one answer; a new exchange is made for every request. Knows the
connection only as a `Wire`.

Guarantees: every call after the answer has ended, or after the client has gone, does
nothing, so the application need not check; `on_disconnect` is called at most once, and only
if the answer was still under way.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from server.http import response
from server.http.errors import TEXT_TYPE, HttpError
from server.http.request import RequestHead
from server.http.response import Header

FRESH_HEADERS: tuple[Header, ...] = (
    ("X-Content-Type-Options", "nosniff"),
    ("Cache-Control", "no-store"),
)
# nginx, and proxies that follow it, must not buffer the pieces of a stream.
STREAM_HEADERS: tuple[Header, ...] = (("X-Accel-Buffering", "no"),)
TEXT_HEADERS: tuple[Header, ...] = (("Content-Type", TEXT_TYPE), *FRESH_HEADERS)
JSON_TYPE = "application/json"
JSON_HEADERS: tuple[Header, ...] = (("Content-Type", JSON_TYPE), *FRESH_HEADERS)


@dataclass(frozen=True, slots=True)
class Record:
    """One request as the log shows it: never a word of what was asked or answered."""

    client: str  # its address, as a trusted proxy reports it
    method: str  # "-" where no request line could be read
    path: str  # without the query; visible ASCII only, as the parser guarantees
    status: int | None  # None if the client left before it was decided
    sent_bytes: int
    duration_s: float  # from the whole request's arrival to its end
    details: dict[str, object] = field(default_factory=dict)  # the application's own


class Wire(Protocol):
    """What an exchange needs from its connection."""

    def write(self, data: bytes) -> None:
        """Send bytes."""

    def on_answered(self, keep_alive: bool) -> None:
        """The answer is complete."""

    def log(self, exchange: "Exchange", details: dict[str, object]) -> None:
        """Log an exchange that is over."""

    def reset(self) -> None:
        """Drop the connection at once, in a way that the client notices as a failure."""


RenderError = Callable[[RequestHead, HttpError], HttpError]


class Exchange:
    """One answer. Use it in one of these ways:

      send(prepared)                     a whole response, prepared elsewhere
      respond(status, headers, body)     a whole response
      start(headers), write*, finish     a stream; `abort` instead of `finish` if it failed

    An answer that is not complete when the application returns is a late one: the
    connection closes after it, and what the client sends meanwhile is not read as a request.
    """

    __slots__ = (
        "_render_error",
        "_unsent_head",
        "_wire",
        "body",
        "client",
        "date",
        "head",
        "head_sent",
        "headers",
        "is_open",
        "keep_alive",
        "logs_later",
        "on_disconnect",
        "sent_bytes",
        "started_at",
        "status",
    )

    def __init__(
        self,
        wire: Wire,
        head: RequestHead,
        body: bytes,
        date: bytes,
        keep_alive: bool,
        render_error: RenderError,
        client: str,
    ) -> None:
        self._wire = wire
        self._render_error = render_error
        self._unsent_head = b""  # of a stream; sent with the first piece
        self.head = head
        self.body = body
        self.client = client  # its address
        self.headers: Sequence[Header] = ()  # added to every response except errors
        self.date = date  # the value for the Date field
        self.keep_alive = keep_alive  # whether another request may follow on the connection
        self.head_sent = False
        self.is_open = True  # neither answered nor disconnected
        self.on_disconnect: Callable[[], None] | None = None
        # for the log
        self.status: int | None = None
        self.sent_bytes = 0
        self.started_at = 0.0  # on time.perf_counter's clock
        self.logs_later = False  # the application will call `log` itself

    def send(self, prepared: response.Prepared) -> None:
        """Send a whole response that was prepared for this `keep_alive`."""
        self._send(prepared.status, prepared.at(self.date))

    def _send(self, status: int, data: bytes) -> None:
        if self.is_open:
            self._end()
            self.status = status
            self.sent_bytes = len(data)
            self._wire.write(data)
            self._wire.on_answered(self.keep_alive)

    def respond(self, status: int, headers: Iterable[Header], body: bytes = b"") -> None:
        """Send a whole response. A HEAD request gets the same without the body."""
        self._respond(status, [*headers, *self.headers], body)

    def _respond(self, status: int, headers: Iterable[Header], body: bytes) -> None:
        lines = [*headers]
        if not self.keep_alive:
            lines.append(("Connection", "close"))
        elif self._is_http_1_0:
            lines.append(("Connection", "keep-alive"))
        self._send(status, response.whole(status, self.date, lines, body, self.head.method))

    def respond_text(self, status: int, sentence: str, headers: Iterable[Header] = ()) -> None:
        """Send one plain sentence."""
        self.respond(status, [*TEXT_HEADERS, *headers], f"{sentence}\n".encode())

    def start(self, headers: Iterable[Header]) -> None:
        """Begin a streamed 200: chunked in HTTP/1.1, unframed in 1.0.

        Nothing is sent before the first piece, or `flush`; after the last, the connection closes.
        """
        lines = [*headers, *self.headers, ("Connection", "close")]
        if not self._is_http_1_0:
            lines.append(("Transfer-Encoding", "chunked"))
        self._unsent_head = response.head(200, self.date, lines)
        self.keep_alive = False
        self.head_sent = True

    def write(self, data: bytes) -> None:
        """Send a piece of the stream at once, as one chunk. `data` must not be empty."""
        if self.is_open:
            self._write(data if self._is_http_1_0 else response.chunk(data))

    def flush(self) -> None:
        """Send the stream's head now, for a first piece that takes long."""
        if self.is_open and self._unsent_head:
            self._write(b"")

    def finish(self, trailers: Iterable[Header] = ()) -> None:
        """End the stream as complete."""
        if self.is_open:
            self._end()
            self._write(b"" if self._is_http_1_0 else response.last_chunk(trailers))
            self._wire.on_answered(keep_alive=False)

    def abort(self) -> None:
        """End the stream as broken, so that nobody mistakes half an answer for a whole one.

        What was written still arrives, and then the connection closes without the last chunk
        (RFC 9112 section 8). Without framing (HTTP/1.0), only a reset tells a broken answer from a
        complete one.
        """
        if self.is_open:
            self._end()
            if self._is_http_1_0:
                self._wire.reset()
            else:
                self._wire.on_answered(keep_alive=False)

    def fail(self, error: HttpError) -> None:
        """Answer with `error` if nothing was sent yet, else `abort`."""
        if self.head_sent:
            self.abort()
        else:
            shown = self._render_error(self.head, error)
            self._respond(shown.status, error_headers(shown), shown.body)

    def disconnect(self) -> None:
        """Note that the client is gone, and call `on_disconnect`. Called by the connection."""
        if self.is_open:
            on_disconnect = self.on_disconnect
            self._end()
            if on_disconnect:
                on_disconnect()

    def log(self, details: dict[str, object]) -> None:
        """Log how the answer ended; only for an exchange that `logs_later`."""
        self._wire.log(self, details)

    @property
    def _is_http_1_0(self) -> bool:
        return self.head.minor_version == 0

    def _write(self, data: bytes) -> None:
        self.status = 200
        data = self._unsent_head + data
        self._unsent_head = b""
        self.sent_bytes += len(data)
        self._wire.write(data)

    # The callback may hold a reference to this exchange: drop it, to leave no reference cycle.
    def _end(self) -> None:
        self.is_open = False
        self.on_disconnect = None


def error_headers(error: HttpError) -> list[Header]:
    """The header fields of the response to `error`."""
    return [("Content-Type", error.content_type), *FRESH_HEADERS, *error.headers]


def last_response(error: HttpError, date: bytes, method: str) -> bytes:
    """The response to `error` on a connection that closes after it, for a request by `method`."""
    headers = [*error_headers(error), ("Connection", "close")]
    return response.whole(error.status, date, headers, error.body, method)
