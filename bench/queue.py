"""Ten people ask at once: who is served when, and does the server stay awake?

Ten clients ask in a known order within milliseconds. One of them reads nothing until all is
over, five leave while they wait or are answered. Told are the order of first bytes, each
client's first-byte time next to the sum of what stood before it (the answers it had to wait
for), and how long `/healthz` took meanwhile, asked every 10 ms on a kept connection.

    python -m bench.queue

Run nothing else meanwhile.
"""

import argparse
import json
import socket
import statistics
import sys
import threading
import time
from dataclasses import dataclass
from urllib.request import urlopen

from bench.card import machine_card
from bench.client import running_server
from bench.report import finish, print_card
from bench.subject import measured_model

_CLIENTS = 10
_SLOW = 3
# Who leaves, and when: seconds after asking, or None for in the middle of the own answer.
_LEAVERS = {1: 0.05, 4: None, 5: 0.3, 7: None, 8: 0.6}
_PROBE_S = 0.01
_PATIENCE_S = 300


@dataclass
class Visit:
    """What one client saw; times on one clock, in seconds."""

    number: int
    asked_at: float = 0.0
    first_byte_at: float | None = None
    ended_at: float = 0.0
    is_whole: bool = False


def main() -> None:
    """Let them ask, some times over, and print card, table and JSON."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3, help="default: 3")
    parser.add_argument("--tokens", type=int, default=80, help="of an answer (default: 80)")
    parser.add_argument("--short", action="store_true", help="1 round")
    options = parser.parse_args()
    if options.short:
        options.rounds = 1
    card = machine_card(measured_model())
    print_card(card)
    rounds, probes, in_order = [], list[float](), True
    with running_server() as address:
        for number in range(options.rounds):
            visits, found = _round(address, options.tokens)
            rounds.append(visits)
            probes += found
            in_order &= _is_in_order(visits)
            print(f"round {number + 1} is over", file=sys.stderr)
    excess = _report(rounds)
    p50, p99 = statistics.median(probes), statistics.quantiles(probes, n=100)[-1]
    print(f"\nin order: {in_order}")
    print(f"/healthz, {len(probes)} times: p50 {p50:.2f} ms, p99 {p99:.2f}, max {max(probes):.2f}")
    finish("queue", card, {"in_order": in_order, "excess_ms": excess, "healthz_ms": probes})


def _round(address: tuple[str, int], tokens: int) -> tuple[list[Visit], list[float]]:
    visits = [Visit(number) for number in range(_CLIENTS)]
    all_over, probes = threading.Event(), list[float]()
    probing = threading.Thread(target=_probe, args=(address, all_over, probes))
    probing.start()
    clients = []
    for visit in visits:
        asking = _ask(address, visit, tokens)
        clients.append(threading.Thread(target=_be_client, args=(asking, visit, all_over)))
        _wait_until_queued(address, visit.number)
        clients[-1].start()
    for number, client in enumerate(clients):
        if number != _SLOW:
            client.join()
    all_over.set()
    clients[_SLOW].join()
    probing.join()
    return visits, probes


def _ask(address: tuple[str, int], visit: Visit, tokens: int) -> socket.socket:
    body = b"Tell me a long story about a man who walked to the sea."
    head = f"POST /prompt?ignore_eos=true&seed={visit.number}&max_tokens={tokens} HTTP/1.1\r\n"
    client = socket.create_connection(address, timeout=_PATIENCE_S)
    visit.asked_at = time.perf_counter()
    client.sendall(f"{head}Host: bench\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
    return client


# So that the order of asking is known: two connections may overtake each other.
def _wait_until_queued(address: tuple[str, int], number: int) -> None:
    while True:
        with urlopen(f"http://{address[0]}:{address[1]}/status") as response:
            status = json.load(response)
        ended = sum(status["prompts"].values())
        if status["waiting"] + status["busy"] + ended % _CLIENTS > number:
            return
        time.sleep(0.001)


def _be_client(client: socket.socket, visit: Visit, all_over: threading.Event) -> None:
    leaves_after = _LEAVERS.get(visit.number, _PATIENCE_S)
    data = b""
    with client:
        if visit.number == _SLOW:
            all_over.wait()
        try:
            if leaves_after is not None:
                client.settimeout(leaves_after)
            while part := client.recv(65536):
                visit.first_byte_at = visit.first_byte_at or time.perf_counter()
                data += part
                if leaves_after is None and len(data) > 500:
                    break
        except TimeoutError:
            pass
    visit.ended_at = time.perf_counter()
    visit.is_whole = data.endswith(b"0\r\n\r\n")


def _probe(address: tuple[str, int], all_over: threading.Event, probes: list[float]) -> None:
    request = b"GET /healthz HTTP/1.1\r\nHost: bench\r\n\r\n"
    with socket.create_connection(address, timeout=_PATIENCE_S) as client:
        while not all_over.wait(_PROBE_S):
            started = time.perf_counter()
            client.sendall(request)
            client.recv(65536)
            probes.append(1000 * (time.perf_counter() - started))


# Those who saw their first byte saw it in the order of asking.
def _is_in_order(visits: list[Visit]) -> bool:
    firsts = [
        visit.first_byte_at for visit in visits if visit.first_byte_at and visit.number != _SLOW
    ]
    return firsts == sorted(firsts)


# How much later than the end of all that stood before it an answer began, in ms.
def _report(rounds: list[list[Visit]]) -> list[float]:
    print(
        f"{'client':>6} {'did':18} {'first byte s':>12} {'what stood before s':>20} {'ms more':>8}"
    )
    excess = []
    for visits in rounds:
        for visit in visits:
            before = [other for other in visits[: visit.number] if other.number != _SLOW]
            did = "was answered" if visit.is_whole else "left"
            if visit.number == _SLOW:
                did = "read slowly"
            if visit.first_byte_at is None or visit.number in (0, _SLOW, _SLOW + 1):
                print(f"{visit.number:6} {did:18}")
                continue
            stood = max(other.ended_at for other in before) - visit.asked_at
            waited = visit.first_byte_at - visit.asked_at
            excess.append(1000 * (waited - stood))
            print(f"{visit.number:6} {did:18} {waited:12.3f} {stood:20.3f} {excess[-1]:8.1f}")
    return excess


if __name__ == "__main__":
    main()
