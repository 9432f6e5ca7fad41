"""Signs of life from a stream that waits for the model, and how it fails after one."""

import json
import socket
import subprocess

import pytest

from tests.conftest import require
from tests.support.engine import FakeEngine
from tests.support.process import ROOT, InProcessServer
from tests.support.proxies import find, nginx
from tests.support.waiting import PATIENCE_S, wait_until
from tests.support.wire import (
    completion_request,
    parse_response,
    prompt_request,
    read_all,
    read_until,
)

COMMENT = b": waiting\n\n"
UNDICI = ROOT / ".venv" / "node" / "node_modules" / "undici" / "index.js"


@pytest.fixture
def gated():
    with InProcessServer(FakeEngine(gated=True), ping_interval=0.1) as server:
        yield server.wait_until_ready()


def streamed(prompt):
    return completion_request(prompt, stream=True)


def wait_for_comments(client, count):
    data = b""
    while data.count(COMMENT) < count:
        data += client.recv(65536)
    return data


def answer_of(events):
    """The text of server-sent events, read as the HTML standard says: comments are skipped."""
    lines = [line for line in events.decode().split("\n\n") if line and not line.startswith(":")]
    assert lines.pop() == "data: [DONE]"
    deltas = [json.loads(line.removeprefix("data: "))["choices"][0]["delta"] for line in lines]
    return "".join(delta.get("content", "") for delta in deltas)


def test_events_begin_at_once_and_go_on_with_comments_until_the_first_word(gated):
    with gated.connect() as client:
        client.sendall(streamed("2 words"))
        data = read_until(client, b'"role":"assistant"')
        data += wait_for_comments(client, 2)
        gated.engine.allow(10)
        status, _, body = parse_response(data + read_all(client))
    assert status == 200
    assert answer_of(body) == "word0 word1 "
    assert COMMENT not in body[body.index(b"word0") :]


def test_events_of_a_prompt_in_the_queue_begin_at_once(gated):
    with gated.connect() as first, gated.connect() as second:
        first.sendall(prompt_request("1 word"))
        assert gated.engine.is_waiting.wait(60)
        second.sendall(streamed("2 words"))
        wait_for_comments(second, 2)
        assert gated.status()["waiting"] == 1


def test_plain_text_gets_its_head_after_the_interval_and_nothing_else(gated):
    with gated.connect() as client:
        client.sendall(prompt_request("2 words"))
        data = read_until(client, b"\r\n\r\n")
        assert data.startswith(b"HTTP/1.1 200 ")
        assert data.endswith(b"\r\n\r\n")
        gated.engine.allow(10)
        assert parse_response(data + read_all(client))[2] == b"word0 word1 "


def test_plain_text_in_http_1_0_gets_its_head_too(gated):
    with gated.connect() as client:
        client.sendall(b"POST /prompt HTTP/1.0\r\nContent-Length: 7\r\n\r\n2 words")
        read_until(client, b"\r\n\r\n")
        gated.engine.allow(10)
        assert read_all(client) == b"word0 word1 "


def test_with_the_interval_off_nothing_comes_before_the_first_word():
    with InProcessServer(FakeEngine(gated=True), ping_interval=None) as server:
        server.wait_until_ready()
        with server.connect() as client:
            client.sendall(streamed("crash now"))
            server.engine.allow(10)
            assert read_until(client, b"}").startswith(b"HTTP/1.1 503 ")


def test_failure_after_the_head_is_an_event_in_the_apis_form(gated):
    with gated.connect() as client:
        client.sendall(streamed("crash now"))
        data = wait_for_comments(client, 1)
        gated.engine.allow(10)
        _, _, body = parse_response(data + read_all(client))
    last = body.decode().split("\n\n")[-2]
    assert json.loads(last.removeprefix("data: "))["error"] == {
        "message": "The model failed on this prompt.",
        "type": "server_error",
        "param": None,
        "code": "server_overloaded",
    }


def test_failure_after_the_head_of_plain_text_breaks_it_off(gated):
    with gated.connect() as client:
        client.sendall(prompt_request("crash now"))
        read_until(client, b"\r\n\r\n")
        gated.engine.allow(10)
        assert read_all(client) == b""  # not even the last chunk


def test_client_that_leaves_after_a_sign_of_life_frees_the_model(gated):
    with gated.connect() as client:
        client.sendall(streamed("batches 9"))
        wait_for_comments(client, 1)
    wait_until(lambda: gated.server.worker.is_cancelling)
    gated.engine.allow(1)
    wait_until(lambda: not gated.status()["busy"])
    assert gated.status()["prompts"] == {"cancelled_prefill": 1}


def test_refusals_known_at_once_keep_their_status(gated):
    for prompt in (" ", "x" * 2000):
        with gated.connect() as client:
            client.sendall(streamed(prompt))
            assert read_until(client, b"}").startswith(b"HTTP/1.1 400 ")


NODE = """
import undici from "{undici}";
const dispatcher = new undici.Agent({{ headersTimeout: 1000 }});
const body = JSON.stringify({{ stream: true, messages: [{{ role: "user", content: "2 words" }}] }});
const headers = {{ "Content-Type": "application/json" }};
const {{ port }} = {{ port: process.argv[2] }};
const response = await undici.fetch(`http://127.0.0.1:${{port}}/v1/chat/completions`,
  {{ method: "POST", headers, body, dispatcher }});
console.log(response.status);
console.log(JSON.stringify(await response.text()));
"""


def test_undici_with_a_header_timeout_waits_for_a_slow_model(tmp_path):
    require(UNDICI.exists() and find("node"), "undici")
    script = tmp_path / "ask.mjs"
    script.write_text(NODE.format(undici=UNDICI))
    with InProcessServer(FakeEngine(gated=True), ping_interval=0.5) as server:
        server.wait_until_ready()
        command = [find("node"), str(script), str(server.port)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as node:
            assert node.stdout.readline() == "200\n"
            server.engine.allow(10)
            assert answer_of(json.loads(node.stdout.read()).encode()) == "word0 word1 "


def test_nginx_with_a_read_timeout_waits_for_a_slow_model(tmp_path):
    require(find("nginx"), "nginx")
    with InProcessServer(FakeEngine(gated=True), ping_interval=0.5) as server:
        server.wait_until_ready()
        with (
            nginx(tmp_path, server.port, "2s") as (port, _),
            socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as client,
        ):
            client.sendall(streamed("2 words"))
            data = wait_for_comments(client, 6)  # 3 s
            server.engine.allow(10)
            data += read_until(client, b"0\r\n\r\n")
    assert answer_of(parse_response(data)[2]) == "word0 word1 "
