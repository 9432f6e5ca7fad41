"""Who may ask: the optional API key, and the pages of other origins (CORS).

Pure: reads a request's head and answers with an error or with header fields.
"""

import hmac

from server.http.errors import Unauthorized
from server.http.request import RequestHead
from server.http.response import Header

_ANY = "*"
_DAY_S = 86400


class Access:
    """The rules for the routes that ask the model.

    Args:
        api_key: what `Authorization: Bearer` must carry, or None to let everybody in.
        cors_origin: an origin whose pages may ask, "*" for all, or None for none.
    """

    def __init__(self, api_key: str | None = None, cors_origin: str | None = None) -> None:
        self._api_key = None if api_key is None else api_key.encode()
        self._cors_origin = cors_origin

    def check(self, head: RequestHead) -> None:
        """Check the request's API key, if the server requires one.

        Raises:
            Unauthorized: if the key is missing or wrong (RFC 6750 section 2.1).
        """
        if self._api_key is None or head.method == "OPTIONS":
            return
        scheme, _, given = head.get(b"authorization").partition(" ")
        # In constant time, which does not reveal how much of the key was right.
        is_right = hmac.compare_digest(given.strip().encode("latin-1"), self._api_key)
        if scheme.lower() != "bearer" or not is_right:
            raise Unauthorized("An API key is required: Authorization: Bearer KEY.")

    def cors(self, head: RequestHead) -> list[Header]:
        """The header fields that let a page of that origin read the answer (Fetch standard)."""
        origin = head.get(b"origin")
        if self._cors_origin is None or not origin:
            return []
        if self._cors_origin == _ANY:
            return [("Access-Control-Allow-Origin", _ANY)]
        if origin != self._cors_origin:
            return [("Vary", "Origin")]
        return [("Access-Control-Allow-Origin", origin), ("Vary", "Origin")]

    def preflight(self, head: RequestHead) -> list[Header]:
        """The header fields that answer a CORS preflight."""
        cors = self.cors(head)
        if not any(name == "Access-Control-Allow-Origin" for name, _ in cors):
            return cors
        # Allow every field the page asks for: clients in pages send fields of their own, and
        # the key is not a credential that a browser adds by itself.
        wanted = head.get(b"access-control-request-headers") or "Content-Type"
        return [
            *cors,
            ("Access-Control-Allow-Methods", "GET, POST"),
            ("Access-Control-Allow-Headers", wanted),
            ("Access-Control-Max-Age", str(_DAY_S)),
        ]
