"""POST /v1/chat/completions and GET /v1/models: the API that every tool of the field speaks.

Owns the shapes of its answers: whole, streamed as server-sent events, and errors. What a
request may say is messages.py's affair. Source: OpenAI's API reference, "Chat completions".
"""

import json
import secrets
import time
from collections.abc import Mapping
from typing import Any

from server.api.access import Access
from server.api.messages import BadField, ChatLimits, ChatRequest, read_chat_request
from server.api.reply import Asking, as_http, describe_ending
from server.http.errors import HttpError
from server.http.exchange import FRESH_HEADERS, Exchange
from server.http.request import RequestHead
from server.http.response import Header
from server.model.job import Finish, Outcome

JSON_TYPE = "application/json"
_OWNER = "socratic-chat-bot"
_EVENT_HEADERS: tuple[Header, ...] = (
    ("Content-Type", "text/event-stream; charset=utf-8"),
    *FRESH_HEADERS,
    ("X-Accel-Buffering", "no"),
)
_END_OF_EVENTS = b"data: [DONE]\n\n"
_TYPES = {401: "authentication_error", 429: "rate_limit_error"}


class ApiError(HttpError):
    """An error in the API's own form."""

    content_type = JSON_TYPE

    def __init__(self, error: HttpError) -> None:
        super().__init__(str(error), error.headers)
        self.status = error.status
        self._field = error.field if isinstance(error, BadField) else None

    @property
    def body(self) -> bytes:
        """See `HttpError`."""
        kind = "server_error" if self.status >= 500 else "invalid_request_error"
        error = {
            "message": str(self),
            "type": _TYPES.get(self.status, kind),
            "param": self._field,
            "code": None,
        }
        return _encode({"error": error}) + b"\n"


class Completions:
    """Answers /v1/chat/completions and /v1/models.

    Args:
        asking: submits conversations.
        access: tells which pages may read the answers.
        limits: of what may be asked for.
        json_bytes: the most of a request's body.
        model_name: what answers call the model, whatever name a request uses.
    """

    def __init__(
        self,
        asking: Asking,
        access: Access,
        limits: ChatLimits,
        json_bytes: int,
        model_name: str,
    ) -> None:
        self._json_bytes = json_bytes
        self._asking = asking
        self._access = access
        self._limits = limits
        self._model = {
            "id": model_name,
            "object": "model",
            "created": int(time.time()),
            "owned_by": _OWNER,
        }

    def body_limit(self, head: RequestHead) -> int:
        """The most bytes of a request's body."""
        return self._json_bytes

    def handle(self, head: RequestHead, body: bytes, exchange: Exchange) -> None:
        """Ask; the answer comes later.

        Raises:
            HttpError: if the request is refused.
        """
        request = read_chat_request(body, self._limits)
        kind = _EventAnswer if request.is_streamed else _WholeAnswer
        answer = kind(exchange, self._access.cors(head), str(self._model["id"]), request)
        self._asking.ask(request.conversation, request.sampling, answer, exchange)

    def list_models(self, head: RequestHead, body: bytes, exchange: Exchange) -> None:
        """The one model, in a list."""
        self._respond(head, exchange, {"object": "list", "data": [self._model]})

    def show_model(self, head: RequestHead, body: bytes, exchange: Exchange) -> None:
        """The one model."""
        self._respond(head, exchange, self._model)

    def _respond(self, head: RequestHead, exchange: Exchange, value: object) -> None:
        headers = [("Content-Type", JSON_TYPE), *FRESH_HEADERS, *self._access.cors(head)]
        exchange.respond(200, headers, _encode(value) + b"\n")


class _Answer:
    """What both forms of an answer have in common (`server.model.worker.Listener`)."""

    kind = ""

    def __init__(
        self, exchange: Exchange, cors: list[Header], model_name: str, request: ChatRequest
    ) -> None:
        self._exchange = exchange
        self._cors = cors
        self._request = request
        self._frame = {
            "id": f"chatcmpl-{secrets.token_hex(12)}",
            "object": self.kind,
            "created": int(time.time()),
            "model": model_name,
        }

    def on_text(self, text: str) -> None:
        """More of the answer."""
        raise NotImplementedError

    def on_end(self, outcome: Outcome) -> None:
        """Finish, fail, or break off."""
        if outcome.error is not None:
            error = as_http(outcome.error)
            error.headers = (*error.headers, *self._cors)
            self._exchange.fail(ApiError(error))
        elif outcome.finish in (Finish.STOP, Finish.LENGTH):
            self.finish(outcome)
        else:
            self._exchange.abort()
        self._exchange.log(describe_ending(outcome))

    def finish(self, outcome: Outcome) -> None:
        """The answer is complete."""
        raise NotImplementedError


class _WholeAnswer(_Answer):
    kind = "chat.completion"
    _text = ""

    def on_text(self, text: str) -> None:
        self._text += text

    def finish(self, outcome: Outcome) -> None:
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": self._text, "refusal": None},
            "logprobs": None,
            "finish_reason": outcome.finish.value,
        }
        answer = {**self._frame, "choices": [choice], "usage": _usage(outcome)}
        headers = [("Content-Type", JSON_TYPE), *FRESH_HEADERS, *self._cors]
        self._exchange.respond(200, headers, _encode(answer) + b"\n")


class _EventAnswer(_Answer):
    kind = "chat.completion.chunk"

    def on_text(self, text: str) -> None:
        self._start()
        self._send(_choices({"content": text}))

    def finish(self, outcome: Outcome) -> None:
        self._start()
        self._send(_choices({}, outcome.finish.value))
        if self._request.includes_usage:
            self._send({"choices": [], "usage": _usage(outcome)})
        self._exchange.write(_END_OF_EVENTS)
        self._exchange.finish()

    def _start(self) -> None:
        if not self._exchange.head_sent:
            self._exchange.start([*_EVENT_HEADERS, *self._cors])
            self._send(_choices({"role": "assistant", "content": ""}))

    # One event of the HTML standard, section 9.2.6: a data line and an empty one.
    def _send(self, event: Mapping[str, Any]) -> None:
        event = {**self._frame, **event}
        if self._request.includes_usage:
            event.setdefault("usage", None)
        self._exchange.write(b"data: " + _encode(event) + b"\n\n")


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


def _encode(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
