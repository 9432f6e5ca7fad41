"""How fast does Socrates speak and read, and how much of the machine does the server cost?

Measured in pairs, in one run: through HTTP, then the same evaluations of the same model in this
process with nothing around them (no sampling, no text, no network). The latter is the ceiling:
no server on ctransformers can be faster. Quoted are medians; every sample is in the JSON line.

  speaking    tokens/s between the first piece and the last
  reading     prompt tokens/s of a long prompt, and of the same tokens in calls into ggml as
              large as it takes, which no cancel could interrupt
  first byte  of a short question that was not asked before, next to the bare evaluation of
              its uncached tokens; cold: of the very first question after the start

    python -m bench.tokens                       starts a server of its own
    python -m bench.tokens --url http://pi:8080  asks a running one; the ceiling is still
                                                 this machine's, so run it on the same
    python -m bench.tokens --short               fewer pairs

Run nothing else meanwhile: ggml's threads spin, and any load on their cores falsifies both.
"""

import argparse
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

from bench.bandwidth import bytes_per_second
from bench.card import machine_card
from bench.client import ask, peak_memory_bytes, running_server_process
from bench.report import finish, print_card, print_spreads
from bench.subject import measured_options, measured_settings
from server.model.context import LARGEST_BATCH
from server.model.engine import Engine
from server.model.job import Progress
from server.model.loader import load_engine
from server.model.machine.cpus import Cpus
from server.model.machine.governor import GovernorSettings
from server.model.prompt.conversation import Conversation

_STORY = "Tell me a long story about a man who walked from Athens to the sea."
# Before each measurement, in the same process: after a pause the first tokens take up to five
# times as long, until the kernel has the pages at hand and ggml's threads on cores apart.
_WARM_UP_TOKENS = 16

_TEN_WORDS = "The sea was calm and the olive trees stood still. "

Address = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Pair:
    """One round of all questions. Speeds in tokens/s, times in ms."""

    speaking: float
    speaking_bare: float
    reading: float
    reading_bare: float
    first_byte_ms: float
    first_bare_ms: float

    @property
    def speaking_ratio(self) -> float:
        """What is left of the ceiling."""
        return self.speaking / self.speaking_bare

    @property
    def reading_ratio(self) -> float:
        """What batches that a cancel can stop leave of the speed of large calls."""
        return self.reading / self.reading_bare

    @property
    def first_extra_ms(self) -> float:
        """What the first byte took beyond reading."""
        return self.first_byte_ms - self.first_bare_ms


def main() -> None:
    """Run the pairs and print card, table and JSON."""
    options = _parse()
    chosen = replace(measured_options(), model=options.model, persona=options.persona)
    settings = measured_settings(chosen)
    threads = options.threads or Cpus().usable()
    bandwidth = bytes_per_second(threads)
    card = machine_card(settings.model_file) | {"threads": threads, "bytes_per_s": bandwidth}
    print_card(card)
    ceiling = bandwidth / settings.model_file.stat().st_size
    print(f"memory gives {bandwidth / 1e9:.1f} GB/s: {ceiling:.0f} tokens/s, or more as far as")
    print("the processor's caches hold the model\n")
    engine = load_engine(replace(settings, governor=GovernorSettings(threads)))
    engine.prefill_persona(threading.Event(), Progress())
    with _server(options) as (pid, address):
        cold_ms = 1000 * ask(address, "Who are you?", "max_tokens=1").first_byte_s
        pairs = [_measure(address, engine, options, n) for n in range(options.pairs)]
        peak = peak_memory_bytes(pid) if pid else None
    _report(card, pairs, cold_ms, peak)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--url", help="a running server; default: start one")
    parser.add_argument("--model", default=measured_options().model, help="name or path")
    parser.add_argument("--persona", help="name or path (default: the model's own)")
    parser.add_argument("--threads", type=int, help="of the ceiling; default: usable CPUs")
    parser.add_argument("--pairs", type=int, default=9, help="repetitions (default: 9)")
    parser.add_argument("--tokens", type=int, default=200, help="most tokens (default: 200)")
    parser.add_argument("--words", type=int, default=600, help="of the long prompt (default: 600)")
    parser.add_argument("--short", action="store_true", help="3 pairs of 150 tokens and 300 words")
    options = parser.parse_args()
    if options.short:
        options.pairs, options.tokens, options.words = 3, 150, 300
    return options


# Its process id, or None for one that runs already, and its address.
@contextmanager
def _server(options: argparse.Namespace) -> Iterator[tuple[int | None, Address]]:
    if options.url:
        url = urlsplit(options.url)
        yield None, (url.hostname or "127.0.0.1", url.port or 80)
    else:
        persona = ("--persona", options.persona) if options.persona else ()
        arguments = ("--model", options.model, *persona)
        with running_server_process(*arguments) as (pid, port):
            yield pid, ("127.0.0.1", port)


def _measure(address: Address, engine: Engine, options: argparse.Namespace, number: int) -> Pair:
    # The seed makes the run repeatable.
    query = f"ignore_eos=true&seed={number}&max_tokens="
    ask(address, _STORY, f"{query}{_WARM_UP_TOKENS}")
    spoken = ask(address, _STORY, f"{query}{options.tokens}")
    _speak_bare(engine, _WARM_UP_TOKENS)
    speaking_bare = _speak_bare(engine, spoken.tokens)

    question = f"{number}. Tell me, is it better to suffer wrong than to do it?"
    ask(address, _STORY, f"{query}{_WARM_UP_TOKENS}")
    first = ask(address, question, "max_tokens=1")
    first_bare_s = _read_bare(engine, question, first.cached_tokens)

    long = f"{number}. " + _TEN_WORDS * (options.words // 10)
    read = ask(address, long, "max_tokens=1")
    uncached = read.prompt_tokens - read.cached_tokens
    pair = Pair(
        speaking=spoken.tokens_per_second,
        speaking_bare=speaking_bare,
        reading=uncached / read.reading_s,
        reading_bare=uncached / _read_bare(engine, long, read.cached_tokens),
        first_byte_ms=1000 * first.first_byte_s,
        first_bare_ms=1000 * first_bare_s,
    )
    print(f"pair {number + 1}: {pair}", file=sys.stderr)
    return pair


# Tokens per second of evaluation alone, behind the same prompt.
def _speak_bare(engine: Engine, tokens: int) -> float:
    prompt = engine.write_prompt(Conversation(_STORY)).tokens
    engine.prefill(prompt, threading.Event(), Progress())
    started = time.perf_counter()
    for index in range(tokens):
        engine.evaluate([prompt[index % len(prompt)]])
    return tokens / (time.perf_counter() - started)


# Seconds for all of the prompt but its first `cached` tokens, in calls as large as ggml takes.
def _read_bare(engine: Engine, text: str, cached: int) -> float:
    prompt = engine.write_prompt(Conversation(text)).tokens
    engine.prefill(prompt[:cached], threading.Event(), Progress())
    started = time.perf_counter()
    for at in range(cached, len(prompt), LARGEST_BATCH):
        engine.evaluate(prompt[at : at + LARGEST_BATCH])
    return time.perf_counter() - started


def _report(
    card: dict[str, object], pairs: list[Pair], cold_ms: float, peak_bytes: int | None
) -> None:
    rows = {
        "tokens/s, through HTTP": [pair.speaking for pair in pairs],
        "tokens/s, evaluation only": [pair.speaking_bare for pair in pairs],
        "  their ratio, speaking": [pair.speaking_ratio for pair in pairs],
        "prompt tokens/s, through HTTP": [pair.reading for pair in pairs],
        "prompt tokens/s, in large calls": [pair.reading_bare for pair in pairs],
        "  their ratio, reading": [pair.reading_ratio for pair in pairs],
        "ms to the first byte, warm": [pair.first_byte_ms for pair in pairs],
        "ms of its evaluation only": [pair.first_bare_ms for pair in pairs],
        "  the difference": [pair.first_extra_ms for pair in pairs],
    }
    print_spreads(rows)
    peak = f"{peak_bytes / 1e6:.0f} MB" if peak_bytes else "unknown"
    print(f"first byte of the first question: {cold_ms:.1f} ms; peak memory of the server: {peak}")
    figures = {"pairs": rows, "first_byte_cold_ms": cold_ms, "peak_bytes": peak_bytes}
    finish("tokens", card, figures)


if __name__ == "__main__":
    main()
