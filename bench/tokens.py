"""How fast does Socrates speak, and how much of the machine's speed does the server cost?

Measured in pairs, in one run: an answer through HTTP, then as many evaluations of the same
model in this process with nothing around them (no sampling, no text, no network), behind a
prompt of the same length. The latter is the ceiling: no server on ctransformers can be
faster. Quoted are medians; every sample is in the JSON line at the end.

    python -m bench.tokens                       starts a server of its own
    python -m bench.tokens --url http://pi:8080  asks a running one; the ceiling is still
                                                 this machine's, so run it on the same

Run nothing else meanwhile: ggml's threads spin, and any load on their cores falsifies both.
"""

import argparse
import json
import statistics
import sys
import threading
import time
from contextlib import AbstractContextManager, nullcontext
from urllib.parse import urlsplit

from bench.card import machine_card
from bench.client import Timing, ask, running_server
from server.lifecycle import engine_settings
from server.model.engine import Engine, Progress
from server.model.errors import ModelFileError
from server.options import Options

_PROMPT = "Tell me a long story about a man who walked from Athens to the sea."
# Before each measurement, in the same process: after a pause the first tokens take up to five
# times as long, until the kernel has the pages at hand and ggml's threads on cores apart.
_WARM_UP_TOKENS = 16


def main() -> None:
    """Run the pairs and print card, table and JSON."""
    options = _parse()
    try:
        settings = engine_settings(Options(model=options.model, threads=options.threads))
    except ModelFileError as error:
        raise SystemExit(f"error: {error}") from error
    threads = settings.threads
    card = machine_card(settings.model_file) | {"threads": threads}
    for name, value in card.items():
        print(f"{name:15} {value}")
    engine = Engine.load(settings)
    engine.read_persona(threading.Event())
    if options.url:
        url = urlsplit(options.url)
        server: AbstractContextManager[tuple[str, int]] = nullcontext(
            (url.hostname or "127.0.0.1", url.port or 80)
        )
    else:
        server = running_server("--model", options.model, "--threads", str(threads))
    with server as address:
        pairs = [_measure(address, engine, options.tokens, n) for n in range(options.pairs)]
    _report(card, pairs)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--url", help="a running server; default: start one")
    parser.add_argument("--model", default="smollm2", help="name or path (default: smollm2)")
    parser.add_argument("--threads", type=int, help="default: what the machine gives")
    parser.add_argument("--pairs", type=int, default=7, help="repetitions (default: 7)")
    parser.add_argument("--tokens", type=int, default=150, help="most tokens (default: 150)")
    return parser.parse_args()


# One pair: through HTTP and bare, of the same length.
def _measure(
    address: tuple[str, int], engine: Engine, tokens: int, number: int
) -> tuple[Timing, float]:
    # Hot, so that the answer is long; the seed makes the run repeatable.
    query = f"temperature=1.2&seed={number}&max_tokens="
    ask(address, _PROMPT, f"{query}{_WARM_UP_TOKENS}")
    timing = ask(address, _PROMPT, f"{query}{tokens}")
    _evaluate_only(engine, _WARM_UP_TOKENS)
    ceiling = _evaluate_only(engine, timing.tokens)
    print(
        f"pair {number + 1}: {timing.tokens} tokens, {timing.tokens_per_second:.1f} tokens/s "
        f"through HTTP, {ceiling:.1f} bare, first byte {1000 * timing.first_byte_s:.0f} ms",
        file=sys.stderr,
    )
    return timing, ceiling


# Tokens per second of evaluation alone, behind the same prompt.
def _evaluate_only(engine: Engine, tokens: int) -> float:
    prompt = engine.write_prompt(_PROMPT)
    engine.read(prompt, threading.Event(), Progress())
    started = time.perf_counter()
    for token in prompt[:tokens] + [prompt[-1]] * (tokens - len(prompt[:tokens])):
        engine.evaluate([token])
    return tokens / (time.perf_counter() - started)


def _report(card: dict[str, object], pairs: list[tuple[Timing, float]]) -> None:
    through = [timing.tokens_per_second for timing, _ in pairs]
    bare = [ceiling for _, ceiling in pairs]
    ratios = [timing.tokens_per_second / ceiling for timing, ceiling in pairs]
    first = [1000 * timing.first_byte_s for timing, _ in pairs]
    print(f"\n{'':28} {'median':>8} {'min':>8} {'max':>8}")
    rows = {
        "tokens/s through HTTP": through,
        "tokens/s evaluation only": bare,
        "ratio, pair by pair": ratios,
        "ms to the first byte": first,
    }
    for name, values in rows.items():
        median, least, most = statistics.median(values), min(values), max(values)
        print(f"{name:28} {median:8.3g} {least:8.3g} {most:8.3g}")
    cached, prompt = pairs[-1][0].cached_tokens, pairs[-1][0].prompt_tokens
    print(f"prompt of {prompt} tokens, {cached} of them reused\n")
    samples = {
        "card": card,
        "tokens": [timing.tokens for timing, _ in pairs],
        "http_tokens_per_second": through,
        "bare_tokens_per_second": bare,
        "ratio": ratios,
        "first_byte_ms": first,
        "median_ratio": statistics.median(ratios),
    }
    print(json.dumps(samples))


if __name__ == "__main__":
    main()
