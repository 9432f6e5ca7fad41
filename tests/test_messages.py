"""JSON requests: which are conversations, which are refused, and with which message."""

import json

import pytest

from server.api.messages import ChatLimits, read_chat_request, read_conversation, read_object
from server.http.errors import BadRequest, ContentTooLarge
from server.model.prompt.conversation import Conversation, Turn
from server.model.sampler import Sampling

LIMITS = ChatLimits(message_bytes=1000, max_tokens=500, temperature=0.7)
QUESTION = [{"role": "user", "content": "What is virtue?"}]


def read(**fields):
    return read_chat_request(json.dumps({"messages": QUESTION} | fields).encode(), LIMITS)


def message(role, content):
    return {"role": role, "content": content}


TALKS = [
    ([("user", "a")], Conversation("a")),
    ([("system", "s"), ("user", "a")], Conversation("a", (), "s")),
    ([("developer", "s"), ("user", "a"), ("system", "t")], Conversation("a", (), "s\n\nt")),
    ([("user", "a"), ("assistant", "b"), ("user", "c")], Conversation("c", (Turn("a", "b"),))),
    ([("user", "a"), ("user", "b")], Conversation("a\nb")),
    ([("user", "a"), ("assistant", "b"), ("assistant", "c"), ("user", "d")], Conversation("d", (Turn("a", "b\nc"),))),
    ([("assistant", "b"), ("user", "c")], Conversation("c", (Turn("...", "b"),))),
    ([("user", "a"), ("assistant", None), ("user", "c")], Conversation("c", (Turn("a", ""),))),
    ([("user", [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}])], Conversation("a\nb")),
]  # fmt: skip


@pytest.mark.parametrize(("messages", "conversation"), TALKS)
def test_talk(messages, conversation):
    request = {"messages": [message(*pair) for pair in messages]}
    assert read_conversation(request, 1000) == conversation


BAD_TALKS = [
    (None, "messages must be a list of at least one message."),
    ([], "messages must be a list of at least one message."),
    ("hello", "messages must be a list of at least one message."),
    ([1], "messages[0] must be an object."),
    ([{}], "messages[0].role must be system, user or assistant."),
    ([*QUESTION, message("tool", "x")], "messages[1].role must be system, user or assistant."),
    ([message(["user"], "x")], "messages[0].role must be system, user or assistant."),
    ([message("user", None)], "messages[0].content must be a string, or a list of parts of type text."),
    ([message("user", [])], "messages[0].content must be a string, or a list of parts of type text."),
    ([message("user", [{"type": "image_url"}])], "messages[0].content must be a string, or a list of parts of type text."),
    ([message("user", "\ud800")], "messages[0].content is not valid Unicode."),
]  # fmt: skip


@pytest.mark.parametrize(("messages", "sentence"), BAD_TALKS)
def test_what_is_no_talk_is_refused(messages, sentence):
    with pytest.raises(BadRequest) as refused:
        read_conversation({"messages": messages}, 1000)
    assert str(refused.value) == sentence


def test_an_assistants_last_message_is_continued():
    request = {"messages": [*QUESTION, message("assistant", "It is")]}
    assert read_conversation(request, 1000) == Conversation(QUESTION[-1]["content"], begun="It is")


def test_a_system_text_alone_is_the_question():
    request = {"messages": [message("system", "What is virtue?")]}
    assert read_conversation(request, 1000) == Conversation("What is virtue?")


def test_a_byte_order_mark_is_dropped():
    assert read_object(b'\xef\xbb\xbf{"a": 1}') == {"a": 1}


@pytest.mark.parametrize(
    ("messages", "sentence"),
    [
        (
            [message("user", "é" * 500 + "x")],
            "The prompt is too long for the model's context length: "
            "the last message has 1,001 bytes, and there is room for 1,000.",
        ),
        (
            [message("user", "x" * 500), message("user", "x" * 500)],
            "The prompt is too long for the model's context length: "
            "the last message has 1,001 bytes, and there is room for 1,000.",
        ),
        (
            [message("system", "x" * 500), message("user", "a"), message("system", "x" * 499)],
            "The prompt is too long for the model's context length: "
            "the system text has 1,001 bytes, and there is room for 1,000.",
        ),
    ],
)
def test_long_text_is_refused_with_both_numbers(messages, sentence):
    if messages[-1]["role"] == "system":
        messages = [*messages, message("user", "b")]
    with pytest.raises(ContentTooLarge) as refused:
        read_conversation({"messages": messages}, 1000)
    assert str(refused.value) == sentence


def test_what_was_said_before_may_be_long():
    talk = [message("user", "a"), message("assistant", "x" * 5000), message("user", "b")]
    assert read_conversation({"messages": talk}, 1000).turns == (Turn("a", "x" * 5000),)


def test_name_that_comes_twice_is_found_among_many():
    names = ",".join(f'"{number}":1' for number in range(40_000))
    with pytest.raises(BadRequest, match='the name "39999" twice'):
        read_object(f'{{{names},"39999":1}}'.encode())


def test_defaults():
    request = read()
    assert request.sampling == Sampling(max_tokens=500, temperature=0.7)
    assert (request.is_streamed, request.includes_usage) == (False, False)


FIELDS = [
    ({"max_tokens": 7}, "max_tokens", 7),
    ({"max_completion_tokens": 8, "max_tokens": 7}, "max_tokens", 8),
    ({"max_tokens": 10**12}, "max_tokens", 500),
    ({"max_tokens": None}, "max_tokens", 500),
    ({"temperature": 0}, "temperature", 0.0),
    ({"temperature": 2}, "temperature", 2.0),
    ({"top_p": 0.5}, "top_p", 0.5),
    ({"seed": 1}, "seed", 1),
    ({"seed": -1}, "seed", None),  # random
    ({"seed": -2}, "seed", 2**64 - 2),  # Python's generator treats -2 as 2
    ({"max_tokens": -1}, "max_tokens", 500),
    ({"max_completion_tokens": -1, "max_tokens": 7}, "max_tokens", 500),
    ({"n": 1, "logprobs": False, "tool_choice": "auto"}, "seed", None),
    ({"response_format": {"type": "text"}, "tool_choice": "none"}, "seed", None),
    ({"stop": "x"}, "stop", ("x",)),
    ({"stop": ["x", "yz"]}, "stop", ("x", "yz")),
    ({"stop": None}, "stop", ()),
    ({"stop": ""}, "stop", ()),
    ({"stop": []}, "stop", ()),
    ({"n": 1, "tools": [1], "whatever": {"a": 1}, "model": "gpt-4"}, "seed", None),
]


@pytest.mark.parametrize(("fields", "name", "value"), FIELDS)
def test_field_is_taken(fields, name, value):
    assert getattr(read(**fields).sampling, name) == value


def test_stream_and_usage():
    request = read(stream=True, stream_options={"include_usage": True})
    assert (request.is_streamed, request.includes_usage) == (True, True)


BAD_FIELDS = [
    ({"max_tokens": 0}, "max_tokens must be a whole number from 1 to 9223372036854775807."),
    ({"max_tokens": 1.5}, "max_tokens must be a whole number from 1 to 9223372036854775807."),
    ({"max_tokens": True}, "max_tokens must be a whole number from 1 to 9223372036854775807."),
    ({"max_completion_tokens": "5"}, "max_completion_tokens must be a whole number from 1 to 9223372036854775807."),
    ({"temperature": 2.1}, "temperature must be a number from 0 to 2."),
    ({"temperature": 10**400}, "temperature must be a number from 0 to 2."),
    ({"temperature": "warm"}, "temperature must be a number from 0 to 2."),
    ({"temperature": 1e999}, "The body is not valid JSON: Infinity is not a JSON number."),
    ({"top_p": -0.1}, "top_p must be a number from 0 to 1."),
    ({"top_p": False}, "top_p must be a number from 0 to 1."),
    ({"seed": 2**63}, "seed must be a whole number from -9223372036854775808 to 9223372036854775807."),
    ({"n": 2}, "n is not supported with this value."),
    ({"logprobs": True}, "logprobs is not supported with this value."),
    ({"tool_choice": "required"}, "tool_choice is not supported with this value."),
    ({"tool_choice": {"type": "function"}}, "tool_choice is not supported with this value."),
    ({"response_format": {"type": "json_object"}}, "response_format is not supported with this value."),
    ({"response_format": {"type": "bogus"}}, "response_format is not supported with this value."),
    ({"stream": "yes"}, "stream must be true or false."),
    ({"stream_options": 1}, "stream_options must be an object."),
    ({"stream_options": {"include_usage": 1}}, "stream_options.include_usage must be true or false."),
    ({"stop": 5}, "stop must be a string, or a list of at most 4, of 1 to 256 characters each."),
    ({"stop": False}, "stop must be a string, or a list of at most 4, of 1 to 256 characters each."),
    ({"stop": {}}, "stop must be a string, or a list of at most 4, of 1 to 256 characters each."),
    ({"stop": ["a"] * 5}, "stop must be a string, or a list of at most 4, of 1 to 256 characters each."),
    ({"stop": [""]}, "stop must be a string, or a list of at most 4, of 1 to 256 characters each."),
    ({"model": 5}, "model must be a string."),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "sentence"), BAD_FIELDS)
def test_field_of_wrong_type_or_range_is_refused_by_name(fields, sentence):
    with pytest.raises(BadRequest) as refused:
        read(**fields)
    assert str(refused.value) == sentence


BAD_JSON = [
    (b"", "The body is not valid JSON: expecting value."),
    (b"{", "The body is not valid JSON: expecting property name enclosed in double quotes."),
    (b"\xff", "The body is not valid UTF-8."),
    (b"[]", "The body must be a JSON object."),
    (b"null", "The body must be a JSON object."),
    (b'{"a": 1, "b": 2, "a": 3}', 'The JSON has the name "a" twice in one object.'),
    (b'{"b": {"a\\n": 1, "a\\n": 3}}', 'The JSON has the name "a\\n" twice in one object.'),
    (b'{"a": NaN}', "The body is not valid JSON: NaN is not a JSON number."),
    (b"[" * 200_000, "The JSON is nested too deeply."),
    (b'{"a":' * 50_000, "The JSON is nested too deeply."),
    (b'{"a": ' + b"9" * 5000 + b"}", "The JSON has a number that is too long."),
]


@pytest.mark.parametrize(("body", "sentence"), BAD_JSON)
def test_what_is_no_json_object_is_refused(body, sentence):
    with pytest.raises(BadRequest) as refused:
        read_object(body)
    assert str(refused.value) == sentence


def test_float_beyond_all_bounds_is_refused():
    with pytest.raises(BadRequest, match=r"^temperature must be a number from 0 to 2\.$"):
        read_chat_request(
            b'{"messages":[{"role":"user","content":"a"}],"temperature":1e999}', LIMITS
        )
