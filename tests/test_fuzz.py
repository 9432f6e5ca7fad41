"""Any bytes, in any split: the same events or the same error, and never another exception.

Hypothesis makes requests from a grammar that is right most of the time, breaks some of them,
and cuts the bytes anywhere. `make fuzz` runs the same for longer (FUZZ_EXAMPLES).
"""

import itertools
import os

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.network import FakeClient
from tests.test_parser import assert_plain_head_agrees, parse

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "400"))
fuzzed = settings(
    max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), database=None
)

TOKENS = st.sampled_from([b"GET", b"POST", b"HEAD", b"OPTIONS", b"get", b"CONNECT", b"G@T", b""])
TARGETS = st.sampled_from(
    [b"/", b"/x?y=z", b"*", b"http://a/b", b"a:80", b"/%zz", b"/\xff", b"//", b"/a b", b"/\0"]
)
VERSIONS = st.sampled_from([b"HTTP/1.1", b"HTTP/1.0", b"HTTP/2.0", b"HTTP/1.", b"http/1.1", b""])
ENDS = st.sampled_from([b"\r\n"] * 9 + [b"\n", b"\r", b"\r\r\n"])
NAMES = st.sampled_from(
    [
        b"Host",
        b"Content-Length",
        b"Transfer-Encoding",
        b"Connection",
        b"Expect",
        b"X",
        b"X ",
        b" X",
        b"",
    ]
)
VALUES = st.sampled_from(
    [
        b"a",
        b"0",
        b"3",
        b"03",
        b"-3",
        b"51",
        b"9" * 30,
        b"chunked",
        b"chunked, chunked",
        b"close",
        b"keep-alive",
        b"100-continue",
        b"",
        b" \t",
        b"a\x00",
        b"\xff",
        b"a" * 300,
    ]
)
CHUNKS = st.sampled_from(
    [
        b"3\r\nabc\r\n",
        b"0\r\n\r\n",
        b"0\r\nA: b\r\n\r\n",
        b"1;a=b\r\nx\r\n",
        b"0x1\r\nx\r\n",
        b"3 \r\nabc\r\n",
        b"fffffffffffffffff\r\n",
        b"2\r\nabc\r\n",
        b"1\nx\r\n",
        b"abc",
        b"",
    ]
)


@st.composite
def requests(draw):
    line = b" ".join((draw(TOKENS), draw(TARGETS), draw(VERSIONS))) + draw(ENDS)
    host = draw(st.sampled_from([b"Host: a\r\n"] * 5 + [b""]))
    fields = [
        draw(NAMES) + draw(st.sampled_from([b": ", b":", b" : "])) + draw(VALUES) + draw(ENDS)
        for _ in range(draw(st.integers(0, 4)))
    ]
    body = b"".join(draw(st.lists(CHUNKS, max_size=3)))
    return line + host + b"".join(fields) + draw(ENDS) + body


STREAMS = st.one_of(
    st.lists(requests(), min_size=1, max_size=3).map(b"".join),
    st.binary(max_size=200),
    st.lists(st.sampled_from([b"\r", b"\n", b" ", b":", b"GET / HTTP/1.1\r\n", b"0"])).map(
        b"".join
    ),
)
CUTS = st.lists(st.integers(0, 600), max_size=8)


def split(data, cuts):
    edges = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    return [data[start:end] for start, end in itertools.pairwise(edges)]


@fuzzed
@given(STREAMS, CUTS)
def test_any_split_gives_the_same(data, cuts):
    whole = parse([data])
    assert_plain_head_agrees(data, whole)
    assert parse(split(data, cuts)) == whole
    assert parse([data[i : i + 1] for i in range(len(data))]) == whole


@fuzzed
@given(STREAMS, CUTS)
def test_connection_answers_any_bytes_with_whole_responses(data, cuts):
    client, in_parts = FakeClient(), FakeClient()
    client.send(data)
    in_parts.send(*split(data, cuts))
    statuses = [status for status in client.statuses if status != 100]
    # 100 Continue is sent only to a client that waits for it, so it depends on the split.
    assert [status for status in in_parts.statuses if status != 100] == statuses
    assert all(status < 400 for status in statuses[:-1])
    assert 500 not in statuses
    if statuses and statuses[-1] >= 400:
        assert client.transport.is_eof_sent
