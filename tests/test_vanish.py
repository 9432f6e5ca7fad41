"""A client that vanishes, without FIN or RST: in a network namespace whose cable is cut."""

import os
import subprocess
import sys
from contextlib import contextmanager

import pytest

from tests.support.engine import FakeEngine
from tests.support.process import InProcessServer
from tests.support.waiting import wait_until

SERVER_IP, CLIENT_IP = "10.213.7.1", "10.213.7.2"
CLIENT = f"""
import socket, sys
client = socket.create_connection(({SERVER_IP!r}, int(sys.argv[1])))
client.sendall(b"POST /prompt HTTP/1.1\\r\\nHost: localhost\\r\\nContent-Length: 8\\r\\n\\r\\n50 words")
client.recv(65536)
print("heard", flush=True)
sys.stdin.read()
"""


def ip(*arguments):
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


@contextmanager
def cable():
    """A namespace linked to ours; yields its name, and a function that cuts the link silently."""
    name, ours, theirs = (f"t{os.getpid()}{end}"[-15:] for end in "nab")
    try:
        ip("netns", "add", name)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no network namespace can be made here")
    try:
        ip("link", "add", ours, "type", "veth", "peer", "name", theirs)
        ip("link", "set", theirs, "netns", name)
        ip("address", "add", f"{SERVER_IP}/24", "dev", ours)
        ip("link", "set", ours, "up")
        ip("-n", name, "address", "add", f"{CLIENT_IP}/24", "dev", theirs)
        ip("-n", name, "link", "set", theirs, "up")
        yield name, lambda: ip("-n", name, "route", "add", "blackhole", SERVER_IP)
    finally:
        ip("netns", "del", name)


def test_vanished_client_frees_the_model():
    engine = FakeEngine(gated=True)
    with (
        cable() as (namespace, cut),
        InProcessServer(engine, host=(SERVER_IP,), vanished_timeout=1.0) as server,
    ):
        client = ["ip", "netns", "exec", namespace, sys.executable, "-c", CLIENT, str(server.port)]
        pipe = subprocess.PIPE
        with subprocess.Popen(client, stdin=pipe, stdout=pipe, text=True) as process:
            engine.allow(2)
            assert process.stdout.readline() == "heard\n"
            cut()
            engine.allow(3)  # words that nobody acknowledges
            wait_until(lambda: server.server.worker.is_cancelling, "the cancelling")
            engine.allow(1)
            wait_until(lambda: not server.server.worker.is_busy, "an idle model")
            process.stdin.close()
        assert server.server.worker.counts == {"cancelled_decode": 1}
        assert engine.steps_after_cancel == 0
