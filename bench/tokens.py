"""How fast are tokens decoded and prompts read, and what does the server itself cost?

Measured in pairs, in one run: through HTTP, then the same evaluations of the same model in this
process with nothing around them (no sampling, no text, no network). The latter is the ceiling:
no server on this engine can be faster. Prefill's ceiling uses the largest batches, which in
ctransformers no cancel could interrupt.

    python -m bench.tokens                --short: fewer pairs; --engine NAME
    python -m bench.tokens --bare 1       the ceiling alone: decode and prefill in tokens/s

Run nothing else at the same time: ggml's threads spin, and any load on their cores distorts both.
"""

import os
from argparse import Namespace
from dataclasses import replace

from bench.kit.client import STORY, Address, ask, memory_bytes
from bench.kit.decode import WARM_UP_TOKENS, decode_speed, prefill_seconds, prompt_tokens
from bench.kit.report import Report, note, print_spreads, read_options
from bench.kit.server import running_server
from bench.kit.subject import measured_options, measured_settings
from server.model.engine import Engine
from server.model.loader import load_engine
from server.model.machine.cpus import Cpus
from server.model.machine.governor import GovernorSettings

_TEN_WORDS = "The sea was calm and the olive trees stood still. "


def main() -> None:
    """Run the pairs and print card, table and JSON."""
    short = {"pairs": 3, "tokens": 150, "words": 300}
    options = read_options(
        __doc__, short, pairs=9, tokens=200, words=600, bare=0, engine=measured_options().engine
    )
    os.environ["SOCRATES_ENGINE"] = options.engine  # for the server, too
    settings = measured_settings(measured_options())
    threads = Cpus().usable()
    engine = load_engine(replace(settings, governor=GovernorSettings(threads)))
    if options.bare:
        print(decode_speed(engine, options.tokens), _bare_prefill_speed(engine, options.words))
        return
    report = Report("tokens", settings.model_file, threads=threads, engine=options.engine)
    with running_server() as (pid, address):
        cold_ms = 1000 * ask(address, "Who are you?", "max_tokens=1").first_byte_s
        pairs = [_measure(address, engine, options, n) for n in range(options.pairs)]
        private, mapped = memory_bytes(pid, "RssAnon"), memory_bytes(pid, "RssFile")
    rows = {name: [pair[name] for pair in pairs] for name in pairs[0]}
    print_spreads(rows)
    print(f"first byte of the first question: {cold_ms:.1f} ms")
    print(f"memory in MB: {private / 1e6:.0f} private, {mapped / 1e6:.0f} mapped")
    report.finish(pairs=rows, first_byte_cold_ms=cold_ms, private=private, mapped=mapped)


# One round of all questions, in tokens/s and ms.
def _measure(address: Address, engine: Engine, options: Namespace, number: int) -> dict[str, float]:
    query = f"seed={number}&ignore_eos=true&max_tokens="
    ask(address, STORY, f"{query}{WARM_UP_TOKENS}")
    spoken = ask(address, STORY, f"{query}{options.tokens}")
    decode_speed(engine, WARM_UP_TOKENS, STORY)
    bare = decode_speed(engine, spoken.tokens, STORY)

    question = f"{number}. Tell me, is it better to suffer wrong than to do it?"
    ask(address, STORY, f"{query}{WARM_UP_TOKENS}")
    first = ask(address, question, "max_tokens=1")
    first_bare_s = prefill_seconds(engine, question, first.cached_tokens)

    long = f"{number}. " + _TEN_WORDS * (options.words // 10)
    read = ask(address, long, "max_tokens=1")
    uncached = read.prompt_tokens - read.cached_tokens
    read_bare = uncached / prefill_seconds(engine, long, read.cached_tokens)
    pair = {
        "tokens/s, through HTTP": spoken.tokens_per_second,
        "tokens/s, evaluation only": bare,
        "  their ratio, decode": spoken.tokens_per_second / bare,
        "prompt tokens/s, through HTTP": uncached / read.prefill_s,
        "prompt tokens/s, in large batches": read_bare,
        "  their ratio, prefill": uncached / read.prefill_s / read_bare,
        "ms to the first byte, warm": 1000 * first.first_byte_s,
        "ms of its evaluation only": 1000 * first_bare_s,
        "  the difference": 1000 * (first.first_byte_s - first_bare_s),
    }
    note(f"pair {number + 1}: {pair}")
    return pair


# The better of two tries, after one to warm up.
def _bare_prefill_speed(engine: Engine, words: int) -> float:
    long = _TEN_WORDS * (words // 10)
    tokens = len(prompt_tokens(engine, long)) - 1
    return max([tokens / prefill_seconds(engine, long, 1) for _ in range(3)][1:])


if __name__ == "__main__":
    main()
