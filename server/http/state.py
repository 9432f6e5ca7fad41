"""What the connections of one server share: its limits, its application, its open sockets.

Owns the set of live connections and the memo of answers; connection.py acts on them.
"""

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Protocol

from server.http import response
from server.http.clients import ClientAddresses
from server.http.deadline import Loop
from server.http.errors import HttpError
from server.http.exchange import Exchange, Record
from server.http.fastpath import Memo
from server.http.request import ParserLimits, RequestHead

log = logging.getLogger(__name__)

_SHARES = 4  # of the places; one address has one


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """Seconds and counts beyond which a client is disconnected."""

    header_timeout_s: float
    body_timeout_s: float
    idle_timeout_s: float
    stalled_timeout_s: float  # for a client that reads nothing
    vanished_timeout_s: float  # for a peer that does not acknowledge
    connections: int
    parser: ParserLimits


class Application(Protocol):
    """What answers requests."""

    def body_limit(self, head: RequestHead) -> int:
        """The maximum size of this request's body, in bytes.

        Raises:
            HttpError: if the request is refused whatever its body is.
        """

    def cached_response(self, head: RequestHead) -> response.Prepared | None:
        """The prepared response for a connection that stays open, if there is one.

        It must depend on nothing but the request; whatever needs more is left to `handle`.
        """

    def handle(self, exchange: Exchange) -> None:
        """Answer, now or later, through `exchange`.

        Raises:
            HttpError: to be sent as the response; only before the answer has begun.
        """

    def render_error(self, head: RequestHead, error: HttpError) -> HttpError:
        """The same error in the form that this request's client expects (JSON, for example)."""


class Closable(Protocol):
    """A connection, as its server sees it."""

    def shut_down(self) -> None:
        """Close now if no answer is under way, else when it has ended."""

    def reset(self) -> None:
        """Drop it at once, in a way that the client notices as a failure."""

    @property
    def address(self) -> str:
        """The peer's."""

    @property
    def share(self) -> str:
        """Whose share of the places it takes (`clients.share_of`)."""

    @property
    def idle_since(self) -> float | None:
        """When it began to wait for its client, on the loop's clock; None while it answers."""

    def give_way(self) -> None:
        """Close, since another needs its place."""


@dataclass(slots=True)
class ServerState:
    """What all connections of one server have in common."""

    application: Application
    limits: ConnectionLimits
    loop: Loop
    on_request: Callable[[Record], None] | None = None  # called at the end of every request
    clock: response.DateClock = field(default_factory=response.DateClock)
    clients: ClientAddresses = field(default_factory=ClientAddresses)
    connections: set[Closable] = field(default_factory=set)
    by_share: Counter[str] = field(default_factory=Counter)  # of `connections`
    refused: set[Closable] = field(default_factory=set)  # turned away, but not closed yet
    is_closing: bool = False  # no connection is kept alive any more
    memo: Memo = field(default_factory=Memo)

    def add(self, connection: Closable) -> bool:
        """Give a connection a place, or return False if there is none.

        At the limit the one that has waited longest for its client gives way. One address may have
        a quarter of the places, and beyond that its own give way, so that nobody can take all; a
        trusted proxy's stands for many clients and may have more.
        """
        share = connection.share
        places = max(1, self.limits.connections // _SHARES)
        candidates: Iterable[Closable] = ()
        if self.by_share[share] >= places and not self.clients.is_trusted(connection.address):
            candidates = [other for other in self.connections if other.share == share]
        elif len(self.connections) >= self.limits.connections:
            candidates = self.connections
        if candidates:
            idle = [other for other in candidates if other.idle_since is not None]
            if not idle:
                return False
            longest = min(idle, key=lambda other: other.idle_since or 0.0)
            self.remove(longest)
            longest.give_way()
        self.connections.add(connection)
        self.by_share[share] += 1
        return True

    def remove(self, connection: Closable) -> None:
        """Take a connection's place back; it may have none."""
        self.refused.discard(connection)
        if connection in self.connections:
            self.connections.remove(connection)
            self.by_share[connection.share] -= 1
            if not self.by_share[connection.share]:
                del self.by_share[connection.share]

    def answer(self, exchange: Exchange) -> None:
        """Have the application answer; whatever it raises becomes a response."""
        try:
            self.application.handle(exchange)
        except HttpError as error:
            exchange.fail(error)
        except Exception:  # a bug of ours must cost this request only
            log.exception("could not answer %s", exchange.head.method)
            exchange.fail(HttpError("Something went wrong on the server."))

    def log_end(self, exchange: Exchange) -> None:
        """Log an exchange that has ended, unless the application does."""
        if not exchange.logs_later:
            self.log(exchange, {})

    def log(self, exchange: Exchange, details: dict[str, object]) -> None:
        """Log an exchange that is over, with the application's `details`."""
        if self.on_request is not None:
            head, duration_s = exchange.head, time.perf_counter() - exchange.started_at
            status, size = exchange.status, exchange.sent_bytes
            self.on_request(
                Record(exchange.client, head.method, head.path, status, size, duration_s, details)
            )

    def log_unanswered(
        self,
        client: str,
        method: str,
        path: str,
        status: int | None,
        sent_bytes: int,
        begun_at: float,
    ) -> None:
        """Log a request that never got an exchange; `begun_at` is 0.0 if not measured."""
        if self.on_request is not None:
            duration_s = time.perf_counter() - begun_at if begun_at else 0.0
            self.on_request(Record(client, method, path, status, sent_bytes, duration_s))

    def begin_closing(self) -> None:
        """Keep no connection alive from now on."""
        self.is_closing = True
        self.memo.clear()
        for connection in list(self.connections):
            connection.shut_down()
