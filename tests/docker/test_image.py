"""The Docker lines of server/deploy/README.md, run by a real engine."""

import re
import shlex
import subprocess
from contextlib import contextmanager

import pytest

from bench.kit.server import free_port
from server.model.files.catalog import CATALOG
from server.model.machine.thermometer import Thermometer
from tests.docker.web import is_ready, request, speaking, status
from tests.support.process import ROOT
from tests.support.waiting import PATIENCE_S, wait_until
from tests.support.wire import read_all

README = (ROOT / "server" / "deploy" / "README.md").read_text()
LINES = [shlex.split(line) for line in re.findall(r"^    (docker .+?)(?:  +#.*)?$", README, re.M)]
RUNS = [line for line in LINES if line[:2] == ["docker", "run"]]
SERVERS = [line for line in RUNS if "8080:8080" in line and "SOCRATES_MODEL=tinyllama" not in line]


@contextmanager
def running(engine, arguments):
    """Run `docker run ARGUMENTS` on a free port; yields the container and its address."""
    port = free_port()
    adapted = [text.replace("8080:8080", f"127.0.0.1:{port}:8080") for text in arguments]
    if not any(str(port) in text for text in adapted):
        adapted = ["-p", f"127.0.0.1:{port}:8080", *adapted]
    name = f"test-{port}"
    engine("run", "--detach", "--name", name, *adapted)
    address = ("127.0.0.1", port)
    try:
        wait_until(lambda: is_ready(address) or not is_up(engine, name), "a ready server")
        assert is_up(engine, name), engine.run("logs", name).stderr
        yield name, address
    finally:
        engine.run("rm", "--force", "--volumes", name, check=False)


def is_up(engine, name):
    return engine.inspect(name)["State"]["Running"]


def without_rm(arguments):
    return [text for text in arguments if text != "--rm"]


def adapt(line):
    """The arguments behind `docker run`, for a machine with two CPUs and maybe no thermometer."""
    text = shlex.join(without_rm(line[2:])).replace("--cpus 3", "--cpus 1.5")
    model = CATALOG["smollm2"].path
    text = text.replace("$PWD/models:/m", f"{model.parent}:/m").replace("my.gguf", model.name)
    if Thermometer().celsius() is None:
        text = text.replace("-e SOCRATES_MAX_CELSIUS=75", "")
    return shlex.split(text)


@pytest.mark.parametrize("line", SERVERS, ids=" ".join)
def test_line_of_the_readme_serves(engine, image, line):
    with running(engine, adapt(line)) as (name, address):
        assert request(address, "GET", "/")[0] == 200
        code, answer = request(address, "POST", "/prompt?max_tokens=8", "What is virtue?")
        assert code == 200
        assert answer
        talk = '{"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4}'
        json_type = {"Content-Type": "application/json"}
        assert request(address, "POST", "/v1/chat/completions", talk, json_type)[0] == 200
        log = engine.run("logs", name).stderr
        assert "model ready after" in log
        assert "Traceback" not in log
        assert re.search(r"request client=\S+ method=POST path=/prompt status=200", log)


def test_help_lists_the_options(engine, image):
    assert "--max-tokens" in engine("run", "--rm", image, "server", "--help")


def test_measurement_runs_in_the_image(engine, image):
    line = engine("run", "--rm", "--read-only", image, "bench.parser").splitlines()[-1]
    assert line.startswith("{")


def test_health_turns_healthy_and_leaves_no_zombies(engine, image):
    with running(engine, ["--health-interval=1s", image]) as (name, _):
        wait_until(lambda: engine.inspect(name)["State"]["Health"]["Status"] == "healthy")
        assert len(engine.inspect(name)["State"]["Health"]["Log"]) > 0
        states = engine(
            "exec", name, "sh", "-c", "for s in /proc/[0-9]*/stat; do cat $s 2>/dev/null; done"
        )
        first = next(line for line in states.splitlines() if line.startswith("1 "))
        assert "(python)" in first
        assert " Z " not in states


def test_share_of_a_cpu_means_one_thread(engine, image):
    with running(engine, ["--cpus=1", image]) as (_, address):
        request(address, "POST", "/prompt?max_tokens=8", "What is virtue?")
        assert status(address)["threads"] == 1


def test_too_little_memory_is_one_sentence_and_exit_1(engine, image):
    result = engine.run("run", "--rm", "--memory=64m", image, check=False)
    assert result.returncode == 1
    assert re.fullmatch(
        r"error: The model .* needs 128 MB for its weights .*of memory: use a smaller model\.\n",
        result.stderr.splitlines(keepends=True)[-1],
    )


def test_stop_lets_a_short_answer_end(engine, image):
    with running(engine, ["-e", "SOCRATES_SHUTDOWN_TIMEOUT=60", image]) as (name, address):
        with speaking(address, max_tokens=60) as (client, data):
            stopping = engine.popen("stop", "--time=60", name, stdout=subprocess.DEVNULL)
            data += read_all(client)
        assert stopping.wait(PATIENCE_S) == 0
        assert data.endswith(b"0\r\n\r\n")
        assert engine.inspect(name)["State"]["ExitCode"] == 0
        assert "stopped" in engine.run("logs", name).stderr


def test_stop_cancels_a_long_answer_within_its_time(engine, image):
    """Docker's own grace is 10 s, ours 5 s: it is never killed."""
    with running(engine, [image]) as (name, address):
        with speaking(address):
            engine("stop", name)
        assert engine.inspect(name)["State"]["ExitCode"] == 0


def test_another_user_may_run_it(engine, image):
    with running(engine, ["--user=1234", "--read-only", image]) as (name, address):
        assert request(address, "POST", "/prompt?max_tokens=4", "Hi")[0] == 200
        assert engine("exec", name, "id", "-u") == "1234"


def test_volume_keeps_what_was_fetched(engine, image):
    volume = ["--volume=fetched-models:/socrates/models"]
    try:
        engine("run", "--rm", *volume, image, "server.model.fetch", "smollm2")
        with running(engine, [*volume, "-e", "SOCRATES_MODEL=smollm2", image]) as (_, address):
            assert status(address)["model"] == "smollm2"
    finally:
        engine("volume", "rm", "--force", "fetched-models")


def test_client_that_leaves_frees_the_model(engine, image):
    with running(engine, [image]) as (_, address):
        with speaking(address):
            pass
        wait_until(lambda: status(address)["prompts"] == {"cancelled_decode": 1})
