"""Client addresses, with and without proxies in front; and access control."""

import pytest

from server.api.access import Access
from server.api.clients import ClientAddresses
from server.http.errors import Unauthorized
from server.http.request import RequestHead
from server.options import parse_networks

PROXY = parse_networks("127.0.0.1, 10.0.0.0/8, fd00::/8")


@pytest.mark.parametrize(
    ("trusted", "peer", "forwarded_for", "client"),
    [
        ((), "192.0.2.1", "", "192.0.2.1"),
        ((), "192.0.2.1", "198.51.100.7", "192.0.2.1"),
        (PROXY, "192.0.2.1", "198.51.100.7", "192.0.2.1"),
        (PROXY, "127.0.0.1", "198.51.100.7", "198.51.100.7"),
        (PROXY, "127.0.0.1", "", "127.0.0.1"),
        (PROXY, "127.0.0.1", "6.6.6.6, 198.51.100.7", "198.51.100.7"),
        (PROXY, "127.0.0.1", "6.6.6.6, 198.51.100.7, 10.1.2.3", "198.51.100.7"),
        (PROXY, "127.0.0.1", "10.1.2.3", "10.1.2.3"),
        (PROXY, "127.0.0.1", "unknown", "unknown"),
        (PROXY, "127.0.0.1", "198.51.100.7:90", "198.51.100.7"),
        (PROXY, "127.0.0.1", "[2001:db8:1:2:3::4]:90", "2001:db8:1:2::/64"),
        (PROXY, "127.0.0.1", "6.6.6.6, 198.51.100.7, 10.1.2.3:90", "198.51.100.7"),
        (PROXY, "fd00::1", "2001:db8:1:2:3::4", "2001:db8:1:2::/64"),
        ((), "2001:db8:1:2:9::9", "", "2001:db8:1:2::/64"),
        ((), "::ffff:192.0.2.1", "", "192.0.2.1"),
        ((), "", "", ""),
    ],
)
def test_client(trusted, peer, forwarded_for, client):
    assert ClientAddresses(trusted).of(peer, forwarded_for) == client


def test_what_is_no_network_is_refused():
    with pytest.raises(ValueError, match="must be addresses or networks"):
        parse_networks("127.0.0.1,everybody")


def head(method="POST", **fields):
    named = {name.replace("_", "-").encode(): text.encode() for name, text in fields.items()}
    return RequestHead(method, "/prompt", "", 1, named, True, False, False)


@pytest.mark.parametrize("given", ["Bearer secret", "bearer  secret"])
def test_right_key_is_let_in(given):
    Access("secret").check(head(authorization=given))


@pytest.mark.parametrize(
    "given", ["", "secret", "Bearer", "Bearer Secret", "Basic secret", "Bearer secret2", "Bearer é"]
)
def test_wrong_key_is_not(given):
    with pytest.raises(Unauthorized):
        Access("secret").check(head(authorization=given))


def test_without_a_key_everybody_is_let_in():
    Access().check(head())
    Access("secret").check(head("OPTIONS"))  # a browser's preflight carries no key


ALLOW = "Access-Control-Allow-Origin"


@pytest.mark.parametrize(
    ("setting", "origin", "fields"),
    [
        (None, "https://a.example", {}),
        ("https://a.example", "", {}),
        ("https://a.example", "https://a.example", {ALLOW: "https://a.example", "Vary": "Origin"}),
        ("https://a.example", "https://b.example", {"Vary": "Origin"}),
        ("*", "https://b.example", {ALLOW: "*"}),
    ],
)
def test_cors(setting, origin, fields):
    request = head(origin=origin)
    access = Access(cors_origin=setting)
    assert dict(access.cors(request)) == fields
    assert ("Access-Control-Allow-Methods" in dict(access.preflight(request))) == (ALLOW in fields)
