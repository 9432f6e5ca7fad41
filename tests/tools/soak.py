"""Does anything leak? Thousands of connections that open, stall and abort at random points.

Starts a server with the real small model and lets clients do what clients do: send whole requests
and halves, leave prompts that wait, are prefilled or are decoded, by FIN or by RST, and stay
silent. Then it looks at what is left: jobs in /status, open files and threads in /proc, memory
after the first round against memory after the last, and whether a question is still answered in
the same words. Exit status 1 if anything leaked.

    python -m tests.tools.soak            3,000 connections in 3 rounds; --connections 30000 for a night
"""

import random
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from bench.kit.client import Address, ask, get_json, leave, memory_bytes
from bench.kit.report import Report, note, read_options
from bench.kit.server import running_server
from bench.kit.subject import measured_model

_ROUNDS = 3
_OPEN_AT_ONCE = 40
_MEMORY_ALLOWANCE = 8 * 2**20  # bytes that the allocator may keep after a busy round
_SETTLE_S = 60
_PROMPT = b"Tell me a long story about the sea."
_REQUEST = b"GET /static/app.js HTTP/1.1\r\nHost: localhost\r\n\r\n"

Action = Callable[[socket.socket, random.Random], None]
Look = dict[str, int | str]


def main() -> None:
    """Soak the server, then print what leaked."""
    options = read_options(__doc__, connections=3000, seed=1)
    draw = random.Random(options.seed)
    report = Report("soak", measured_model())
    with running_server("--max-tokens", "20", "--queue", "1000") as (pid, address):
        seen = [_look(pid, address)]
        for number in range(_ROUNDS):
            _soak(address, options.connections // _ROUNDS, draw)
            _settle(address)
            seen.append(_look(pid, address))
            note(f"round {number + 1}: {seen[-1]}")
    leaks = _compare(seen)
    print("\n".join(leaks) or "nothing leaked")
    report.finish(fresh=seen[0], rounds=seen[1:], leaks=leaks)
    raise SystemExit(1 if leaks else 0)


def _soak(address: Address, connections: int, draw: random.Random) -> None:
    open_now: list[socket.socket] = []
    for _ in range(connections):
        client = socket.create_connection(address)
        with suppress(OSError):  # the server may well have closed first
            draw.choice(_ACTIONS)(client, draw)
        open_now.append(client)
        while len(open_now) > draw.randrange(_OPEN_AT_ONCE):
            leave(open_now.pop(draw.randrange(len(open_now))), draw.choice(("FIN", "RST")))
    for client in open_now:
        leave(client, draw.choice(("FIN", "RST")))


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
    head = b"POST /prompt HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(words)
    client.sendall(head + words[: draw.choice([len(words), len(words) // 2])])
    if draw.random() < 0.05:
        client.settimeout(draw.random())
        client.recv(10)


_ACTIONS: list[Action] = [_stay_silent, _send_a_part, _send_nonsense, _fetch, _pipeline, _prompt]


# Wait until the model has noticed everybody leave.
def _settle(address: Address) -> None:
    deadline = time.monotonic() + _SETTLE_S
    while time.monotonic() < deadline:
        status = get_json(address, "/status")
        if not status["busy"] and not status["waiting"] and status["connections"] <= 1:
            return
        time.sleep(0.1)


# The likeliest answer depends on every token of the context.
def _look(pid: int, address: Address) -> Look:
    said = ask(address, "What is virtue?", "temperature=0&max_tokens=20").text
    status = get_json(address, "/status")
    return {
        "jobs": status["waiting"] + status["busy"],
        "connections": status["connections"] - 1,  # the one that asks
        "files": len([*Path(f"/proc/{pid}/fd").iterdir()]),
        "threads": len([*Path(f"/proc/{pid}/task").iterdir()]),
        "memory": memory_bytes(pid, "VmRSS"),
        "answer": said,
    }


def _compare(seen: list[Look]) -> list[str]:
    fresh, first, last = seen[0], seen[1], seen[-1]
    slack = {"jobs": 0, "connections": 0, "files": 0, "threads": 1}  # libuv may have started one
    leaks = [
        f"{what}: {fresh[what]} became {last[what]}"
        for what in slack
        if int(last[what]) > int(fresh[what]) + slack[what]
    ]
    if int(last["memory"]) > int(first["memory"]) + _MEMORY_ALLOWANCE:
        leaks.append(f"memory: {first['memory']} bytes became {last['memory']}")
    if last["answer"] != fresh["answer"]:
        leaks.append(f"answer: {fresh['answer']!r} became {last['answer']!r}")
    return leaks


if __name__ == "__main__":
    main()
