"""The log: one line per request, as text or JSON, and not a word of what people say."""

import io
import json
import logging
import sys

import pytest

from server import logs
from server.http.exchange import Record
from tests.support.engine import FakeEngine
from tests.support.process import InProcessServer
from tests.support.waiting import wait_until
from tests.support.wire import prompt_request, read_until

RECORD = Record("192.0.2.1", "GET", "/x", 200, 12, 0.0034, {"tokens": 5, "tokens_per_s": None})


def write(log_format, *records):
    """Log `records`; returns the lines written, and how often the log asked for a loop turn."""
    stream, turns = io.StringIO(), []
    log = logs.RequestLog(stream, log_format, turns.append)
    for record in records:
        log(record)
    assert stream.getvalue() == ""
    for turn in turns:
        turn()
    return stream.getvalue().splitlines(), len(turns)


def test_text():
    [line], _ = write("text", RECORD)
    assert line.endswith(
        " INFO request client=192.0.2.1 method=GET path=/x status=200 bytes=12 ms=3.4 tokens=5 tokens_per_s=-"
    )


def test_json():
    [line], _ = write("json", RECORD)
    fields = json.loads(line)
    assert fields.pop("time").endswith("Z")
    assert fields == {
        "level": "info", "message": "request", "client": "192.0.2.1", "method": "GET", "path": "/x", "status": 200,
        "bytes": 12, "ms": 3.4, "tokens": 5, "tokens_per_s": None,
    }  # fmt: skip


def test_lines_of_one_turn_are_written_together():
    lines, turns = write("text", RECORD, RECORD, RECORD)
    assert (len(lines), turns) == (3, 1)


@pytest.mark.parametrize("log_format", logs.FORMATS)
def test_events_are_lines_too(log_format):
    stream = io.StringIO()
    handler = logs.make_handler(stream, log_format)
    try:
        raise RuntimeError("two\nlines")
    except RuntimeError:
        record = logging.LogRecord("x", logging.ERROR, "", 0, "it %s", ("failed",), sys.exc_info())
    handler.emit(record)
    if log_format == "json":
        [line] = stream.getvalue().splitlines()
        assert json.loads(line)["level"] == "error"
        assert json.loads(line)["message"] == "it failed"
        assert "two\nlines" in json.loads(line)["exception"]
    else:
        assert " ERROR it failed\n" in stream.getvalue()


SECRET = "whatissecret"


@pytest.fixture
def fresh_log_stream():
    """Have the next server write to the stderr of its time."""
    logs.log_stream.cache_clear()
    yield
    logs.log_stream.cache_clear()


@pytest.mark.usefixtures("fresh_log_stream")
def test_every_request_is_one_line_and_says_how_it_ended(monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)

    def lines():
        return stream.getvalue().splitlines()

    def requests():
        return [json.loads(line) for line in lines() if '"request"' in line]

    with InProcessServer(FakeEngine(gated=True), log_format="json") as server:
        server.wait_until_ready()
        first = len(requests())
        with server.connect() as reading:
            reading.sendall(prompt_request(f"batches 3 {SECRET}"))
            wait_until(server.engine.is_waiting.is_set)
            with server.connect() as waiting:
                waiting.sendall(prompt_request(f"1 {SECRET}"))
                wait_until(lambda: server.status()["waiting"] == 1)
            wait_until(lambda: ending(requests(), "cancelled_waiting"))
        wait_until(lambda: server.server.worker.is_cancelling)
        server.engine.allow(1)
        wait_until(lambda: ending(requests(), "cancelled_prefill"))
        with server.connect() as speaking:
            speaking.sendall(prompt_request(f"9 {SECRET}"))
            server.engine.allow(2)
            read_until(speaking, b"word1")
        wait_until(lambda: server.server.worker.is_cancelling)
        server.engine.allow(1)
        wait_until(lambda: ending(requests(), "cancelled_decode"))
        server.engine.gated = False
        server.engine.allow(10)
        server.ask(f"2 {SECRET}")
        server.ask(f"9 {SECRET}", "?max_tokens=1")
        server.ask(f"crash {SECRET}")
        server.ask(b"\xff")
        server.request("GET", f"/%0a{SECRET}?{SECRET}")
        with server.connect() as client:
            client.sendall(b"GARBAGE\r\n\r\n")
            read_until(client, b"\n")
        wait_until(lambda: requests()[-1]["path"] == "-")
        records = requests()[first:]
    assert SECRET not in "".join(lines()).replace(f"/%0a{SECRET}", "")
    by_ending = {fields["ended"]: fields for fields in records if "ended" in fields}
    assert by_ending["cancelled_waiting"]["status"] is None
    assert by_ending["cancelled_prefill"]["status"] is None
    assert by_ending["cancelled_decode"]["status"] == 200
    assert by_ending["done"]["tokens"] == 2
    assert by_ending["length"]["tokens"] == 1
    assert by_ending["failed"]["status"] == 503
    assert {fields["status"] for fields in records} >= {200, 400, 404, 503}
    assert records[-1]["method"] == "-"
    assert all(fields["bytes"] > 0 for fields in records if fields["status"])


def ending(requests, word):
    return any(fields.get("ended") == word for fields in requests)


def test_dropped_lines_are_reported_in_the_formats_own_form():
    formats = {"json": lambda line: json.loads(line)["message"], "text": lambda line: line}
    for log_format, read in formats.items():
        stream = logs.PatientStream(io.StringIO())
        logs.report_dropped(stream, logs.make_handler(stream, log_format))
        assert "7 lines of the log were dropped" in read(stream.describe_dropped(7))
