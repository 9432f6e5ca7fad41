"""A bare client for measuring: starts a server, asks it, and times every piece."""

import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.request import urlopen

_ROOT = Path(__file__).resolve().parents[1]
MOST_WAITING = 10_000  # prompts of ours at a time: no limit
_TIMEOUT_S = 600
_POLL_S = 0.05


@dataclass(frozen=True, slots=True)
class Timing:
    """One answer as its client saw it. Times in seconds."""

    first_byte_s: float  # from sending the prompt to the first piece
    speaking_s: float  # from the first piece to the last
    tokens: int
    is_cut: bool  # by max_tokens
    prompt_tokens: int
    cached_tokens: int
    reading_s: float  # the server's own time for the uncached tokens
    text: str

    @property
    def tokens_per_second(self) -> float:
        """Evaluations between the first piece and the end, a second.

        One fewer than tokens, unless the model was evaluated once more and chose to end.
        """
        return (self.tokens - self.is_cut) / self.speaking_s


@contextmanager
def running_server(*arguments: str, stderr: int | None = None) -> Iterator[tuple[str, int]]:
    """A ready server process of our own on a free port: yields its address, ends it behind.

    Args:
        *arguments: more options of the server.
        stderr: where its log goes, as `subprocess` takes it; None for ours.

    Raises:
        SystemExit: if it does not start.
    """
    with running_server_process(*arguments, stderr=stderr) as (_, port):
        yield "127.0.0.1", port


@contextmanager
def running_server_process(*arguments: str, stderr: int | None = None) -> Iterator[tuple[int, int]]:
    """The same, yielding its process id and its port.

    Raises:
        SystemExit: if it does not start.
    """
    port = free_port()
    # What goes wrong is for the person to see. A log of requests would cost time, and go to a
    # terminal that is slow. All our clients have one address.
    command = [sys.executable, "-m", "server", "--port", str(port), "--log-level", "warning"]
    command += ["--per-client", str(MOST_WAITING)]
    process = subprocess.Popen([*command, *arguments], cwd=_ROOT, stderr=stderr)
    try:
        _wait_until_ready(process, port)
        yield process.pid, port
    finally:
        process.terminate()
        process.wait()


def free_port() -> int:
    """A port that nobody listens on just now."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


def _wait_until_ready(process: "subprocess.Popen[bytes]", port: int) -> None:
    while process.poll() is None:
        try:
            urlopen(f"http://127.0.0.1:{port}/readyz").close()
        except OSError:  # not listening yet, or 503
            time.sleep(_POLL_S)
        else:
            return
    raise SystemExit("error: the server did not start: run it by hand to see why")


def ask(
    address: tuple[str, int], prompt: str, query: str, content_type: str = "text/plain"
) -> Timing:
    """Ask once and time the pieces.

    Raises:
        SystemExit: if the server cannot be reached or refuses the prompt.
    """
    body = prompt.encode()
    head = (
        f"POST /prompt?{query} HTTP/1.1\r\nHost: bench\r\nTE: trailers\r\n"
        f"Content-Type: {content_type}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    try:
        client = socket.create_connection(address, timeout=_TIMEOUT_S)
    except OSError as error:
        raise SystemExit(f"error: nobody answers at {address[0]}:{address[1]}: {error}") from error
    with client:
        started = time.perf_counter()
        client.sendall(head.encode() + body)
        data, arrivals = b"", []
        while part := client.recv(65536):
            arrivals.append(time.perf_counter())
            data += part
    if not data.startswith(b"HTTP/1.1 200 "):
        raise SystemExit(f"error: the server refused: {data.decode()}")
    # The last piece brings no token's text: the last chunk and the trailers come after the
    # model has decided to stop, or together with the last text.
    return Timing(
        first_byte_s=arrivals[0] - started,
        speaking_s=arrivals[-1] - arrivals[0],
        tokens=_trailer(data, b"Tokens"),
        is_cut=b"\r\nSocrates-Finish: length\r\n" in data,
        prompt_tokens=_trailer(data, b"Prompt-Tokens"),
        cached_tokens=_trailer(data, b"Cached-Tokens"),
        reading_s=_reading_s(data),
        text=_text(data),
    )


def _trailer(data: bytes, name: bytes) -> int:
    match = re.search(rb"\r\nSocrates-" + name + rb": (\d+)\r\n", data)
    if match is None:
        raise SystemExit("error: the answer has no trailers")
    return int(match[1])


def _reading_s(data: bytes) -> float:
    match = re.search(rb"prefill;dur=([\d.]+)", data)
    assert match is not None, "Server-Timing is a trailer like the others"
    return float(match[1]) / 1000


def _text(data: bytes) -> str:
    text, rest = b"", data.partition(b"\r\n\r\n")[2]
    while size := int(rest.partition(b"\r\n")[0], 16):
        start = rest.index(b"\r\n") + 2
        text += rest[start : start + size]
        rest = rest[start + size + 2 :]
    return text.decode()


def peak_memory_bytes(pid: int) -> int | None:
    """The most that process `pid` ever had in memory (Linux), mapped model included."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return None
    match = re.search(r"VmHWM:\s+(\d+) kB", status)
    return int(match[1]) * 1024 if match else None
