"""Whose request it is: the peer's address, or the one that a trusted proxy reports. Pure.

X-Forwarded-For is a list to which every proxy appends the address that its request came from.
A client can forge the beginning of the list, so it is read from the end, and only as far back
as trusted proxies wrote it.
"""

from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Network = IPv4Network | IPv6Network
_IPV6_SITE_BITS = 64  # the bits of one person's network (RFC 6177)


class ClientAddresses:
    """Identifies the client of a request.

    Args:
        trusted: the proxies whose X-Forwarded-For is believed.
    """

    def __init__(self, trusted: Sequence[Network] = ()) -> None:
        self._trusted = trusted

    def of(self, peer: str, forwarded_for: str) -> str:
        """A name for the client; IPv6 addresses of one /64 network are mostly one client."""
        address = peer
        hops = [hop.strip() for hop in forwarded_for.split(",")] if forwarded_for else []
        while hops and self.is_trusted(address):
            address = _without_port(hops.pop())
        return _name(address)

    def is_trusted(self, text: str) -> bool:
        """Whether this is the address of one of the proxies."""
        try:
            address = ip_address(text)
        except ValueError:
            return False
        return any(address in network for network in self._trusted)


# Some proxies append the client's port: 192.0.2.1:90, [2001:db8::1]:90.
def _without_port(text: str) -> str:
    if text.startswith("["):
        return text[1:].partition("]")[0]
    return text.partition(":")[0] if text.count(":") == 1 else text


def _name(text: str) -> str:
    try:
        address = ip_address(text)
    except ValueError:  # the peer has gone, or a proxy said "unknown"
        return text
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped:
            return str(address.ipv4_mapped)
        if address.is_link_local:  # all machines of a local network have one such /64 network
            return str(address)
        return str(ip_network((address, _IPV6_SITE_BITS), strict=False))
    return str(address)
