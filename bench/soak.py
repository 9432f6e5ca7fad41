"""Does anything leak? Thousands of connections that open, stall and abort at random points.

Starts a server of its own with the real small model, lets clients do to it what clients do
(whole requests, halves, prompts that are left while they wait, are read or are answered, by FIN
or by RST; silence), and then looks at what is left: jobs in /status, open files and threads in
/proc, memory after the first round against memory after the last. Exit status 1 if any leaked.

    python -m bench.soak            3,000 connections in 3 rounds; --connections 30000 for a night
"""

import argparse
import json
import random
import re
import socket
import struct
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from urllib.request import urlopen

from bench.client import running_server_process

_ROUNDS = 3
_OPEN_AT_ONCE = 40
_MEMORY_ALLOWANCE_KIB = 8 * 1024  # what the allocator may keep of a busy round
_SETTLE_S = 60
_RESET = struct.pack("ii", 1, 0)
_PROMPT = b"Tell me a long story about the sea."
_REQUEST = b"GET /static/app.js HTTP/1.1\r\nHost: soak\r\n\r\n"

Action = Callable[[socket.socket, random.Random], None]


def main() -> None:
    """Soak the server, then print what is left of it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--connections", type=int, default=3000, help="in all (default: 3000)")
    parser.add_argument("--seed", type=int, default=1, help="of the random points (default: 1)")
    options = parser.parse_args()
    draw = random.Random(options.seed)
    arguments = ("--max-tokens", "20", "--queue", "1000")
    with running_server_process(*arguments) as (pid, port):
        fresh = _look(pid, port)
        seen = []
        for number in range(_ROUNDS):
            _soak(port, options.connections // _ROUNDS, draw)
            _settle(port)
            seen.append(_look(pid, port))
            print(f"round {number + 1}: {seen[-1]}", file=sys.stderr)
    leaks = _compare(fresh, seen[0], seen[-1])
    print(json.dumps({"fresh": fresh, "rounds": seen, "leaks": leaks}))
    raise SystemExit(1 if leaks else 0)


def _soak(port: int, connections: int, draw: random.Random) -> None:
    open_now: list[socket.socket] = []
    for _ in range(connections):
        client = socket.create_connection(("127.0.0.1", port))
        with suppress(OSError):  # the server may well have closed first
            draw.choice(_ACTIONS)(client, draw)
        open_now.append(client)
        while len(open_now) > draw.randrange(_OPEN_AT_ONCE):
            _leave(open_now.pop(draw.randrange(len(open_now))), draw)
    for client in open_now:
        _leave(client, draw)


def _leave(client: socket.socket, draw: random.Random) -> None:
    if draw.random() < 0.5:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    client.close()


def _stay_silent(client: socket.socket, draw: random.Random) -> None:
    pass


def _send_a_part(client: socket.socket, draw: random.Random) -> None:
    client.sendall(_REQUEST[: draw.randrange(1, len(_REQUEST))])


def _send_nonsense(client: socket.socket, draw: random.Random) -> None:
    client.sendall(draw.randbytes(draw.randrange(1, 400)))


def _fetch(client: socket.socket, draw: random.Random) -> None:
    for _ in range(draw.randrange(1, 4)):
        client.sendall(_REQUEST)
        client.recv(draw.randrange(1, 4096))


def _pipeline(client: socket.socket, draw: random.Random) -> None:
    client.sendall(_REQUEST * 20)  # and never read the answers


def _prompt(client: socket.socket, draw: random.Random) -> None:
    words = _PROMPT * draw.choice([1, 1, 30])
    head = b"POST /prompt HTTP/1.1\r\nHost: soak\r\nContent-Length: %d\r\n\r\n" % len(words)
    client.sendall(head + words[: draw.choice([len(words), len(words) // 2])])
    if draw.random() < 0.05:
        client.settimeout(draw.random())
        client.recv(10)


_ACTIONS: list[Action] = [_stay_silent, _send_a_part, _send_nonsense, _fetch, _pipeline, _prompt]


# Wait until the model has noticed everybody leave.
def _settle(port: int) -> None:
    deadline = time.monotonic() + _SETTLE_S
    while time.monotonic() < deadline:
        status = _status(port)
        if not status["busy"] and not status["waiting"] and status["connections"] <= 1:
            return
        time.sleep(0.1)


def _status(port: int) -> dict[str, int]:
    with urlopen(f"http://127.0.0.1:{port}/status") as answer:
        status: dict[str, int] = json.load(answer)
        return status


def _look(pid: int, port: int) -> dict[str, int]:
    status = _status(port)
    process = Path("/proc") / str(pid)
    memory = re.search(r"VmRSS:\s+(\d+) kB", (process / "status").read_text())
    assert memory is not None
    return {
        "jobs": status["waiting"] + status["busy"],
        "connections": status["connections"] - 1,  # the one that asks
        "files": len(list((process / "fd").iterdir())),
        "threads": len(list((process / "task").iterdir())),
        "memory_kib": int(memory[1]),
    }


def _compare(fresh: dict[str, int], first: dict[str, int], last: dict[str, int]) -> list[str]:
    leaks = [
        f"{what}: {fresh[what]} became {last[what]}"
        for what in ("jobs", "connections", "files", "threads")
        if last[what] > fresh[what] + (what == "threads")  # libuv may have started one
    ]
    if last["memory_kib"] > first["memory_kib"] + _MEMORY_ALLOWANCE_KIB:
        leaks.append(f"memory: {first['memory_kib']} KiB became {last['memory_kib']}")
    return leaks


if __name__ == "__main__":
    main()
