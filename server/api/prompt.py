"""POST /prompt: a question as plain text, or a conversation as JSON; a streamed plain-text answer.

The JSON form, {"messages": [...]}, is how the page sends what was said before. The page uses
this path and not the chat completions API because the answer is the bare text, piece by piece:
it needs no parser on the page, and `curl -N` shows it as it comes.
"""

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import parse_qsl

from server.api.messages import (
    SEED,
    TOKENS,
    BadField,
    ChatLimits,
    Object,
    decode,
    read_conversation,
    read_flag,
    read_number,
    read_object,
)
from server.api.reply import Replies
from server.bounds import TEMPERATURE, Bounds
from server.http.errors import BadRequest, HttpError
from server.http.exchange import STREAM_HEADERS, TEXT_HEADERS, Exchange
from server.http.request import RequestHead
from server.http.response import Header
from server.model.job import Outcome
from server.model.prompt.conversation import Conversation

# None stands for true or false.
_PARAMETERS: dict[str, Bounds[int] | Bounds[float] | None] = {
    "max_tokens": TOKENS,
    "temperature": TEMPERATURE,
    "seed": SEED,
    "ignore_eos": None,
}
_NAMES = "max_tokens, temperature, seed and ignore_eos"
_TRAILER_NAMES = (
    "Socrates-Finish, Socrates-Prompt-Tokens, Socrates-Cached-Tokens, Socrates-Tokens, "
    "Server-Timing"
)


class Prompts:
    """Answers /prompt."""

    def __init__(self, replies: Replies, limits: ChatLimits, json_bytes: int) -> None:
        self._replies = replies
        self._limits = limits
        self._json_bytes = json_bytes

    def body_limit(self, head: RequestHead) -> int:
        """The maximum size of this request's body, in bytes."""
        return self._json_bytes if head.is_json else self._limits.message_bytes

    def handle(self, exchange: Exchange) -> None:
        """Submit the prompt to the model; the answer comes later.

        Raises:
            HttpError: if the request is refused.
        """
        head = exchange.head
        given = _read_query(head.query)
        if head.is_json:
            request = read_object(exchange.body)
            given |= _read_fields(request, given)
            conversation = read_conversation(request, self._limits.message_bytes)
        else:
            conversation = _read_text(exchange.body)
        sampling = self._limits.sampling(**given)
        # RFC 9110 section 10.1.4; HTTP/1.0 has no place for trailers.
        has_trailers = head.minor_version > 0 and "trailers" in head.members(b"te")
        self._replies.begin(exchange, conversation, sampling, _PlainText(has_trailers))


class _PlainText:
    """The answer's text and nothing else; how it ended is in the trailers."""

    is_streamed = True
    sign_of_life = b""

    def __init__(self, has_trailers: bool) -> None:
        self._has_trailers = has_trailers
        named = [("Trailer", _TRAILER_NAMES)] if has_trailers else []
        self.headers: Sequence[Header] = [*TEXT_HEADERS, *STREAM_HEADERS, *named]

    def begin(self) -> bytes:
        return b""

    def piece(self, text: str) -> bytes:
        return text.encode()

    def end(self, outcome: Outcome, text: str) -> bytes:
        return b""

    def failure(self, error: HttpError) -> bytes:
        return b""

    def trailers(self, outcome: Outcome) -> Sequence[Header]:
        if not self._has_trailers:
            return ()
        durations = {
            "waiting": outcome.queue_s,
            "prefill": outcome.prefill_s,
            "decode": outcome.decode_s,
        }
        timing = ", ".join(f"{name};dur={1000 * s:.1f}" for name, s in durations.items())
        return [
            ("Socrates-Finish", outcome.finish.value),
            ("Socrates-Prompt-Tokens", str(outcome.prompt_tokens)),
            ("Socrates-Cached-Tokens", str(outcome.cached_tokens)),
            ("Socrates-Tokens", str(outcome.tokens)),
            ("Server-Timing", timing),
        ]


def _read_text(body: bytes) -> Conversation:
    try:
        return Conversation(decode(body))
    except UnicodeDecodeError:
        raise BadRequest("The prompt is not valid UTF-8.") from None


# The parameters in the query, each once.
def _read_query(query: str) -> dict[str, Any]:
    pairs = parse_qsl(query, keep_blank_values=True)
    given = dict(pairs)
    if len(given) < len(pairs) or not _PARAMETERS.keys() >= given.keys():
        raise BadRequest(f"The query may have {_NAMES}, once each.")
    return {name: _parse(name, text) for name, text in given.items()}


def _parse(name: str, text: str) -> object:
    bounds = _PARAMETERS[name]
    try:
        if bounds is not None:
            return bounds.parse(text)
    except ValueError as error:
        raise BadRequest(f"{name} {error}.") from None
    if text not in ("true", "false"):
        raise BadRequest(f"{name} must be true or false.")
    return text == "true"


# Those in a JSON body, beside the messages.
def _read_fields(request: Object, given: Mapping[str, object]) -> dict[str, Any]:
    for name in request:
        if name != "messages" and name not in _PARAMETERS:
            raise BadField(name, f"is unknown: beside messages there may be {_NAMES}")
        if name in given:
            raise BadField(name, "is in the query already")
    return {
        name: read_flag(request, name) if bounds is None else read_number(request, name, bounds)
        for name, bounds in _PARAMETERS.items()
        if request.get(name) is not None
    }
