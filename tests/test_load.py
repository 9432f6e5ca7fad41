"""Many connections, few file descriptors, peers that vanish: the real process under strain."""

import contextlib
import re
import resource
import socket
from pathlib import Path

import pytest

from server.model.job import Finish, Stage
from tests.support.engine import FakeEngine
from tests.support.process import InProcessServer, ServerProcess
from tests.support.tiny_model import write_tiny_model
from tests.support.waiting import PATIENCE_S, wait_until
from tests.support.wire import prompt_request, read_until


@pytest.fixture(scope="module")
def tiny_path(tmp_path_factory):
    return str(write_tiny_model(tmp_path_factory.mktemp("model") / "tiny.bin"))


@pytest.fixture
def many_files():
    """Raise this process's own limit, to make room for 2,000 sockets."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(4096, hard)), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def memory_kib(process):
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+) kB", status)[1])


def test_2000_idle_connections_cost_under_20_mb(tiny_path, many_files):
    with ServerProcess("--model", tiny_path, "--connections", "8000") as server:
        server.wait_until_ready()
        before = memory_kib(server.process)
        with contextlib.ExitStack() as stack:
            clients = [stack.enter_context(server.connect()) for _ in range(2000)]
            for client in clients:  # each is served once, and then stays idle
                client.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            for client in clients:
                read_until(client, b"ok\n")
            assert memory_kib(server.process) - before < 20 * 1024


@pytest.mark.parametrize(
    "sent", [b"", b"GET / HT", b"POST /prompt HTTP/1.1\r\nHost: localhost\r\n"]
)
@pytest.mark.parametrize("addresses", [1, 8])
def test_places_full_of_idlers_still_have_one_for_a_newcomer(
    tiny_path, many_files, sent, addresses
):
    """512 is the default; from one address a quarter of them stay, from eight all."""
    with ServerProcess("--model", tiny_path) as server, contextlib.ExitStack() as stack:
        server.wait_until_ready()
        for number in range(512):
            source = (f"127.0.2.{1 + number % addresses}", 0)
            client = socket.create_connection(("127.0.0.1", server.port), PATIENCE_S, source)
            stack.enter_context(client).sendall(sent)
        for _ in range(3):
            assert server.ask("hello", "?max_tokens=1")[0] == 200
        assert server.status()["connections"] == (129 if addresses == 1 else 512)


def test_running_out_of_file_descriptors_neither_spins_nor_kills(tiny_path):
    with ServerProcess("--model", tiny_path) as server:
        server.wait_until_ready()
        limits = resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE)
        used = len(list(Path(f"/proc/{server.process.pid}/fd").iterdir()))
        resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (used + 5, limits[1]))
        with contextlib.ExitStack() as stack:
            for _ in range(50):
                stack.enter_context(server.connect())
            assert server.process.poll() is None
            spent = cpu_seconds(server.process)
            # A test must not wait for a fixed time, so the measure is another process's work: a
            # loop that spins on accept would burn CPU while these connections are opened.
            for _ in range(50):
                stack.enter_context(server.connect())
            assert cpu_seconds(server.process) - spent < 1
        wait_until(lambda: answers(server), "an answer after the descriptors are free again")


def cpu_seconds(process):
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def answers(server):
    try:
        return server.request("GET", "/healthz")[0] == 200
    except (OSError, IndexError, ValueError):
        return False


def test_vanished_peers_are_watched_for():
    """Read what the kernel will do from the accepted socket's own options."""
    with InProcessServer(FakeEngine(), vanished_timeout=12.0) as server, server.connect() as client:
        client.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        read_until(client, b"ok\n")
        [connection] = server.server.state.connections
        accepted = connection._transport.get_extra_info("socket")
        assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        tcp = {
            name: accepted.getsockopt(socket.IPPROTO_TCP, getattr(socket, name))
            for name in ("TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT", "TCP_USER_TIMEOUT")
        }
        assert tcp == {
            "TCP_KEEPIDLE": 4,
            "TCP_KEEPINTVL": 4,
            "TCP_KEEPCNT": 3,
            "TCP_USER_TIMEOUT": 12000,
        }


def test_reader_that_takes_nothing_is_let_go_and_the_model_stopped():
    engine = FakeEngine()

    def generate(prompt, sampling, cancelled, progress):
        progress.stage = Stage.DECODE
        for _ in range(200):  # 13 MB, far more than the kernel's buffers hold
            yield "x" * 65536
        assert cancelled.wait(PATIENCE_S)
        progress.finish = Finish.CANCELLED

    engine.generate = generate
    with InProcessServer(engine, stalled_timeout=0.2) as server:
        server.wait_until_ready()
        with server.connect() as client:
            client.sendall(prompt_request("1 word"))
            wait_until(lambda: server.status()["prompts"].get("cancelled_decode") == 1)
