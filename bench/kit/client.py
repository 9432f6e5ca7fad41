"""A bare client: sends prompts, times the pieces, leaves, and reads the server's memory."""

import json
import re
import socket
import struct
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import urlopen

Address = tuple[str, int]

LONG = "The sea was calm and the olive trees stood still by the road to Piraeus. " * 80
STORY = "Tell me a long story about a man who walked from Athens to the sea."

PATIENCE_S = 600
_RESET = struct.pack("ii", 1, 0)


@dataclass(frozen=True, slots=True)
class Timing:
    """One answer as its client saw it. Times in seconds."""

    first_byte_s: float  # from sending the prompt to the first piece
    decode_s: float  # from the first piece to the last
    tokens: int
    is_cut: bool  # by max_tokens
    prompt_tokens: int
    cached_tokens: int
    prefill_s: float  # the server's own time for the uncached tokens
    text: str

    @property
    def tokens_per_second(self) -> float:
        """Evaluations per second between the first piece and the end.

        There is one fewer than tokens, unless the model was evaluated once more and chose to end.
        """
        return (self.tokens - self.is_cut) / self.decode_s


def post(address: Address, target: str, text: str, kind: str = "text/plain") -> socket.socket:
    """Send a request on a connection of its own.

    Raises:
        SystemExit: if nothing listens at `address`.
    """
    body = text.encode()
    head = (
        f"POST {target} HTTP/1.1\r\nHost: localhost\r\nTE: trailers\r\nConnection: close\r\n"
        f"Content-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    try:
        client = socket.create_connection(address, timeout=PATIENCE_S)
    except OSError as error:
        raise SystemExit(f"error: {address[0]}:{address[1]} does not answer: {error}") from error
    client.sendall(head.encode() + body)
    return client


def read_response(client: socket.socket) -> tuple[bytes, float, float]:
    """Read to the end; returns the bytes, and when the body began and ended."""
    data, first, last = b"", 0.0, 0.0
    while part := client.recv(65536):
        data += part
        if data.partition(b"\r\n\r\n")[2]:  # the head may come long before the first word
            last = time.perf_counter()
            first = first or last
    return data, first, last


def leave(client: socket.socket, way: str) -> None:
    """Close the connection in order ("FIN") or abort it ("RST")."""
    if way == "RST":
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    client.close()


def ask(address: Address, prompt: str, query: str, kind: str = "text/plain") -> Timing:
    """Ask our server once and time the pieces.

    Raises:
        SystemExit: if it cannot be reached or refuses the prompt.
    """
    started = time.perf_counter()
    with post(address, f"/prompt?{query}", prompt, kind) as client:
        data, first, last = read_response(client)
    if not data.startswith(b"HTTP/1.1 200 "):
        raise SystemExit(f"error: the server refused: {data.decode()}")
    # The last piece carries no token's text: the last chunk and the trailers come after the
    # model has decided to stop, or together with the last text.
    return Timing(
        first_byte_s=first - started,
        decode_s=last - first,
        tokens=int(field(data, "Socrates-Tokens: (\\d+)")),
        is_cut=b"\r\nSocrates-Finish: length\r\n" in data,
        prompt_tokens=int(field(data, "Socrates-Prompt-Tokens: (\\d+)")),
        cached_tokens=int(field(data, "Socrates-Cached-Tokens: (\\d+)")),
        prefill_s=float(field(data, "Server-Timing: .*prefill;dur=([\\d.]+)")) / 1000,
        text=chunked_text(data),
    )


def get_json(address: Address, target: str) -> Any:
    """The JSON document at `target`."""
    with urlopen(f"http://{address[0]}:{address[1]}{target}") as response:
        return json.load(response)


def field(data: bytes, pattern: str) -> str:
    """Return what the pattern's group matches in a line of a response's head or trailers.

    Raises:
        SystemExit: if nothing matches.
    """
    match = re.search(rb"\r\n" + pattern.encode(), data)
    if match is None:
        raise SystemExit(f"error: the answer has no {pattern}")
    return match[1].decode()


def chunked_text(data: bytes) -> str:
    """Return the body of a chunked response."""
    text, remaining = b"", data.partition(b"\r\n\r\n")[2]
    while size := int(remaining.partition(b"\r\n")[0], 16):
        start = remaining.index(b"\r\n") + 2
        text += remaining[start : start + size]
        remaining = remaining[start + size + 2 :]
    return text.decode()


def memory_bytes(pid: int, what: str) -> int:
    """Return the memory that Linux reports: VmRSS, or its parts RssAnon and RssFile."""
    match = re.search(rf"{what}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert match is not None, "Linux reports them all"
    return int(match[1]) * 1024
