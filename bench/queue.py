"""Many clients at once: who is served when, and does the server stay responsive?

order      ten ask in a known order; one reads nothing until the others are done, five leave
while they wait or are answered: first byte minus the end of all answers before it
/healthz   every 10 ms at the same time
burst      50 waiting prompts leave at once: how much later does the one after them begin?
load       200 requests a second for a small file: what do they cost an answer?

python -m bench.queue            --short: one round of each
"""

import socket
import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from bench.kit.client import STORY, Address, ask, get_json, leave, post, read_response
from bench.kit.report import Report, note, print_spreads, read_options
from bench.kit.server import running_server, wait_until
from bench.kit.subject import measured_model

_CLIENTS = 10
_SLOW = 3
# Who leaves, and when: seconds after asking, or None for mid-answer.
_LEAVERS = {1: 0.05, 4: None, 5: 0.3, 7: None, 8: 0.6}
_BURST = 50
_PATIENCE_S = 300


@dataclass
class Visit:
    """What one client saw, by `time.perf_counter`."""

    number: int
    first_byte_at: float | None = None
    ended_at: float = 0.0


def main() -> None:
    """Measure all four and print card, table and JSON."""
    options = read_options(__doc__, {"rounds": 1}, rounds=5, tokens=80)
    rounds = range(options.rounds)
    report = Report("queue", measured_model())
    healthz_ms: list[float] = []
    with running_server("--queue", str(_BURST + _CLIENTS)) as (_, address):
        visits = []
        for number in rounds:
            with _asking(address, "/healthz", 0.01, healthz_ms):
                visits.append(_queue_up(address, options.tokens))
            note(f"round {number + 1} of the queue is over")
        delays = [_burst(address, _BURST) - _burst(address, 0) for _ in rounds]
        loads = [_load(address, options.tokens, number) for number in rounds]
    rows = {
        "ms after what came before": [ms for found in visits for ms in _excess_ms(found)],
        "/healthz, ms": healthz_ms,
        "ms later after a burst that left": [1000 * delay for delay in delays],
        "tokens/s alone": [alone for alone, _ in loads],
        "tokens/s under load": [loaded for _, loaded in loads],
        "  their ratio": [loaded / alone for alone, loaded in loads],
    }
    print_spreads(rows)
    print(f"\n/healthz p99 {statistics.quantiles(healthz_ms, n=100)[-1]:.2f} ms")
    report.finish(rows=rows)


def _queue_up(address: Address, tokens: int) -> list[Visit]:
    visits = [Visit(number) for number in range(_CLIENTS)]
    others_are_done = threading.Event()
    clients = []
    for visit in visits:
        query = f"ignore_eos=true&seed={visit.number}&max_tokens={tokens}"
        asking = post(address, f"/prompt?{query}", STORY)
        clients.append(threading.Thread(target=_visit, args=(asking, visit, others_are_done)))
        _wait_until_taken(address, visit.number)  # two connections may overtake each other
        clients[-1].start()
    for client in (*clients[:_SLOW], *clients[_SLOW + 1 :]):
        client.join()
    others_are_done.set()
    clients[_SLOW].join()
    return visits


def _wait_until_taken(address: Address, number: int) -> None:
    def is_taken() -> bool:
        status = get_json(address, "/status")
        ended = sum(status["prompts"].values()) % _CLIENTS
        return bool(status["waiting"] + status["busy"] + ended > number)

    wait_until(is_taken, "a place in the queue")


def _visit(client: socket.socket, visit: Visit, others_are_done: threading.Event) -> None:
    leaves_after = _LEAVERS.get(visit.number, _PATIENCE_S)
    received = 0
    with client:
        if visit.number == _SLOW:
            others_are_done.wait()
        client.settimeout(leaves_after)
        try:
            while part := client.recv(65536):
                visit.first_byte_at = visit.first_byte_at or time.perf_counter()
                received += len(part)
                if leaves_after is None and received > 500:
                    break
        except TimeoutError:
            pass
    visit.ended_at = time.perf_counter()


# How much later each answer began than everything before it ended: it never begins earlier.
def _excess_ms(visits: list[Visit]) -> list[float]:
    return [
        1000 * (visit.first_byte_at - max(v.ended_at for v in visits[:number] if v.number != _SLOW))
        for number, visit in enumerate(visits)
        if visit.first_byte_at and number not in (0, _SLOW, _SLOW + 1)
    ]


# Seconds from the end of an answer to the first byte of the last one queued, after all between
# them have left.
def _burst(address: Address, between: int) -> float:
    query = "ignore_eos=true&seed=1&max_tokens=100"
    first = post(address, f"/prompt?{query}", STORY)
    wait_until(lambda: get_json(address, "/status")["busy"], "the first answer")
    leavers = [post(address, "/prompt", STORY) for _ in range(between)]
    last = post(address, "/prompt?max_tokens=1", f"{STORY} Begin.")
    wait_until(lambda: get_json(address, "/status")["waiting"] == between + 1, "the queue")
    for client in leavers:
        leave(client, "FIN")
    with first, last:
        _, _, ended_at = read_response(first)
        _, first_byte_at, _ = read_response(last)
    return first_byte_at - ended_at


def _load(address: Address, tokens: int, number: int) -> tuple[float, float]:
    query = f"ignore_eos=true&seed={number}&max_tokens={tokens}"
    alone = ask(address, STORY, query).tokens_per_second
    with _asking(address, "/static/favicon.svg", 0.005, []):
        loaded = ask(address, STORY, query).tokens_per_second
    note(f"{alone:.1f} tokens/s alone, {loaded:.1f} under load")
    return alone, loaded


# Sends a request every `interval_s` on a keep-alive connection; their ms go to `times`.
@contextmanager
def _asking(address: Address, target: str, interval_s: float, times: list[float]) -> Iterator[None]:
    request = f"GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
    is_over = threading.Event()

    def work() -> None:
        with socket.create_connection(address, timeout=_PATIENCE_S) as client:
            while not is_over.wait(interval_s):
                started = time.perf_counter()
                client.sendall(request)
                assert client.recv(65536).startswith(b"HTTP/1.1 200 ")
                times.append(1000 * (time.perf_counter() - started))

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


if __name__ == "__main__":
    main()
