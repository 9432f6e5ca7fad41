"""Access control: the API key and the allowed origins."""

import pytest

from server.api.access import Access
from server.http.errors import Unauthorized
from server.http.parser import RequestParser
from server.http.request import ParserLimits

PAGE = "https://page.example"


def head(*lines, method="POST"):
    parser = RequestParser(ParserLimits())
    request = [f"{method} /prompt HTTP/1.1", "Host: here", *lines]
    parser.receive("\r\n".join(request).encode("latin-1") + b"\r\n\r\n")
    return parser.read_head()


def test_without_a_key_everybody_may_ask():
    Access().check(head())


@pytest.mark.parametrize(
    "line",
    [
        "Authorization: Bearer secret",
        "Authorization: bearer secret",
        "Authorization: Bearer  secret",
    ],
)
def test_the_key_lets_in(line):
    Access("secret").check(head(line))


@pytest.mark.parametrize(
    "lines",
    [
        (),
        ("Authorization: Bearer wrong",),
        ("Authorization: Bearer",),
        ("Authorization: Basic secret",),
        ("Authorization: secret",),
        ("Authorization: Bearer secret2",),
        ("Authorization: Bearer s\xe9cret",),
        ("X-Api-Key: secret",),
    ],
)
def test_anything_else_does_not(lines):
    with pytest.raises(Unauthorized):
        Access("secret").check(head(*lines))


def test_a_preflight_needs_no_key():
    Access("secret").check(head(method="OPTIONS"))


@pytest.mark.parametrize(
    ("allowed", "origin", "expected"),
    [
        (None, PAGE, []),
        ("*", None, []),
        ("*", PAGE, [("Access-Control-Allow-Origin", "*")]),
        (PAGE, PAGE, [("Access-Control-Allow-Origin", PAGE), ("Vary", "Origin")]),
        (PAGE, "https://other.example", [("Vary", "Origin")]),
        (PAGE, "null", [("Vary", "Origin")]),
    ],
)
def test_which_pages_may_read(allowed, origin, expected):
    lines = [] if origin is None else [f"Origin: {origin}"]
    assert Access(cors_origin=allowed).cors(head(*lines)) == expected


def test_preflight_of_an_allowed_page_allows_the_fields_it_asks_for():
    lines = [f"Origin: {PAGE}", "Access-Control-Request-Headers: x-mine, authorization"]
    fields = dict(Access(cors_origin=PAGE).preflight(head(*lines, method="OPTIONS")))
    assert fields["Access-Control-Allow-Headers"] == "x-mine, authorization"
    assert fields["Access-Control-Allow-Methods"] == "GET, POST"


def test_preflight_of_another_page_allows_nothing():
    fields = dict(Access(cors_origin=PAGE).preflight(head("Origin: https://other.example")))
    assert fields == {"Vary": "Origin"}
