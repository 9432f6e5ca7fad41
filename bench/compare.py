"""How do others serve the same model file on the same machine?

Three servers, all started before the first measurement and idle while another is measured:
ours; llama-cpp-python's own server; and a minimal Flask + waitress + ctransformers program, such
as this one replaces (rivals.py). Same model file, same threads, prompts of much the same
length, at most the same number of tokens, the same temperature; in turn, in rounds, medians.

  tokens/s     between the first token and the last, as the client sees them
  first byte   of a question behind the same 250 tokens of persona, asked again and again
  still busy   a client leaves 0.3 s into the reading of a long prompt: how long does the next
               one wait for its first byte, beyond what it takes on an idle server?

    python -m bench.compare        wants `make rivals`; llama-cpp-python: pip install
                                   'llama-cpp-python[server]' (compiles for minutes)

Run nothing else meanwhile.
"""

import argparse
import importlib.util
import json
import re
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

from bench.card import machine_card
from bench.client import free_port
from bench.report import finish, print_card
from server.model.files.catalog import CATALOG
from server.model.machine.cpus import Cpus
from server.model.prompt.persona import SOCRATES, load_persona

_QUESTION = "Tell me a long story about a man who walked from Athens to the sea."
_LONG = "The sea was calm and the olive trees stood still by the road to Piraeus. " * 80
_LEFT_AFTER_S = 0.3
_PATIENCE_S = 120
_TEMPERATURE = 0.8

Address = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Server:
    """How to start a server, and how to ask it for so many tokens."""

    command: list[str]
    request: Callable[[str, int], tuple[str, str, str]]  # path, content type, body
    count: Callable[[bytes], int]  # tokens in a response


@dataclass(frozen=True, slots=True)
class Answer:
    """Seconds to the first byte of the body and from there to the last, and tokens."""

    first_s: float
    rest_s: float
    tokens: int


def main() -> None:
    """Run the rounds and print card, table and JSON."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5, help="default: 5")
    parser.add_argument("--tokens", type=int, default=100, help="of an answer (default: 100)")
    options = parser.parse_args()
    threads = Cpus().usable()
    model = CATALOG["smollm2"].path
    card = machine_card(model) | {"threads": threads}
    print_card(card)
    servers = _servers(str(model), threads)
    samples: dict[str, dict[str, list[float]]] = {
        name: {"tokens_per_s": [], "first_byte_ms": [], "still_busy_s": []} for name in servers
    }
    with ExitStack() as stack:
        addresses = {name: _start(stack, server) for name, server in servers.items()}
        for number in range(options.rounds):
            for name, server in servers.items():
                _measure(server, addresses[name], options.tokens, number, samples[name])
                print(f"round {number + 1}: {name}: {samples[name]}", file=sys.stderr)
    _report(samples)
    finish("compare", card, {"samples": samples})


# -- the servers --------------------------------------------------------------------------


def _servers(model: str, threads: int) -> dict[str, Server]:
    python = [sys.executable, "-m"]
    servers = {
        "ours": Server(
            [*python, "server", "--log-level", "warning", "--port"],
            lambda text, tokens: (
                f"/prompt?max_tokens={tokens}&temperature={_TEMPERATURE}", "text/plain", text
            ),
            _count_trailer,
        ),
        "Flask + waitress": Server(
            [*python, "bench.rivals", "talking", model, str(threads)],
            lambda text, tokens: (f"/?max_tokens={tokens}", "text/plain", _with_persona(text)),
            lambda data: len(re.findall(rb"\r\n[0-9a-fA-F]+\r\n", data)) - 1,
        ),
    }  # fmt: skip
    if importlib.util.find_spec("llama_cpp"):
        servers["llama-cpp-python"] = Server(
            [*python, "llama_cpp.server", "--model", model, "--n_threads", str(threads),
             "--n_ctx", "2048", "--interrupt_requests", "False", "--port"],
            lambda text, tokens: ("/v1/completions", "application/json", json.dumps(
                {"prompt": _with_persona(text), "max_tokens": tokens, "stream": True,
                 "temperature": _TEMPERATURE})),
            lambda data: data.count(b"data: {"),
        )  # fmt: skip
    else:
        print("llama-cpp-python is not installed: left out", file=sys.stderr)
    return servers


# Ours puts the persona in front by itself.
def _with_persona(text: str) -> str:
    persona = load_persona(SOCRATES)
    turns = [f"Visitor: {turn.question}\nSocrates: {turn.answer}" for turn in persona.examples]
    return "\n".join([persona.system, *turns, f"Visitor: {text}\nSocrates:"])


def _count_trailer(data: bytes) -> int:
    match = re.search(rb"Socrates-Tokens: (\d+)", data)
    assert match is not None, data
    return int(match[1])


def _start(stack: ExitStack, server: Server) -> Address:
    address = ("127.0.0.1", free_port())
    command = [*server.command, str(address[1])]
    silent = subprocess.DEVNULL
    process = subprocess.Popen(command, stdout=silent, stderr=silent)
    stack.callback(process.wait)
    stack.callback(process.kill)
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        try:
            _ask(server, address, "Hello!", 1)
            return address
        except (OSError, AssertionError):
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"error: did not start: {' '.join(command)}") from None
            time.sleep(0.1)


# -- asking -------------------------------------------------------------------------------


def _send(server: Server, address: Address, text: str, tokens: int) -> socket.socket:
    path, content_type, body = server.request(text, tokens)
    head = (
        f"POST {path} HTTP/1.1\r\nHost: bench\r\nTE: trailers\r\nConnection: close\r\n"
        f"Content-Type: {content_type}\r\nContent-Length: {len(body.encode())}\r\n\r\n"
    )
    client = socket.create_connection(address, timeout=_PATIENCE_S)
    client.sendall(head.encode() + body.encode())
    return client


def _ask(server: Server, address: Address, text: str, tokens: int) -> Answer:
    started = time.perf_counter()
    with _send(server, address, text, tokens) as client:
        data, first, last = b"", 0.0, 0.0
        while part := client.recv(65536):
            data += part
            if data.partition(b"\r\n\r\n")[2]:  # the head may come long before the first word
                last = time.perf_counter()
                first = first or last
    assert data.startswith(b"HTTP/1.1 200 "), data
    return Answer(first - started, last - first, server.count(data))


def _measure(
    server: Server, address: Address, tokens: int, number: int, samples: dict[str, list[float]]
) -> None:
    _ask(server, address, _QUESTION, 16)  # after a pause the first tokens are slow
    answer = _ask(server, address, _QUESTION, tokens)
    samples["tokens_per_s"].append((answer.tokens - 1) / answer.rest_s)
    idle = _ask(server, address, _QUESTION, 8)
    samples["first_byte_ms"].append(1000 * idle.first_s)
    with _send(server, address, f"{number}. {_LONG}", 8):
        time.sleep(_LEFT_AFTER_S)
    samples["still_busy_s"].append(_ask(server, address, _QUESTION, 8).first_s - idle.first_s)


def _report(samples: dict[str, dict[str, list[float]]]) -> None:
    print(f"{'median (min to max)':20}{'tokens/s':>24}{'first byte ms':>24}{'still busy s':>24}")
    for name, columns in samples.items():
        cells = [
            f"{statistics.median(values):.3g} ({min(values):.3g} to {max(values):.3g})"
            for values in columns.values()
        ]
        print(f"{name:20}" + "".join(f"{cell:>24}" for cell in cells))


if __name__ == "__main__":
    main()
