"""How soon after a client leaves is the model free, at every stage and for every way to leave?

The real server and model run in this process, so that "free" is the moment at which the engine
releases the prompt, and not when a poll notices. Clients close their sockets (FIN or RST) at random
moments while their prompt waits, in prefill, or in decode. Evaluations begun after the event was
set are counted, too.

    python -m bench.cancel            200 clients; --short: 60
"""

import random
import socket
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from bench.kit.client import LONG, leave, post, read_response
from bench.kit.report import Report, note, print_spreads, read_options
from bench.kit.server import NO_LIMIT, ServerThread, wait_until
from bench.kit.subject import measured_options, measured_settings
from server.model.engine import Engine
from server.model.job import Loading, Progress, Stage
from server.model.loader import EngineSettings, load_engine
from server.model.prompt.writer import Prompt
from server.model.sampler import Sampling
from server.model.worker import State, Worker

_SHORT = "What is virtue?"


class Watched:
    """The server, with a record of when its engine is free and what it does after the event."""

    def __init__(self, settings: EngineSettings) -> None:
        self.freed_at = 0.0
        self.late_evaluations = 0
        self.evaluations: list[tuple[int, float]] = []  # tokens, seconds
        self._settings = settings
        self._cancelled: threading.Event | None = None  # of the running prompt
        options = replace(measured_options(), port=0, log_level="warning", per_client=NO_LIMIT)
        self.thread = ServerThread(options, self._load, "socrates")

    @property
    def worker(self) -> Worker:
        """The worker inside; its public fields may be read from any thread."""
        return self.thread.server.worker

    def stage(self) -> Stage | None:
        """Return the stage of the running prompt."""
        current = self.worker.current
        return None if current is None else current.stage

    def post(self, text: str, query: str = "") -> socket.socket:
        """Send a prompt."""
        return post(("127.0.0.1", self.thread.server.port), f"/prompt?{query}", text)

    def _load(self, loading: Loading, cancelled: threading.Event) -> Engine:
        engine = load_engine(self._settings, loading, cancelled)
        self._generate, self._evaluate = engine.generate, engine.evaluate
        engine.generate = self._watch_prompt  # type: ignore[method-assign]
        engine.evaluate = self._watch_tokens  # type: ignore[method-assign]
        return engine

    def _watch_prompt(
        self, prompt: Prompt, sampling: Sampling, cancelled: threading.Event, progress: Progress
    ) -> Iterator[str]:
        self._cancelled, self.late_evaluations = cancelled, 0
        try:
            yield from self._generate(prompt, sampling, cancelled, progress)
        finally:
            self.freed_at, self._cancelled = time.perf_counter(), None

    def _watch_tokens(self, tokens: Sequence[int], *arguments: Any, **options: Any) -> bool:
        if self._cancelled is not None and self._cancelled.is_set():
            self.late_evaluations += 1
        started = time.perf_counter()
        is_whole = self._evaluate(tokens, *arguments, **options)
        self.evaluations.append((len(tokens), time.perf_counter() - started))
        return is_whole


def main() -> None:
    """Let the clients leave, and print card, tables and JSON."""
    options = read_options(__doc__, {"clients": 60}, clients=200)
    settings = measured_settings(measured_options())
    report = Report("cancel", settings.model_file)
    watched = Watched(settings)
    watched.thread.start()
    wait_until(lambda: watched.worker.state is State.READY, "the model")
    rows, late = _leave_at_random(watched, options.clients)
    rows |= _units(watched)
    watched.thread.close()
    watched.thread.join()
    print_spreads(rows, "ms")
    print(f"\nevaluations begun after the event: at most {max(late)}")
    report.finish(rows=rows, late=late)


# Milliseconds by stage and way, and how many evaluations each began after its event.
def _leave_at_random(watched: Watched, clients: int) -> tuple[dict[str, list[float]], list[int]]:
    draw, rows, late = random.Random(1), defaultdict[str, list[float]](list), [0]
    for number in range(clients):
        way = draw.choice(("FIN", "RST"))
        stage = (Stage.WAITING, Stage.PREFILL, Stage.DECODE)[number % 3]
        if stage is Stage.WAITING:
            seconds: float | None = _leave_while_waiting(watched, number, way, draw)
        else:
            seconds = _leave_at_work(watched, stage, number, way, draw)
            late.append(watched.late_evaluations)
        if seconds is None:
            continue  # the model was quicker than the client
        rows[f"to free, {stage.value}, {way}"].append(1000 * seconds)
        note(f"{number}: {stage.value}, {way}: {1000 * seconds:.1f} ms")
    return dict(sorted(rows.items())), late


# Seconds until a waiting prompt had left the queue.
def _leave_while_waiting(watched: Watched, number: int, way: str, draw: random.Random) -> float:
    before = watched.post(_SHORT, "max_tokens=500&ignore_eos=true")
    wait_until(lambda: watched.stage() is Stage.DECODE, "the answer before")
    client = watched.post(f"{number}. {_SHORT}")
    wait_until(lambda: watched.worker.waiting == 1, "a waiting prompt")
    time.sleep(draw.uniform(0, 0.3))
    left_at = time.perf_counter()
    leave(client, way)
    freed_at = wait_until(lambda: watched.worker.waiting == 0, "an empty queue")
    leave(before, "RST")
    wait_until(lambda: not watched.worker.is_busy, "an idle model")
    return freed_at - left_at


# Seconds until the engine released a prompt at this stage; None if it was past it.
def _leave_at_work(
    watched: Watched, stage: Stage, number: int, way: str, draw: random.Random
) -> float | None:
    text = f"{number}. {LONG if stage is Stage.PREFILL else _SHORT}"
    client = watched.post(text, f"seed={number}&ignore_eos=true")
    wait_until(lambda: watched.stage() is stage, f"the stage {stage.value}")
    time.sleep(draw.uniform(0, 0.3 if stage is Stage.PREFILL else 0.1))
    is_there = watched.stage() is stage
    left_at = time.perf_counter()
    leave(client, way)
    wait_until(lambda: not watched.worker.is_busy, "an idle model")
    return watched.freed_at - left_at if is_there else None


# Milliseconds of one token and of one batch, for comparison.
def _units(watched: Watched) -> dict[str, list[float]]:
    watched.evaluations.clear()
    with watched.post(LONG, "max_tokens=60") as client:
        read_response(client)
    took = [(tokens, 1000 * seconds) for tokens, seconds in watched.evaluations]
    return {
        "one token": [ms for tokens, ms in took if tokens == 1],
        "one batch": [ms for tokens, ms in took if tokens > 1],
    }


if __name__ == "__main__":
    main()
