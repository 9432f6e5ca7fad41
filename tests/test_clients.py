"""Client addresses, with and without proxies in front."""

import pytest

from server.http.clients import ClientAddresses, share_of
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
        (PROXY, "127.0.0.1", "1.2.3.4 status=200", "unknown"),
        (PROXY, "127.0.0.1", "fe80::1%0 status=200", "unknown"),
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
    assert share_of(ClientAddresses(trusted).of(peer, forwarded_for.encode())) == client


def test_what_is_no_network_is_refused():
    with pytest.raises(ValueError, match="must be addresses or networks"):
        parse_networks("127.0.0.1,everybody")
