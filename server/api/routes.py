"""What each path answers, and the rules that hold for all: methods, preconditions, keys.

Owns the table of routes. The answers come from monitoring.py, prompt.py, completions.py and
the page's files. Does no I/O of its own.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from urllib.parse import quote, unquote

from server.api.access import Access
from server.api.completions import ApiError, Completions, NoModel
from server.api.monitoring import Monitoring
from server.api.prompt import Prompts
from server.http.assets import Asset
from server.http.errors import (
    HttpError,
    MethodNotAllowed,
    NotFound,
    NotImplementedHere,
    PreconditionFailed,
    UnsupportedMediaType,
)
from server.http.exchange import Exchange
from server.http.request import RequestHead
from server.http.response import Prepared

_KNOWN_METHODS = frozenset(
    {"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"}
)
_READ = "GET, HEAD, OPTIONS"
_ASK = "POST, OPTIONS"
_ANYWHERE = "GET, HEAD, POST, OPTIONS"
_API = "/v1/"
_HEALTH = "/healthz"  # asked by load balancers and containers, by any name
_CHARSET = re.compile(r"(?:^|;)\s*charset\s*=\s*\"?([^\s\";]*)")
_CHARSETS = ("utf-8", "utf8", "us-ascii", "ascii")
_KEPT_ENCODED = re.compile(r"%(2[Ff]|5[Cc]|00)")

Handle = Callable[[Exchange], None]


def _nothing_to_check(head: RequestHead) -> None:
    pass


@dataclass(frozen=True, slots=True)
class _Route:
    allow: str
    handle: Handle
    checks_preconditions: bool = False  # itself
    needs_key: bool = False  # and allows other origins: the rules of `Access` apply
    body_limit: Callable[[RequestHead], int] | None = None  # None: the general limit
    check: Callable[[RequestHead], None] = _nothing_to_check  # of a POST's head


class Routes:
    """The application behind the connections (`server.http.state.Application`).

    Args:
        assets: the page's files by path.
        monitoring: answers questions about the server itself.
        prompts: answers /prompt.
        completions: answers the API.
        access: who may ask the model.
        model_name: the API has a path for it.
        body_bytes: the maximum size of a request's body, unless the route says otherwise.
    """

    def __init__(
        self,
        assets: Mapping[str, Asset],
        monitoring: Monitoring,
        prompts: Prompts,
        completions: Completions,
        access: Access,
        model_name: str,
        body_bytes: int,
    ) -> None:
        self._body_bytes = body_bytes
        self._assets = assets
        self._access = access
        models = f"{_API}models"
        self._routes = {
            _HEALTH: _Route(_READ, monitoring.healthz),
            "/readyz": _Route(_READ, monitoring.readyz),
            "/status": _Route(_READ, monitoring.status),
            "/metrics": _Route(_READ, monitoring.metrics),
            "/prompt": _Route(
                _ASK,
                prompts.handle,
                needs_key=True,
                body_limit=prompts.body_limit,
                check=_check_text,
            ),
            f"{_API}chat/completions": _Route(
                _ASK,
                completions.handle,
                needs_key=True,
                body_limit=completions.body_limit,
                check=_check_json,
            ),
            models: _Route(_READ, completions.list_models, needs_key=True),
        }
        # As clients spell it, and as it is once decoded.
        for name in (quote(model_name, safe=""), model_name):
            self._routes[f"{models}/{name}"] = _Route(_READ, completions.show_model, needs_key=True)
        for path, asset in assets.items():
            self._routes[path] = _Route(
                _READ, partial(_send_asset, asset), checks_preconditions=True
            )

    def body_limit(self, head: RequestHead) -> int:
        """See `Application`."""
        limit = self._find(head).body_limit
        return self._body_bytes if limit is None else limit(head)

    def render_error(self, head: RequestHead, error: HttpError) -> HttpError:
        """See `Application`."""
        is_api = _is_api(head.path)
        if is_api:
            error = ApiError(error)
        if is_api or head.path == "/prompt":
            error.headers = (*error.headers, *self._access.cors(head))
        return error

    def cached_response(self, head: RequestHead) -> Prepared | None:
        """See `Application`."""
        asset = self._assets.get(head.path)
        if asset is None or head.method not in ("GET", "HEAD"):
            return None
        if not self._access.is_ours(head.fields.get(b"host", b"")):
            return None
        try:
            return asset.respond(head, keep_alive=True)
        except PreconditionFailed:
            return None

    def handle(self, exchange: Exchange) -> None:
        """See `Application`."""
        head = exchange.head
        route = self._find(head)
        if head.method == "OPTIONS":
            cors = self._access.preflight(head) if route.needs_key else []
            exchange.respond(204, [("Allow", route.allow), *cors])
        elif route.checks_preconditions or _is_wanted(head):
            if route.needs_key:
                exchange.headers = self._access.cors(head)
            route.handle(exchange)
        else:
            exchange.respond(304, [])

    # The route for a request that may use it; raises the error that says why not.
    def _find(self, head: RequestHead) -> _Route:
        if head.method not in _KNOWN_METHODS:
            raise NotImplementedHere("That method is not implemented.")
        if head.path != _HEALTH:
            self._access.check_host(head)
        route = self._routes.get(head.path)
        if route is None:
            route = self._find_unusual(head)
        if head.method not in route.allow.split(", "):
            raise MethodNotAllowed(route.allow)
        if route.needs_key:
            self._access.check(head)
        if head.method == "POST":
            route.check(head)
        return route

    def _find_unusual(self, head: RequestHead) -> _Route:
        if head.path == "*":
            return _Route(_ANYWHERE, _answer_nothing)  # only OPTIONS has this target
        path = _normalise(head.path)
        route = self._routes.get(path)
        if route is None and path.startswith(f"{_API}models/"):
            raise NoModel(f"There is no model {unquote(path.rpartition('/')[2])!r}.")
        if route is None:
            raise NotFound("There is nothing at this address.")
        return route


# However the path is spelt, a client of the API expects an error of the API's form.
def _is_api(path: str) -> bool:
    return path.startswith(_API) or ("/" + _normalise(path).lstrip("/")).startswith(_API)


# RFC 9110 section 13.1, for resources without tag and date: /prompt has no representation at
# all, so no tag can match it; the others have one, which only "*" matches.
def _is_wanted(head: RequestHead) -> bool:
    is_there = head.method != "POST"
    match = head.fields.get(b"if-match")
    if match is not None and not (is_there and match == b"*"):
        raise PreconditionFailed("There is no such version of this resource.")
    return not (is_there and head.fields.get(b"if-none-match") == b"*")


def _send_asset(asset: Asset, exchange: Exchange) -> None:
    exchange.send(asset.respond(exchange.head, exchange.keep_alive))


def _answer_nothing(exchange: Exchange) -> None:
    exchange.respond(204, [])


# A compressed body would reach Socrates as gibberish.
def _check_coding(head: RequestHead) -> None:
    if head.get(b"content-encoding").lower() not in ("", "identity"):
        raise UnsupportedMediaType(
            "Send the body without a content coding.", (("Accept-Encoding", "identity"),)
        )


# Only application/json: a text or form type would let a page of another site POST without a
# CORS preflight.
def _check_json(head: RequestHead) -> None:
    if not head.is_json:
        raise UnsupportedMediaType("Send JSON, with Content-Type: application/json.")
    _check_text(head)


# What is no text in UTF-8 would be misread without a word.
def _check_text(head: RequestHead) -> None:
    media_type, _, parameters = head.get(b"content-type").lower().partition(";")
    if media_type.strip().startswith("multipart/"):
        raise UnsupportedMediaType("Send the bare text, not a form in parts.")
    charset = _CHARSET.search(parameters)
    if charset and charset[1] not in _CHARSETS:
        raise UnsupportedMediaType("Send the body in UTF-8.")
    _check_coding(head)


# Decoded once and normalised once (RFC 3986 sections 6.2.2 and 5.2.4). An encoded slash,
# backslash or NUL stays encoded: it is data, not a separator between segments.
def _normalise(path: str) -> str:
    decoded = _KEPT_ENCODED.sub(r"%25\1", path)
    segments: list[str] = []
    for segment in unquote(decoded, errors="replace").split("/")[1:]:
        if segment == "..":
            segments = segments[:-1]
        elif segment != ".":
            segments.append(segment)
    if segment in (".", ".."):
        segments.append("")  # "/a/." is the directory "/a/"
    return "/" + "/".join(segments)
