"""The parser against a table of cases, each replayed whole, in halves and byte by byte."""

import pytest

from server.http.errors import (
    BadRequest,
    ContentTooLarge,
    ExpectationFailed,
    FieldsTooLarge,
    HttpError,
    MisdirectedRequest,
    NotImplementedHere,
    TargetTooLong,
    VersionNotSupported,
)
from server.http.fastpath import read_plain_head
from server.http.parser import RequestParser
from server.http.request import ParserLimits

LIMITS = ParserLimits(request_line_bytes=100, header_bytes=300, header_count=5)
BODY_LIMIT = 50
HOST = b"Host: a\r\n"


def parse(parts):
    """Parse `parts`; returns a list of (head, body), ended by the error if there is one."""
    parser, results, head = RequestParser(LIMITS), [], None
    for part in parts:
        parser.receive(part)
        try:
            while True:
                head = head or parser.read_head()
                if head is None:
                    break
                body = parser.read_body(BODY_LIMIT) if head.has_body else b""
                if body is None:
                    break
                results.append((head, body))
                head = None
        except HttpError as error:
            results.append((type(error), str(error)))
            return results
    return results


def replay(data):
    """Parse `data` in one piece, and assert that every other way gives the same."""
    whole = parse([data])
    assert parse([data[i : i + 1] for i in range(len(data))]) == whole
    for cut in range(1, len(data)):
        assert parse([data[:cut], data[cut:]]) == whole
    assert_plain_head_agrees(data, whole)
    return whole


def assert_plain_head_agrees(data, whole):
    head = read_plain_head(data, LIMITS)
    assert head is None or whole == [(head, b"")]


def get(line=b"GET / HTTP/1.1", fields=HOST):
    return line + b"\r\n" + fields + b"\r\n"


def post(fields, body=b""):
    return get(b"POST / HTTP/1.1", HOST + fields) + body


def chunked(body):
    return post(b"Transfer-Encoding: chunked\r\n", body)


ACCEPTED = [
    ("plain", get(), "GET", "/", b""),
    ("query", get(b"GET /a/b?c=d&e HTTP/1.1"), "GET", "/a/b", b""),
    ("percent", get(b"GET /%41%2f HTTP/1.1"), "GET", "/%41%2f", b""),
    ("http_1_0_without_host", get(b"GET / HTTP/1.0", b""), "GET", "/", b""),
    ("http_1_9", get(b"GET / HTTP/1.9"), "GET", "/", b""),
    ("unknown_method", get(b"get / HTTP/1.1"), "get", "/", b""),
    ("asterisk", get(b"OPTIONS * HTTP/1.1"), "OPTIONS", "*", b""),
    ("absolute", get(b"GET http://b:80/x?y HTTP/1.1"), "GET", "/x", b""),
    ("absolute_without_path", get(b"GET http://b HTTP/1.1"), "GET", "/", b""),
    ("absolute_upper_case", get(b"GET HTTP://b/ HTTP/1.1"), "GET", "/", b""),
    ("one_empty_line_first", b"\r\n" + get(), "GET", "/", b""),
    ("host_ipv6", get(fields=b"Host: [::1]:8080\r\n"), "GET", "/", b""),
    ("host_ipv4_in_ipv6", get(fields=b"Host: [::ffff:1.2.3.4]\r\n"), "GET", "/", b""),
    ("host_ip_future", get(fields=b"Host: [v1.x]\r\n"), "GET", "/", b""),
    ("host_with_empty_port", get(fields=b"Host: a:\r\n"), "GET", "/", b""),
    ("field_without_blank", get(fields=b"Host:a\r\n"), "GET", "/", b""),
    ("field_empty", get(fields=HOST + b"X:\r\n"), "GET", "/", b""),
    ("field_tabs_around", get(fields=b"Host:\t a \t\r\n"), "GET", "/", b""),
    ("field_obs_text", get(fields=HOST + b"X: \xff\x80\r\n"), "GET", "/", b""),
    ("field_repeated", get(fields=HOST + b"X: 1\r\nX: 2\r\n"), "GET", "/", b""),
    ("length", post(b"Content-Length: 3\r\n", b"abc"), "POST", "/", b"abc"),
    ("length_zero", post(b"Content-Length: 0\r\n"), "POST", "/", b""),
    ("length_leading_zeros", post(b"Content-Length: 0003\r\n", b"abc"), "POST", "/", b"abc"),
    ("chunks", chunked(b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"), "POST", "/", b"abcde"),
    ("chunks_none", chunked(b"0\r\n\r\n"), "POST", "/", b""),
    ("chunk_hex_upper", chunked(b"A\r\n0123456789\r\n0\r\n\r\n"), "POST", "/", b"0123456789"),
    ("chunk_zeros", chunked(b"0003\r\nabc\r\n000\r\n\r\n"), "POST", "/", b"abc"),
    ("chunk_extension", chunked(b'1;a=b;c="d;\\""\r\nx\r\n0;e\r\n\r\n'), "POST", "/", b"x"),
    ("chunk_extension_blanks", chunked(b"1 ; a = b\r\nx\r\n0\r\n\r\n"), "POST", "/", b"x"),
    ("chunk_trailers", chunked(b"1\r\nx\r\n0\r\nA: b\r\nHost: c\r\n\r\n"), "POST", "/", b"x"),
    (
        "chunked_upper_case",
        post(b"Transfer-Encoding: CHUNKED\r\n", b"0\r\n\r\n"),
        "POST",
        "/",
        b"",
    ),
]


@pytest.mark.parametrize(("data", "method", "path", "body"), [c[1:] for c in ACCEPTED], ids=[c[0] for c in ACCEPTED])  # fmt: skip
def test_accepted(data, method, path, body):
    [(head, got)] = replay(data)
    assert (head.method, head.path, got) == (method, path, body)


BAD_LINE = "The request line is not valid HTTP/1.1."
BAD_FIELD = "A header line is not valid HTTP/1.1."
BAD_TARGET = "The request target is not valid HTTP/1.1."
BAD_ENDING = "Lines must end in CRLF; CR and LF are allowed nowhere else."
BAD_CHUNK = "A chunk's first line is not valid HTTP/1.1."
BAD_CODING = "The last transfer coding, and only the last, must be chunked."
BAD_HOST = "The Host field is not a valid host."
NO_NUMBER = "Content-Length is not a number."

REFUSED = [
    # request line
    ("garbage", b"\x16\x03\x01\x02\x00\r\n", BadRequest, BAD_LINE),
    ("two_empty_lines_first", b"\r\n\r\n" + get(), BadRequest, BAD_LINE),
    ("http_0_9", b"GET /\r\n", BadRequest, BAD_LINE),
    ("two_blanks", get(b"GET  / HTTP/1.1"), BadRequest, BAD_LINE),
    ("tab_for_blank", get(b"GET\t/ HTTP/1.1"), BadRequest, BAD_LINE),
    ("leading_blank", get(b" GET / HTTP/1.1"), BadRequest, BAD_LINE),
    ("trailing_blank", get(b"GET / HTTP/1.1 "), BadRequest, BAD_LINE),
    ("blank_in_target", get(b"GET /a b HTTP/1.1"), BadRequest, BAD_LINE),
    ("bad_method", get(b"G@T / HTTP/1.1"), BadRequest, BAD_LINE),
    ("non_ascii_target", get(b"GET /\xc3\xa9 HTTP/1.1"), BadRequest, BAD_LINE),
    ("nul_in_target", get(b"GET /\0 HTTP/1.1"), BadRequest, BAD_LINE),
    ("fragment", get(b"GET /#a HTTP/1.1"), BadRequest, BAD_LINE),
    ("lower_case_version", get(b"GET / http/1.1"), BadRequest, BAD_LINE),
    ("two_digit_version", get(b"GET / HTTP/1.10"), BadRequest, BAD_LINE),
    ("http_2_preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", VersionNotSupported, None),
    ("http_3", get(b"GET / HTTP/3.0"), VersionNotSupported, None),
    ("relative_target", get(b"GET a HTTP/1.1"), BadRequest, BAD_TARGET),
    ("asterisk_get", get(b"GET * HTTP/1.1"), BadRequest, None),
    ("authority_get", get(b"GET a:80 HTTP/1.1"), BadRequest, BAD_TARGET),
    ("connect", get(b"CONNECT a:80 HTTP/1.1"), NotImplementedHere, None),
    ("absolute_empty_host", get(b"GET http:///x HTTP/1.1"), BadRequest, BAD_TARGET),
    ("absolute_user", get(b"GET http://u@b/ HTTP/1.1"), BadRequest, BAD_TARGET),
    ("absolute_ftp", get(b"GET ftp://b/ HTTP/1.1"), BadRequest, BAD_TARGET),
    ("broken_percent", get(b"GET /%4 HTTP/1.1"), BadRequest, None),
    ("long_line", get(b"GET /" + b"a" * 100 + b" HTTP/1.1"), TargetTooLong, None),
    ("endless_target", b"GET /" + b"a" * 200, TargetTooLong, None),
    ("endless_method", b"a" * 200, NotImplementedHere, "That method is not implemented."),
    ("connect_path", get(b"CONNECT / HTTP/1.1"), NotImplementedHere, None),
    ("absolute_https", get(b"GET HTTPS://b/ HTTP/1.1"), MisdirectedRequest, None),
    ("brackets_in_path", get(b"GET /x[1] HTTP/1.1"), BadRequest, BAD_TARGET),
    ("brackets_in_absolute_path", get(b"GET http://b/[ HTTP/1.1"), BadRequest, BAD_TARGET),
    # line ends
    ("bare_lf", b"GET / HTTP/1.1\nHost: a\n\n", BadRequest, BAD_ENDING),
    ("bare_lf_in_field", get(fields=b"Host: a\nX: b\r\n"), BadRequest, BAD_ENDING),
    ("bare_cr_in_line", get(b"GET /\r HTTP/1.1"), BadRequest, BAD_ENDING),
    ("bare_cr_in_field", get(fields=b"Host: a\rb\r\n"), BadRequest, BAD_ENDING),
    ("cr_cr_lf", get(fields=b"Host: a\r\r\n"), BadRequest, BAD_ENDING),
    # fields
    ("blank_before_colon", get(fields=b"Host : a\r\n"), BadRequest, BAD_FIELD),
    ("folded", get(fields=HOST + b"X: a\r\n b\r\n"), BadRequest, BAD_FIELD),
    ("blank_first_line", get(fields=b" Host: a\r\n"), BadRequest, BAD_FIELD),
    ("no_colon", get(fields=HOST + b"X\r\n"), BadRequest, BAD_FIELD),
    ("empty_name", get(fields=HOST + b": a\r\n"), BadRequest, BAD_FIELD),
    ("bad_name", get(fields=HOST + b"X(y): a\r\n"), BadRequest, BAD_FIELD),
    ("non_ascii_name", get(fields=HOST + b"\xc3\xa9: a\r\n"), BadRequest, BAD_FIELD),
    ("nul_in_value", get(fields=HOST + b"X: a\0b\r\n"), BadRequest, BAD_FIELD),
    ("control_in_value", get(fields=HOST + b"X: \x0b\r\n"), BadRequest, BAD_FIELD),
    ("delete_in_value", get(fields=HOST + b"X: \x7f\r\n"), BadRequest, BAD_FIELD),
    ("many_fields", get(fields=HOST + b"X: a\r\n" * 5), FieldsTooLarge, None),
    ("large_fields", get(fields=HOST + b"X: " + b"a" * 290 + b"\r\n"), FieldsTooLarge, None),
    ("endless_field", get()[:-2] + b"X: " + b"a" * 400, FieldsTooLarge, None),
    # host
    ("host_missing", get(fields=b""), BadRequest, "An HTTP/1.1 request needs a Host field."),
    ("host_twice", get(fields=HOST + HOST), BadRequest, "The field host was sent more than once."),
    ("host_empty", get(fields=b"Host:\r\n"), BadRequest, BAD_HOST),
    ("host_list", get(fields=b"Host: a, b\r\n"), BadRequest, None),
    ("host_user", get(fields=b"Host: u@a\r\n"), BadRequest, BAD_HOST),
    ("host_path", get(fields=b"Host: a/b\r\n"), BadRequest, BAD_HOST),
    ("host_blank", get(fields=b"Host: a b\r\n"), BadRequest, BAD_HOST),
    ("host_colons", get(fields=b"Host: [:::::]\r\n"), BadRequest, BAD_HOST),
    ("host_ipv4_in_brackets", get(fields=b"Host: [1.2.3.4]\r\n"), BadRequest, BAD_HOST),
    ("host_port_too_large", get(fields=b"Host: a:65536\r\n"), BadRequest, BAD_HOST),
    ("host_bad_port", get(fields=b"Host: a:b\r\n"), BadRequest, BAD_HOST),
    # length
    ("length_sign", post(b"Content-Length: +3\r\n", b"abc"), BadRequest, NO_NUMBER),
    ("length_minus", post(b"Content-Length: -1\r\n"), BadRequest, NO_NUMBER),
    ("length_hex", post(b"Content-Length: 0x3\r\n", b"abc"), BadRequest, NO_NUMBER),
    ("length_underscore", post(b"Content-Length: 1_0\r\n"), BadRequest, NO_NUMBER),
    ("length_blank", post(b"Content-Length: 1 1\r\n"), BadRequest, NO_NUMBER),
    ("length_empty", post(b"Content-Length:\r\n"), BadRequest, NO_NUMBER),
    ("length_list", post(b"Content-Length: 3, 3\r\n", b"abc"), BadRequest, NO_NUMBER),
    ("length_arabic", post("Content-Length: ٣\r\n".encode(), b"abc"), BadRequest, NO_NUMBER),
    ("length_twice", post(b"Content-Length: 3\r\nContent-Length: 3\r\n"), BadRequest, None),
    ("length_over_limit", post(b"Content-Length: 51\r\n"), ContentTooLarge, None),
    ("length_huge", post(b"Content-Length: 1" + b"0" * 200 + b"\r\n"), ContentTooLarge, None),
    # transfer coding
    ("length_and_coding", post(b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n"), BadRequest, None),
    ("coding_in_1_0", get(b"POST / HTTP/1.0", b"Transfer-Encoding: chunked\r\n"), BadRequest, None),
    ("coding_unknown", post(b"Transfer-Encoding: xchunked\r\n"), BadRequest, BAD_CODING),
    ("coding_identity", post(b"Transfer-Encoding: identity\r\n"), BadRequest, BAD_CODING),
    ("coding_behind", post(b"Transfer-Encoding: chunked, identity\r\n"), BadRequest, BAD_CODING),
    ("coding_twice", post(b"Transfer-Encoding: chunked, chunked\r\n"), BadRequest, BAD_CODING),
    ("coding_two_lines", post(b"Transfer-Encoding: chunked\r\n" * 2), BadRequest, None),
    ("coding_empty_member", post(b"Transfer-Encoding: ,chunked\r\n"), BadRequest, BAD_CODING),
    ("coding_empty", post(b"Transfer-Encoding:\r\n"), BadRequest, BAD_CODING),
    ("coding_parameter", post(b"Transfer-Encoding: chunked;a=b\r\n"), BadRequest, BAD_CODING),
    ("coding_vertical_tab", post(b"Transfer-Encoding: \x0bchunked\r\n"), BadRequest, BAD_FIELD),
    ("coding_gzip", post(b"Transfer-Encoding: gzip, chunked\r\n"), NotImplementedHere, None),
    # chunks
    ("chunk_sign", chunked(b"+1\r\nx\r\n"), BadRequest, BAD_CHUNK),
    ("chunk_0x", chunked(b"0x1\r\nx\r\n"), BadRequest, BAD_CHUNK),
    ("chunk_underscore", chunked(b"1_0\r\n"), BadRequest, BAD_CHUNK),
    ("chunk_blank_behind", chunked(b"1 \r\nx\r\n"), BadRequest, BAD_CHUNK),
    ("chunk_blank_before", chunked(b" 1\r\nx\r\n"), BadRequest, BAD_CHUNK),
    ("chunk_empty_line", chunked(b"\r\n"), BadRequest, BAD_CHUNK),
    ("chunk_bare_lf", chunked(b"1\nx\r\n"), BadRequest, BAD_ENDING),
    ("chunk_lf_in_extension", chunked(b"1;a\nb\r\nx\r\n"), BadRequest, BAD_ENDING),
    ("chunk_bad_extension", chunked(b"1;=\r\nx\r\n"), BadRequest, BAD_CHUNK),
    ("chunk_no_end", chunked(b"1\r\nxy\r\n"), BadRequest, None),
    ("chunk_lf_end", chunked(b"1\r\nx\n0\r\n\r\n"), BadRequest, None),
    ("chunk_over_limit", chunked(b"33\r\n"), ContentTooLarge, None),
    ("chunks_over_limit", chunked(b"32\r\n" + b"x" * 50 + b"\r\n1\r\n"), ContentTooLarge, None),
    ("chunk_overflow", chunked(b"1" + b"0" * 16 + b"\r\n"), ContentTooLarge, None),
    ("chunk_long_line", chunked(b"1;" + b"a" * 300 + b"\r\n"), BadRequest, None),
    ("trailer_bad", chunked(b"0\r\nA : b\r\n\r\n"), BadRequest, BAD_FIELD),
    ("trailer_many", chunked(b"0\r\n" + b"A: b\r\n" * 6), FieldsTooLarge, None),
    # expectation
    ("expectation", post(b"Expect: wonders\r\n"), ExpectationFailed, None),
]  # fmt: skip


@pytest.mark.parametrize(("data", "error", "sentence"), [c[1:] for c in REFUSED], ids=[c[0] for c in REFUSED])  # fmt: skip
def test_refused(data, error, sentence):
    [(got, message)] = replay(data)
    assert got is error
    assert message.endswith(".")
    if sentence:
        assert message == sentence


def test_extensions_of_many_chunks_are_bounded():
    results = parse([chunked((b"1;" + b"a" * 200 + b"\r\nx\r\n") * 30)])
    assert results == [(BadRequest, "The chunk extensions are over 4096 bytes.")]


def test_pipelined_requests_come_in_order():
    data = get(b"GET /1 HTTP/1.1") + chunked(b"1\r\nx\r\n0\r\n\r\n") + get(b"GET /3 HTTP/1.1")
    assert [(head.path, body) for head, body in replay(data)] == [
        ("/1", b""),
        ("/", b"x"),
        ("/3", b""),
    ]


def test_nothing_is_read_behind_an_error():
    assert len(replay(get(fields=b"") + get())) == 1


@pytest.mark.parametrize(
    ("line", "field", "keep_alive"),
    [
        (b"GET / HTTP/1.1", b"", True),
        (b"GET / HTTP/1.1", b"Connection: close\r\n", False),
        (b"GET / HTTP/1.1", b"Connection: TE, Close\r\n", False),
        (b"GET / HTTP/1.1", b"Connection: TE\r\nConnection: close\r\n", False),
        (b"GET / HTTP/1.0", b"", False),
        (b"GET / HTTP/1.0", b"Connection: Keep-Alive\r\n", True),
        (b"GET / HTTP/1.0", b"Connection: keep-alive, close\r\n", False),
    ],
)
def test_keep_alive(line, field, keep_alive):
    [(head, _)] = replay(get(line, HOST + field))
    assert head.keep_alive is keep_alive


@pytest.mark.parametrize(
    ("line", "field", "expects"),
    [
        (b"POST / HTTP/1.1", b"Content-Length: 1\r\nExpect: 100-Continue\r\n", True),
        (b"POST / HTTP/1.1", b"Expect: 100-continue\r\n", False),
        (b"POST / HTTP/1.0", b"Content-Length: 1\r\nExpect: 100-continue\r\n", False),
        (b"POST / HTTP/1.0", b"Content-Length: 1\r\nExpect: wonders\r\n", False),
    ],
)
def test_expectation(line, field, expects):
    parser = RequestParser(LIMITS)
    parser.receive(get(line, HOST + field))
    assert parser.read_head().expects_continue is expects


def test_repeated_fields_are_joined():
    [(head, _)] = replay(get(fields=HOST + b"X: 1\r\nx: 2\r\n"))
    assert head.get(b"x") == "1, 2"
    assert head.members(b"x") == ["1", "2"]
    assert head.get(b"y") == ""


def test_a_full_header_is_accepted_and_one_byte_more_is_not():
    def value(length):
        return get(fields=HOST + b"X: " + b"a" * length + b"\r\n")

    # "Host: a", CRLF and "X: " take 12 bytes of the 300.
    assert len(replay(value(288))) == 1
    assert replay(value(288))[0][0].method == "GET"
    assert replay(value(289))[0][0] is FieldsTooLarge


def test_a_line_that_trickles_in_is_not_read_again_for_every_byte(monkeypatch):
    parser, calls = RequestParser(ParserLimits()), []
    parser.receive(get()[:-2] + b"X: ")
    assert parser.read_head() is None
    monkeypatch.setattr(RequestParser, "_read_fields", lambda self: calls.append(1))
    for _ in range(10_000):
        parser.receive(b"y")
        assert parser.read_head() is None
    assert not calls
    parser.receive(b"\r\n")
    parser.read_head()
    assert calls == [1]


@pytest.mark.parametrize(
    "data",
    [
        get(),
        get(b"HEAD /a?b HTTP/1.0"),
        get(fields=HOST + b"Accept: */*\r\nConnection: keep-alive\r\nX:\r\n"),
    ],
)
def test_plain_heads_are_known_as_such(data):
    assert read_plain_head(data, LIMITS) is not None
    assert read_plain_head(data[:-1], LIMITS) is None
    assert read_plain_head(data + b"x", LIMITS) is None


def test_authority_of_the_target_takes_the_place_of_host():
    [(head, _)] = parse([b"GET http://other.example/x HTTP/1.1\r\n" + HOST + b"\r\n"])
    assert (head.path, head.get(b"host")) == ("/x", "other.example")


@pytest.mark.parametrize("query", [b"q=100%", b"q=%zz", b"%"])
def test_stray_percent_is_taken_in_a_query(query):
    [(head, _)] = parse([b"GET /?" + query + b" HTTP/1.1\r\n" + HOST + b"\r\n"])
    assert head.query == query.decode()
