"""One answer: what reaches the wire, and what happens after its end."""

import pytest

from server.http.errors import Unavailable
from server.http.exchange import Exchange
from server.http.parser import RequestParser
from server.http.request import ParserLimits
from tests.support.wire import parse_response

DATE = b"Thu, 26 Nov 2026 00:00:00 GMT"


class FakeWire:
    """A connection that records what an exchange does to it."""

    def __init__(self):
        self.sent = b""
        self.events = []

    def write(self, data):
        self.sent += data

    def on_answered(self, keep_alive):
        self.events.append(("answered", keep_alive))

    def log(self, exchange, details):
        self.events.append(("log", details))

    def reset(self):
        self.events.append("reset")


def exchange(request="GET / HTTP/1.1", keep_alive=True):
    parser = RequestParser(ParserLimits())
    parser.receive(f"{request}\r\nHost: here\r\n\r\n".encode())
    wire = FakeWire()
    head, client = parser.read_head(), "192.0.2.1"
    return wire, Exchange(wire, head, b"", DATE, keep_alive, lambda _, error: error, client)


def test_whole_response():
    wire, answer = exchange()
    answer.headers = [("X-Mine", "1")]
    answer.respond(200, [("Content-Type", "text/plain")], b"hello")
    status, head, body = parse_response(wire.sent)
    assert (status, body) == (200, b"hello")
    assert "X-Mine: 1" in head
    assert "Content-Length: 5" in head
    assert f"Date: {DATE.decode()}" in head
    assert wire.events == [("answered", True)]
    assert answer.sent_bytes == len(wire.sent)


def test_head_gets_no_body():
    wire, answer = exchange("HEAD / HTTP/1.1")
    answer.respond(200, [], b"hello")
    assert b"Content-Length: 5" in wire.sent
    assert wire.sent.endswith(b"\r\n\r\n")


def test_stream_in_chunks_with_trailers():
    wire, answer = exchange()
    answer.start([("Content-Type", "text/plain")])
    assert wire.sent == b""  # the head leaves with the first piece
    answer.write(b"one ")
    answer.write("zw\u00f6lf".encode())
    answer.finish([("X-Count", "2")])
    status, head, body = parse_response(wire.sent)
    assert (status, body.decode()) == (200, "one zw\u00f6lf")
    assert "X-Count: 2" in head
    assert wire.events == [("answered", False)]


def test_stream_to_an_old_client_has_no_frames():
    wire, answer = exchange("GET / HTTP/1.0")
    answer.start([])
    answer.write(b"hello")
    answer.finish([("X-Count", "2")])
    assert wire.sent.endswith(b"\r\n\r\nhello")
    assert b"Transfer-Encoding" not in wire.sent


@pytest.mark.parametrize(("version", "event"), [("1.1", ("answered", False)), ("1.0", "reset")])
def test_a_broken_stream_is_no_complete_one(version, event):
    wire, answer = exchange(f"GET / HTTP/{version}")
    answer.start([])
    answer.write(b"half")
    answer.fail(Unavailable("The model failed.", 1))
    assert not wire.sent.endswith(b"0\r\n\r\n")
    assert wire.events == [event]


def test_failure_before_the_head_is_a_response():
    wire, answer = exchange()
    answer.fail(Unavailable("The model failed.", 7))
    status, head, body = parse_response(wire.sent)
    assert (status, body) == (503, b"The model failed.\n")
    assert "Retry-After: 7" in head


def test_after_its_end_nothing_happens():
    wire, answer = exchange()
    gone = []
    answer.on_disconnect = lambda: gone.append(1)
    answer.respond(200, [], b"hello")
    sent, events = wire.sent, list(wire.events)
    answer.respond(200, [], b"again")
    answer.write(b"more")
    answer.finish()
    answer.abort()
    answer.disconnect()
    assert (wire.sent, wire.events, gone) == (sent, events, [])


def test_disconnect_is_heard_once():
    wire, answer = exchange()
    gone = []
    answer.on_disconnect = lambda: gone.append(1)
    answer.disconnect()
    answer.disconnect()
    answer.respond(200, [], b"too late")
    assert (gone, wire.sent, answer.is_open) == ([1], b"", False)
