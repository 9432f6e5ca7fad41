"""Servers to measure: any in its own process, or ours on a thread of this process."""

import asyncio
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.request import urlopen

import uvloop

from bench.kit.client import PATIENCE_S, Address
from server.lifecycle import Server
from server.model.worker import LoadEngine
from server.options import Options

NO_LIMIT = 10_000  # prompts of one client; all of ours have one address
_ROOT = Path(__file__).resolve().parents[2]
_POLL_S = 0.005


def free_port() -> int:
    """A port on which nothing listens at the moment."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


def wait_until(condition: Callable[[], object], what: str, poll_s: float = 0.0005) -> float:
    """Poll `condition` until it holds; returns the time by `time.perf_counter`.

    Raises:
        SystemExit: if it never holds.
    """
    deadline = time.perf_counter() + PATIENCE_S
    while not condition():
        if time.perf_counter() > deadline:
            raise SystemExit(f"error: timed out after {PATIENCE_S} s waiting for {what}")
        time.sleep(poll_s)
    return time.perf_counter()


@contextmanager
def running(
    command: Sequence[str], address: Address, path: str = "/readyz", stderr: int | None = None
) -> Iterator["subprocess.Popen[bytes]"]:
    """Run `command` during the block, which starts once `path` at `address` answers.

    Args:
        command: the program and its arguments.
        address: where it will listen.
        path: what a ready server answers.
        stderr: where its log goes, as `subprocess` takes it; None shares ours.

    Raises:
        SystemExit: if it does not start.
    """
    try:
        process = subprocess.Popen(command, cwd=_ROOT, stderr=stderr)
    except OSError as error:
        raise SystemExit(f"error: cannot start {command[0]}: {error.strerror}") from error
    try:
        wait_for(process, address, path)
        yield process
    finally:
        process.terminate()
        process.wait()


def wait_for(process: "subprocess.Popen[bytes]", address: Address, path: str) -> float:
    """Wait until `path` answers; returns the time by `time.perf_counter`.

    Raises:
        SystemExit: if the process ends first.
    """

    def answers() -> bool:
        if process.poll() is not None:
            raise SystemExit("error: the server did not start: run it by hand to see why")
        try:
            urlopen(f"http://{address[0]}:{address[1]}{path}").close()
        except OSError as error:  # not listening yet, or 503; a rival may not support GET
            return getattr(error, "code", 503) < 500
        return True

    return wait_until(answers, path, _POLL_S)


@contextmanager
def running_server(*arguments: str, stderr: int | None = None) -> Iterator[tuple[int, Address]]:
    """Run our own server on a free port; yields its process id and address once it is ready.

    Raises:
        SystemExit: if it does not start.
    """
    address = ("127.0.0.1", free_port())
    # Logging requests would cost time, and the terminal is slow.
    command = [sys.executable, "-m", "server", "--port", str(address[1]), "--log-level", "warning"]
    command += ["--per-client", str(NO_LIMIT), *arguments]
    with running(command, address, stderr=stderr) as process:
        yield process.pid, address


class ServerThread:
    """Our server on a thread of this process, so that its parts can be watched."""

    def __init__(self, options: Options, load: LoadEngine, name: str) -> None:
        self.server: Server
        self.loop: asyncio.AbstractEventLoop
        self.is_thread_free: bool | None = None  # what `Server.close` returned
        self._arguments = (options, load, name)
        self._is_open = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        """Return when it listens; its model may still be loading."""
        self._thread.start()
        self._is_open.wait()

    def close(self) -> None:
        """Shut down in order, as on SIGTERM, without waiting for the end."""
        if not self.loop.is_closed():
            self.loop.call_soon_threadsafe(self._stop.set)

    def join(self) -> None:
        """Wait until it has shut down."""
        self._thread.join()

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        self.loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        self.server = Server(*self._arguments)
        try:
            loading = await self.server.open()
        finally:
            self._is_open.set()
        await self._stop.wait()
        self.is_thread_free = await self.server.close()
        loading.cancel()
