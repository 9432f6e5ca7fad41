"""How long after a client leaves is the model free, at every stage and for every way to leave?

The real server and model run in this process, so that "free" is the moment at which the engine
lets go, and not what a poll saw of it. Clients close their sockets at random moments while
their prompt waits, is read, or is being answered: by FIN, by RST, or (with root, in a network
namespace whose link is cut) by vanishing without either, which only the server's
`--vanished-timeout` notices. Counted besides: evaluations begun after the event was set.

Then a crowd: 1,000 prompts of which 900 are left, and what is left of them; and a burst: 50
waiting prompts leave at once, and how much later the one behind them begins.

    python -m bench.cancel            200 clients; --short: 60, and a crowd of 200

Run nothing else meanwhile.
"""

import argparse
import asyncio
import os
import random
import socket
import statistics
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import uvloop

from bench.card import machine_card
from bench.client import MOST_WAITING
from bench.report import finish, print_card, print_spreads
from bench.subject import measured_options, measured_settings
from server.lifecycle import Server
from server.model.engine import Engine
from server.model.job import Finish, Loading, Progress, Stage
from server.model.loader import EngineSettings, load_engine
from server.model.prompt.writer import Prompt
from server.model.sampler import Sampling
from server.model.worker import Worker
from server.options import Options

_LONG = "The sea was calm and the olive trees stood still by the road to Piraeus. " * 80
_SHORT = "What is virtue?"
_RESET = struct.pack("ii", 1, 0)
_PATIENCE_S = 120
_POLL_S = 0.0005
_VANISHED_TIMEOUT_S = 2
_BURST = 50
Address = tuple[str, int]
_SERVER_IP, _CLIENT_IP = "10.213.7.1", "10.213.7.2"


class Watch:
    """Notes when an engine lets go of a prompt, and what it did after the event."""

    def __init__(self, engine: Engine) -> None:
        self.freed_at = 0.0
        self.late_evaluations = 0
        self.evaluations: list[tuple[int, float]] = []  # tokens, seconds
        self._watched: threading.Event | None = None
        self._generate, self._evaluate = engine.generate, engine.evaluate
        engine.generate = self._watch_prompt  # type: ignore[method-assign]
        engine.evaluate = self._watch_tokens  # type: ignore[method-assign]

    def _watch_prompt(
        self,
        prompt: Prompt,
        sampling: Sampling,
        cancelled: threading.Event,
        progress: Progress,
    ) -> Iterator[str]:
        self._watched, self.late_evaluations = cancelled, 0
        try:
            yield from self._generate(prompt, sampling, cancelled, progress)
        finally:
            self.freed_at, self._watched = time.perf_counter(), None

    def _watch_tokens(self, tokens: Sequence[int]) -> None:
        if self._watched is not None and self._watched.is_set():
            self.late_evaluations += 1
        started = time.perf_counter()
        self._evaluate(tokens)
        self.evaluations.append((len(tokens), time.perf_counter() - started))


class RunningServer:
    """Our server on a thread of this process."""

    def __init__(self, settings: EngineSettings, options: Options) -> None:
        self.options = replace(options, port=0, log_level="warning")
        self.settings = settings
        self.watch: Watch
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> "RunningServer":
        self._thread.start()
        assert self._ready.wait(_PATIENCE_S), "the server did not start"
        return self

    def __exit__(self, *exception: object) -> None:
        self.loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        self.loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        self.server = Server(self.options, self._load, "socrates")
        await (await self.server.open())
        self.port = self.server.port
        self._ready.set()
        await self._stop.wait()
        await self.server.close()

    def _load(self, loading: Loading, cancelled: threading.Event) -> Engine:
        engine = load_engine(self.settings, loading, cancelled)
        self.watch = Watch(engine)
        return engine

    @property
    def worker(self) -> Worker:
        """The worker inside; its public fields may be read from any thread."""
        return self.server.worker

    @property
    def address(self) -> Address:
        """Where it listens."""
        return self.options.host, self.port

    def stage(self) -> Stage | None:
        """Of the prompt at work."""
        current = self.worker.current
        return None if current is None else current.stage


@dataclass
class Samples:
    """Seconds from leaving to free by stage and way, and evaluations begun after the event."""

    seconds: dict[str, list[float]] = field(default_factory=dict)
    late: list[int] = field(default_factory=list)


def main() -> None:
    """Measure all three parts and print card, tables and JSON."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--clients", type=int, default=200, help="default: 200")
    parser.add_argument("--crowd", type=int, default=1000, help="default: 1000")
    parser.add_argument("--vanishings", type=int, default=6, help="default: 6")
    parser.add_argument("--short", action="store_true", help="60 clients, a crowd of 200")
    options = parser.parse_args()
    if options.short:
        options.clients, options.crowd = 60, 200
    settings = measured_settings(measured_options())
    card = machine_card(settings.model_file)
    print_card(card)
    chosen = replace(measured_options(), queue=_BURST + 10, per_client=MOST_WAITING)
    with RunningServer(settings, chosen) as server:
        token_s, batch_s = _units(server)
        samples = _leave_at_random(server, options.clients)
        left = _crowd(server, options.crowd)
        delays = _burst(server)
    vanished = _vanish(settings, options.vanishings)
    rows = {f"ms to free, {name}": _ms(values) for name, values in sorted(samples.seconds.items())}
    if vanished:
        rows[f"ms beyond {_VANISHED_TIMEOUT_S} s, vanished"] = _ms(vanished)
    rows |= {"ms of one token": _ms(token_s), "ms of one batch": _ms(batch_s)}
    rows["ms later behind a burst that left"] = _ms(delays)
    print_spreads(rows)
    print("\n95th percentile, ms: " + ", ".join(
        f"{name} {statistics.quantiles(values, n=20)[-1]:.1f}"
        for name, values in rows.items() if name.startswith("ms to free") and len(values) > 1
    ))  # fmt: skip
    print(f"evaluations begun after the event: at most {max(samples.late)}")
    print(f"after a crowd of {options.crowd}: {left}")
    finish("cancel", card, {"rows": rows, "late": samples.late, "crowd": left})


def _ms(values: Sequence[float]) -> list[float]:
    return [1000 * value for value in values]


def _wait(condition: Callable[[], bool], what: str) -> None:
    deadline = time.perf_counter() + _PATIENCE_S
    while not condition():
        if time.perf_counter() > deadline:
            raise SystemExit(f"error: {what} did not come about")
        time.sleep(_POLL_S)


# -- clients ------------------------------------------------------------------------------


def _ask(address: Address, text: str, query: str = "") -> socket.socket:
    client = socket.create_connection(address, timeout=_PATIENCE_S)
    body = text.encode()
    head = f"POST /prompt{query} HTTP/1.1\r\nHost: bench\r\nContent-Length: {len(body)}\r\n\r\n"
    client.sendall(head.encode() + body)
    return client


def _leave(client: socket.socket, way: str) -> None:
    if way == "RST":
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    client.close()


def _read_to_end(client: socket.socket) -> bytes:
    data = b""
    while part := client.recv(65536):
        data += part
    return data


# -- the three parts ----------------------------------------------------------------------


# Seconds of one token and of one batch, for comparison.
def _units(server: RunningServer) -> tuple[list[float], list[float]]:
    server.watch.evaluations.clear()
    _read_to_end(_ask(server.address, _LONG, "?max_tokens=60"))
    took = server.watch.evaluations
    return [s for tokens, s in took if tokens == 1], [s for tokens, s in took if tokens > 1]


def _leave_at_random(server: RunningServer, clients: int) -> Samples:
    draw, samples = random.Random(1), Samples()
    for number in range(clients):
        way = draw.choice(("FIN", "RST"))
        seconds = (
            _leave_at_work(server, number, way, draw, samples)
            if number % 3
            else _leave_while_waiting(server, number, way, draw)
        )
        if seconds is None:
            continue  # the model was quicker than the client
        stage = ("waiting", "prefill", "decode")[number % 3]
        samples.seconds.setdefault(f"{stage}, {way}", []).append(seconds)
        print(f"{number}: {stage}, {way}: {1000 * seconds:.1f} ms", file=sys.stderr)
    return samples


# Seconds until a waiting prompt had left the queue.
def _leave_while_waiting(
    server: RunningServer, number: int, way: str, draw: random.Random
) -> float:
    before = _ask(server.address, _SHORT, "?max_tokens=500&ignore_eos=true")
    _wait(lambda: server.stage() is Stage.DECODE, "the answer before")
    client = _ask(server.address, f"{number}. {_SHORT}")
    _wait(lambda: server.worker.waiting == 1, "a waiting prompt")
    time.sleep(draw.uniform(0, 0.3))
    left_at = time.perf_counter()
    _leave(client, way)
    _wait(lambda: server.worker.waiting == 0, "an empty queue")
    freed_at = time.perf_counter()
    _leave(before, "RST")
    _wait(lambda: not server.worker.is_busy, "an idle model")
    return freed_at - left_at


# Seconds until the engine let go of a prompt that was read or answered.
def _leave_at_work(
    server: RunningServer, number: int, way: str, draw: random.Random, samples: Samples
) -> float | None:
    wanted = (None, Stage.PREFILL, Stage.DECODE)[number % 3]
    text = f"{number}. {_LONG if wanted is Stage.PREFILL else _SHORT}"
    client = _ask(server.address, text, f"?seed={number}&ignore_eos=true")
    _wait(lambda: server.stage() is wanted, f"the stage {wanted}")
    time.sleep(draw.uniform(0, 0.3 if wanted is Stage.PREFILL else 0.1))
    is_there = server.stage() is wanted
    left_at = time.perf_counter()
    _leave(client, way)
    _wait(lambda: not server.worker.is_busy, "an idle model")
    if not is_there:
        return None
    samples.late.append(server.watch.late_evaluations)
    return server.watch.freed_at - left_at


# What is left after many have come and nine in ten have gone.
def _crowd(server: RunningServer, count: int) -> dict[str, object]:
    draw, address = random.Random(2), server.address
    said, before = _say(address), _resources()
    answered = 0
    for number in range(count):
        client = _ask(address, f"{number}. {_SHORT}", "?max_tokens=4")
        if number % 10:
            time.sleep(draw.uniform(0, 0.03))
            _leave(client, draw.choice(("FIN", "RST")))
        else:
            answered += _read_to_end(client).endswith(b"0\r\n\r\n")
    _wait(lambda: not server.worker.is_busy and not server.server.connections, "the crowd's end")
    again, after = _say(address), _resources()
    return {
        "answered": answered,
        "same answer as before": said == again,
        "files": f"{before[0]} -> {after[0]}",
        "threads": f"{before[1]} -> {after[1]}",
        "memory MB": f"{before[2]:.1f} -> {after[2]:.1f}",
    }


# The likeliest answer, which depends on the whole context.
def _say(address: Address) -> bytes:
    response = _read_to_end(_ask(address, _SHORT, "?temperature=0&max_tokens=20"))
    return response.partition(b"\r\n\r\n")[2]


def _resources() -> tuple[int, int, float]:
    status = Path("/proc/self/status").read_text()
    resident = int(status.partition("VmRSS:")[2].split()[0]) / 1000
    return len([*Path("/proc/self/fd").iterdir()]), threading.active_count(), resident


def _is_queue(server: RunningServer, length: int) -> bool:
    return server.worker.waiting == length


# How much later than the end of the answer before it a prompt's first byte comes, when
# those between them have left, beyond what it takes when there were none.
def _burst(server: RunningServer) -> list[float]:
    waits: dict[int, list[float]] = {0: [], _BURST: []}
    address = server.address
    for _ in range(5):
        for crowd, seconds in waits.items():
            in_queue = crowd + 1
            first = _ask(address, _SHORT, "?max_tokens=100&ignore_eos=true&seed=1")
            _wait(lambda: server.stage() is Stage.DECODE, "the first answer")
            between = [_ask(address, _SHORT) for _ in range(crowd)]
            last = _ask(address, f"{_SHORT} Tell me.", "?max_tokens=1")
            _wait(partial(_is_queue, server, in_queue), "the queue")
            for client in between:
                _leave(client, "FIN")
            _read_to_end(first)
            ended_at = time.perf_counter()
            last.recv(1)
            seconds.append(time.perf_counter() - ended_at)
            _read_to_end(last)
    usual = statistics.median(waits[0])
    return [wait - usual for wait in waits[_BURST]]


# -- vanishing ----------------------------------------------------------------------------


# Seconds beyond the timeout until the model was free; empty where no namespace can be made.
def _vanish(settings: EngineSettings, times: int) -> list[float]:
    if not times:
        return []
    options = replace(
        measured_options(),
        host=_SERVER_IP,
        vanished_timeout=_VANISHED_TIMEOUT_S,
        max_tokens=1500,
    )
    try:
        with _cable() as (namespace, cut), RunningServer(settings, options) as server:
            tries = [_vanish_once(server, namespace, cut) for _ in range(times)]
            return [seconds for seconds in tries if seconds is not None]
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"nobody can vanish here: {error}", file=sys.stderr)
        return []


# None if the answer ended by itself before the server noticed.
def _vanish_once(
    server: RunningServer, namespace: str, cut: Callable[[bool], None]
) -> float | None:
    program = (
        "import socket, sys\n"
        f"client = socket.create_connection(({_SERVER_IP!r}, {server.port}))\n"
        "client.sendall(b'POST /prompt?max_tokens=1500&ignore_eos=true HTTP/1.1\\r\\nHost: a\\r\\n"
        "Content-Length: 23\\r\\n\\r\\nTell me a long story...')\n"
        "while client.recv(65536): pass\n"
    )
    command = ["ip", "netns", "exec", namespace, sys.executable, "-c", program]
    process = subprocess.Popen(command)
    try:
        _wait(lambda: server.stage() is Stage.DECODE, "an answer over the cable")
        left_at = time.perf_counter()
        cut(True)
        _wait(lambda: not server.worker.is_busy, "an idle model")
        cut(False)
        last = server.worker.last
        if last is None or last.finish is not Finish.CANCELLED:
            return None
        return server.watch.freed_at - left_at - _VANISHED_TIMEOUT_S
    finally:
        process.kill()
        process.wait()


# A network namespace at the other end of a cable that can be cut.
@contextmanager
def _cable() -> Iterator[tuple[str, Callable[[bool], None]]]:
    name = f"bench{os.getpid()}"
    ours, theirs = f"b{os.getpid()}a"[-15:], f"b{os.getpid()}b"[-15:]
    run = partial(subprocess.run, check=True, capture_output=True)
    run(["ip", "netns", "add", name])
    try:
        run(["ip", "link", "add", ours, "type", "veth", "peer", "name", theirs])
        run(["ip", "link", "set", theirs, "netns", name])
        run(["ip", "address", "add", f"{_SERVER_IP}/24", "dev", ours])
        run(["ip", "link", "set", ours, "up"])
        inside = ["ip", "netns", "exec", name, "ip"]
        run([*inside, "address", "add", f"{_CLIENT_IP}/24", "dev", theirs])

        def cut(is_cut: bool) -> None:
            # Nothing of the client's gets out any more, and nothing tells the server so.
            run([*inside, "route", "add" if is_cut else "del", "blackhole", _SERVER_IP])

        run([*inside, "link", "set", theirs, "up"])
        yield name, cut
    finally:
        run(["ip", "netns", "del", name])


if __name__ == "__main__":
    main()
