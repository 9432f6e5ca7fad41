"""What each path answers: the one place where the wire and the model meet.

Owns the table of routes, the reading of a prompt request, and the mapping of the model
room's errors to statuses. Does no I/O of its own.
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import parse_qsl, unquote

from server import __version__
from server.http.errors import (
    BadRequest,
    ContentTooLarge,
    HttpError,
    MethodNotAllowed,
    NotFound,
    NotImplementedHere,
    PreconditionFailed,
    Unavailable,
    UnsupportedMediaType,
)
from server.http.exchange import TEXT_HEADERS, Exchange
from server.http.request import RequestHead
from server.http.response import Header, Prepared
from server.http.static import Asset
from server.model.engine import Finish, Progress
from server.model.errors import (
    ModelError,
    ModelUnavailable,
    PromptEmpty,
    PromptTooLong,
    QueueFull,
)
from server.model.sampler import Sampling
from server.model.worker import Outcome, State, Worker

_KNOWN_METHODS = frozenset(
    {"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"}
)
_READ = "GET, HEAD, OPTIONS"
_PROMPT = "POST, OPTIONS"
_ANYWHERE = "GET, HEAD, POST, OPTIONS"
_RETRY_AFTER_S = 5  # about one short answer
_KEPT_ENCODED = re.compile(r"%(2[Ff]|5[Cc]|00)")
_PARAMETERS = frozenset({"max_tokens", "temperature", "seed"})
_MAX_TEMPERATURE = 2.0
_MAX_SEED = 2**63 - 1
_TRAILER_NAMES = (
    "Socrates-Finish, Socrates-Prompt-Tokens, Socrates-Cached-Tokens, Socrates-Tokens, "
    "Server-Timing"
)
# X-Accel-Buffering: nginx, and proxies that follow it, must not hold words back.
_STREAM_HEADERS: tuple[Header, ...] = (*TEXT_HEADERS, ("X-Accel-Buffering", "no"))
_JSON_HEADERS: tuple[Header, ...] = (
    ("Content-Type", "application/json"),
    ("X-Content-Type-Options", "nosniff"),
    ("Cache-Control", "no-store"),
)


@dataclass(frozen=True, slots=True)
class PromptLimits:
    """What a prompt request may ask for, and what it gets if it does not ask."""

    body_bytes: int
    max_tokens: int
    temperature: float


@dataclass(frozen=True, slots=True)
class _Route:
    allow: str
    handle: Callable[[RequestHead, bytes, Exchange], None]
    has_tags: bool = False  # sees to preconditions itself


class Routes:
    """The application behind the connections (`server.http.shared.Application`)."""

    def __init__(
        self,
        assets: Mapping[str, Asset],
        worker: Worker,
        model_name: str,
        limits: PromptLimits,
        count_connections: Callable[[], int],
    ) -> None:
        self._assets = assets
        self._worker = worker
        self._count_connections = count_connections
        self._model_name = model_name
        self._limits = limits
        self._routes = {
            "/prompt": _Route(_PROMPT, self._prompt),
            "/healthz": _Route(_READ, self._healthz),
            "/readyz": _Route(_READ, self._readyz),
            "/status": _Route(_READ, self._status),
        }
        for path, asset in assets.items():
            self._routes[path] = _Route(_READ, partial(_send_asset, asset), has_tags=True)

    def body_limit(self, head: RequestHead) -> int:
        """See `Application`."""
        self._find(head)
        return self._limits.body_bytes

    def prepared(self, head: RequestHead) -> Prepared | None:
        """See `Application`."""
        asset = self._assets.get(head.path)
        if asset is None or head.method not in ("GET", "HEAD"):
            return None
        try:
            return asset.respond(head, keep_alive=True)
        except PreconditionFailed:
            return None

    def handle(self, head: RequestHead, body: bytes, exchange: Exchange) -> None:
        """See `Application`."""
        route = self._find(head)
        if head.method == "OPTIONS":
            exchange.respond(204, [("Allow", route.allow)])
        elif route.has_tags or _is_wanted(head):
            route.handle(head, body, exchange)
        else:
            exchange.respond(304, [])

    # The route for a request whose method it allows, or the error that says why not.
    def _find(self, head: RequestHead) -> _Route:
        if head.method not in _KNOWN_METHODS:
            raise NotImplementedHere("That method is not implemented.")
        route = self._routes.get(head.path)
        if route is None:
            route = self._find_unusual(head)
        if head.method not in route.allow.split(", "):
            raise MethodNotAllowed(route.allow)
        if head.method == "POST":
            _check_media_type(head)
        return route

    def _find_unusual(self, head: RequestHead) -> _Route:
        if head.path == "*":
            return _Route(_ANYWHERE, self._healthz)  # only OPTIONS has this target
        route = self._routes.get(_normalise(head.path))
        if route is None:
            raise NotFound("There is nothing at this address.")
        return route

    # -- the page, and how the server is --------------------------------------------------

    def _healthz(self, head: RequestHead, body: bytes, exchange: Exchange) -> None:
        exchange.respond_text(200, "ok")

    def _readyz(self, head: RequestHead, body: bytes, exchange: Exchange) -> None:
        if self._worker.state is not State.READY:
            raise Unavailable(f"The model is {self._worker.state.value}.", _RETRY_AFTER_S)
        if not self._worker.has_room:
            raise Unavailable("The queue is full.", _RETRY_AFTER_S)
        exchange.respond_text(200, "ready")

    def _status(self, head: RequestHead, body: bytes, exchange: Exchange) -> None:
        worker = self._worker
        current = worker.current
        status = {
            "version": __version__,
            "model": self._model_name,
            "state": worker.state.value,
            "busy": current is not None,
            "queued": worker.queued,
            "connections": self._count_connections(),
            "loading": _describe_loading(worker),
            "threads": worker.threads,
            "temperature": _describe_temperature(worker),
            "tokens_per_second": None if worker.speed is None else round(worker.speed, 2),
            "current": None if current is None else _describe_progress(current),
            "last": None if worker.last is None else _describe_outcome(worker.last),
            "prompts": worker.counts,
        }
        exchange.respond(200, _JSON_HEADERS, json.dumps(status).encode() + b"\n")

    # -- the prompt -----------------------------------------------------------------------

    def _prompt(self, head: RequestHead, body: bytes, exchange: Exchange) -> None:
        sampling = self._read_sampling(head.query)
        try:
            text = body.decode("utf-8")
        except UnicodeDecodeError:
            raise BadRequest("The prompt is not valid UTF-8.") from None
        answer = _PromptAnswer(exchange)
        try:
            job = self._worker.submit(text, sampling, answer)
        except ModelError as error:
            raise _as_http(error) from error
        exchange.tells_its_end = True
        exchange.on_disconnect = lambda: self._worker.cancel(job)

    def _read_sampling(self, query: str) -> Sampling:
        pairs = parse_qsl(query, keep_blank_values=True)
        given = dict(pairs)
        if len(given) < len(pairs) or not _PARAMETERS.issuperset(given):
            raise BadRequest("The query takes max_tokens, temperature and seed, once each.")
        max_tokens = _whole(given, "max_tokens", 1, _MAX_SEED) or self._limits.max_tokens
        temperature = _temperature(given)
        return Sampling(
            max_tokens=min(max_tokens, self._limits.max_tokens),
            temperature=self._limits.temperature if temperature is None else temperature,
            seed=_whole(given, "seed", 0, _MAX_SEED),
        )


# RFC 9110 section 13.1, for what has neither tag nor date: /prompt has no representation at
# all, so that no tag can match it; the others have one, which only "*" matches.
def _is_wanted(head: RequestHead) -> bool:
    is_there = head.method != "POST"
    match = head.fields.get(b"if-match")
    if match is not None and not (is_there and match == b"*"):
        raise PreconditionFailed("There is no such version of this.")
    return not (is_there and head.fields.get(b"if-none-match") == b"*")


def _send_asset(asset: Asset, head: RequestHead, body: bytes, exchange: Exchange) -> None:
    exchange.send(asset.respond(head, exchange.keep_alive))


class _PromptAnswer:
    """Writes one answer to its exchange as it comes (`server.model.worker.Listener`)."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange

    def on_text(self, text: str) -> None:
        """The first text brings the head with it, so an earlier failure has its status."""
        self._start()
        self._exchange.write(text.encode())

    def on_end(self, outcome: Outcome) -> None:
        """Finish, fail, or break the stream off."""
        if outcome.error is not None:
            self._exchange.fail(_as_http(outcome.error))
        elif outcome.finish in (Finish.STOP, Finish.LENGTH):
            self._start()
            self._exchange.finish(self._trailers(outcome) if self._wants_trailers else ())
        else:
            self._exchange.abort()
        self._exchange.log(_describe_ending(outcome))

    def _start(self) -> None:
        if not self._exchange.head_sent:
            named = [("Trailer", _TRAILER_NAMES)] if self._wants_trailers else []
            self._exchange.start([*_STREAM_HEADERS, *named])

    # RFC 9110 section 10.1.4; HTTP/1.0 has no place for trailers.
    @property
    def _wants_trailers(self) -> bool:
        head = self._exchange.head
        return head.minor_version > 0 and "trailers" in head.members(b"te")

    @staticmethod
    def _trailers(outcome: Outcome) -> list[Header]:
        durations = {
            "queue": outcome.queue_s,
            "prompt": outcome.prompt_s,
            "generate": outcome.generate_s,
        }
        timing = ", ".join(f"{name};dur={1000 * s:.1f}" for name, s in durations.items())
        return [
            ("Socrates-Finish", outcome.finish.value),
            ("Socrates-Prompt-Tokens", str(outcome.prompt_tokens)),
            ("Socrates-Cached-Tokens", str(outcome.cached_tokens)),
            ("Socrates-Tokens", str(outcome.tokens)),
            ("Server-Timing", timing),
        ]


_STATUS_OF: dict[type[ModelError], Callable[[str], HttpError]] = {
    PromptEmpty: BadRequest,
    PromptTooLong: ContentTooLarge,
    QueueFull: lambda sentence: Unavailable(sentence, _RETRY_AFTER_S),
    ModelUnavailable: lambda sentence: Unavailable(sentence, _RETRY_AFTER_S),
}


def _as_http(error: ModelError) -> HttpError:
    return _STATUS_OF[type(error)](str(error))


# JSON would be read aloud to Socrates, braces and all; a coded body as gibberish.
def _check_media_type(head: RequestHead) -> None:
    media_type = head.get(b"content-type").partition(";")[0].strip().lower()
    if media_type == "application/json" or media_type.endswith("+json"):
        raise UnsupportedMediaType("Send the prompt as plain text, not as JSON.")
    if head.get(b"content-encoding").lower() not in ("", "identity"):
        raise UnsupportedMediaType(
            "Send the prompt without a content coding.", (("Accept-Encoding", "identity"),)
        )


# Decoded once and normalised once (RFC 3986 sections 6.2.2 and 5.2.4). What is encoded as a
# slash, a backslash or NUL stays encoded: it is data, and no border between segments.
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


def _whole(given: Mapping[str, str], name: str, least: int, most: int) -> int | None:
    text = given.get(name)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 19 and least <= int(text) <= most):
        raise BadRequest(f"{name} must be a whole number from {least} to {most}.")
    return int(text)


def _temperature(given: Mapping[str, str]) -> float | None:
    if "temperature" not in given:
        return None
    try:
        value = float(given["temperature"])
    except ValueError:
        value = -1.0
    if not 0 <= value <= _MAX_TEMPERATURE:  # false for NaN, too
        raise BadRequest(f"temperature must be a number from 0 to {_MAX_TEMPERATURE:g}.")
    return value


def _describe_ending(outcome: Outcome) -> dict[str, object]:
    speed = outcome.tokens_per_second
    return {
        "ended": outcome.ending,
        "tokens": outcome.tokens,
        "tokens_per_s": None if speed is None else round(speed, 1),
        "queue_ms": round(1000 * outcome.queue_s, 1),
    }


def _describe_loading(worker: Worker) -> dict[str, Any] | None:
    if worker.state is not State.LOADING:
        return None
    return {"step": worker.loading.describe(), "share": round(worker.loading.share, 3)}


def _describe_temperature(worker: Worker) -> dict[str, Any] | None:
    temperature = worker.temperature
    if temperature is None:
        return None
    return {"celsius": round(temperature.celsius, 1), "duty": round(temperature.duty, 3)}


def _describe_progress(progress: Progress) -> dict[str, Any]:
    return {
        "stage": progress.stage.value,
        "prompt_tokens": progress.prompt_tokens,
        "cached_tokens": progress.cached_tokens,
        "read_tokens": progress.read_tokens,
        "tokens": progress.tokens,
    }


def _describe_outcome(outcome: Outcome) -> dict[str, Any]:
    return {
        "finish": outcome.finish.value,
        "stage": outcome.stage.value,
        "prompt_tokens": outcome.prompt_tokens,
        "cached_tokens": outcome.cached_tokens,
        "tokens": outcome.tokens,
        "queue_ms": round(1000 * outcome.queue_s, 1),
        "prompt_ms": round(1000 * outcome.prompt_s, 1),
        "generate_ms": round(1000 * outcome.generate_s, 1),
    }
