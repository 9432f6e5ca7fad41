"""What the tests share: fakes for the network, the clock and the model, and a real server.

Three rings: pure tests need none of this; the fake ring uses `FakeLoop`, `FakeTransport` and
`FakeEngine`; end-to-end tests start the real process with `ServerProcess`.
"""

import asyncio
import json
import os
import queue
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import uvloop

from server.http.connection import Connection
from server.http.exchange import Exchange
from server.http.request import ParserLimits
from server.http.state import ConnectionLimits, ServerState
from server.model.errors import PromptEmpty, PromptTooLong
from server.model.job import Finish, Stage

ROOT = Path(__file__).resolve().parents[1]

# How long a condition may take before a test gives up; one unit for slow machines.
PATIENCE_S = 60.0 * float(os.environ.get("TEST_PATIENCE", "1"))

LIMITS = ConnectionLimits(
    header_timeout_s=10,
    body_timeout_s=20,
    idle_timeout_s=30,
    stalled_timeout_s=30,
    vanished_timeout_s=15,
    connections=4,
    parser=ParserLimits(),
)


def find_chromium():
    """The path to a Chromium or a Chrome, or None."""
    names = ("chromium", "chromium-browser", "google-chrome")
    return next((path for name in names if (path := shutil.which(name))), None)


def wait_until(condition, what="the condition"):
    """Poll `condition` until it holds and return its value."""
    deadline = time.monotonic() + PATIENCE_S
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not come about in {PATIENCE_S:.0f} s")
        time.sleep(0.002)
    return value


def run_async(main):
    """Run the coroutine function `main` on the event loop that the server uses."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(asyncio.wait_for(main(), PATIENCE_S))


# -- fake network ---------------------------------------------------------------------------


@dataclass
class FakeTimer:
    when: float
    call: object
    is_cancelled: bool = False

    def cancel(self):
        self.is_cancelled = True


class FakeLoop:
    """A clock that only `advance` moves, and the timers on it."""

    def __init__(self):
        self.now = 1000.0
        self.timers = []

    def time(self):
        return self.now

    def call_at(self, when, call):
        timer = FakeTimer(when, call)
        self.timers.append(timer)
        return timer

    def advance(self, seconds):
        end = self.now + seconds
        while due := [t for t in self.timers if t.when <= end and not t.is_cancelled]:
            timer = min(due, key=lambda t: t.when)
            self.timers.remove(timer)
            self.now = max(self.now, timer.when)
            timer.call()
        self.now = end


@dataclass
class FakeTransport:
    """Keeps what is written; `unsent` plays a kernel that takes no more."""

    sent: bytes = b""
    unsent: int = 0
    is_eof_sent: bool = False
    is_aborted: bool = False
    is_closed: bool = False
    on_write: object = None  # what the kernel does then
    options: list = field(default_factory=list)  # set on the socket
    is_reading: bool = True

    def set_write_buffer_limits(self, high):
        assert high == 0

    def write(self, data):
        assert not self.is_eof_sent, "wrote behind FIN"
        self.sent += data
        if self.on_write:
            self.on_write(data)

    def write_eof(self):
        self.is_eof_sent = True

    def abort(self):
        self.is_aborted = True

    def close(self):
        self.is_closed = True

    def get_extra_info(self, name):
        assert name == "socket"
        return self

    def setsockopt(self, *option):
        self.options.append(option)

    def is_closing(self):
        return self.is_aborted or self.is_closed

    def get_write_buffer_size(self):
        return self.unsent

    def pause_reading(self):
        self.is_reading = False

    def resume_reading(self):
        self.is_reading = True


@dataclass
class FakeApplication:
    """Echoes path and body; /later leaves the exchange for the test, /boom fails."""

    limit: int = 1000
    requests: list = field(default_factory=list)
    exchange: Exchange | None = None

    def body_limit(self, head):
        return self.limit

    def cached_response(self, head):
        return None

    def render_error(self, head, error):
        return error

    def handle(self, exchange):
        head, body = exchange.head, exchange.body
        self.requests.append((head, body))
        if head.path == "/later":
            self.exchange = exchange
        elif head.path == "/boom":
            raise RuntimeError("a fault of ours")
        else:
            exchange.respond_text(200, f"{head.method} {head.path} {body.decode()}")


class FakeClient:
    """A `Connection` with everything around it faked."""

    def __init__(self, limits=LIMITS, shared=None):
        self.loop = FakeLoop() if shared is None else shared.loop
        self.application = FakeApplication() if shared is None else shared.application
        self.shared = shared or ServerState(self.application, limits, self.loop)
        self.transport = FakeTransport()
        self.connection = Connection(self.shared)
        self.connection.connection_made(self.transport)

    def send(self, *parts):
        for part in parts:
            self.connection.data_received(part)

    @property
    def sent(self):
        return self.transport.sent

    @property
    def statuses(self):
        return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", self.sent)]

    def stall(self, unsent=1000):
        self.transport.unsent = unsent
        self.connection.pause_writing()

    def recover(self):
        self.transport.unsent = 0
        self.connection.resume_writing()


# -- fake model -----------------------------------------------------------------------------


class FakeEngine:
    """An engine whose every step waits for the test's leave, if it is `gated`.

    A prompt "n words" is answered with n pieces "word0 ", "word1 ", ...; "batches n" reads n
    batches first; "fail" raises in mid-answer, "crash" before its first piece.
    """

    context_tokens = 100
    threads = 1
    cooling = None

    def __init__(self, gated=False):
        self.gated = gated
        self.gate = queue.Queue()
        self.steps = 0  # evaluations begun, of any kind
        self.steps_after_cancel = 0
        self.prompts = []
        self.conversations = []
        self.is_waiting = threading.Event()

    def allow(self, steps=1):
        for _ in range(steps):
            self.gate.put(None)

    def prefill_persona(self, cancelled, progress):
        pass

    def write_prompt(self, conversation):
        text = conversation.question
        self.conversations.append(conversation)
        if not text.strip():
            raise PromptEmpty("The prompt is empty.")
        if len(text) > 1000:
            raise PromptTooLong("The prompt has 1,001 tokens, and there is room for 1,000.")
        return text.split()

    def generate(self, prompt, sampling, cancelled, progress):
        self.prompts.append(" ".join(prompt))
        progress.prompt_tokens, progress.cached_tokens = len(prompt) + 7, 7
        progress.stage = Stage.PREFILL
        batches = int(prompt[1]) if prompt[0] == "batches" else 1
        for _ in range(batches):
            if cancelled.is_set():
                progress.finish = Finish.CANCELLED
                return
            self._step(cancelled)
        if prompt[0] == "crash":
            raise RuntimeError("ggml failed")
        progress.stage = Stage.DECODE
        words = int(prompt[0]) if prompt[0].isdigit() else 2
        for index in range(words):
            progress.tokens += 1
            yield f"word{index} "
            if progress.tokens >= sampling.max_tokens:
                progress.finish = Finish.LENGTH
                return
            if cancelled.is_set():
                progress.finish = Finish.CANCELLED
                return
            self._step(cancelled)
            if prompt[0] == "fail":
                raise RuntimeError("ggml failed")
        progress.decode_s = 0.5
        progress.finish = Finish.STOP

    def _step(self, cancelled):
        self.steps += 1
        self.steps_after_cancel += cancelled.is_set()
        if self.gated:
            self.is_waiting.set()
            self.gate.get(timeout=PATIENCE_S)


@dataclass
class Recorder:
    """A `Listener` that keeps what it hears."""

    texts: list = field(default_factory=list)
    outcome: object = None
    ends: int = 0
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    spoke: asyncio.Event = field(default_factory=asyncio.Event)

    def on_text(self, text):
        assert self.outcome is None
        self.texts.append(text)
        self.spoke.set()

    def on_end(self, outcome):
        self.outcome = outcome
        self.ends += 1
        self.ended.set()


# -- real server ----------------------------------------------------------------------------


class ServerProcess:
    """`python -m server` on a free port. Use as a context manager; it is ended by SIGTERM."""

    def __init__(self, *arguments, environment=None):
        self.arguments = arguments
        self.environment = os.environ | (environment or {})
        self.lines = []

    def __enter__(self):
        self.process = subprocess.Popen(
            [sys.executable, "-m", "server", "--port", "0", *self.arguments],
            cwd=ROOT,
            env=self.environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        # The pipe must be emptied all the time, or the server would block on its log.
        threading.Thread(target=self._collect, daemon=True).start()
        self.port = int(self.wait_for_line(r"Socrates is at http://\S+:(\d+)")[1])
        return self

    def __exit__(self, *exception):
        if self.process.poll() is None:
            self.stop()

    def _collect(self):
        for line in self.process.stderr:
            self.lines.append(line)

    def wait_for_line(self, pattern):
        def find():
            has_ended = self.process.poll() is not None
            found = next((m for line in list(self.lines) if (m := re.search(pattern, line))), None)
            if has_ended and not found:
                raise AssertionError(f"the server ended: {''.join(self.lines)}")
            return found

        return wait_until(find, f"the log line {pattern!r}")

    def stop(self, number=signal.SIGTERM):
        self.process.send_signal(number)
        return self.process.wait(PATIENCE_S)

    def connect(self):
        return socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE_S)

    def request(self, method, target, body=b"", headers=()):
        """One request on a connection of its own; (status, head, body), de-chunked."""
        lines = [f"{method} {target} HTTP/1.1", "Host: localhost", "Connection: close", *headers]
        if body:
            lines.append(f"Content-Length: {len(body)}")
        with self.connect() as client:
            client.sendall("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
            return parse_response(read_all(client))

    def ask(self, prompt, query="", headers=()):
        body = prompt if isinstance(prompt, bytes) else prompt.encode()
        return self.request("POST", f"/prompt{query}", body, headers)

    def status(self):
        return json.loads(self.request("GET", "/status")[2])

    def wait_until_ready(self):
        wait_until(lambda: self.request("GET", "/readyz")[0] == 200, "readiness")
        return self


def prompt_request(prompt, query="", headers=()):
    """The bytes of a POST to /prompt."""
    body = prompt if isinstance(prompt, bytes) else prompt.encode()
    lines = [f"POST /prompt{query} HTTP/1.1", "Host: localhost", f"Content-Length: {len(body)}"]
    return "\r\n".join([*lines, *headers]).encode() + b"\r\n\r\n" + body


def read_all(client):
    data = b""
    while part := client.recv(65536):
        data += part
    return data


def read_until(client, marker):
    data = b""
    while marker not in data:
        part = client.recv(65536)
        assert part, f"the connection ended before {marker!r}: {data!r}"
        data += part
    return data


def parse_response(data):
    """(status, head, body) of one whole response; a chunked body must be complete."""
    head, _, body = data.partition(b"\r\n\r\n")
    status = int(head.split(b" ", 2)[1])
    if b"transfer-encoding: chunked" in head.lower():
        body, trailers = decode_chunks(body)
        head += b"\r\n" + trailers
    return status, head.decode("latin-1"), body


def decode_chunks(data):
    body = b""
    while True:
        line, _, data = data.partition(b"\r\n")
        size = int(line, 16)
        if size == 0:
            assert data.endswith(b"\r\n"), "the last chunk is missing"
            return body, data
        body += data[:size]
        assert data[size : size + 2] == b"\r\n"
        data = data[size + 2 :]
