"""How do others serve the same model file on the same machine?

Three servers, started before the first measurement and idle while another is measured: ours;
llama-cpp-python's; and Flask with waitress and ctransformers. Prompts of about the same length
(425 tokens of persona before the question), the same limits and temperature; in turn, in rounds.
Busy: a client leaves 0.3 s into the prefill of a long prompt; how much longer than on an idle
server does the next one wait for its first byte?

    python -m bench.compare        needs `make rivals`; llama-cpp-python: pip install
                                   'llama-cpp-python[server]==0.3.36' (compiles for minutes)
"""

import importlib.util
import json
import re
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from bench.kit.client import LONG, STORY, Address, field, post, read_response
from bench.kit.report import Report, note, print_spreads, read_options
from bench.kit.server import free_port, running
from server.model.files.catalog import CATALOG
from server.model.machine.cpus import Cpus
from server.model.prompt.persona import find_persona, load_persona

_LEFT_AFTER_S = 0.3
_TEMPERATURE = 0.8

Request = tuple[str, str, str]  # target, body, content type
Samples = dict[str, list[float]]


@dataclass(frozen=True, slots=True)
class Rival:
    """A server: how to request an answer of a given length, and how to count its tokens."""

    address: Address
    request: Callable[[str, int], Request]
    count: Callable[[bytes], int]

    def ask(self, question: str, tokens: int) -> tuple[float, float]:
        """Return the seconds to the first byte of the body, and the tokens/s after it."""
        started = time.perf_counter()
        with post(self.address, *self.request(question, tokens)) as client:
            data, first, last = read_response(client)
        assert data.startswith(b"HTTP/1.1 200 "), data
        return first - started, (self.count(data) - 1) / (last - first)


def main() -> None:
    """Run the rounds and print card, table and JSON."""
    options = read_options(__doc__, rounds=5, tokens=100)
    model = CATALOG["smollm2"].path
    report = Report("compare", model)
    with ExitStack() as stack:
        rivals = _start_all(stack, model)
        samples: dict[str, Samples] = {name: {} for name in rivals}
        for number in range(options.rounds):
            for name, rival in rivals.items():
                _measure(rival, options.tokens, number, samples[name])
                note(f"round {number + 1}: {name}: {samples[name]}")
    for name, rows in samples.items():
        print_spreads(rows, name)
    report.finish(samples=samples)


def _start_all(stack: ExitStack, model: Path) -> dict[str, Rival]:
    def start(*arguments: str) -> Address:
        address = ("127.0.0.1", free_port())
        command = [sys.executable, "-m", *arguments]
        command = [part.replace("PORT", str(address[1])) for part in command]
        stack.enter_context(running(command, address, stderr=subprocess.DEVNULL))
        return address

    rivals = {
        "ours": Rival(
            start("server", "--model", "smollm2", "--log-level", "warning", "--port", "PORT"),
            lambda question, tokens: (
                f"/prompt?max_tokens={tokens}&temperature={_TEMPERATURE}", question, "text/plain"
            ),
            lambda data: int(field(data, "Socrates-Tokens: (\\d+)")),
        ),
        "Flask + waitress": Rival(
            start("bench.rivals", "talking", "PORT", str(model)),
            lambda question, tokens: (
                f"/?max_tokens={tokens}", _with_persona(question), "text/plain"
            ),
            lambda data: len(re.findall(rb"\r\n[0-9a-f]+\r\n", data.lower())) - 1,
        ),
    }  # fmt: skip
    if not importlib.util.find_spec("starlette_context"):  # only its server needs that
        note("llama-cpp-python's server is not installed: left out")
        return rivals
    rivals["llama-cpp-python"] = Rival(
        start("llama_cpp.server", "--model", str(model), "--n_threads", str(Cpus().usable()),
              "--n_ctx", "2048", "--interrupt_requests", "False", "--port", "PORT"),
        lambda question, tokens: ("/v1/completions", json.dumps(
            {"prompt": _with_persona(question), "max_tokens": tokens, "stream": True,
             "temperature": _TEMPERATURE}), "application/json"),
        lambda data: data.count(b"data: {"),
    )  # fmt: skip
    return rivals


# Our server adds the persona itself.
def _with_persona(question: str) -> str:
    persona = load_persona(find_persona("socrates"))
    turns = [f"Visitor: {turn.question}\nSocrates: {turn.answer}" for turn in persona.examples]
    return "\n".join([persona.system, *turns, f"Visitor: {question}\nSocrates:"])


def _measure(rival: Rival, tokens: int, number: int, rows: Samples) -> None:
    rival.ask(STORY, 16)  # after a pause the first tokens are slow
    _, speed = rival.ask(STORY, tokens)
    idle_s, _ = rival.ask(STORY, 8)
    with post(rival.address, *rival.request(f"{number}. {LONG}", 8)):
        time.sleep(_LEFT_AFTER_S)
    busy_s, _ = rival.ask(STORY, 8)
    rows.setdefault("tokens/s", []).append(speed)
    rows.setdefault("ms to the first byte", []).append(1000 * idle_s)
    rows.setdefault("s busy for a client that left", []).append(busy_s - idle_s)


if __name__ == "__main__":
    main()
