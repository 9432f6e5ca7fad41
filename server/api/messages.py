"""JSON requests, parsed strictly into a conversation and its sampling parameters.

Pure. Owns the rules of the chat completions API (OpenAI's API reference, "Create chat
completion"), as far as one small model can follow them: unknown fields are ignored, known
fields of a wrong type or out of range are refused by name.
"""

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from server.bounds import TEMPERATURE, Bounds, N, Real, Whole
from server.http.errors import BadRequest, ContentTooLarge
from server.model.prompt.conversation import Conversation, Turn
from server.model.sampler import Sampling

_LARGEST = 2**63 - 1
_NO_LIMIT, _RANDOM_SEED = -1, -1


class _Limit(Whole):
    """A limit; -1 is none, as everywhere in the field."""

    def check(self, value: object) -> int:
        """See `Bounds`."""
        is_none = value == _NO_LIMIT and isinstance(value, int)
        return _NO_LIMIT if is_none else super().check(value)


TOKENS = _Limit(1, _LARGEST)  # values above the server's own limit mean that limit
SEED = Whole(-_LARGEST - 1, _LARGEST)  # -1 is a random one, as everywhere in the field
_SHARE = Real(0, 1)
# What would change the answer's form, on which a client relies; everything else that this server
# does not know is ignored. Absent and null are the same.
_UNSUPPORTED: dict[str, Callable[[Any], bool]] = {
    "n": lambda value: value is not None and (value != 1 or not _is_whole(value)),
    "logprobs": lambda value: value not in (None, False),
    "response_format": lambda value: value is not None and value != {"type": "text"},
    "tool_choice": lambda value: value not in (None, "auto", "none"),
    "function_call": lambda value: value not in (None, "auto", "none"),
    "modalities": lambda value: value not in (None, ["text"]),
}
_SEEDS = 2**64
_MOST_STOPS = 4
_MOST_STOP_LETTERS = 256
_ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
_SILENCE = "..."  # what a visitor "said" before an assistant's first message

Object = Mapping[str, Any]


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


class NothingSaid(BadRequest):
    """The question is empty."""


class ContextExceeded(ContentTooLarge):
    """What was said is longer than the context."""


class BadField(BadRequest):
    """One field is wrong; `field` names it, `code` says how, in the API's words."""

    def __init__(self, field: str, sentence: str, code: str = "invalid_value") -> None:
        super().__init__(f"{field} {sentence}.")
        self.field = field
        self.code = code


@dataclass(frozen=True, slots=True)
class ChatLimits:
    """What a request may ask for, and the defaults where it does not."""

    message_bytes: int
    max_tokens: int
    temperature: float

    def sampling(
        self,
        max_tokens: int | None = None,
        temperature: float | None = None,
        seed: int | None = None,
        ignore_eos: bool = False,
        top_p: float | None = None,
        stop: tuple[str, ...] = (),
    ) -> Sampling:
        """The sampling to use: as asked for, within the limits; None stands for the default."""
        default = Sampling(self.max_tokens)
        if max_tokens is None or max_tokens == _NO_LIMIT:
            max_tokens = self.max_tokens
        return Sampling(
            max_tokens=min(max_tokens, self.max_tokens),
            temperature=self.temperature if temperature is None else temperature,
            top_p=default.top_p if top_p is None else top_p,
            # Python's generator treats -2 like 2.
            seed=None if seed in (None, _RANDOM_SEED) else seed % _SEEDS,
            ignore_eos=ignore_eos,
            stop=stop,
        )


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """A parsed request for a chat completion."""

    conversation: Conversation
    sampling: Sampling
    is_streamed: bool
    includes_usage: bool


def decode(body: bytes) -> str:
    """The text of `body`, in UTF-8; a byte order mark before it is dropped (RFC 8259, 8.1).

    Raises:
        UnicodeDecodeError: if it is not UTF-8.
    """
    return body.decode().removeprefix("\ufeff")


def read_object(body: bytes) -> Object:
    """Parse `body` as a JSON object (RFC 8259, without duplicate names).

    Raises:
        BadRequest: if it is not one.
    """
    try:
        value = json.loads(
            decode(body), object_pairs_hook=_unique_names, parse_constant=_refuse_constant
        )
    except UnicodeDecodeError:
        raise BadRequest("The body is not valid UTF-8.") from None
    except json.JSONDecodeError as error:
        if "BOM" in error.msg:  # it advises a programmer
            raise BadRequest("The body is not valid JSON: it begins with two marks.") from None
        raise BadRequest(f"The body is not valid JSON: {_lower(error.msg)}.") from None
    except RecursionError:
        raise BadRequest("The JSON is nested too deeply.") from None
    except ValueError:  # an integer with thousands of digits
        raise BadRequest("The JSON has a number that is too long.") from None
    if not isinstance(value, dict):
        raise BadRequest("The body must be a JSON object.")
    return value


def read_conversation(request: Object, message_bytes: int) -> Conversation:
    """Read the conversation in `messages`.

    It usually ends with a question. If it ends with the assistant's message, that is how the
    answer begins, and the model continues it. System messages alone are the question.

    Raises:
        BadField: if it is malformed.
        ContextExceeded: if the question, or the system text, is longer than `message_bytes`.
            Earlier turns are never refused: those that the context has no room for are dropped.
    """
    messages = request.get("messages")
    if not isinstance(messages, list) or not messages:
        code = "missing_required_parameter" if messages is None else "invalid_value"
        raise BadField("messages", "must be a list of at least one message", code)
    said = [_read_message(index, value) for index, value in enumerate(messages)]
    system = "\n\n".join(text for role, text in said if role == "system")
    _limit("system text", system, message_bytes)
    talk = _merge([message for message in said if message[0] != "system"])
    if not talk:  # there is no other question
        return Conversation(system)
    if talk[0][0] == "assistant":
        talk.insert(0, ("user", _SILENCE))
    begun = talk.pop()[1] if talk[-1][0] == "assistant" else ""
    _limit("last message", begun or talk[-1][1], message_bytes)
    pairs = zip(talk[:-1:2], talk[1::2], strict=True)
    turns = tuple(Turn(user, answer) for (_, user), (_, answer) in pairs)
    return Conversation(talk[-1][1], turns, system or None, begun)


def read_chat_request(body: bytes, limits: ChatLimits) -> ChatRequest:
    """Read a whole request for a chat completion.

    Raises:
        BadRequest: if it is malformed, or asks for something that is not supported.
        ContextExceeded: if a message is too long.
    """
    request = read_object(body)
    conversation = read_conversation(request, limits.message_bytes)
    _check_type(request, "model", str, "must be a string")
    for name, refused in _UNSUPPORTED.items():
        if refused(request.get(name)):
            raise BadField(name, "is not supported with this value", "unsupported_value")
    options = _check_type(request, "stream_options", dict, "must be an object") or {}
    return ChatRequest(
        conversation,
        _read_sampling(request, limits),
        is_streamed=read_flag(request, "stream"),
        includes_usage=read_flag(options, "include_usage", "stream_options."),
    )


def _read_sampling(request: Object, limits: ChatLimits) -> Sampling:
    asked = read_number(request, "max_completion_tokens", TOKENS)
    older = read_number(request, "max_tokens", TOKENS)  # its former name
    seed = read_number(request, "seed", SEED)
    return limits.sampling(
        max_tokens=older if asked is None else asked,
        temperature=read_number(request, "temperature", TEMPERATURE),
        top_p=read_number(request, "top_p", _SHARE),
        seed=seed,
        ignore_eos=read_flag(request, "ignore_eos"),
        stop=_read_stops(request),
    )


def _read_stops(request: Object) -> tuple[str, ...]:
    value = request.get("stop")
    if value in (None, ""):  # "" comes from forms left empty
        return ()
    stops = [value] if isinstance(value, str) else value
    is_right = (
        isinstance(stops, list)
        and len(stops) <= _MOST_STOPS
        and all(isinstance(stop, str) and 0 < len(stop) <= _MOST_STOP_LETTERS for stop in stops)
    )
    if not is_right:
        raise BadField(
            "stop",
            f"must be a string, or a list of at most {_MOST_STOPS}, "
            f"of 1 to {_MOST_STOP_LETTERS} characters each",
        )
    return tuple(stops)


# -- messages -----------------------------------------------------------------------------


def _read_message(index: int, value: object) -> tuple[str, str]:
    name = f"messages[{index}]"
    if not isinstance(value, dict):
        raise BadField(name, "must be an object")
    role = value.get("role")
    if not isinstance(role, str) or role not in _ROLES:
        raise BadField(f"{name}.role", "must be system, user or assistant")
    text = _read_content(f"{name}.content", value.get("content"), role)
    try:
        text.encode()
    except UnicodeEncodeError:  # half of a surrogate pair
        raise BadField(f"{name}.content", "is not valid Unicode") from None
    return _ROLES[role], text


def _limit(what: str, text: str, most_bytes: int) -> None:
    size = len(text.encode())
    if size > most_bytes:
        raise ContextExceeded(
            f"The prompt is too long for the model's context length: "
            f"the {what} has {size:,} bytes, and there is room for {most_bytes:,}."
        )


# A string, or the parts that newer clients send.
def _read_content(name: str, content: object, role: str) -> str:
    if isinstance(content, str):
        return content
    if content is None and role == "assistant":
        return ""
    if isinstance(content, list) and content and all(map(_is_text_part, content)):
        return "\n".join(part["text"] for part in content)
    raise BadField(name, "must be a string, or a list of parts of type text")


def _is_text_part(part: object) -> bool:
    return (
        isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str)
    )


# Consecutive messages of one role become one: the model knows only turns.
def _merge(turns: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    merged: list[tuple[str, str]] = []
    for role, text in turns:
        if merged and merged[-1][0] == role:
            merged[-1] = (role, f"{merged[-1][1]}\n{text}")
        else:
            merged.append((role, text))
    return merged


# -- fields: absent and null are the same ----------------------------------------------------


def _check_type(request: Object, name: str, kind: type, sentence: str) -> Any:
    value = request.get(name)
    if value is not None and not isinstance(value, kind):
        raise BadField(name, sentence)
    return value


def read_flag(request: Object, name: str, prefix: str = "") -> bool:
    """True or false; absent and null are false."""
    value = request.get(name)
    if value is not None and not isinstance(value, bool):
        raise BadField(f"{prefix}{name}", "must be true or false")
    return bool(value)


def read_number(request: Object, name: str, bounds: Bounds[N]) -> N | None:
    """A number within the bounds, or None."""
    value = request.get(name)
    if value is None:
        return None
    try:
        return bounds.check(value)
    except ValueError as error:
        raise BadField(name, str(error)) from None


# -- JSON -----------------------------------------------------------------------------------


# Of duplicate names, different readers may use different ones (RFC 8259 section 4).
def _unique_names(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        counts = Counter(name for name, _ in pairs)
        twice = next(name for name, count in counts.items() if count > 1)
        raise BadRequest(f"The JSON has the name {json.dumps(twice)} twice in one object.")
    return found


def _refuse_constant(name: str) -> None:
    raise BadRequest(f"The body is not valid JSON: {name} is not a JSON number.")


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]
