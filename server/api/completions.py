"""POST /v1/chat/completions and GET /v1/models: the API that most tools support.

Owns the shapes of its answers: whole, streamed as server-sent events, and errors. What a
request may contain is up to messages.py. Source: OpenAI's API reference, "Chat completions".
"""

import json
import secrets
import time
from collections.abc import Mapping, Sequence
from typing import Any

from server.api.messages import (
    BadField,
    ChatLimits,
    ContextExceeded,
    NothingSaid,
    read_chat_request,
)
from server.api.reply import Replies
from server.http.errors import HttpError, NotFound
from server.http.exchange import (
    FRESH_HEADERS,
    JSON_HEADERS,
    JSON_TYPE,
    STREAM_HEADERS,
    Exchange,
)
from server.http.request import RequestHead
from server.http.response import Header
from server.model.job import Outcome

_OWNER = "socratic-chat-bot"
_EVENT_HEADERS: tuple[Header, ...] = (
    ("Content-Type", "text/event-stream; charset=utf-8"),
    *FRESH_HEADERS,
    *STREAM_HEADERS,
)
_END_OF_EVENTS = b"data: [DONE]\n\n"
# By status: type and code, as OpenAI's API has them (its reference, "Error codes").
_KINDS = {
    401: ("invalid_request_error", "invalid_api_key"),
    403: ("invalid_request_error", "origin_not_allowed"),
    404: ("invalid_request_error", "unknown_url"),
    413: ("invalid_request_error", "string_above_max_length"),
    429: ("rate_limit_error", "rate_limit_exceeded"),
    503: ("server_error", "server_overloaded"),
}


class ApiError(HttpError):
    """An error in the API's own form."""

    content_type = JSON_TYPE

    def __init__(self, error: HttpError) -> None:
        super().__init__(str(error), error.headers)
        self.status = error.status
        kind = "server_error" if error.status >= 500 else "invalid_request_error"
        self._type: str
        self._code: str | None
        self._type, self._code = _KINDS.get(error.status, (kind, None))
        self._field: str | None = None
        if isinstance(error, BadField):
            self._field, self._code = error.field, error.code
        elif isinstance(error, ContextExceeded):
            self.status = 400  # as that API has it; of itself it is a 413
            self._field, self._code = "messages", "context_length_exceeded"
        elif isinstance(error, NothingSaid):
            self._field, self._code = "messages", "invalid_value"
        elif isinstance(error, NoModel):
            self._field, self._code = "model", "model_not_found"

    @property
    def body(self) -> bytes:
        """See `HttpError`."""
        error = {
            "message": str(self),
            "type": self._type,
            "param": self._field,
            "code": self._code,
        }
        return _encode({"error": error}) + b"\n"


class NoModel(NotFound):
    """There is one model, and this is not its name."""


class Completions:
    """Answers /v1/chat/completions and /v1/models.

    Args:
        replies: passes conversations to the model.
        limits: on what may be asked for.
        json_bytes: the maximum size of a request's body.
        model_name: what answers call the model, whatever name a request uses.
    """

    def __init__(
        self, replies: Replies, limits: ChatLimits, json_bytes: int, model_name: str
    ) -> None:
        self._replies = replies
        self._limits = limits
        self._json_bytes = json_bytes
        self._model_name = model_name
        self._model = {
            "id": model_name,
            "object": "model",
            "created": int(time.time()),
            "owned_by": _OWNER,
        }

    def body_limit(self, head: RequestHead) -> int:
        """The maximum size of a request's body, in bytes."""
        return self._json_bytes

    def handle(self, exchange: Exchange) -> None:
        """Submit the request to the model; the answer comes later.

        Raises:
            HttpError: if the request is refused.
        """
        request = read_chat_request(exchange.body, self._limits)
        form = (
            _Events(self._model_name, request.includes_usage)
            if request.is_streamed
            else _Whole(self._model_name)
        )
        self._replies.begin(exchange, request.conversation, request.sampling, form)

    def list_models(self, exchange: Exchange) -> None:
        """Respond with the one model, in a list."""
        _respond(exchange, {"object": "list", "data": [self._model]})

    def show_model(self, exchange: Exchange) -> None:
        """Respond with the one model."""
        _respond(exchange, self._model)


def _respond(exchange: Exchange, value: object) -> None:
    exchange.respond(200, JSON_HEADERS, _encode(value) + b"\n")


class _Whole:
    """A chat.completion object (`server.api.reply.Form`)."""

    headers: Sequence[Header] = JSON_HEADERS
    is_streamed = False
    sign_of_life = b""

    def __init__(self, model_name: str) -> None:
        self._frame = _frame("chat.completion", model_name)

    def begin(self) -> bytes:
        return b""

    def piece(self, text: str) -> bytes:
        return b""

    def end(self, outcome: Outcome, text: str) -> bytes:
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": text, "refusal": None},
            "logprobs": None,
            "finish_reason": outcome.finish.value,
        }
        answer = {**self._frame, "choices": [choice], "usage": _usage(outcome)}
        return _encode(answer) + b"\n"

    def failure(self, error: HttpError) -> bytes:
        return b""

    def trailers(self, outcome: Outcome) -> Sequence[Header]:
        return ()


class _Events:
    """chat.completion.chunk objects as server-sent events (`server.api.reply.Form`)."""

    headers: Sequence[Header] = _EVENT_HEADERS
    is_streamed = True
    sign_of_life = b": waiting\n\n"  # a comment, which readers of events skip

    def __init__(self, model_name: str, includes_usage: bool) -> None:
        self._frame = _frame("chat.completion.chunk", model_name)
        self._includes_usage = includes_usage

    def begin(self) -> bytes:
        return self._event(_choices({"role": "assistant", "content": ""}))

    def piece(self, text: str) -> bytes:
        return self._event(_choices({"content": text}))

    def end(self, outcome: Outcome, text: str) -> bytes:
        events = self._event(_choices({}, outcome.finish.value))
        if self._includes_usage:
            events += self._event({"choices": [], "usage": _usage(outcome)})
        return events + _END_OF_EVENTS

    # The API's clients raise an error for such an event.
    def failure(self, error: HttpError) -> bytes:
        return b"data: " + ApiError(error).body.strip() + b"\n\n"

    def trailers(self, outcome: Outcome) -> Sequence[Header]:
        return ()

    # One event of the HTML standard, section 9.2.6: a data line and an empty one.
    def _event(self, fields: Mapping[str, Any]) -> bytes:
        event = {**self._frame, **fields}
        if self._includes_usage:
            event.setdefault("usage", None)
        return b"data: " + _encode(event) + b"\n\n"


def _frame(kind: str, model_name: str) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-{secrets.token_hex(12)}",
        "object": kind,
        "created": int(time.time()),
        "model": model_name,
    }


def _choices(delta: Mapping[str, str], finish_reason: str | None = None) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
    return {"choices": [choice]}


def _usage(outcome: Outcome) -> dict[str, Any]:
    return {
        "prompt_tokens": outcome.prompt_tokens,
        "completion_tokens": outcome.tokens,
        "total_tokens": outcome.prompt_tokens + outcome.tokens,
        "prompt_tokens_details": {"cached_tokens": outcome.cached_tokens},
    }


# Readers of lines that follow Unicode, as Python's `splitlines` does, would end an event at these.
_LINE_ENDS = str.maketrans({char: f"\\u{ord(char):04x}" for char in "\x85\u2028\u2029"})


def _encode(value: object) -> bytes:
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return text.translate(_LINE_ENDS).encode()
