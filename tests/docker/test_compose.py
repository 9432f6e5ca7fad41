"""compose.yaml on one machine, by a real engine: one server behind HAProxy."""

import re
import subprocess
from contextlib import contextmanager

import pytest

from bench.kit.server import free_port
from tests.docker.web import is_ready, request, speaking
from tests.support.process import ROOT
from tests.support.waiting import wait_until

FILE = ROOT / "server" / "deploy" / "compose.yaml"


@contextmanager
def up(engine, path):
    command = ["docker", "compose", "--project-name", "test", "--file", str(path)]
    options = {"env": engine.environment | {"IMAGE": "socrates"}, "check": True}
    subprocess.run([*command, "up", "--detach"], **options, capture_output=True)
    try:
        yield
    finally:
        subprocess.run([*command, "down", "--volumes"], **options, capture_output=True)


@pytest.fixture(scope="module")
def proxy(engine, image, tmp_path_factory):
    """The address of the proxy."""
    port = free_port()
    text = FILE.read_text().replace("published: 8080", f"published: {port}")
    assert f"published: {port}" in text
    path = tmp_path_factory.mktemp("compose") / "compose.yaml"
    path.write_text(text.replace("./haproxy.cfg", str(FILE.with_name("haproxy.cfg"))))
    with up(engine, path):
        address = ("127.0.0.1", port)
        wait_until(lambda: is_ready(address) and is_asked(address), "the server behind the proxy")
        yield address


def is_asked(address):
    return request(address, "POST", "/prompt?max_tokens=1", "Hi")[0] == 200


def log_of(engine, service):
    return engine.run("logs", f"test-{service}-1").stderr


def test_page_and_words_come_through(proxy):
    assert b"<title>Socrates</title>" in request(proxy, "GET", "/")[1]
    assert request(proxy, "POST", "/prompt?max_tokens=8", "What is virtue?")[0] == 200


def test_server_sees_the_client_and_not_what_it_claims(engine, proxy):
    forged = {"X-Forwarded-For": "192.0.2.9"}
    before = log_of(engine, "socrates").count("path=/prompt")
    assert request(proxy, "POST", "/prompt?max_tokens=1", "Hi", forged)[0] == 200
    wait_until(lambda: log_of(engine, "socrates").count("path=/prompt") > before)
    network = engine.inspect("test_inside")["IPAM"]["Config"][0]
    # Docker's own proxy for published ports stands between, with the network's first address.
    seen = re.findall(r"client=(\S+) method=POST path=/prompt", log_of(engine, "socrates"))
    assert seen[-1] == network.get("Gateway", network["Subnet"].replace(".0/16", ".1"))


def test_client_that_leaves_frees_the_model(engine, proxy):
    with speaking(proxy):
        pass
    wait_until(lambda: "ended=cancelled_decode" in log_of(engine, "socrates"))
