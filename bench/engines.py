"""How do the two engines compare on one model file: speed, cancelling, memory?

Both servers run from the beginning, one thread for each CPU, and are measured in turn, round by
round, while the other is idle. To measure cancelling, a client leaves 0.3 s into the prefill of a
long prompt; the server itself measures how long the model takes to be free.

    python -m bench.engines           --short: fewer rounds; needs `make llama-cpp`
"""

import re
import time
from contextlib import ExitStack
from urllib.request import urlopen

from bench.kit.client import LONG, STORY, Address, ask, memory_bytes, post
from bench.kit.report import Report, note, print_spreads, read_options
from bench.kit.server import running_server, wait_until
from bench.kit.subject import measured_model
from server.model.files.modelfile import CTRANSFORMERS, LLAMA_CPP
from server.model.machine.cpus import Cpus

_WARM_UP = "max_tokens=16&ignore_eos=true"
_LEFT_AFTER_S = 0.3
_CANCELS = re.compile(r"^socrates_cancel_seconds_(count|sum)\S* (\S+)$", re.M)

Rows = dict[str, list[float]]


def main() -> None:
    """Run the rounds and print card, tables and JSON."""
    options = read_options(__doc__, {"rounds": 3}, rounds=9, tokens=100)
    report = Report("engines", measured_model())
    samples: dict[str, Rows] = {CTRANSFORMERS: {}, LLAMA_CPP: {}}
    with ExitStack() as stack:
        servers = {name: _start(stack, name) for name in samples}
        for number in range(options.rounds):
            for name, (pid, address) in servers.items():
                _measure(address, options.tokens, number, samples[name])
                for part, what in (("RssAnon", "MB private"), ("RssFile", "MB mapped")):
                    samples[name].setdefault(what, []).append(memory_bytes(pid, part) / 1e6)
                note(f"round {number + 1}: {name}")
    for name, rows in samples.items():
        print_spreads(rows, name)
    ours, theirs = samples.values()
    print_spreads(
        {what: [b / a for a, b in zip(ours[what], theirs[what], strict=True)] for what in ours},
        f"{LLAMA_CPP} / {CTRANSFORMERS}",
    )
    report.finish(samples=samples)


def _start(stack: ExitStack, engine: str) -> tuple[int, Address]:
    threads = str(Cpus().usable())
    return stack.enter_context(running_server("--engine", engine, "--threads", threads))


def _measure(address: Address, tokens: int, number: int, rows: Rows) -> None:
    ask(address, STORY, _WARM_UP)  # after a pause the first tokens are slow
    spoken = ask(address, STORY, f"max_tokens={tokens}&seed={number}&ignore_eos=true")
    first = ask(address, f"{number}. Is it better to suffer wrong than to do it?", "max_tokens=1")
    read = ask(address, f"{number}. {LONG[:2000]}", "max_tokens=1")
    figures = {
        "tokens/s": spoken.tokens_per_second,
        "prompt tokens/s": (read.prompt_tokens - read.cached_tokens) / read.prefill_s,
        "ms to the first byte": 1000 * first.first_byte_s,
        "ms until free, cancelled in prefill": 1000 * _cancel(address, number),
    }
    for what, value in figures.items():
        rows.setdefault(what, []).append(value)


def _cancel(address: Address, number: int) -> float:
    cancels, seconds = _read_cancels(address)
    with post(address, "/prompt?max_tokens=1", f"{number}. {LONG}"):
        time.sleep(_LEFT_AFTER_S)
    wait_until(lambda: _read_cancels(address)[0] > cancels, "the cancelled prompt's end")
    return _read_cancels(address)[1] - seconds


# How many prompts were cancelled, and how long that took altogether.
def _read_cancels(address: Address) -> tuple[float, float]:
    with urlopen(f"http://{address[0]}:{address[1]}/metrics") as response:
        found = dict(_CANCELS.findall(response.read().decode()))
    return float(found["count"]), float(found["sum"])


if __name__ == "__main__":
    main()
