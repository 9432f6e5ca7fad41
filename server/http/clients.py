"""Whose request it is: the peer's address, or the one that a trusted proxy reports. Pure.

X-Forwarded-For is a list to which every proxy appends the address that its request came from.
A client can forge the beginning of the list, so it is read from the end, and only as far back
as trusted proxies wrote it.
"""

from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Network = IPv4Network | IPv6Network
_UNKNOWN = "unknown"  # RFC 7239 section 6.2
_IPV6_SITE_BITS = 64  # the bits of one person's network (RFC 6177)


class ClientAddresses:
    """Finds the client of a request.

    Args:
        trusted: the proxies whose X-Forwarded-For is believed.
    """

    def __init__(self, trusted: Sequence[Network] = ()) -> None:
        self._trusted = trusted

    def of(self, peer: str, forwarded_for: bytes) -> str:
        """The address of the client, whose connection comes from `peer`.

        Args:
            peer: the connection's address.
            forwarded_for: the request's X-Forwarded-For; empty if it has none.

        Returns:
            An address as text, or "unknown" if a trusted proxy reports something else.
        """
        if not forwarded_for:
            return peer
        address = peer
        hops = [hop.strip() for hop in forwarded_for.decode("latin-1").split(",")]
        while hops and self.is_trusted(address):
            address = _read_hop(hops.pop())
        return address

    def is_trusted(self, text: str) -> bool:
        """Whether this is the address of one of the proxies."""
        try:
            address = ip_address(text)
        except ValueError:
            return False
        return any(address in network for network in self._trusted)


def share_of(client: str) -> str:
    """Whose share of the queue and of the connections a client counts towards.

    The IPv6 addresses of one /64 network are mostly one client.
    """
    try:
        address = ip_address(client)
    except ValueError:  # a proxy reports no address
        return client
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped:
            return str(address.ipv4_mapped)
        if address.is_link_local:  # all machines of a local network have one such /64 network
            return client
        return str(ip_network((address, _IPV6_SITE_BITS), strict=False))
    return client


# Some proxies append the client's port: 192.0.2.1:90, [2001:db8::1]:90.
def _read_hop(text: str) -> str:
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        # Python takes anything at all as the zone of an IPv6 address.
        return _UNKNOWN if "%" in text else str(ip_address(text))
    except ValueError:
        return _UNKNOWN
