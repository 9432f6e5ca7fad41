"""/metrics, scraped and read by the real parser."""

import math
from contextlib import ExitStack

import pytest
from prometheus_client.parser import text_string_to_metric_families

from server.model.machine.thermometer import Thermometer
from tests.support.engine import FakeEngine
from tests.support.process import InProcessServer
from tests.support.waiting import wait_until
from tests.support.wire import prompt_request


@pytest.fixture
def server():
    with InProcessServer(FakeEngine()) as server:
        yield server.wait_until_ready()


def scrape(server):
    """Return the values by (name, labels)."""
    status, head, body = server.request("GET", "/metrics")
    assert status == 200
    assert "Content-Type: text/plain; version=0.0.4; charset=utf-8\r\n" in head
    families = text_string_to_metric_families(body.decode())
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }


def value(found, name, **labels):
    return found["socrates_" + name, tuple(sorted(labels.items()))]


def test_prompts_and_tokens_are_counted(server):
    for prompt in ("3 words", "2 words", "crash"):
        server.ask(prompt)
    server.ask("9 words", "?max_tokens=1")
    found = scrape(server)
    assert value(found, "prompts_total", ending="done") == 2
    assert value(found, "prompts_total", ending="length") == 1
    assert value(found, "prompts_total", ending="failed") == 1
    assert value(found, "tokens_total") == 3 + 2 + 1
    assert value(found, "prompt_tokens_total") == 9 + 9 + 8 + 9
    assert value(found, "cached_tokens_total") == 4 * 7
    assert value(found, "first_text_seconds_count") == 3
    assert value(found, "queue_seconds_count") == 4
    assert value(found, "tokens_per_second_count") >= 2
    assert value(found, "cancel_seconds_count") == 0


def test_present_state_is_reported(server):
    found = scrape(server)
    assert value(found, "connections") == 1
    assert value(found, "threads") == 1
    assert value(found, "waiting_prompts") == 0
    assert value(found, "busy") == 0
    assert value(found, "duty_ratio") == 1
    assert value(found, "info", model="fake", version=server_version()) == 1
    assert found["process_open_fds", ()] > 3


def test_refused_prompts_are_counted_by_why():
    engine = FakeEngine(gated=True)
    with InProcessServer(engine, per_client=1, queue=1) as server, ExitStack() as stack:
        server.wait_until_ready()
        server.ask(" ")
        server.ask("x" * 1001)
        for _ in range(2):
            client = stack.enter_context(server.connect())
            client.sendall(prompt_request("1 word"))
            wait_until(engine.is_waiting.is_set)
        wait_until(lambda: server.status()["waiting"] == 1)
        assert server.ask("1 word")[0] == 503
        found = scrape(server)
        assert value(found, "refused_total", reason="empty") == 1
        assert value(found, "refused_total", reason="too_long") == 1
        assert value(found, "refused_total", reason="queue_full") == 1
        engine.allow(100)


def server_version():
    from server import __version__

    return __version__


def test_cancelled_prompt_tells_how_long_it_took():
    engine = FakeEngine(gated=True)
    with InProcessServer(engine) as server:
        server.wait_until_ready()
        with server.connect() as client:
            client.sendall(prompt_request("batches 2"))
            assert engine.is_waiting.wait(60)
            assert value(scrape(server), "busy") == 1
        wait_until(lambda: server.server.worker.is_cancelling)
        engine.allow(1)
        wait_until(lambda: not server.server.worker.is_busy)
        found = scrape(server)
        assert value(found, "cancel_seconds_count") == 1
        assert value(found, "prompts_total", ending="cancelled_prefill") == 1


def test_loop_lag_is_looked_at(server):
    wait_until(lambda: value(scrape(server), "loop_lag_seconds_count") >= 1)


def test_temperature_is_the_hottest_zones(monkeypatch, tmp_path):
    (tmp_path / "thermal_zone0").mkdir()
    (tmp_path / "thermal_zone0" / "temp").write_text("51600")
    monkeypatch.setattr("server.lifecycle.Thermometer", lambda: Thermometer(tmp_path))
    with InProcessServer(FakeEngine()) as server:
        assert value(scrape(server), "temperature_celsius") == 51.6
    monkeypatch.setattr("server.lifecycle.Thermometer", lambda: Thermometer(tmp_path / "none"))
    with InProcessServer(FakeEngine()) as server:
        assert math.isnan(value(scrape(server), "temperature_celsius"))


def test_labels_never_come_from_a_request(server):
    before = set(scrape(server))
    for number in range(50):
        server.request("GET", f"/nothing-{number}", headers=[f"User-Agent: u{number}"])
        server.ask("1 word", f"?seed={number}")
    new = set(scrape(server)) - before
    assert {labels for _, labels in new} <= {(("ending", "done"),)}
