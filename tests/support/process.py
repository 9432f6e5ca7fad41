"""Our real server: in its own process, or on a thread of the test with a fake engine."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

from bench.kit.server import ServerThread
from server.options import Options
from tests.support.waiting import PATIENCE_S, wait_until
from tests.support.wire import parse_response, read_all

ROOT = Path(__file__).resolve().parents[2]


def find_chromium():
    """The path to a Chromium or a Chrome, or None."""
    names = ("chromium", "chromium-browser", "google-chrome")
    return next((path for name in names if (path := shutil.which(name))), None)


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
        # The pipe must be drained continuously, or the server would block on its log.
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
        """Send one request on its own connection; returns (status, head, body), de-chunked."""
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


class InProcessServer(ServerProcess):
    """Has the interface of `ServerProcess`, but the test controls its model."""

    def __init__(self, engine, load=None, **options):
        self.engine = engine
        chosen = Options(**({"port": 0} | options))
        self.thread = ServerThread(chosen, load or (lambda *_: engine), "fake")

    def __enter__(self):
        self.thread.start()
        self.port = self.server.port
        return self

    def __exit__(self, *exception):
        self.engine.gated = False
        self.engine.allow(1000)
        self.close()
        self.thread.join()

    @property
    def server(self):
        return self.thread.server

    @property
    def loop(self):
        return self.thread.loop

    @property
    def is_thread_free(self):
        return self.thread.is_thread_free

    def close(self):
        """Shut down in order, as on SIGTERM."""
        self.thread.close()
