"""The 33 cases of h1spec (github.com/uNetworking/h1spec), rewritten.

Fifteen are unfinished requests, for which a server must wait; eighteen are whole ones.
"""

import pytest

from tests.support.network import FakeClient

UNFINISHED = {
    "part of the method": b"G",
    "method only": b"GET ",
    "part of the target": b"GET /x",
    "whole target": b"GET /x ",
    "part of the version": b"GET /x HTTP",
    "whole line but its end": b"GET /x HTTP/1.1",
    "half a line end": b"GET /x HTTP/1.1\r",
    "request line": b"GET /x HTTP/1.1\r\n",
    "part of a name": b"GET /x HTTP/1.1\r\nHo",
    "name and colon": b"GET /x HTTP/1.1\r\nHost:",
    "name and blank": b"GET /x HTTP/1.1\r\nHost: ",
    "part of a value": b"GET /x HTTP/1.1\r\nHost: a",
    "value and half an end": b"GET /x HTTP/1.1\r\nHost: a\r",
    "whole field": b"GET /x HTTP/1.1\r\nHost: a\r\n",
    "all but the last byte": b"GET /x HTTP/1.1\r\nHost: a\r\n\r",
}


@pytest.mark.parametrize("data", UNFINISHED.values(), ids=UNFINISHED)
def test_unfinished_request_is_waited_for(data):
    client = FakeClient()
    client.send(data)
    assert client.sent == b""
    assert not client.transport.is_eof_sent


GET = b"GET / HTTP/1.1\r\nHost: a.example\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a.example\r\n"
WHOLE = {
    "no version": (b"GET / \r\n\r\n", 400),
    "expectation without a body": (GET + b"Expect: 100-continue\r\n\r\n", 200),
    "plain": (GET + b"\r\n", 200),
    "odd case, tab and empty value": (b"GET / HTTP/1.1\r\nhOST:\ta.example\r\nx:\r\n\r\n", 200),
    "brackets in a name": (GET + b"X-A[]: b\r\n\r\n", 400),
    "no host": (b"GET / HTTP/1.1\r\nContent-Length: 5\r\n\r\n", 400),
    "two hosts": (GET + b"Host: b.example\r\n\r\n", 400),
    "negative length that overflows": (GET + b"Content-Length: -" + b"9" * 27 + b"\r\n\r\n", 400),
    "negative length": (GET + b"Content-Length: -12\r\n\r\n", 400),
    "length in letters": (GET + b"Content-Length: ten\r\n\r\n", 400),
    "empty value": (GET + b"X-Nothing: \r\n\r\n", 200),
    "control in a value": (GET + b"X-Bell: ring\x07\r\n\r\n", 400),
    "version to come": (b"GET / HTTP/9.9\r\nHost: a.example\r\n\r\n", 505),
    "words before the method": (b"More wordsGET / HTTP/1.1\r\nHost: a.example\r\n\r\n", 400),
    "CR where the header should end": (GET + b"\rX: y\r\n\r\n", 400),
    "body of known length": (POST + b"Content-Length: 5\r\n\r\nhello", 200),
    "body in chunks": (POST + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", 200),
    "length and chunks": (
        POST + b"content-LENGTH: 5\r\nTransfer-ENCODING: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        400,
    ),
}


@pytest.mark.parametrize(("data", "status"), WHOLE.values(), ids=WHOLE)
def test_whole_request_is_answered(data, status):
    client = FakeClient()
    client.send(data)
    assert client.statuses == [status]
    assert client.transport.is_eof_sent == (status != 200)
    if b"hello" in data and status == 200:
        assert client.sent.endswith(b" hello\n")
