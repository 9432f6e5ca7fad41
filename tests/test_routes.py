"""Every path, method and status, over real sockets, with a fake engine."""

import json
import socket
import threading

import pytest

from server import __version__
from server.model.prompt.conversation import Turn
from tests.support.engine import FakeEngine
from tests.support.process import InProcessServer
from tests.support.waiting import PATIENCE_S, wait_until
from tests.support.wire import parse_response, prompt_request, read_all, read_until


@pytest.fixture(scope="module")
def server():
    with InProcessServer(FakeEngine()) as server:
        yield server.wait_until_ready()


@pytest.fixture
def gated():
    with InProcessServer(FakeEngine(gated=True), queue=2) as server:
        yield server.wait_until_ready()


def test_prompt_streams_one_chunk_a_piece(gated):
    with gated.connect() as client:
        client.sendall(prompt_request("2 words"))
        gated.engine.allow(1)
        head = read_until(client, b"6\r\nword0 \r\n")
        assert b"Transfer-Encoding: chunked\r\n" in head
        assert b"Content-Type: text/plain; charset=utf-8\r\n" in head
        assert b"Cache-Control: no-store\r\n" in head
        assert b"X-Accel-Buffering: no\r\n" in head
        assert b"Connection: close\r\n" in head
        gated.engine.allow(1)
        assert read_until(client, b"\r\n") == b"6\r\nword1 \r\n"
        gated.engine.allow(1)
        assert read_all(client) == b"0\r\n\r\n"


def test_prompt_trailers_only_if_asked_for(server):
    status, head, body = server.ask("3 words", headers=["TE: trailers"])
    assert (status, body) == (200, b"word0 word1 word2 ")
    assert "Trailer: Socrates-Finish, " in head
    assert "Socrates-Finish: stop\r\n" in head
    assert "Socrates-Prompt-Tokens: 9\r\n" in head
    assert "Socrates-Cached-Tokens: 7\r\n" in head
    assert "Socrates-Tokens: 3\r\n" in head
    assert "Server-Timing: waiting;dur=" in head
    assert "Socrates-Finish" not in server.ask("3 words")[1]


def test_prompt_to_http_1_0_is_unframed(server):
    with server.connect() as client:
        client.sendall(b"POST /prompt HTTP/1.0\r\nContent-Length: 7\r\n\r\n2 words")
        head, _, body = read_all(client).partition(b"\r\n\r\n")
    assert body == b"word0 word1 "
    assert b"Transfer-Encoding" not in head


@pytest.mark.parametrize(
    "content_type", ["application/x-www-form-urlencoded", "text/plain", "a/b", ""]
)
def test_prompt_takes_any_type_but_json(server, content_type):
    assert server.ask("1 word", headers=[f"Content-Type: {content_type}"])[0] == 200


def test_coded_prompt_is_415(server):
    assert server.ask("1 word", headers=["Content-Encoding: gzip"])[0] == 415


JSON_TYPES = ["application/json", "Application/JSON; charset=utf-8", "application/ld+json"]


@pytest.mark.parametrize("content_type", JSON_TYPES)
def test_prompt_in_json_is_a_talk(server, content_type):
    talk = [
        {"role": "user", "content": "Who are you?"},
        {"role": "assistant", "content": "Socrates."},
        {"role": "user", "content": "3 words"},
    ]
    body = json.dumps({"messages": talk})
    status, head, answer = server.ask(body, headers=[f"Content-Type: {content_type}"])
    assert (status, answer) == (200, b"word0 word1 word2 ")
    assert "Content-Type: text/plain; charset=utf-8\r\n" in head
    asked = server.engine.conversations[-1]
    assert asked.turns == (Turn("Who are you?", "Socrates."),)


@pytest.mark.parametrize("content_type", JSON_TYPES)
def test_json_that_is_no_talk_is_400(server, content_type):
    status, _, body = server.ask("1 word", headers=[f"Content-Type: {content_type}"])
    assert (status, body) == (400, b"The body is not valid JSON: extra data.\n")


def test_json_has_a_limit_of_its_own(server):
    header = ["Content-Type: application/json"]
    exchange = [{"role": "user", "content": "x" * 15_000}, {"role": "assistant", "content": "y"}]
    talk = [*exchange * 10, {"role": "user", "content": "1 word"}]
    assert server.ask(json.dumps({"messages": talk}), headers=header)[0] == 200
    assert server.ask(json.dumps({"messages": talk * 2}), headers=header)[0] == 413
    long = [{"role": "user", "content": "x" * 16_385}]
    status, _, body = server.ask(json.dumps({"messages": long}), headers=header)
    assert status == 413
    assert (
        body == b"The prompt is too long for the model's context length: "
        b"the last message has 16,385 bytes, and there is room for 16,384.\n"
    )


@pytest.mark.parametrize(
    "query",
    [
        "?max_tokens=0",
        "?max_tokens=-2",
        "?max_tokens=x",
        "?max_tokens=",
        "?max_tokens=1&max_tokens=2",
        "?max_tokens=" + "9" * 5000,
        "?temperature=nan",
        "?temperature=2.1",
        "?temperature=-0.1",
        "?temperature=warm",
        "?seed=1.5",
        "?seed=99999999999999999999",
        "?top_k=1",
        "?seed",
        "?" + "&".join("a" * 20),
    ],
)
def test_bad_query_is_400(server, query):
    status, head, body = server.ask("1 word", query)
    assert status == 400
    assert body.endswith(b".\n")
    assert "Content-Type: text/plain; charset=utf-8" in head


def test_query_is_obeyed_and_capped(server):
    assert server.ask("9 words", "?max_tokens=2&temperature=0&seed=1")[2] == b"word0 word1 "
    status, head, _ = server.ask("600 words", "?max_tokens=1000000", ["TE: trailers"])
    assert status == 200
    assert "Socrates-Tokens: 500\r\n" in head
    assert "Socrates-Finish: length\r\n" in head


@pytest.mark.parametrize(
    ("body", "status", "sentence"),
    [
        (b"", 400, b"The prompt is empty.\n"),
        (b" \n", 400, b"The prompt is empty.\n"),
        (b"\xff\xfe", 400, b"The prompt is not valid UTF-8.\n"),
        (b"\xed\xa0\x80", 400, b"The prompt is not valid UTF-8.\n"),  # a surrogate
        (b"x" * 2000, 413, b"The prompt has 1,001 tokens, and there is room for 1,000.\n"),
        (b"x" * (16 * 1024 + 1), 413, b"The body is over 16384 bytes.\n"),
    ],
    ids=["empty", "blank", "not_utf8", "surrogate", "too_many_tokens", "too_many_bytes"],
)
def test_bad_prompt_is_refused_in_one_sentence(server, body, status, sentence):
    got, head, text = server.ask(body)
    assert (got, text) == (status, sentence)
    assert "Connection: close" in head


def test_failure_before_the_first_piece_has_a_status(server):
    status, head, body = server.ask("crash now")
    assert status == 503
    assert body == b"The model failed on this prompt.\n"
    assert "Retry-After: 5" in head


def test_failure_after_the_first_piece_ends_without_the_last_chunk(server):
    with server.connect() as client:
        client.sendall(prompt_request("fail now"))
        head, _, body = read_all(client).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ")
    assert body == b"6\r\nword0 \r\n"


def test_failure_after_the_first_piece_resets_http_1_0(server):
    with server.connect() as client:
        client.sendall(b"POST /prompt HTTP/1.0\r\nContent-Length: 8\r\n\r\nfail now")
        with pytest.raises(ConnectionResetError):
            read_all(client)


def test_full_queue_is_503_and_not_ready(gated):
    clients = []
    for expected in (0, 1, 2):
        clients.append(gated.connect())
        clients[-1].sendall(prompt_request("1 word"))
        wait_until(lambda n=expected: gated.status()["waiting"] == n and gated.status()["busy"])
    status, head, body = gated.ask("1 word")
    assert (status, body) == (503, b"2 prompts are waiting already; try again soon.\n")
    assert "Retry-After: 5" in head
    assert gated.request("GET", "/readyz")[0] == 503
    assert gated.request("GET", "/healthz")[0] == 200
    gated.engine.allow(100)
    assert all(parse_response(read_all(client))[0] == 200 for client in clients)


@pytest.mark.parametrize("way", ["fin", "rst", "shutdown"])
@pytest.mark.parametrize("stage", ["waiting", "prefill", "decode"])
def test_closed_socket_cancels_at_every_stage(gated, stage, way):
    engine = gated.engine
    if stage == "waiting":
        first = gated.connect()
        first.sendall(prompt_request("1 first"))
        wait_until(engine.is_waiting.is_set)
    client = gated.connect()
    client.sendall(prompt_request("batches 5"))
    if stage == "waiting":
        wait_until(lambda: gated.status()["waiting"] == 1)
    elif stage == "prefill":
        wait_until(engine.is_waiting.is_set)
    else:
        engine.allow(5)
        read_until(client, b"word0 ")
    leave(client, way)
    wait_until(lambda: cancelled_or_set(gated, stage))
    engine.gated = False
    engine.allow(100)
    assert gated.ask("1 next")[0] == 200
    assert gated.status()["prompts"].get(f"cancelled_{stage}") == 1
    assert engine.steps_after_cancel == 0
    assert gated.status()["busy"] is False


def leave(client, way):
    if way == "shutdown":  # FIN, but the socket stays: half-closed counts as closed
        client.shutdown(socket.SHUT_WR)
        return
    if way == "rst":
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    client.close()


def cancelled_or_set(server, stage):
    if stage == "waiting":
        return server.status()["prompts"].get("cancelled_waiting") == 1
    return server.server.worker.is_cancelling


# -- the other paths ------------------------------------------------------------------------


def test_status_is_json(server):
    status, head, body = server.request("GET", "/status")
    assert status == 200
    assert "Content-Type: application/json\r\n" in head
    status_shown = json.loads(body)
    assert status_shown["version"] == __version__
    assert (status_shown["model"], status_shown["state"], status_shown["threads"]) == (
        "fake",
        "ready",
        1,
    )
    assert (status_shown["busy"], status_shown["waiting"]) == (False, 0)


def test_status_shows_nothing_of_the_prompts_of_others():
    engine = FakeEngine(gated=True)
    with InProcessServer(engine) as server, server.connect() as client:
        client.sendall(prompt_request("3 words"))
        engine.allow(2)
        wait_until(lambda: (server.status()["current"] or {}).get("stage") == "decode")
        assert set(server.status()["current"]) == {"stage", "tokens"}
        engine.allow(10)
        last = wait_until(lambda: server.status()["last"])
        assert set(last) == {"finish", "stage", "tokens", "queue_ms", "decode_ms"}


def test_loading_is_reported_and_prompts_wait():
    engine, gate = FakeEngine(), threading.Event()

    def load(loading, cancelled):
        loading.file_bytes, loading.read_bytes = 128_000_000, 32_000_000
        assert gate.wait(PATIENCE_S)
        return engine

    with InProcessServer(engine, load) as server:
        assert server.request("GET", "/readyz")[0] == 503
        assert server.request("GET", "/")[0] == 200
        status = server.status()
        assert status["state"] == "loading"
        assert status["loading"] == {"step": "loading the model: 32 of 128 MB", "share": 0.25}
        with server.connect() as client:
            client.sendall(prompt_request("1 word"))
            wait_until(lambda: server.status()["waiting"] == 1)
            gate.set()
            assert parse_response(read_all(client))[2] == b"word0 "
        assert server.request("GET", "/readyz")[2] == b"ready\n"
        assert server.status()["loading"] is None


PATHS = [("/", "GET, HEAD, OPTIONS"), ("/prompt", "POST, OPTIONS"), ("/healthz", "GET, HEAD, OPTIONS"), ("/readyz", "GET, HEAD, OPTIONS"), ("/status", "GET, HEAD, OPTIONS"), ("/static/app.js", "GET, HEAD, OPTIONS")]  # fmt: skip


@pytest.mark.parametrize(("path", "allow"), PATHS)
def test_methods(server, path, allow):
    status, head, body = server.request("OPTIONS", path)
    assert (status, body) == (204, b"")
    assert f"Allow: {allow}\r\n" in head
    assert "Content-Length" not in head
    for method in {"GET", "HEAD", "POST", "PUT", "DELETE", "TRACE", "PATCH"} - {*allow.split(", ")}:
        status, head, _ = server.request(method, path)
        assert status == 405
        assert f"Allow: {allow}\r\n" in head
    assert server.request("BREW", path)[0] == 501


def test_head_equals_get_without_body(server):
    for path, allow in PATHS:
        if "GET" in allow:
            _, get_head, get_body = server.request("GET", path)
            status, head, body = server.request("HEAD", path)
            assert (status, body) == (200, b"")
            assert f"Content-Length: {len(get_body)}" in head
            assert without_date(head) == without_date(get_head)


def without_date(head):
    return [line for line in head.split("\r\n") if not line.startswith("Date:")]


def test_options_for_the_whole_server(server):
    status, head, _ = server.request("OPTIONS", "*")
    assert status == 204
    assert "Allow: GET, HEAD, POST, OPTIONS" in head


@pytest.mark.parametrize(
    "path",
    [
        "/nothing",
        "/static/",
        "/static",
        "/index.html",
        "//",
        "/static/../index.html",
        "/static/../static/../../etc/passwd",
        "/%2e%2e/%2e%2e/etc/passwd",
        "/static/%252e%252e/app.js",
        "//static/app.js",
        "/static//app.js",
        "/static/%2fapp.js",
        "/static/app.js%00",
        "/static/app.js/",
        "/static/%2e%2e/%2e%2e/pyproject.toml",
        "/..%2fpyproject.toml",
        "/static%2fapp.js",
        "/static/..%5c..%5cLICENSE",
        "/%00",
        "/static/%c0%ae%c0%ae/LICENSE",
        "/prompt/",
        "/healthz/.",
        "/static/app.js/.",
    ],
)
def test_other_paths_are_404(server, path):
    assert server.request("GET", path)[0] == 404


@pytest.mark.parametrize(
    "path",
    ["/%73tatus", "/static/%2e/app.js", "/./static/../static/app.js", "/../status", "/static/.."],
)
def test_paths_are_decoded_and_normalised_once(server, path):
    assert server.request("GET", path)[0] == 200


@pytest.mark.parametrize(
    ("method", "path", "condition", "status"),
    [
        ("GET", "/healthz", "If-None-Match: *", 304),
        ("GET", "/healthz", 'If-None-Match: "x"', 200),
        ("GET", "/healthz", 'If-Match: "x"', 412),
        ("GET", "/healthz", "If-Match: *", 200),
        ("GET", "/", 'If-Match: "x"', 412),
        ("POST", "/prompt", 'If-Match: "x"', 412),
        ("POST", "/prompt", "If-Match: *", 412),
        ("POST", "/prompt", "If-None-Match: *", 200),
    ],
)
def test_preconditions_hold_everywhere(server, method, path, condition, status):
    body = b"1 word" if method == "POST" else b""
    assert server.request(method, path, body, [condition])[0] == status


def test_keep_alive_serves_many_requests(server):
    with server.connect() as client:
        for _ in range(3):
            client.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert read_until(client, b"ok\n").startswith(b"HTTP/1.1 200 ")


def test_refused_upload_still_gets_its_answer(server):
    """Send a large body that nobody reads: the answer must not be lost to a reset."""
    with server.connect() as client:
        head = b"POST /prompt HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3000000\r\n\r\n"
        client.sendall(head + b"x" * 300_000)
        assert parse_response(read_all(client))[0] == 413
