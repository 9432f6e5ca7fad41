"""What the connections of one server share: its limits, its application, its open sockets.

Owns the set of live connections and the memo of answers; connection.py acts on them.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from server.http import response
from server.http.deadline import Loop
from server.http.errors import HttpError
from server.http.exchange import Exchange, Record
from server.http.request import ParserLimits, RequestHead

_REMEMBERED_REQUESTS = 512
_REMEMBERED_REQUEST_BYTES = 2048


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """Seconds and counts beyond which a client is let go."""

    header_timeout_s: float
    body_timeout_s: float
    idle_timeout_s: float
    stalled_timeout_s: float  # of a reader that takes nothing
    vanished_timeout_s: float  # of a peer that does not acknowledge
    connections: int
    parser: ParserLimits


class Application(Protocol):
    """What answers requests."""

    def body_limit(self, head: RequestHead) -> int:
        """The most bytes the body of this request may have.

        Raises:
            HttpError: if the request is refused whatever its body is.
        """

    def prepared(self, head: RequestHead) -> response.Prepared | None:
        """The answer on a connection that stays, if it is a prepared one.

        It must depend on nothing but the request; whatever needs more is left to `handle`.
        """

    def handle(self, head: RequestHead, body: bytes, exchange: Exchange) -> None:
        """Answer, now or later, through `exchange`.

        Raises:
            HttpError: to have it answered; only before the exchange was begun.
        """

    def present(self, head: RequestHead, error: HttpError) -> HttpError:
        """The same error as the client of this request expects it (as JSON, say)."""


class Closable(Protocol):
    """A connection, as its server sees it."""

    def shut_down(self) -> None:
        """Close now if no answer is under way, else when it has ended."""

    def reset(self) -> None:
        """Drop it at once, in a way that the client notices as a failure."""


class Remembered(NamedTuple):
    """One prepared answer, and what the log tells of its request."""

    method: str
    path: str
    prepared: response.Prepared


@dataclass(slots=True)
class Shared:
    """What all connections of one server have in common."""

    application: Application
    limits: ConnectionLimits
    loop: Loop
    on_request: Callable[[Record], None] | None = None  # hears of every request at its end
    clock: response.DateClock = field(default_factory=response.DateClock)
    connections: set[Closable] = field(default_factory=set)
    refused: set[Closable] = field(default_factory=set)  # those turned away, not yet gone
    is_closing: bool = False  # no connection is kept alive any more
    # Prepared answers by the bytes of their request; see connection.py, "memo".
    remembered: dict[bytes, Remembered] = field(default_factory=dict)

    def remember(self, received: bytes, answer: Remembered) -> None:
        """Answer the same bytes, one whole request, in the same way from now on."""
        if len(received) <= _REMEMBERED_REQUEST_BYTES:
            if len(self.remembered) >= _REMEMBERED_REQUESTS:
                self.remembered.clear()  # rarely, and filled again at once
            self.remembered[received] = answer

    def begin_closing(self) -> None:
        """Keep no connection alive from now on."""
        self.is_closing = True
        self.remembered.clear()
        for connection in list(self.connections):
            connection.shut_down()
