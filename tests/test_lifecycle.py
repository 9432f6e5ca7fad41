"""The real process: how it starts, how it refuses to, and how it ends."""

import asyncio
import json
import signal
import socket
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote

import pytest

from server.assembly import StartError, engine_settings
from server.lifecycle import serve
from server.model.errors import ModelFileError
from server.model.files import catalog
from server.model.machine.thermometer import Thermometer
from server.options import Options
from tests.support.engine import FakeEngine
from tests.support.process import ROOT, InProcessServer, ServerProcess
from tests.support.tiny_model import write_tiny_model
from tests.support.waiting import PATIENCE_S, wait_until
from tests.support.wire import parse_response, prompt_request, read_all, read_until


def run(*arguments):
    """Run a server that is expected to exit by itself; returns (exit status, last line)."""
    result = subprocess.run(
        [sys.executable, "-m", "server", "--port", "0", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert "Traceback" not in result.stderr
    return result.returncode, result.stderr.splitlines()[-1]


@pytest.fixture(scope="module")
def tiny_path(tmp_path_factory):
    return str(write_tiny_model(tmp_path_factory.mktemp("model") / "tiny.bin"))


def test_help_and_version():
    for flag in ("--help", "--version"):
        command = [sys.executable, "-m", "server", flag]
        assert subprocess.run(command, cwd=ROOT, stdout=subprocess.DEVNULL).returncode == 0


def test_model_larger_than_the_memory_is_refused(tiny_path, monkeypatch):
    monkeypatch.setattr("server.assembly.available_memory", lambda: 1000)
    with pytest.raises(
        ModelFileError, match=r"there is only 0 MB of memory: use a smaller model\."
    ):
        engine_settings(Options(model=tiny_path))


def test_temperature_needs_a_sensor(tiny_path, monkeypatch, tmp_path):
    monkeypatch.setattr("server.assembly.Thermometer", lambda: Thermometer(tmp_path))
    with pytest.raises(StartError, match=r"reports no temperature .*--max-celsius out"):
        engine_settings(Options(model=tiny_path, max_celsius=75.0))
    assert engine_settings(Options(model=tiny_path)).governor.max_celsius is None


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "There is no model file at"),
        (b"", "is empty"),
        (b"hello", "is not a model this program can load"),
        (b"GGUF\3\0\0\0", "truncated"),
    ],
)
def test_wrong_model_file_is_exit_1_and_one_line(tmp_path, content, words):
    path = tmp_path / "model.gguf"
    if content is not None:
        path.write_bytes(content)
    status, line = run("--model", str(path))
    assert status == 1
    assert line.startswith("error: ")
    assert words in line


def test_model_that_only_ctransformers_can_refuse_is_exit_1(tmp_path, tiny_path):
    """Use a file whose head is valid, but whose last tensors are cut off at their edge."""
    data = Path(tiny_path).read_bytes()
    cut = data.rindex(b"layers.1.feed_forward.w3.weight") - 20
    path = tmp_path / "cut.bin"
    path.write_bytes(data[:cut])
    status, line = run("--model", str(path))
    assert status == 1
    assert line.startswith("error: ")


def test_model_that_was_not_fetched_says_how(tmp_path, monkeypatch):
    monkeypatch.setattr(catalog, "MODELS_DIRECTORY", tmp_path)
    with pytest.raises(StartError, match=r"run `python -m server\.model\.fetch tinyllama`"):
        asyncio.run(serve(Options(model="tinyllama")))


def test_address_in_use_is_exit_1(tiny_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        status, line = run("--model", tiny_path, "--port", port)
    assert status == 1
    assert line.startswith(f"error: Cannot listen on 127.0.0.1:{port}: ")


def test_bad_option_is_exit_2():
    status, line = run("--queue", "none")
    assert status == 2
    assert line.startswith("error: --queue must be a whole number")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_ends_it_in_order(tiny_path, number):
    with ServerProcess("--model", tiny_path) as server:
        server.wait_until_ready()
        idle = server.connect()
        assert server.stop(number) == 0
        assert read_all(idle) == b""
        server.wait_for_line("stopped")


def test_signal_right_after_start(tiny_path):
    with ServerProcess("--model", tiny_path) as server:
        assert server.stop() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_while_it_is_still_importing(tiny_path, number):
    process = subprocess.Popen(
        [sys.executable, "-X", "importtime", "-m", "server", "--model", tiny_path, "--port", "0"],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
    )
    # importtime reports each module once it is imported: uvloop comes early, lifecycle late.
    while "uvloop" not in process.stderr.readline():
        pass
    process.send_signal(number)
    rest = process.stderr.read()
    assert process.wait(PATIENCE_S) == 0
    assert "Traceback" not in rest
    assert "Socrates is at" not in rest


def test_nohup_holds(tiny_path):
    """A signal that is ignored when the process starts stays ignored."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # children inherit it
    try:
        with ServerProcess("--model", tiny_path) as server:
            server.wait_until_ready()
            server.process.send_signal(signal.SIGHUP)
            for _ in range(3):
                assert server.request("GET", "/healthz")[0] == 200
            assert server.stop() == 0
    finally:
        signal.signal(signal.SIGHUP, before)


def test_model_is_found_by_the_name_that_is_listed(tmp_path):
    path = write_tiny_model(tmp_path / "My Model:v1+x.bin")
    with ServerProcess("--model", str(path)) as server:
        server.wait_until_ready()
        name = json.loads(server.request("GET", "/v1/models")[2])["data"][0]["id"]
        assert name == "My Model:v1+x"
        for spelt in (quote(name), quote(name, safe="")):
            assert server.request("GET", f"/v1/models/{spelt}")[0] == 200


def test_new_connections_are_refused_while_it_shuts_down():
    engine = FakeEngine(gated=True)
    with InProcessServer(engine) as server:
        server.wait_until_ready()
        with server.connect() as speaking:
            speaking.sendall(prompt_request("2 words"))
            wait_until(engine.is_waiting.is_set)
            server.close()
            wait_until(lambda: is_refused(server))
            engine.allow(10)
            assert parse_response(read_all(speaking))[2] == b"word0 word1 "  # it runs to its end


def is_refused(server):
    try:
        server.connect().close()
    except (ConnectionRefusedError, ConnectionResetError):  # reset: closed before it was accepted
        return True
    return False


def test_request_that_is_still_arriving_gets_a_503_at_shutdown():
    with InProcessServer(FakeEngine()) as server:
        server.wait_until_ready()
        with server.connect() as client:
            client.sendall(prompt_request("1 word")[:-1])
            connections = server.server.state.connections
            wait_until(lambda: [c._phase.name for c in list(connections)] == ["BODY"])
            server.close()
            status, _, body = parse_response(read_all(client))
    assert (status, body) == (503, b"The server is shutting down.\n")


def test_host_that_is_no_name_is_exit_1(tiny_path):
    status, line = run("--model", tiny_path, "--host", "a..b")
    assert status == 1
    assert line.startswith("error: Cannot listen on a..b:0: ")


@pytest.mark.parametrize("hosts", [("127.0.0.1", "::1"), ("0.0.0.0", "::")])
def test_several_addresses_have_one_port(hosts):
    with InProcessServer(FakeEngine(), host=hosts) as server:
        server.wait_until_ready()
        for address in ("127.0.0.1", "::1"):
            with socket.create_connection((address, server.port), timeout=PATIENCE_S) as client:
                client.sendall(prompt_request("1 word"))
                assert parse_response(read_all(client))[2] == b"word0 "


def test_options_come_from_the_environment(tiny_path):
    variables = {"SOCRATES_MODEL": tiny_path, "SOCRATES_THREADS": "1"}
    with ServerProcess(environment=variables) as server:
        server.wait_until_ready()
        assert server.status()["model"] == "tiny"
        assert server.status()["threads"] == 1


@pytest.mark.model
def test_shutdown_finishes_or_cancels_the_answer_and_refuses_the_queue(socrates):
    with ServerProcess("--threads", "1", "--shutdown-timeout", "2") as server:
        server.wait_until_ready()
        speaking, waiting = server.connect(), server.connect()
        speaking.sendall(prompt_request("Tell me everything you know.", "?ignore_eos=true"))
        read_until(speaking, b"\r\n\r\n")
        waiting.sendall(prompt_request("What is virtue?"))
        wait_until(lambda: server.status()["waiting"] == 1)
        server.process.send_signal(signal.SIGTERM)
        assert b"503 Service Unavailable" in read_all(waiting)
        rest = read_all(speaking)
        was_finished = rest.endswith(b"0\r\n\r\n")
        assert was_finished or b"\r\n0\r\n" not in rest
        assert server.process.wait(PATIENCE_S) == 0


@pytest.mark.skipif(sys.platform != "linux", reason="socket options of Linux")
def test_accepted_sockets_inherit_the_watch_for_vanished_peers(tiny_path):
    """Check from outside, in the kernel's socket table, that the keep-alive timer runs."""
    with ServerProcess("--model", tiny_path, "--vanished-timeout", "9") as server:
        client = server.connect()
        client.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        read_until(client, b"ok\n")
        local = client.getsockname()[1]
        assert keep_alive_timer_runs(server.port, local)


# In /proc/net/tcp the sixth field is "tr:when"; a timer of kind 02 is keep-alive (proc(5)).
def keep_alive_timer_runs(port, peer_port):
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    ports = (f":{port:04X}", f":{peer_port:04X}")
    [row] = [row for row in rows if row[1].endswith(ports[0]) and row[2].endswith(ports[1])]
    return row[5].startswith("02:")
