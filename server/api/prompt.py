"""POST /prompt: a question as plain text, or a talk as JSON; the answer is plain text, streamed.

The JSON form, {"messages": [...]}, is how the page sends what was said before. It is this and
not the chat completions API for the page's sake: its answer is the bare text, piece by piece,
which needs no parser on the page and shows in `curl -N` as it comes.
"""

from collections.abc import Mapping
from urllib.parse import parse_qsl

from server.api.access import Access
from server.api.messages import (
    MAX_SEED,
    MAX_TEMPERATURE,
    ChatLimits,
    read_conversation,
    read_object,
)
from server.api.reply import Asking, as_http, describe_ending
from server.http.errors import BadRequest
from server.http.exchange import TEXT_HEADERS, Exchange
from server.http.request import RequestHead
from server.http.response import Header
from server.model.job import Finish, Outcome
from server.model.prompt.conversation import Conversation
from server.model.sampler import Sampling

_PARAMETERS = frozenset({"max_tokens", "temperature", "seed", "ignore_eos"})
_TRAILER_NAMES = (
    "Socrates-Finish, Socrates-Prompt-Tokens, Socrates-Cached-Tokens, Socrates-Tokens, "
    "Server-Timing"
)
# X-Accel-Buffering: nginx, and proxies that follow it, must not hold words back.
_STREAM_HEADERS: tuple[Header, ...] = (*TEXT_HEADERS, ("X-Accel-Buffering", "no"))


class Prompts:
    """Answers /prompt."""

    def __init__(self, asking: Asking, access: Access, limits: ChatLimits, json_bytes: int) -> None:
        self._asking = asking
        self._access = access
        self._limits = limits
        self._json_bytes = json_bytes

    def body_limit(self, head: RequestHead) -> int:
        """The most bytes of this request's body."""
        return self._json_bytes if head.is_json else self._limits.message_bytes

    def handle(self, head: RequestHead, body: bytes, exchange: Exchange) -> None:
        """Ask; the answer comes later.

        Raises:
            HttpError: if the request is refused.
        """
        sampling = self._read_sampling(head.query)
        conversation = self._read_conversation(head, body)
        answer = _TextAnswer(exchange, self._access.cors(head))
        self._asking.ask(conversation, sampling, answer, exchange)

    def _read_conversation(self, head: RequestHead, body: bytes) -> Conversation:
        if head.is_json:
            return read_conversation(read_object(body), self._limits.message_bytes)
        try:
            return Conversation(body.decode("utf-8"))
        except UnicodeDecodeError:
            raise BadRequest("The prompt is not valid UTF-8.") from None

    def _read_sampling(self, query: str) -> Sampling:
        pairs = parse_qsl(query, keep_blank_values=True)
        given = dict(pairs)
        if len(given) < len(pairs) or not _PARAMETERS.issuperset(given):
            raise BadRequest(
                "The query takes max_tokens, temperature, seed and ignore_eos, once each."
            )
        max_tokens = _whole(given, "max_tokens", 1, MAX_SEED) or self._limits.max_tokens
        temperature = _temperature(given)
        return Sampling(
            max_tokens=min(max_tokens, self._limits.max_tokens),
            temperature=self._limits.temperature if temperature is None else temperature,
            seed=_whole(given, "seed", 0, MAX_SEED),
            ignore_eos=_flag(given, "ignore_eos"),
        )


class _TextAnswer:
    """Writes one answer to its exchange as it comes (`server.model.worker.Listener`)."""

    def __init__(self, exchange: Exchange, cors: list[Header]) -> None:
        self._exchange = exchange
        self._cors = cors

    def on_text(self, text: str) -> None:
        """The first text brings the head with it, so an earlier failure has its status."""
        self._start()
        self._exchange.write(text.encode())

    def on_end(self, outcome: Outcome) -> None:
        """Finish, fail, or break the stream off."""
        if outcome.error is not None:
            error = as_http(outcome.error)
            error.headers = (*error.headers, *self._cors)
            self._exchange.fail(error)
        elif outcome.finish in (Finish.STOP, Finish.LENGTH):
            self._start()
            self._exchange.finish(self._trailers(outcome) if self._wants_trailers else ())
        else:
            self._exchange.abort()
        self._exchange.log(describe_ending(outcome))

    def _start(self) -> None:
        if not self._exchange.head_sent:
            named = [("Trailer", _TRAILER_NAMES)] if self._wants_trailers else []
            self._exchange.start([*_STREAM_HEADERS, *self._cors, *named])

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


def _whole(given: Mapping[str, str], name: str, least: int, most: int) -> int | None:
    text = given.get(name)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 19 and least <= int(text) <= most):
        raise BadRequest(f"{name} must be a whole number from {least} to {most}.")
    return int(text)


def _flag(given: Mapping[str, str], name: str) -> bool:
    text = given.get(name, "false")
    if text not in ("true", "false"):
        raise BadRequest(f"{name} must be true or false.")
    return text == "true"


def _temperature(given: Mapping[str, str]) -> float | None:
    if "temperature" not in given:
        return None
    try:
        value = float(given["temperature"])
    except ValueError:
        value = -1.0
    if not 0 <= value <= MAX_TEMPERATURE:  # false for NaN, too
        raise BadRequest(f"temperature must be a number from 0 to {MAX_TEMPERATURE:g}.")
    return value
