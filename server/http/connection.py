"""One client's connection: bytes in, requests to the application, responses out.

Owns the transport, the parser, the one deadline that runs at a time, and the order of
responses. Knows nothing of models: the application answers through an `Exchange`.

Guarantees
  order       requests are answered in the order they came; the next one is not even parsed
              before the current one is answered (pipelining, RFC 9112 section 9.3.2)
  close       when the connection ends, for whatever reason, the running exchange is notified
              once, by `on_disconnect`; that is what stops the model
  FIN         a client that closes its sending side counts as gone. RFC 9112 section 9.6
              leaves that to the server, and a closed browser or curl looks exactly like that.
  errors      every `HttpError` becomes its response here and nowhere else; after one that
              the parser raised, nothing more is read as a request
  broken end  an answer that fails half-way ends without its last chunk, so no client can
              mistake half an answer for a whole one (RFC 9112 section 8)
  no reset    when the server closes first, it sends FIN and keeps reading for a while, since
              closing with unread bytes would reset the connection and destroy the response
              in transit (RFC 9112 section 9.6)
  memory      what is buffered for a client that sends without reading is bounded: by the
              parser's limits, and one read of the transport (256 KiB in uvloop)
"""

import asyncio
import time
from enum import Enum
from typing import cast

from server.http import response
from server.http.clients import share_of
from server.http.deadline import Deadline
from server.http.errors import HttpError, RequestTimeout, Unavailable
from server.http.exchange import Exchange, Record, last_response
from server.http.fastpath import Remembered, read_plain_head
from server.http.flow import Flow
from server.http.parser import RequestParser
from server.http.request import RequestHead
from server.http.state import ConnectionLimits, ServerState

_FORWARDED_FOR = b"x-forwarded-for"
_LINGER_S = 2.0  # how long to keep reading after our FIN
_REFUSED_CONNECTIONS = 64  # that get a 503 at a time; further ones are closed unanswered


class _Phase(Enum):
    IDLE = "between requests"
    HEAD = "a head is arriving"
    BODY = "a body is arriving"
    ANSWERING = "the application has the request"
    LINGERING = "we have closed our side and read on"


# How long a connection may stay in a phase; None sets no limit.
def _timeout_s(phase: _Phase, limits: ConnectionLimits) -> float | None:
    match phase:
        case _Phase.IDLE:
            return limits.idle_timeout_s
        case _Phase.HEAD:
            return limits.header_timeout_s
        case _Phase.BODY:
            return limits.body_timeout_s
        case _Phase.ANSWERING:
            return None
        case _Phase.LINGERING:
            return _LINGER_S


class Connection(asyncio.Protocol):
    """The protocol of one accepted socket."""

    # With slots, 2,000 idle connections cost half the memory.
    __slots__ = (
        "__weakref__",
        "_begun_at",
        "_deadline",
        "_exchange",
        "_flow",
        "_head",
        "_is_eof_pending",
        "_parser",
        "_phase",
        "_shared",
        "_transport",
        "address",
        "share",
    )

    def __init__(self, shared: ServerState) -> None:
        # shared
        self._shared = shared
        # of the connection
        self.address = ""  # of the peer
        self.share = ""  # of the places, that it takes
        self._transport: asyncio.Transport | None = None
        self._parser = RequestParser(shared.limits.parser)
        self._phase = _Phase.IDLE
        self._deadline = Deadline(shared.loop, self._on_deadline)
        self._flow: Flow | None = None  # as long as there is a transport
        self._is_eof_pending = False  # FIN came, and pipelined requests are still unanswered
        # of the request
        self._begun_at = 0.0  # when its first bytes arrived, unless it arrived whole
        self._head: RequestHead | None = None  # while its body arrives
        self._exchange: Exchange | None = None  # while it is being answered

    # -- called by the event loop -------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for a request, or turn the client away if there are too many."""
        # uvloop's transports have asyncio.Transport's methods, but do not inherit from it.
        self._transport = cast(asyncio.Transport, transport)
        shared = self._shared
        self._flow = Flow(self._transport, shared.limits.vanished_timeout_s)
        name = transport.get_extra_info("peername")
        self.address = str(name[0]) if name else ""
        self.share = share_of(self.address)
        if shared.add(self):
            self._enter(_Phase.IDLE)
        elif len(shared.refused) < _REFUSED_CONNECTIONS:
            shared.refused.add(self)
            self._refuse(Unavailable("Too many connections are open."))
        else:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        """Feed the parser, unless nothing more is to be read as a request."""
        if self._phase is _Phase.IDLE and not self._is_stalled:
            remembered = self._shared.memo.get(data)
            if remembered is not None:
                self._send_prepared(remembered)
                return
            head = read_plain_head(data, self._shared.limits.parser)
            if head is not None:
                self._answer(head, b"", data)
                return
        elif self._phase is _Phase.LINGERING or self._exchange is not None:
            return
        self._parser.receive(data)
        if self._is_stalled:
            self._open_transport().pause_reading()
        else:
            self._advance()

    def eof_received(self) -> bool | None:
        """Handle the client's FIN; returning None makes the transport close our side.

        It would first wait until unsent bytes are read; a running answer is dropped at once.
        """
        if self._exchange is not None:
            self._drop()
        elif self._is_stalled and not self._parser.is_between_requests:
            self._is_eof_pending = True  # complete pipelined requests are answered first
            return True
        return None

    def connection_lost(self, exc: Exception | None) -> None:
        """Notify the exchange and forget the connection. Every connection ends here."""
        self._deadline.cancel()
        self._transport = self._flow = None
        self._shared.remove(self)
        head, self._head = self._head, None
        if head is None:
            self._disconnect()
        else:
            client = self._client_of(head)
            self._shared.log_unanswered(client, head.method, head.path, None, 0, self._begun_at)

    def pause_writing(self) -> None:
        """Give the client a deadline to read something: the kernel accepts no more."""
        assert self._flow is not None
        self._flow.pause()
        self._deadline.set(self._shared.limits.stalled_timeout_s)

    def resume_writing(self) -> None:
        """Continue: the client has read everything."""
        assert self._flow is not None
        self._flow.resume()
        self._enter(self._phase)
        if self._exchange is None and self._phase is not _Phase.LINGERING:
            transport = self._open_transport()
            if transport.is_closing():  # FIN came, and what was unsent has now been read
                return
            transport.resume_reading()
            self._advance()
            if self._is_eof_pending and not self._is_stalled:
                transport.close()

    # -- called by the exchange (`Wire`) ------------------------------------------------

    def write(self, data: bytes) -> None:
        """Send bytes, if the connection is still open."""
        if self._flow is not None:
            self._flow.write(data)

    def on_answered(self, keep_alive: bool) -> None:
        """Wait for the next request, or close: the current one has its answer."""
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            self._shared.log_end(exchange)
        if keep_alive:
            self._enter(_Phase.IDLE)
        else:
            self._linger()

    def reset(self) -> None:
        """Drop the connection at once: the client gets a reset, not an orderly end."""
        if self._flow is not None:
            self._flow.reset_on_close()
            self._drop()

    def log(self, exchange: Exchange, details: dict[str, object]) -> None:
        """Log an exchange that is over."""
        self._shared.log(exchange, details)

    @property
    def idle_since(self) -> float | None:
        """When it began to wait for its client; None while it answers."""
        limits, when = self._shared.limits, self._deadline.when
        stalled_s = limits.stalled_timeout_s
        timeout_s = stalled_s if self._is_stalled else _timeout_s(self._phase, limits)
        if self._exchange is not None or timeout_s is None or when is None:
            return None
        return when - timeout_s

    def give_way(self) -> None:
        """Close: at once, for no answer is under way."""
        transport = self._open_transport()
        if self._phase is _Phase.IDLE and not self._is_stalled:
            transport.close()
        else:
            transport.abort()

    def shut_down(self) -> None:
        """Close now if no answer is under way, else when it has ended."""
        if self._phase in (_Phase.HEAD, _Phase.BODY):
            self._refuse(Unavailable("The server is shutting down."))
        elif self._exchange is None:
            self._linger()

    # -- answering from memory ----------------------------------------------------------

    def _send_prepared(self, remembered: Remembered) -> None:
        shared, prepared = self._shared, remembered.prepared
        data = prepared.at(shared.clock.now())
        self._open_transport().write(data)
        self._phase = _Phase.IDLE
        if not self._is_stalled:
            self._deadline.set(shared.limits.idle_timeout_s)
        if shared.on_request is not None:
            client = shared.clients.of(self.address, remembered.forwarded_for)
            method, path = remembered.method, remembered.path
            shared.on_request(Record(client, method, path, prepared.status, len(data), 0.0))

    # -- reading ------------------------------------------------------------------------

    # Pass requests to the application until one needs more bytes or more time.
    def _advance(self) -> None:
        try:
            while self._exchange is None and not self._is_stalled:
                if self._phase is _Phase.LINGERING or not self._read_request():
                    return
                if self._head is None and self._parser.is_between_requests:
                    return  # nothing is pipelined: no need to ask the parser
        except HttpError as error:
            self._refuse(error)

    # Pass one request from the parser to the application; False if it is not complete yet.
    def _read_request(self) -> bool:
        head = self._head or self._read_head()
        if head is None:
            return False
        body = self._read_body(head) if head.has_body else b""
        if body is None:
            return False
        self._answer(head, body)
        return True

    def _read_head(self) -> RequestHead | None:
        head = self._parser.read_head()
        is_begun = head is None and not self._parser.is_between_requests
        if is_begun and self._phase is _Phase.IDLE:
            self._enter(_Phase.HEAD)
        return head

    # The application may refuse a request by its head, before its body is read. What it
    # says then is final (RFC 9110 section 10.1.1), and the connection closes after it.
    def _read_body(self, head: RequestHead) -> bytes | None:
        self._head = head
        limit = self._shared.application.body_limit(head)
        body = self._parser.read_body(limit)
        if body is None and self._phase is not _Phase.BODY:
            self._enter(_Phase.BODY)
            if head.expects_continue and not self._parser.has_body_begun:
                self.write(response.CONTINUE)
        return body

    # `received` is the whole request in bytes, if it arrived alone and in one piece.
    def _answer(self, head: RequestHead, body: bytes, received: bytes | None = None) -> None:
        self._head = None
        shared = self._shared
        keep_alive = head.keep_alive and not shared.is_closing
        prepared = shared.application.cached_response(head) if keep_alive else None
        if prepared is not None:
            answer = Remembered(
                head.method, head.path, head.fields.get(_FORWARDED_FOR, b""), prepared
            )
            if received is not None:
                shared.memo.remember(received, answer)
            self._send_prepared(answer)
            return
        render_error = shared.application.render_error
        now = shared.clock.now()
        exchange = self._exchange = Exchange(
            self, head, body, now, keep_alive, render_error, self._client_of(head)
        )
        if shared.on_request is not None:
            exchange.started_at = time.perf_counter()
        shared.answer(exchange)
        if self._exchange is None:
            return
        exchange.keep_alive = False  # a late answer
        if self._is_eof_pending:
            self._drop()  # nobody is left to answer to
        else:
            self._enter(_Phase.ANSWERING)

    def _client_of(self, head: RequestHead) -> str:
        return self._shared.clients.of(self.address, head.fields.get(_FORWARDED_FOR, b""))

    # -- ending -------------------------------------------------------------------------

    # Answer `error` outside any exchange, and close the connection.
    def _refuse(self, error: HttpError) -> None:
        client, (method, path) = self.address, self._parser.request_line
        if self._head is not None:
            client, method, path = self._client_of(self._head), self._head.method, self._head.path
            error = self._shared.application.render_error(self._head, error)
            self._head = None  # it has its answer, and its line in the log
        answer = last_response(error, self._shared.clock.now(), method)
        self.write(answer)
        size = len(answer)
        self._shared.log_unanswered(client, method, path, error.status, size, self._begun_at)
        self._linger()

    # Send FIN and keep reading for a while (see "no reset" above).
    def _linger(self) -> None:
        if self._transport is None or self._phase is _Phase.LINGERING:
            return
        self._enter(_Phase.LINGERING)
        if not self._transport.is_closing():
            self._transport.write_eof()

    def _enter(self, phase: _Phase) -> None:
        self._phase = phase
        if phase is _Phase.HEAD:
            self._begun_at = time.perf_counter()
        elif phase is _Phase.IDLE:
            self._begun_at = 0.0
        if self._is_stalled:
            return  # the stalled reader's deadline takes precedence
        self._deadline.set(_timeout_s(phase, self._shared.limits))

    # Close at once. The exchange is notified now, not when the transport gets around to it.
    def _drop(self) -> None:
        self._open_transport().abort()
        self._disconnect()

    def _disconnect(self) -> None:
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            self._shared.log_end(exchange)
            exchange.disconnect()

    def _on_deadline(self) -> None:
        transport = self._open_transport()
        assert self._flow is not None  # as long as there is a transport
        if self._is_stalled and self._flow.has_moved:
            self._flow.look()
            self._deadline.set(self._shared.limits.stalled_timeout_s)
        elif self._is_stalled:
            self.reset()
        elif self._phase is _Phase.LINGERING:
            transport.abort()
        elif self._phase is _Phase.IDLE:
            self._linger()
        else:
            self._refuse(RequestTimeout("The request took too long to arrive."))

    @property
    def _is_stalled(self) -> bool:
        return self._flow is not None and self._flow.is_stalled

    def _open_transport(self) -> asyncio.Transport:
        assert self._transport is not None  # only called between made and lost
        return self._transport
