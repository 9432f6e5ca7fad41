"""How fast are small static files answered, next to what Python people usually pick?

One process each, all started before the first measurement and idle while another is
measured; then rounds in which each is driven in turn by wrk: 64 connections, keep-alive,
the same small file. Ratios are taken round by round, so a machine that slows down slows
all of them. The servers: ours (without and with its request log), uvicorn with httptools
and uvloop and a bare ASGI app, aiohttp on uvloop, Flask on waitress, and as the ceiling a
bare uvloop protocol that writes our very bytes without reading the request.

"No two alike" adds a field that differs from request to request, so that ours answers none
from memory (see "memo" in server/http/connection.py): what the parser and the routes cost.
wrk is slower at that, too, so these rows are compared among themselves.

    python -m bench.static          wants wrk (Debian: apt install wrk) and `make rivals`
"""

import argparse
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from bench.card import machine_card
from bench.client import free_port, running_server
from bench.report import finish, print_card
from bench.subject import measured_model

_TARGET = "/static/favicon.svg"
_VARIED = ", no two alike"
_VARY = str(Path(__file__).with_name("vary.lua"))
_RIVALS = ("uvicorn", "aiohttp", "waitress", "ceiling")
_CONNECTIONS = 64
_DEADLINE_S = 30


@dataclass(frozen=True, slots=True)
class Round:
    """What wrk said of one server in one round. Latencies in milliseconds."""

    requests_per_second: float
    p50_ms: float
    p99_ms: float


def main() -> None:
    """Run the rounds and print card, table and JSON."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5, help="default: 5")
    parser.add_argument("--seconds", type=int, default=3, help="of each measurement (default: 3)")
    options = parser.parse_args()
    if not shutil.which("wrk"):
        raise SystemExit("error: wrk is not installed (Debian: apt install wrk)")
    card = machine_card(measured_model())
    print_card(card)
    with ExitStack() as stack:
        ports = _start_all(stack)
        rounds = {name: list[Round]() for name in ports}
        for number in range(options.rounds + 1):
            for name, port in ports.items():
                script = ["-s", _VARY] if name.endswith(_VARIED) else []
                measured = _drive(port, options.seconds, script)
                print(f"round {number}: {name} {measured.requests_per_second:.0f}", file=sys.stderr)
                if number > 0:  # the first warms up
                    rounds[name].append(measured)
    _report(card, rounds)


def _start_all(stack: ExitStack) -> dict[str, int]:
    _, port = stack.enter_context(running_server())
    logging = running_server("--log-level", "info", stderr=subprocess.DEVNULL)
    _, logged = stack.enter_context(logging)
    ports = {"ours": port, "ours, logging": logged}
    answer = _fetch(port)
    with tempfile.NamedTemporaryFile(delete=False) as file:
        file.write(answer)
    stack.callback(Path(file.name).unlink)
    for name in _RIVALS:
        ports[name] = free_port()
        process = subprocess.Popen(
            [sys.executable, "-m", "bench.rivals", name, str(ports[name]), file.name]
        )
        stack.callback(process.wait)
        stack.callback(process.terminate)
        body = _fetch(ports[name]).partition(b"\r\n\r\n")[2]
        assert body == answer.partition(b"\r\n\r\n")[2], f"{name} does not send the same bytes"
    return ports | {name + _VARIED: ports[name] for name in ("ours", "uvicorn", "ceiling")}


# One whole response, as soon as the server is up.
def _fetch(port: int) -> bytes:
    request = f"GET {_TARGET} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()
    deadline = time.monotonic() + _DEADLINE_S
    while True:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=_DEADLINE_S) as client:
                client.sendall(request)
                return _read_response(client)
        except ConnectionRefusedError:
            if time.monotonic() > deadline:
                raise SystemExit(f"error: nothing listens on port {port}") from None
            time.sleep(0.05)


def _read_response(client: socket.socket) -> bytes:
    data = b""
    while True:
        part = client.recv(65536)
        data += part
        head, end, body = data.partition(b"\r\n\r\n")
        length = re.search(rb"(?i)\r\ncontent-length: (\d+)", head)
        if not part or (end and length and len(body) >= int(length[1])):
            return data


def _drive(port: int, seconds: int, script: list[str]) -> Round:
    command = ["wrk", "-t1", f"-c{_CONNECTIONS}", f"-d{seconds}s", "--latency", *script]
    url = f"http://127.0.0.1:{port}{_TARGET}"
    output = subprocess.run([*command, url], capture_output=True, text=True, check=True).stdout
    if "Non-2xx" in output or "Socket errors" in output:
        raise SystemExit(f"error: wrk met errors:\n{output}")
    return Round(
        float(_find(r"Requests/sec:\s+([\d.]+)", output)),
        _milliseconds(_find(r"(?m)^ +50% +(\S+)$", output)),
        _milliseconds(_find(r"(?m)^ +99% +(\S+)$", output)),
    )


def _find(pattern: str, text: str) -> str:
    match = re.search(pattern, text)
    assert match is not None, text
    return match[1]


def _milliseconds(text: str) -> float:
    match = re.fullmatch(r"([\d.]+)(us|ms|s)", text)
    assert match is not None, text
    return float(match[1]) * {"us": 0.001, "ms": 1.0, "s": 1000.0}[match[2]]


def _report(card: dict[str, object], rounds: dict[str, list[Round]]) -> None:
    columns = ("min", "max", "p50 ms", "p99 ms")
    print(f"{'':22} requests/s " + " ".join(f"{name:>7}" for name in columns) + " ours / it")
    ratios = {}
    for name, measured in rounds.items():
        ours = rounds["ours" + _VARIED if name.endswith(_VARIED) else "ours"]
        speeds = [done.requests_per_second for done in measured]
        pairs = zip((done.requests_per_second for done in ours), speeds, strict=True)
        ratios[name] = statistics.median(mine / theirs for mine, theirs in pairs)
        print(
            f"{name:22} {statistics.median(speeds):10.0f} {min(speeds):7.0f} {max(speeds):7.0f} "
            f"{statistics.median(done.p50_ms for done in measured):7.2f} "
            f"{statistics.median(done.p99_ms for done in measured):7.2f} {ratios[name]:9.2f}"
        )
    samples = {name: [done.requests_per_second for done in rows] for name, rows in rounds.items()}
    finish("static", card, {"requests_per_second": samples, "ours_over": ratios})


if __name__ == "__main__":
    main()
