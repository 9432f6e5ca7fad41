"""One connection, with network, clock and application faked: order, errors, deadlines."""

import dataclasses
import socket

import pytest

from server.http.clients import ClientAddresses
from server.http.response import Prepared
from server.http.state import ServerState
from server.options import parse_networks
from tests.support.network import LIMITS, FakeApplication, FakeClient, FakeLoop

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
GET_1_0 = b"GET / HTTP/1.0\r\n\r\n"
LATER = b"GET /later HTTP/1.1\r\nHost: a\r\n\r\n"
POST = b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"


def test_request_is_answered():
    client = FakeClient()
    client.send(GET)
    assert client.statuses == [200]
    assert client.sent.endswith(b"\r\n\r\nGET / \n")
    assert not client.transport.is_eof_sent


def test_request_in_single_bytes_is_answered_once():
    client = FakeClient()
    client.send(*(POST[i : i + 1] for i in range(len(POST))))
    assert client.statuses == [200]
    assert client.sent.endswith(b"POST /x abc\n")


def test_pipelined_requests_are_answered_in_order():
    client = FakeClient()
    client.send(GET + POST + GET)
    assert client.statuses == [200] * 3
    assert [head.path for head, _ in client.application.requests] == ["/", "/x", "/"]


def test_head_gets_no_body():
    client = FakeClient()
    client.send(GET.replace(b"GET", b"HEAD"))
    assert b"Content-Length: 8\r\n" in client.sent
    assert client.sent.endswith(b"\r\n\r\n")


def test_close_is_honoured():
    client = FakeClient()
    client.send(GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n") + GET)
    assert client.statuses == [200]
    assert b"Connection: close\r\n" in client.sent
    assert client.transport.is_eof_sent


def test_http_1_0_is_closed_unless_asked_to_stay():
    client = FakeClient()
    client.send(GET_1_0)
    assert client.transport.is_eof_sent
    client = FakeClient()
    client.send(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
    assert not client.transport.is_eof_sent
    assert b"Connection: keep-alive\r\n" in client.sent


def test_parser_error_is_answered_and_nothing_more_is_read():
    client = FakeClient()
    client.send(b"GET / HTTP/1.1\r\n\r\n" + GET)
    client.send(GET)
    assert client.statuses == [400]
    assert client.sent.endswith(b"An HTTP/1.1 request needs a Host field.\n")
    assert client.transport.is_eof_sent
    assert not client.application.requests


def test_fault_of_ours_is_a_500():
    client = FakeClient()
    client.send(b"GET /boom HTTP/1.1\r\nHost: a\r\n\r\n" + GET)
    assert client.statuses == [500, 200]


def test_continue_is_sent_once_and_only_if_the_body_is_awaited():
    head, body = POST[:-3].replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n"), b"abc"
    client = FakeClient()
    client.send(head)
    assert client.statuses == [100]
    client.send(body)
    assert client.statuses == [100, 200]
    client = FakeClient()
    client.send(head + body)
    assert client.statuses == [200]


def test_too_large_a_body_is_refused_instead_of_welcomed():
    client = FakeClient()
    client.application.limit = 2
    client.send(POST[:-3].replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n"))
    assert client.statuses == [413]
    assert client.transport.is_eof_sent


# -- late answers ---------------------------------------------------------------------------


def test_stream_sends_its_head_with_the_first_piece():
    client = FakeClient()
    client.send(LATER)
    exchange = client.application.exchange
    exchange.start([("A", "b")])
    assert client.sent == b""
    exchange.write(b"one")
    assert b"A: b\r\n" in client.sent
    assert client.sent.endswith(b"\r\n\r\n3\r\none\r\n")
    exchange.write(b"two")
    exchange.finish([("C", "d")])
    assert client.sent.endswith(b"3\r\ntwo\r\n0\r\nC: d\r\n\r\n")
    assert client.transport.is_eof_sent


def test_stream_to_http_1_0_is_unframed():
    client = FakeClient()
    client.send(b"GET /later HTTP/1.0\r\n\r\n")
    exchange = client.application.exchange
    exchange.start([])
    exchange.write(b"one")
    exchange.finish([("C", "d")])
    assert client.sent.endswith(b"\r\n\r\none")
    assert b"Transfer-Encoding" not in client.sent


def test_broken_stream_has_no_last_chunk():
    client = FakeClient()
    client.send(LATER)
    exchange = client.application.exchange
    exchange.start([])
    exchange.write(b"one")
    exchange.abort()
    assert client.sent.endswith(b"3\r\none\r\n")
    assert client.transport.is_eof_sent
    assert not client.transport.is_aborted  # what was said still arrives


def test_broken_stream_to_http_1_0_is_reset():
    client = FakeClient()
    client.send(b"GET /later HTTP/1.0\r\n\r\n")
    exchange = client.application.exchange
    exchange.start([])
    exchange.write(b"one")
    exchange.abort()
    assert client.transport.is_aborted
    assert client.transport.options == [(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")]


def test_late_answer_closes_and_what_came_meanwhile_is_not_read():
    client = FakeClient()
    client.send(LATER, GET)
    client.application.exchange.respond_text(503, "No.")
    assert client.statuses == [503]
    assert b"Connection: close\r\n" in client.sent
    assert client.transport.is_eof_sent


def test_disconnect_is_reported_once_and_later_calls_do_nothing():
    client, calls = FakeClient(), []
    client.send(LATER)
    exchange = client.application.exchange
    exchange.on_disconnect = lambda: calls.append(1)
    client.connection.connection_lost(None)
    exchange.disconnect()
    exchange.start([])
    exchange.write(b"x")
    exchange.finish()
    exchange.abort()
    assert calls == [1]
    assert client.sent == b""
    assert not client.shared.connections


def test_disconnect_after_the_answer_is_not_reported():
    client, calls = FakeClient(), []
    client.send(LATER)
    exchange = client.application.exchange
    exchange.on_disconnect = lambda: calls.append(1)
    exchange.respond_text(200, "done")
    client.connection.connection_lost(None)
    assert calls == []


def test_fin_closes():
    assert not FakeClient().connection.eof_received()  # a false value closes the transport


def test_fin_is_reported_at_once_even_if_the_client_has_much_to_take():
    client, calls = FakeClient(), []
    client.send(LATER)
    client.application.exchange.on_disconnect = lambda: calls.append(1)
    client.stall()
    client.connection.eof_received()
    assert calls == [1]
    assert client.transport.is_aborted
    client.connection.connection_lost(None)
    assert calls == [1]


def test_pipelined_requests_are_answered_although_fin_came():
    client = FakeClient()
    client.stall()
    client.send(GET + GET)
    assert client.connection.eof_received()  # a true value leaves the transport open
    client.recover()
    assert client.statuses == [200, 200]
    assert client.transport.is_closed


def test_late_answer_behind_fin_is_dropped():
    client = FakeClient()
    client.stall()
    client.send(LATER)
    assert client.connection.eof_received()
    client.recover()
    assert client.transport.is_aborted
    assert not client.application.exchange.is_open


# -- limits ---------------------------------------------------------------------------------


def test_idle_connection_is_closed():
    client = FakeClient()
    client.send(GET)
    client.loop.advance(29.9)
    assert not client.transport.is_eof_sent
    client.loop.advance(0.2)
    assert client.transport.is_eof_sent
    assert client.statuses == [200]


def test_slow_header_is_408_however_it_drips():
    client = FakeClient()
    for _ in range(11):
        client.send(b"G")
        client.loop.advance(1)
    assert client.statuses == [408]
    assert client.transport.is_eof_sent


def test_slow_body_is_408():
    client = FakeClient()
    client.send(POST[:-1])
    client.loop.advance(19.9)
    assert client.statuses == []
    client.loop.advance(0.2)
    assert client.statuses == [408]


def test_answering_has_no_deadline():
    client = FakeClient()
    client.send(LATER)
    client.loop.advance(3600)
    assert not client.transport.is_eof_sent
    assert not client.transport.is_aborted


def test_reader_that_takes_nothing_is_aborted():
    client = FakeClient()
    client.send(LATER)
    client.stall()
    client.loop.advance(29.9)
    assert not client.transport.is_aborted
    client.loop.advance(0.2)
    assert client.transport.is_aborted


def test_reader_that_takes_a_little_is_kept():
    client = FakeClient()
    client.send(LATER)
    client.stall(1000)
    client.loop.advance(20)
    client.transport.unsent = 999
    client.loop.advance(20)
    assert not client.transport.is_aborted
    client.loop.advance(31)
    assert client.transport.is_aborted
    # A reset: nobody mistakes half an answer for a whole one.
    assert client.transport.options[-1][:2] == (socket.SOL_SOCKET, socket.SO_LINGER)


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="an option of Linux")
def test_kernel_does_not_take_a_slow_reader_for_a_vanished_peer():
    client = FakeClient()
    client.stall()
    client.recover()
    assert [value for _, option, value in client.transport.options] == [0, 15000]
    assert {option for _, option, _ in client.transport.options} == {socket.TCP_USER_TIMEOUT}


def test_write_that_stalls_counts_once():
    client = FakeClient()
    client.send(LATER)
    client.transport.on_write = lambda data: client.stall(len(data))
    client.application.exchange.start([])
    client.application.exchange.write(b"x" * 500)
    client.loop.advance(31)
    assert client.transport.is_aborted


def test_reader_that_takes_less_than_is_written_is_kept():
    client = FakeClient()
    client.send(LATER)
    exchange = client.application.exchange
    exchange.start([])
    client.stall(1000)
    exchange.write(b"x" * 500)
    client.transport.unsent = 1400  # of 1500 and a little more
    client.loop.advance(31)
    assert not client.transport.is_aborted
    client.loop.advance(31)
    assert client.transport.is_aborted


def test_nothing_is_read_while_the_client_does_not_read():
    client = FakeClient()
    client.stall()
    client.send(GET)
    assert client.statuses == []
    assert not client.transport.is_reading
    client.recover()
    assert client.statuses == [200]
    assert client.transport.is_reading


def test_closing_side_reads_on_for_a_while_and_then_drops():
    client = FakeClient()
    client.send(GET_1_0)
    client.send(b"more")
    client.loop.advance(1.9)
    assert not client.transport.is_aborted
    client.loop.advance(0.2)
    assert client.transport.is_aborted


def test_slow_reader_of_a_last_answer_is_given_its_time():
    client = FakeClient()
    client.send(LATER)
    client.stall()
    client.application.exchange.respond_text(200, "long")
    client.loop.advance(20)
    assert not client.transport.is_aborted
    client.recover()
    client.loop.advance(1.9)
    assert not client.transport.is_aborted
    client.loop.advance(0.2)
    assert client.transport.is_aborted


def crowd(count, connections=8, trusted=(), address=None):
    """Clients of a server, one after the other, each from an address of its own or all from one."""
    loop = FakeLoop()
    limits = dataclasses.replace(LIMITS, connections=connections)
    shared = ServerState(FakeApplication(), limits, loop, clients=ClientAddresses(trusted))
    clients = []
    for number in range(count):
        clients.append(FakeClient(shared=shared, address=address or f"192.0.2.{number}"))
        loop.advance(0.001)
    return shared, clients


def is_gone(client):
    return client.transport.is_closed or client.transport.is_aborted


def test_at_the_limit_the_longest_idle_gives_way():
    shared, clients = crowd(8)
    clients[0].send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")  # it is the latest to have asked
    newcomer = FakeClient(shared=shared, address="198.51.100.1")
    assert newcomer.statuses == []
    assert [is_gone(client) for client in clients] == [False, True, *[False] * 6]
    assert len(shared.connections) == 8


def test_half_sent_requests_give_way_too_and_answers_do_not():
    shared, clients = crowd(8)
    for client in clients[:6]:
        client.send(LATER)
    for client in clients[6:]:
        client.send(b"GET / HTT")
    for number in range(2):
        shared.loop.advance(0.001)
        assert FakeClient(shared=shared, address=f"198.51.100.{number}").statuses == []
    assert [is_gone(client) for client in clients] == [*[False] * 6, True, True]


def test_readers_that_take_nothing_give_way_too():
    shared, clients = crowd(8)
    for client in clients:
        client.stall()
        client.send(GET)
        shared.loop.advance(0.001)
    assert FakeClient(shared=shared, address="198.51.100.1").statuses == []
    assert is_gone(clients[0])


def test_ipv6_addresses_of_one_network_share_a_quarter():
    shared, first = crowd(2, address="2001:db8:1:2::1")
    FakeClient(shared=shared, address="2001:db8:1:2::9")
    assert is_gone(first[0])
    assert len(shared.connections) == 2


def test_where_all_are_answered_a_newcomer_is_told_so():
    shared, clients = crowd(2, connections=2)
    for client in clients:
        client.send(LATER)
    newcomer = FakeClient(shared=shared, address="198.51.100.1")
    assert newcomer.statuses == [503]
    assert b"Retry-After: 5\r\n" in newcomer.sent
    assert newcomer.transport.is_eof_sent
    clients[0].connection.connection_lost(None)
    assert FakeClient(shared=shared, address="198.51.100.2").statuses == []


def test_one_address_has_a_quarter_of_the_places():
    shared, clients = crowd(5, address="192.0.2.7")
    assert [is_gone(client) for client in clients] == [True, True, True, False, False]
    assert len(shared.connections) == 2
    assert not is_gone(FakeClient(shared=shared, address="198.51.100.1"))


def test_a_proxy_stands_for_many():
    shared, clients = crowd(5, address="192.0.2.7", trusted=parse_networks("192.0.2.7"))
    assert not any(map(is_gone, clients))
    assert len(shared.connections) == 5


def test_places_are_counted_right_in_the_end():
    shared, clients = crowd(20, address="192.0.2.7")
    for client in clients:
        client.connection.connection_lost(None)
    assert not shared.connections
    assert not shared.by_share


def test_refused_connections_are_bounded_too():
    shared, clients = crowd(1, connections=1)
    clients[0].send(LATER)
    others = [FakeClient(shared=shared, address="198.51.100.1") for _ in range(99)]
    assert sum(client.statuses == [503] for client in others) == 64
    assert sum(client.transport.is_aborted for client in others) == 35


def test_refused_request_is_one_line_in_the_log():
    records = []
    shared = ServerState(FakeApplication(), LIMITS, FakeLoop(), records.append)
    client = FakeClient(shared=shared)
    client.application.limit = 2
    client.send(POST)
    client.connection.connection_lost(None)
    [record] = records
    assert (record.method, record.path, record.status) == ("POST", "/x", 413)
    assert 0 <= record.duration_s < 60


def test_head_with_a_body_is_refused_without_content():
    client = FakeClient()
    client.application.limit = 2
    client.send(POST.replace(b"POST", b"HEAD"))
    assert client.statuses == [413]
    assert client.sent.endswith(b"\r\n\r\n")


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"HEAD / HTTP/1.1\r\n\r\n",
        b"HEAD / HTTP/2.0\r\n\r\n",
        b"HEAD /%zz HTTP/1.1\r\nHost: a\r\n\r\n",
        b"HEAD / HTTP/1.1\r\nHost: a\r\nX : y\r\n\r\n",
        b"HEAD / HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n",
        b"HEAD /" + b"a" * 9000,
    ],
    ids=["no_host", "version", "target", "field", "length", "endless"],
)
def test_error_for_head_has_no_body(request_bytes):
    client = FakeClient()
    client.send(request_bytes)
    assert client.statuses[0] >= 400
    assert client.sent.endswith(b"\r\n\r\n")


# -- shutting down --------------------------------------------------------------------------


def test_shut_down_closes_an_idle_connection():
    client = FakeClient()
    client.connection.shut_down()
    assert client.transport.is_eof_sent


def test_shut_down_lets_an_answer_end():
    client = FakeClient()
    client.send(LATER)
    client.shared.is_closing = True
    client.connection.shut_down()
    assert not client.transport.is_eof_sent
    client.application.exchange.respond_text(200, "done")
    assert client.transport.is_eof_sent


def test_shut_down_answers_what_is_still_arriving():
    client = FakeClient()
    client.send(POST[:-1])
    client.connection.shut_down()
    assert client.statuses == [503]


def test_nothing_is_kept_alive_while_closing():
    client = FakeClient()
    client.shared.is_closing = True
    client.send(GET)
    assert client.statuses == [200]
    assert client.transport.is_eof_sent


# -- answering from memory ------------------------------------------------------------------

PAGE = b"GET /page HTTP/1.1\r\nHost: a\r\n\r\n"


def page_client(shared=None):
    client = FakeClient(shared=shared)
    answered = []

    def prepared(head):
        answered.append(head.path)
        return Prepared(200, f"\r\nX: {head.path}\r\n\r\n".encode())

    client.application.cached_response = prepared
    return client, answered


def test_same_bytes_are_answered_from_memory_on_every_connection():
    client, answered = page_client()
    client.send(PAGE, PAGE)
    FakeClient(shared=client.shared).send(PAGE)
    assert client.statuses == [200, 200]
    assert answered == ["/page"]


@pytest.mark.parametrize(
    "parts",
    [
        [PAGE[:10], PAGE[10:]],
        [PAGE + PAGE],
        [b"\r\n", PAGE],
        [PAGE.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")],
        [PAGE.replace(b"\r\n\r\n", b"\r\nX: " + b"a" * 2048 + b"\r\n\r\n")],
    ],
    ids=["in_parts", "pipelined", "behind_an_empty_line", "closing", "large"],
)
def test_only_requests_that_came_alone_and_whole_are_remembered(parts):
    client, _ = page_client()
    client.send(*parts)
    assert client.statuses[0] == 200
    assert not client.shared.memo


def test_part_of_a_remembered_request_is_just_a_part():
    client, answered = page_client()
    client.send(PAGE, PAGE[:10])
    assert client.statuses == [200]
    client.send(PAGE[10:])
    assert client.statuses == [200, 200]
    assert answered == ["/page", "/page"]


def test_memory_is_bounded_and_emptied_when_closing():
    client, _ = page_client()
    for number in range(2000):
        client.send(PAGE.replace(b"page", b"page%d" % number))
        assert len(client.shared.memo) <= 512
    client.shared.begin_closing()
    assert not client.shared.memo


@pytest.mark.parametrize("rounds", [1000])
def test_many_requests_arm_one_timer(rounds):
    client = FakeClient()
    for _ in range(rounds):
        client.send(GET)
        client.loop.advance(0.001)
    assert len(client.loop.timers) == 1
