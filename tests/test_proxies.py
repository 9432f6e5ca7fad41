"""Three real servers with the real model behind real HAProxy; one behind nginx and Caddy."""

import http.client
import json
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from typing import NamedTuple

import pytest
from prometheus_client.parser import text_string_to_metric_families

from bench.kit.server import free_port
from server.options import parse_networks
from tests.conftest import require
from tests.support.engine import FakeEngine
from tests.support.process import ROOT, InProcessServer, ServerProcess
from tests.support.proxies import DEPLOY, caddy, find, haproxy, nginx
from tests.support.waiting import PATIENCE_S, wait_until

PROMPTS = 60
STORY = "Tell me a long story about the sea, with many words."
# More than fits into the context, so it is dropped there; but a proxy has to buffer it.
LONG_TALK = [
    {"role": "user", "content": "What is the sea?"},
    {"role": "assistant", "content": "water " * 9000},
]
JSON = {"Content-Type": "application/json"}
SENTENCE = "Too many of your prompts are waiting; let one be answered."  # HAProxy's


class Farm(NamedTuple):
    servers: list[ServerProcess]
    port: int  # the proxy's
    lines: list[str]  # of its log
    metrics: int  # the port of HAProxy's own


@contextmanager
def farm():
    """Three servers behind the proxy."""
    require(find("haproxy"), "HAProxy")
    arguments = ("--threads", "1", "--trusted-proxy", "127.0.0.1", "--shutdown-timeout", "60")
    arguments += ("--ping-interval", "off")
    with ExitStack() as stack:
        servers = [ServerProcess(*arguments) for _ in range(3)]
        for server in servers:
            stack.enter_context(server)
        for server in servers:
            server.wait_until_ready()
        port, lines, metrics = stack.enter_context(haproxy([server.port for server in servers]))
        wait_until(lambda: request(port, "GET", "/readyz-of-nobody")[0] == 404, "the proxy")
        yield Farm(servers, port, lines, metrics)


@pytest.fixture(scope="module")
def shared_farm(socrates):
    with farm() as parts:
        yield parts


@pytest.fixture
def own_farm(socrates):
    with farm() as parts:
        yield parts


def person(port, address):
    """Return a connection from its own address, for a with statement."""
    return closing(
        http.client.HTTPConnection(
            "127.0.0.1", port, timeout=PATIENCE_S, source_address=(address, 0)
        )
    )


@contextmanager
def frozen(server):
    server.process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        server.process.send_signal(signal.SIGCONT)


def talk(question):
    """Return as large a body as the page sends."""
    return json.dumps({"messages": [*LONG_TALK, {"role": "user", "content": question}]})


def request(port, method, path, body=None, client="127.0.0.1", headers=()):
    """Return (status, body); raises IncompleteRead for an answer that broke off."""
    with person(port, client) as connection:
        connection.request(method, path, body, dict(headers))
        response = connection.getresponse()
        return response.status, response.read()


def ask(port, number, max_tokens):
    """Send one prompt from its own address, as another person would."""
    path = f"/prompt?max_tokens={max_tokens}&seed={number}&ignore_eos=true"
    client = f"127.0.1.{number + 1}"
    try:
        return request(port, "POST", path, talk(f"{number}. {STORY}"), client, JSON)
    except (http.client.HTTPException, OSError):
        return "broken", b""


def ask_all(port, count, max_tokens):
    """Send `count` prompts at once."""
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(lambda number: ask(port, number, max_tokens), range(count)))


def wait_until_idle(servers):
    wait_until(lambda: not any(server.status()["busy"] for server in servers))


def ended(server):
    return sum(server.status()["prompts"].values())


@pytest.mark.model
def test_prompts_are_spread_evenly_and_none_is_lost(shared_farm):
    servers, port, *_ = shared_farm
    before = [ended(server) for server in servers]
    answers = ask_all(port, PROMPTS, max_tokens=8)
    assert [status for status, _ in answers] == [200] * PROMPTS
    assert all(body for _, body in answers)
    done = [ended(server) - was for server, was in zip(servers, before, strict=True)]
    assert sum(done) == PROMPTS
    assert min(done) >= PROMPTS / 3 * 0.6


@pytest.mark.model
def test_page_and_words_come_through(shared_farm):
    port = shared_farm.port
    status, body = request(port, "GET", "/")
    assert status == 200
    assert b"<title>Socrates</title>" in body
    with person(port, "127.0.0.1") as connection:
        connection.request("POST", "/prompt?seed=1&ignore_eos=true&max_tokens=400", STORY)
        first = connection.getresponse().read1(10)
        assert 0 < len(first) < 30  # a word or two, and not the story


def speaking(servers):
    return [s for s in servers if (s.status()["current"] or {}).get("stage") == "decode"]


def cancelled(servers):
    counts = [server.status()["prompts"] for server in servers]
    return sum(n for found in counts for name, n in found.items() if name.startswith("cancelled"))


@pytest.mark.model
def test_client_that_leaves_frees_its_server(shared_farm):
    servers, port, *_ = shared_farm
    wait_until_idle(servers)
    before = cancelled(servers)
    with person(port, "127.0.0.1") as connection:
        connection.request("POST", "/prompt?seed=1&ignore_eos=true", STORY)
        connection.getresponse().read1(1)
    wait_until(lambda: cancelled(servers) == before + 1)
    assert speaking(servers) == []


@pytest.mark.model
def test_client_that_leaves_the_proxys_queue_never_reaches_a_model(shared_farm):
    servers, port, lines, metrics = shared_farm
    wait_until_idle(servers)
    before = sum(map(ended, servers))
    path = "/prompt?seed=1&ignore_eos=true"
    with ExitStack() as stack:
        # One running and one waiting on each server; the seventh waits in the proxy.
        for number in range(6):
            client = stack.enter_context(person(port, f"127.0.2.{number + 1}"))
            client.request("POST", path, STORY)
            wait_until(lambda n=number: sum(map(held, servers)) == n + 1)
        for server in servers:
            stack.enter_context(frozen(server))  # so that none finishes and admits the seventh
        with person(port, "127.0.2.7") as client:
            client.request("POST", path, talk(STORY), JSON)  # header and body in two segments
            wait_until(lambda: queued_in_proxy(metrics) == 1)
        # HAProxy's manual, section 8.2.3: <NOSRV> if it never reached a server.
        line = wait_until(lambda: next((x for x in lines if "127.0.2.7:" in x), None))
        assert "models/<NOSRV>" in line
    wait_until_idle(servers)
    wait_until(lambda: sum(map(ended, servers)) == before + 6)


def queued_in_proxy(metrics):
    text = request(metrics, "GET", "/metrics")[1].decode()
    families = {family.name: family.samples for family in text_string_to_metric_families(text)}
    [queue] = (
        sample.value
        for sample in families["haproxy_backend_current_queue"]
        if sample.labels == {"proxy": "models"}
    )
    return queue


def held(server):
    status = server.status()
    return status["busy"] + status["waiting"]


@pytest.mark.model
def test_one_person_has_three_prompts_at_a_time(shared_farm):
    servers, port, *_ = shared_farm
    wait_until_idle(servers)
    path = "/prompt?seed=1&ignore_eos=true&max_tokens=300"
    with ExitStack() as stack:
        for number in range(3):
            client = stack.enter_context(person(port, "127.0.0.1"))
            client.request("POST", path, STORY)
            wait_until(lambda n=number: sum(map(held, servers)) == n + 1)
        assert request(port, "POST", path, STORY) == (429, SENTENCE.encode() + b"\n")
        assert request(port, "POST", path.replace("p", "%70", 1), STORY)[0] == 429
        status, body = request(port, "POST", "/v1/chat/completions", talk(STORY), headers=JSON)
        assert (status, json.loads(body)["error"]["message"]) == (429, SENTENCE)
        assert request(port, "GET", "/")[0] == 200
        assert request(port, "POST", path, "Who?", client="127.0.3.1")[0] == 200


@contextmanager
def asked_while_busy(servers, port):
    """Send 24 prompts; in the block, the first server decodes one and queues another.

    The list `answers` is complete after the block.
    """
    answers = []
    asking = threading.Thread(target=lambda: answers.extend(ask_all(port, 24, max_tokens=40)))
    asking.start()
    wait_until(lambda: servers[0] in speaking(servers[:1]) and servers[0].status()["waiting"])
    yield servers[0], answers
    asking.join()


@pytest.mark.model
def test_killed_server_loses_only_what_it_spoke(own_farm):
    servers, port, *_ = own_farm
    with asked_while_busy(servers, port) as (victim, answers):
        victim.process.kill()
        victim.process.wait()
    # None is lost if its answer ended just before.
    assert [status for status, _ in answers if status != 200] in ([], ["broken"])
    assert len(answers) == 24


@pytest.mark.model
def test_drained_server_loses_nothing(own_farm):
    servers, port, *_ = own_farm
    with asked_while_busy(servers, port) as (drained, answers):
        drained.process.send_signal(signal.SIGTERM)
        assert drained.process.wait(PATIENCE_S) == 0
    assert [status for status, _ in answers] == [200] * 24


def test_what_haproxy_itself_answers_has_the_form_of_a_server(tmp_path):
    require(find("haproxy"), "HAProxy")
    nobody = [free_port() for _ in range(3)]
    with haproxy(nobody) as (port, _, _):
        for path, form in (("/prompt", "text/plain"), ("/v1/chat/completions", "application/json")):
            with person(port, "127.0.0.1") as connection:
                connection.request("POST", path, STORY, {"Origin": "https://app.example"})
                response = connection.getresponse()
                body = response.read().decode()
            assert response.status == 503
            assert response.headers["Content-Type"] == form
            assert response.headers["Access-Control-Allow-Origin"] == "*"
            sentence = "No server is free; try again soon."
            found = json.loads(body)["error"]["message"] if "json" in form else body.strip()
            assert found == sentence


# -- nginx and Caddy --------------------------------------------------------------------------


@pytest.fixture(params=[nginx, caddy], ids=["nginx", "caddy"])
def behind_proxy(request, tmp_path):
    """A server whose words the test releases, and the port of the proxy in front of it."""
    proxy = request.param
    require(find(proxy.__name__), proxy.__name__)
    engine = FakeEngine(gated=True)
    trusted = {"trusted_proxy": parse_networks("127.0.0.1")}
    with InProcessServer(engine, **trusted) as server, proxy(tmp_path, server.port) as (port, _):
        server.wait_until_ready()
        yield server, port


def test_proxy_passes_words_on_as_they_come(behind_proxy):
    server, port = behind_proxy
    with person(port, "127.0.0.1") as connection:
        connection.request("POST", "/prompt", "2 words")
        server.engine.allow(1)
        response = connection.getresponse()
        assert response.read1(100) == b"word0 "  # the next one is not even made yet
        server.engine.allow(2)
        assert response.read() == b"word1 "


def test_proxy_passes_a_cancel_on(behind_proxy):
    server, port = behind_proxy
    with person(port, "127.0.0.1") as connection:
        connection.request("POST", "/prompt", "100 words")
        server.engine.allow(1)
        connection.getresponse().read1(100)
    wait_until(lambda: server.server.worker.is_cancelling)


def test_proxy_tells_who_asks_whatever_the_client_claims(behind_proxy):
    server, port = behind_proxy
    records = []
    server.server.state.on_request = records.append
    with person(port, "127.0.5.6") as connection:
        connection.request("POST", "/prompt", "1 word", {"X-Forwarded-For": "192.0.2.9"})
        server.engine.allow(2)
        assert connection.getresponse().read() == b"word0 "
    wait_until(lambda: ("/prompt", "127.0.5.6") in {(each.path, each.client) for each in records})


def test_deploy_readme_quotes_the_caddyfile():
    quoted = (DEPLOY / "Caddyfile").read_text().replace("\t", "    ").splitlines()
    assert (
        "\n".join(f"    {line}" for line in quoted)
        in (ROOT / "server" / "deploy" / "README.md").read_text()
    )
