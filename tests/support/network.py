"""A fake network: a clock that only the test moves, a transport, and a connection between them."""

import re
from dataclasses import dataclass, field

from server.http.connection import Connection
from server.http.exchange import Exchange
from server.http.request import ParserLimits
from server.http.state import ConnectionLimits, ServerState

LIMITS = ConnectionLimits(
    header_timeout_s=10,
    body_timeout_s=20,
    idle_timeout_s=30,
    stalled_timeout_s=30,
    vanished_timeout_s=15,
    connections=8,
    parser=ParserLimits(),
)


@dataclass
class FakeTimer:
    when: float
    call: object
    is_cancelled: bool = False

    def cancel(self):
        self.is_cancelled = True


class FakeLoop:
    """A clock that only `advance` moves, and the timers on it."""

    def __init__(self):
        self.now = 1000.0
        self.timers = []

    def time(self):
        return self.now

    def call_at(self, when, call):
        timer = FakeTimer(when, call)
        self.timers.append(timer)
        return timer

    def advance(self, seconds):
        end = self.now + seconds
        while due := [t for t in self.timers if t.when <= end and not t.is_cancelled]:
            timer = min(due, key=lambda t: t.when)
            self.timers.remove(timer)
            self.now = max(self.now, timer.when)
            timer.call()
        self.now = end


@dataclass
class FakeTransport:
    """Records what is written; `unsent` simulates a kernel whose send buffer is full."""

    sent: bytes = b""
    unsent: int = 0
    is_eof_sent: bool = False
    is_aborted: bool = False
    is_closed: bool = False
    on_write: object = None  # what the kernel does then
    options: list = field(default_factory=list)  # set on the socket
    is_reading: bool = True
    address: str = "192.0.2.1"

    def set_write_buffer_limits(self, high):
        assert high == 0

    def write(self, data):
        assert not self.is_eof_sent, "wrote after FIN"
        self.sent += data
        if self.on_write:
            self.on_write(data)

    def write_eof(self):
        self.is_eof_sent = True

    def abort(self):
        self.is_aborted = True

    def close(self):
        self.is_closed = True

    def get_extra_info(self, name):
        return {"socket": self, "peername": (self.address, 1)}[name]

    def setsockopt(self, *option):
        self.options.append(option)

    def is_closing(self):
        return self.is_aborted or self.is_closed

    def get_write_buffer_size(self):
        return self.unsent

    def pause_reading(self):
        self.is_reading = False

    def resume_reading(self):
        self.is_reading = True


@dataclass
class FakeApplication:
    """Echoes path and body; /later leaves the exchange for the test, /boom fails."""

    limit: int = 1000
    requests: list = field(default_factory=list)
    exchange: Exchange | None = None

    def body_limit(self, head):
        return self.limit

    def cached_response(self, head):
        return None

    def render_error(self, head, error):
        return error

    def handle(self, exchange):
        head, body = exchange.head, exchange.body
        self.requests.append((head, body))
        if head.path == "/later":
            self.exchange = exchange
        elif head.path == "/boom":
            raise RuntimeError("a fault of ours")
        else:
            exchange.respond_text(200, f"{head.method} {head.path} {body.decode()}")


class FakeClient:
    """A `Connection` with everything around it faked."""

    def __init__(self, limits=LIMITS, shared=None, address="192.0.2.1"):
        self.loop = FakeLoop() if shared is None else shared.loop
        self.application = FakeApplication() if shared is None else shared.application
        self.shared = shared or ServerState(self.application, limits, self.loop)
        self.transport = FakeTransport(address=address)
        self.connection = Connection(self.shared)
        self.connection.connection_made(self.transport)

    def send(self, *parts):
        for part in parts:
            self.connection.data_received(part)

    @property
    def sent(self):
        return self.transport.sent

    @property
    def statuses(self):
        return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", self.sent)]

    def stall(self, unsent=1000):
        self.transport.unsent = unsent
        self.connection.pause_writing()

    def recover(self):
        self.transport.unsent = 0
        self.connection.resume_writing()
