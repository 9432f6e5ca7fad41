"""The chat completions API over real sockets, with a fake engine: shapes, errors, cancelling."""

import json

import pytest

from server.model.prompt.conversation import Turn
from tests.support.engine import FakeEngine
from tests.support.process import InProcessServer
from tests.support.waiting import wait_until
from tests.support.wire import (
    completion_body,
    completion_request,
    parse_response,
    read_all,
    read_until,
)

ADDRESS = "/v1/chat/completions"
JSON = ["Content-Type: application/json"]


@pytest.fixture(scope="module")
def server():
    with InProcessServer(FakeEngine()) as server:
        yield server.wait_until_ready()


@pytest.fixture
def gated():
    with InProcessServer(FakeEngine(gated=True), queue=1) as server:
        yield server.wait_until_ready()


def complete(server, prompt, headers=(), **fields):
    status, head, body = server.request(
        "POST", ADDRESS, completion_body(prompt, **fields), [*JSON, *headers]
    )
    return status, head, body


def events_of(body):
    lines = body.decode().split("\n\n")
    assert lines.pop() == ""
    assert lines.pop() == "data: [DONE]"
    return [json.loads(line.removeprefix("data: ")) for line in lines]


def test_whole_answer(server):
    status, head, body = complete(server, "3 words")
    answer = json.loads(body)
    assert status == 200
    assert "Content-Type: application/json\r\n" in head
    assert answer["object"] == "chat.completion"
    assert answer["id"].startswith("chatcmpl-")
    assert answer["model"] == "fake"
    (choice,) = answer["choices"]
    assert choice["message"]["role"] == "assistant"
    assert choice["message"]["content"] == "word0 word1 word2 "
    assert choice["finish_reason"] == "stop"
    usage = answer["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"], usage["total_tokens"]) == (9, 3, 12)
    assert usage["prompt_tokens_details"] == {"cached_tokens": 7}


def test_length_is_reported(server):
    answer = json.loads(complete(server, "9 words", max_tokens=2)[2])
    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["choices"][0]["message"]["content"] == "word0 word1 "


def test_streamed_answer(server):
    status, head, body = complete(server, "2 words", stream=True)
    assert status == 200
    assert "Content-Type: text/event-stream; charset=utf-8\r\n" in head
    assert "X-Accel-Buffering: no\r\n" in head
    events = events_of(body)
    assert {event["object"] for event in events} == {"chat.completion.chunk"}
    assert len({event["id"] for event in events}) == 1
    assert events[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    text = "".join(event["choices"][0]["delta"].get("content", "") for event in events)
    assert text == "word0 word1 "
    assert [event["choices"][0]["finish_reason"] for event in events][-1] == "stop"
    assert "usage" not in events[0]


def test_usage_comes_last_if_asked_for(server):
    options = {"include_usage": True}
    events = events_of(complete(server, "2 words", stream=True, stream_options=options)[2])
    assert events[-1]["choices"] == []
    assert events[-1]["usage"]["completion_tokens"] == 2
    assert {event["usage"] for event in events[:-1]} == {None}


def test_words_come_as_they_are_made(gated):
    with gated.connect() as client:
        client.sendall(completion_request("2 words", stream=True))
        gated.engine.allow(1)
        assert b"word0" in read_until(client, b"word0 ")
        gated.engine.allow(2)
        assert b"word1" in read_all(client)


@pytest.mark.parametrize("is_streamed", [True, False])
def test_client_that_leaves_stops_the_model(gated, is_streamed):
    with gated.connect() as client:
        client.sendall(completion_request("100 words", stream=is_streamed))
        assert gated.engine.is_waiting.wait(60)
    wait_until(lambda: gated.server.worker.is_cancelling)
    gated.engine.allow(1)
    wait_until(lambda: not gated.server.worker.is_busy)
    assert gated.engine.steps == 1


def test_talk_and_system_reach_the_engine(server):
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": "1 word"},
    ]
    body = json.dumps({"messages": messages}).encode()
    assert server.request("POST", ADDRESS, body, JSON)[0] == 200
    asked = server.engine.conversations[-1]
    assert asked.system == "Be brief."
    assert asked.turns == (Turn("a", "b"),)


def error_of(body):
    return json.loads(body)["error"]


def test_bad_field_is_named(server):
    status, head, body = complete(server, "1 word", temperature=3)
    assert status == 400
    assert "Content-Type: application/json\r\n" in head
    assert error_of(body) == {
        "message": "temperature must be a number from 0 to 2.",
        "type": "invalid_request_error",
        "param": "temperature",
        "code": "invalid_value",
    }


@pytest.mark.parametrize(
    ("method", "path", "body", "headers", "status", "words"),
    [
        ("POST", ADDRESS, b"{}", ["Content-Type: text/plain"], 415, "Send JSON"),
        ("POST", ADDRESS, b"{}", [*JSON, "Content-Encoding: gzip"], 415, "content coding"),
        ("POST", ADDRESS, b"{", JSON, 400, "not valid JSON"),
        ("POST", ADDRESS, b"x" * 262_145, JSON, 413, "262144 bytes"),
        ("GET", ADDRESS, b"", [], 405, "POST, OPTIONS"),
        ("POST", "/v1/embeddings", b"{}", JSON, 404, "nothing at this address"),
        ("GET", "/v1/models/other", b"", [], 404, "There is no model 'other'"),
        ("POST", ADDRESS, completion_body(" "), JSON, 400, "prompt is empty"),
        ("POST", ADDRESS, completion_body("x" * 2000), JSON, 400, "there is room for 1,000"),
        ("POST", ADDRESS, completion_body("crash"), JSON, 503, "failed on this prompt"),
    ],
)  # fmt: skip
def test_error_has_the_apis_form(server, method, path, body, headers, status, words):
    found, _, answer = server.request(method, path, body, headers)
    assert found == status
    assert words in error_of(answer)["message"]
    assert error_of(answer)["type"] == (
        "server_error" if status >= 500 else "invalid_request_error"
    )


def test_fault_after_the_first_word_is_an_event(server):
    with server.connect() as client:
        client.sendall(completion_request("fail", stream=True))
        _, _, body = parse_response(read_all(client))
    assert b"word0" in body
    assert b"[DONE]" not in body
    last = body.decode().split("\n\n")[-2]
    assert error_of(last.removeprefix("data: "))["message"] == "The model failed on this prompt."


def test_full_queue_and_full_share_have_their_statuses(gated):
    with gated.connect() as first, gated.connect() as second:
        first.sendall(completion_request("1 word"))
        assert gated.engine.is_waiting.wait(60)
        second.sendall(completion_request("1 word"))
        wait_until(lambda: gated.status()["waiting"] == 1)
        status, head, body = complete(gated, "1 word")
        assert status == 503
        assert "Retry-After: 5\r\n" in head
        gated.server.worker.waiting_limit = 10
        gated.server.worker.client_limit = 1
        status, head, body = complete(gated, "1 word")
        assert (status, error_of(body)["type"]) == (429, "rate_limit_error")
        assert "Retry-After: 5\r\n" in head
        gated.engine.allow(10)
        assert parse_response(read_all(second))[0] == 200


def test_models(server):
    _, _, body = server.request("GET", "/v1/models")
    (model,) = json.loads(body)["data"]
    assert (model["id"], model["object"]) == ("fake", "model")
    assert json.loads(server.request("GET", "/v1/models/fake")[2]) == model


# -- keys and pages of other origins ----------------------------------------------------------


@pytest.fixture(scope="module")
def guarded():
    with InProcessServer(
        FakeEngine(), api_key="secret", cors_origin=("https://a.example",)
    ) as server:
        yield server.wait_until_ready()


KEY = "Authorization: Bearer secret"


def test_key_guards_what_asks_the_model(guarded):
    status, head, body = complete(guarded, "1 word")
    assert status == 401
    assert 'WWW-Authenticate: Bearer realm="Socrates"\r\n' in head
    assert error_of(body)["code"] == "invalid_api_key"
    assert complete(guarded, "1 word", [KEY])[0] == 200
    assert guarded.ask("1 word")[0] == 401
    assert guarded.ask("1 word", headers=[KEY])[0] == 200
    assert guarded.request("GET", "/v1/models")[0] == 401
    for path in ("/", "/status", "/healthz", "/metrics"):
        assert guarded.request("GET", path)[0] == 200


def test_key_is_wanted_before_the_body_comes(guarded):
    with guarded.connect() as client:
        client.sendall(b"POST /prompt HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n")
        assert read_all(client).startswith(b"HTTP/1.1 401 ")


ORIGIN = "Origin: https://a.example"
ALLOWED = "Access-Control-Allow-Origin: https://a.example\r\n"


def test_page_of_the_chosen_origin_may_read(guarded):
    for fields in ({}, {"stream": True}):
        assert ALLOWED in complete(guarded, "1 word", [KEY, ORIGIN], **fields)[1]
    assert ALLOWED in guarded.ask("1 word", headers=[KEY, ORIGIN])[1]
    assert ALLOWED in complete(guarded, "1 word", [KEY, ORIGIN], temperature=9)[1]
    assert ALLOWED in complete(guarded, "crash", [KEY, ORIGIN])[1]
    assert ALLOWED in complete(guarded, "1 word", [ORIGIN])[1]  # the 401, too
    assert (
        "Access-Control" not in complete(guarded, "1 word", [KEY, "Origin: https://b.example"])[1]
    )


def test_page_may_ask_whether_it_may_ask(guarded):
    wanted = "Access-Control-Request-Headers: authorization,content-type,x-own"
    status, head, _ = guarded.request("OPTIONS", ADDRESS, headers=[ORIGIN, wanted])
    assert status == 204
    assert ALLOWED in head
    assert "Access-Control-Allow-Headers: authorization,content-type,x-own\r\n" in head
    assert "Access-Control-Allow-Methods: GET, POST\r\n" in head


def test_without_the_option_there_is_no_cors(server):
    assert "Access-Control" not in complete(server, "1 word", [ORIGIN])[1]
    assert "Access-Control" not in server.request("OPTIONS", ADDRESS, headers=[ORIGIN])[1]


# -- behind a proxy ---------------------------------------------------------------------------


def test_clients_behind_a_trusted_proxy_are_distinguished():
    from server.options import parse_networks

    trusted = parse_networks("127.0.0.1")
    engine = FakeEngine(gated=True)
    with InProcessServer(engine, per_client=1, trusted_proxy=trusted) as server:
        server.wait_until_ready()
        with server.connect() as first, server.connect() as second:
            first.sendall(completion_request("1 word"))
            assert engine.is_waiting.wait(60)
            second.sendall(forwarded("198.51.100.1"))
            wait_until(lambda: server.status()["waiting"] == 1)
            one = ["X-Forwarded-For: 198.51.100.1"]
            assert complete(server, "1 word", one)[0] == 429
            with server.connect() as third:
                third.sendall(forwarded("198.51.100.2"))
                wait_until(lambda: server.status()["waiting"] == 2)
                engine.allow(10)
                assert parse_response(read_all(third))[0] == 200


def forwarded(client):
    return completion_request("1 word").replace(b"Host: localhost\r\n", f"Host: localhost\r\nX-Forwarded-For: {client}\r\n".encode())  # fmt: skip
