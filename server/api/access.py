"""Who may ask: the optional key, the web pages of other origins, and the names we answer to.

Pure: reads a request's head and answers with an error or with header fields.

A browser sends a page's POST anywhere, without asking first if its body is plain text; so another
site's page could use a server on this machine or this network. Browsers say where a request comes
from (Sec-Fetch-Site, Fetch Metadata; Origin, Fetch standard 3.1), and what says nothing is no
page. And a name that its owner lets point to 127.0.0.1 (DNS rebinding) makes a page of the same
origin out of any: only Host tells.
"""

import hmac
from collections.abc import Collection
from functools import lru_cache
from ipaddress import ip_address

from server.http.errors import Forbidden, MisdirectedRequest, Unauthorized
from server.http.request import RequestHead
from server.http.response import Header

ANY = "*"
_DAY_S = 86400
_REMEMBERED_HOSTS = 64
DEFAULT_PORTS = {"http": "80", "https": "443", "ws": "80", "wss": "443"}  # of an origin
_OURS = ("same-origin", "none")  # the latter: typed into the address bar, or a bookmark


class Access:
    """The rules for the routes that ask the model, and for the names of the server.

    Args:
        api_key: what `Authorization: Bearer` must carry, or None to let everyone in.
        cors_origins: origins whose pages may ask; "*" stands for all.
        allowed_hosts: names to answer to, beside addresses and those of this machine; "*" stands
            for all, and None checks nothing.
    """

    def __init__(
        self,
        api_key: str | None = None,
        cors_origins: Collection[str] = (),
        allowed_hosts: Collection[str] | None = None,
    ) -> None:
        self._api_key = None if api_key is None else api_key.encode()
        self._cors_origins = frozenset(cors_origins)
        self._allowed_hosts = None if allowed_hosts is None else frozenset(allowed_hosts)
        # Whether a Host field names this server. Without the cache this takes a third of the time
        # of a request for the page.
        self.is_ours = lru_cache(_REMEMBERED_HOSTS)(self._judge_host)

    def check(self, head: RequestHead) -> None:
        """Let the request pass, or raise.

        Raises:
            Forbidden: if a page of another origin sends it (RFC 9110 section 15.5.4).
            Unauthorized: if the key is missing or wrong (RFC 6750 section 2.1).
        """
        if head.method == "OPTIONS":
            return
        if not self._is_from_allowed_origin(head):
            raise Forbidden("Pages of other origins may not ask; --cors-origin allows it.")
        if self._api_key is None:
            return
        scheme, _, given = head.get(b"authorization").partition(" ")
        # In a time that does not reveal how much of it was right.
        is_right = hmac.compare_digest(given.strip().encode("latin-1"), self._api_key)
        if scheme.lower() != "bearer" or not is_right:
            raise Unauthorized("An API key is required: Authorization: Bearer KEY.")

    def check_host(self, head: RequestHead) -> None:
        """Let a request pass that is for this server by name.

        Raises:
            MisdirectedRequest: for the name of another (RFC 9110 section 15.5.20).
        """
        if not self.is_ours(head.fields.get(b"host", b"")):
            raise MisdirectedRequest(
                f"This server does not answer to the name {_name_of(head.get(b'host'))}; "
                "--allowed-hosts allows it."
            )

    def cors(self, head: RequestHead) -> list[Header]:
        """The fields that let a page of that origin read the answer (Fetch standard, CORS)."""
        origin = head.get(b"origin")
        if not self._cors_origins or not origin:
            return []
        if ANY in self._cors_origins:
            return [("Access-Control-Allow-Origin", ANY)]
        if origin not in self._cors_origins:
            return [("Vary", "Origin")]
        return [("Access-Control-Allow-Origin", origin), ("Vary", "Origin")]

    def preflight(self, head: RequestHead) -> list[Header]:
        """The fields that answer a page's question whether it may ask at all."""
        cors = self.cors(head)
        if not any(name == "Access-Control-Allow-Origin" for name, _ in cors):
            return cors
        # Whatever it asks for: clients in pages send fields of their own, and the key is
        # no secret that a browser would add by itself.
        wanted = head.get(b"access-control-request-headers") or "Content-Type"
        return [
            *cors,
            ("Access-Control-Allow-Methods", "GET, POST"),
            ("Access-Control-Allow-Headers", wanted),
            ("Access-Control-Max-Age", str(_DAY_S)),
        ]

    def _judge_host(self, host: bytes) -> bool:
        if self._allowed_hosts is None or ANY in self._allowed_hosts:
            return True
        name = _name_of(host.decode("latin-1"))
        return _is_this_machine(name) or name in self._allowed_hosts

    # Without either field it is no browser. Sec-Fetch-Site is missing over plain HTTP at a name
    # such as socrates.local; a page's own POST then has an Origin that is its Host.
    def _is_from_allowed_origin(self, head: RequestHead) -> bool:
        origin = head.get(b"origin")
        if origin and not self._cors_origins.isdisjoint((origin, ANY)):
            return True
        if site := head.get(b"sec-fetch-site"):
            return site.lower() in _OURS
        if not origin:
            return True
        scheme, _, authority = origin.partition("://")
        # A browser leaves the default port out; a proxy may write it.
        host = head.get(b"host").lower().removesuffix(f":{DEFAULT_PORTS.get(scheme, '')}")
        return authority == host


def _name_of(host: str) -> str:
    if host.startswith("["):
        return host.partition("]")[0][1:]
    name = host.rpartition(":")[0] or host if ":" in host else host
    return name.lower().removesuffix(".")  # the root, as in socrates.local.


# An address cannot be made to point elsewhere; localhost never leaves the machine (RFC 6761
# section 6.3), and .local is answered on the local network only (RFC 6762).
def _is_this_machine(name: str) -> bool:
    if not name:  # HTTP/1.0: no browser
        return True
    try:
        ip_address(name)
    except ValueError:
        return name == "localhost" or name.endswith((".localhost", ".local"))
    return True
