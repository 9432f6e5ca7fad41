"""Access control: the API key and the allowed origins."""

import pytest

from server.api.access import Access
from server.assembly import listens_on_loopback
from server.http.errors import Forbidden, MisdirectedRequest, Unauthorized
from server.http.parser import RequestParser
from server.http.request import ParserLimits

PAGE = "https://page.example"


def head(*lines, method="POST", host="here"):
    parser = RequestParser(ParserLimits())
    request = [f"{method} /prompt HTTP/1.1", f"Host: {host}", *lines]
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
    assert Access(cors_origins=[allowed] if allowed else []).cors(head(*lines)) == expected


def test_preflight_of_an_allowed_page_allows_the_fields_it_asks_for():
    lines = [f"Origin: {PAGE}", "Access-Control-Request-Headers: x-mine, authorization"]
    fields = dict(Access(cors_origins=[PAGE]).preflight(head(*lines, method="OPTIONS")))
    assert fields["Access-Control-Allow-Headers"] == "x-mine, authorization"
    assert fields["Access-Control-Allow-Methods"] == "GET, POST"


def test_preflight_of_another_page_allows_nothing():
    fields = dict(Access(cors_origins=[PAGE]).preflight(head("Origin: https://other.example")))
    assert fields == {"Vary": "Origin"}


@pytest.mark.parametrize(
    ("lines", "may_ask"),
    [
        ((), True),  # a program
        (("Sec-Fetch-Site: same-origin", "Origin: http://here"), True),
        (("Sec-Fetch-Site: none",), True),
        (("Sec-Fetch-Site: cross-site", "Origin: https://evil.example"), False),
        (("Sec-Fetch-Site: same-site", "Origin: http://other.here"), False),
        (("Sec-Fetch-Site: cross-site",), False),
        (("Sec-Fetch-Site: Cross-Site", "Origin: http://here"), False),
        (("Sec-Fetch-Site: cross-site", f"Origin: {PAGE}"), True),  # --cors-origin
        (("Origin: http://here",), True),
        (("Origin: https://here",), True),  # behind a proxy with TLS
        (("Origin: http://here:81",), False),
        (("Origin: http://evil.example",), False),
        (("Origin: null",), False),
        (("Origin: here",), False),
        ((f"Origin: {PAGE}",), True),
    ],
)
def test_pages_of_other_origins_may_not_ask(lines, may_ask):
    access = Access(cors_origins=[PAGE])
    if may_ask:
        access.check(head(*lines))
    else:
        with pytest.raises(Forbidden):
            access.check(head(*lines))


def test_with_a_star_every_page_may_ask():
    access = Access(cors_origins=["*"])
    access.check(head("Sec-Fetch-Site: cross-site", "Origin: https://any.example"))
    access.check(head("Sec-Fetch-Site: cross-site", "Origin: null"))


@pytest.mark.parametrize(
    ("host", "is_ours"),
    [
        ("localhost", True),
        ("LOCALHOST:8080", True),
        ("socrates.localhost:8080", True),
        ("pi.local", True),
        ("127.0.0.1:8080", True),
        ("192.168.1.7", True),
        ("[::1]:8080", True),
        ("pi.example:8080", True),
        ("PI.EXAMPLE", True),
        ("rebind.example:8080", False),
        ("localhost.evil.example", False),
        ("evil-localhost", False),
        ("local", False),
        ("127.0.0.1.nip.io", False),
    ],
)
def test_only_our_own_names_are_answered_to(host, is_ours):
    access = Access(allowed_hosts=["pi.example"])
    request = head(host=host)
    if is_ours:
        access.check_host(request)
    else:
        with pytest.raises(MisdirectedRequest, match="--allowed-hosts"):
            access.check_host(request)
        Access().check_host(request)
        Access(allowed_hosts=["*"]).check_host(request)


@pytest.mark.parametrize("port", ["", ":80"])
def test_default_port_may_be_written_or_not(port):
    Access().check(head("Origin: http://socrates.local", host=f"socrates.local{port}"))


@pytest.mark.parametrize("host", ["localhost.", "socrates.local.:8080", "127.0.0.1."])
def test_final_dot_of_a_name_does_not_matter(host):
    Access(allowed_hosts=()).check_host(head(host=host))


@pytest.mark.parametrize(
    ("hosts", "expected"),
    [
        (["127.0.0.1"], True),
        (["::1", "localhost"], True),
        (["127.0.0.1", "0.0.0.0"], False),
        (["192.168.1.7"], False),
        (["LocalHost"], True),
        (["nobody.invalid"], False),
    ],
)
def test_loopback(hosts, expected):
    assert listens_on_loopback(hosts) is expected
