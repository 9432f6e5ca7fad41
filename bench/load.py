"""What does static load cost an answer that is being spoken?

In pairs, in one run: an answer alone, then one of the same length while a process of its own
asks for a small file at a fixed rate on kept connections. Quoted is the median of the ratios.

    python -m bench.load            200 requests a second, 7 pairs

Run nothing else meanwhile.
"""

import argparse
import subprocess
import sys
import time

from bench.card import machine_card
from bench.client import ask, running_server
from bench.report import finish, print_card, print_spreads
from bench.subject import measured_model

_PROMPT = "Tell me a long story about a man who walked from Athens to the sea."
_TARGET = "/static/favicon.svg"

# The load: one request every 1/rate s on a kept connection, late ones at once; at the end,
# how many were answered and in what time.
_LOADER = """
import socket, sys, time
port, rate, target = int(sys.argv[1]), float(sys.argv[2]), sys.argv[3]
client = socket.create_connection(("127.0.0.1", port))
client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
request = f"GET {target} HTTP/1.1\\r\\nHost: bench\\r\\n\\r\\n".encode()
print("begun", flush=True)
started, sent = time.perf_counter(), 0
try:
    while True:
        pause = started + sent / rate - time.perf_counter()
        if pause > 0:
            time.sleep(pause)
        client.sendall(request)
        assert client.recv(65536).startswith(b"HTTP/1.1 200 ")
        sent += 1
except KeyboardInterrupt:
    print(sent, time.perf_counter() - started)
"""


def main() -> None:
    """Run the pairs and print card, table and JSON."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rate", type=float, default=200, help="requests a second (default: 200)")
    parser.add_argument("--pairs", type=int, default=7, help="repetitions (default: 7)")
    parser.add_argument("--tokens", type=int, default=150, help="most tokens (default: 150)")
    options = parser.parse_args()
    card = machine_card(measured_model())
    print_card(card)
    with running_server() as address:
        pairs = [
            _measure(address, options.rate, options.tokens, number)
            for number in range(options.pairs + 1)
        ][1:]  # the first warms up
    _report(card, options.rate, pairs)


# Tokens per second alone, the same under load, and the requests a second that were answered.
def _measure(
    address: tuple[str, int], rate: float, tokens: int, number: int
) -> tuple[float, float, float]:
    query = f"max_tokens={tokens}&ignore_eos=true&seed={number}"
    alone = ask(address, _PROMPT, query).tokens_per_second
    arguments = [str(address[1]), str(rate), _TARGET]
    loader = subprocess.Popen(
        [sys.executable, "-c", _LOADER, *arguments], stdout=subprocess.PIPE, text=True
    )
    assert loader.stdout is not None
    assert loader.stdout.readline() == "begun\n"
    loaded = ask(address, _PROMPT, query).tokens_per_second
    loader.send_signal(2)
    sent, seconds = map(float, loader.stdout.read().split())
    loader.wait()
    print(f"pair {number}: {alone:.1f} alone, {loaded:.1f} under load", file=sys.stderr)
    time.sleep(0.1)
    return alone, loaded, sent / seconds


def _report(card: dict[str, object], rate: float, pairs: list[tuple[float, float, float]]) -> None:
    alone, loaded, served = ([pair[index] for pair in pairs] for index in range(3))
    ratios = [under / free for free, under, _ in pairs]
    rows = {
        "tokens/s alone": alone,
        "tokens/s under load": loaded,
        "ratio, pair by pair": ratios,
        "requests/s answered": served,
    }
    print_spreads(rows)
    finish("load", card, {"rate": rate, "samples": rows})


if __name__ == "__main__":
    main()
