"""Is it worth building ctransformers for this very CPU (`make native`)?

Two builds in turn, each in a process of its own: the installed one, and one in a directory:

    CFLAGS=-march=native CXXFLAGS=-march=native .venv/bin/pip install --no-deps \
        --no-binary ctransformers --target /tmp/native ctransformers==0.2.27
    python -m bench.builds /tmp/native

Tokens/s of bare evaluations: decode one by one, prompt reading by 64s. Run nothing else.
"""

import argparse
import os
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

from bench.card import machine_card
from bench.report import finish, print_card, print_spreads
from bench.subject import measured_model, measured_options, measured_settings
from server.model.engine import Engine
from server.model.job import Progress
from server.model.loader import load_engine
from server.model.machine.cpus import Cpus
from server.model.machine.governor import GovernorSettings

_TOKENS = list(range(1000, 1512))
_BATCH = 64
_WARM_UP_TOKENS = 16


def main() -> None:
    """Run the pairs and print card, table and JSON; or, with --once, one build's figures."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("other", type=Path, nargs="?", help="directory with another build")
    parser.add_argument("--pairs", type=int, default=5, help="repetitions (default: 5)")
    parser.add_argument("--once", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.once:
        print(*_measure())
        return
    card = machine_card(measured_model())
    print_card(card)
    rows: dict[str, list[float]] = {}
    for number in range(options.pairs):
        pair = {"installed": _in_process(None), "other": _in_process(options.other)}
        for name, figures in pair.items():
            for what, figure in zip(("decode", "reading"), figures, strict=True):
                rows.setdefault(f"{what}, {name}, tokens/s", []).append(figure)
        for index, what in enumerate(("decode", "reading")):
            ratio = pair["other"][index] / pair["installed"][index]
            rows.setdefault(f"{what}, other over installed", []).append(ratio)
        print(f"pair {number + 1}: {pair}", file=sys.stderr)
    print_spreads(dict(sorted(rows.items())))
    finish("builds", card, {"rows": rows})


def _in_process(directory: Path | None) -> tuple[float, float]:
    environment = os.environ | ({"PYTHONPATH": str(directory)} if directory else {})
    command = [sys.executable, "-m", "bench.builds", "--once"]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    decode, reading = result.stdout.split()
    return float(decode), float(reading)


def _measure() -> tuple[float, float]:
    governor = GovernorSettings(Cpus().usable())
    engine = load_engine(replace(measured_settings(measured_options()), governor=governor))
    _read(engine)
    return max(_decode(engine) for _ in range(2)), max(_read(engine) for _ in range(2))


def _decode(engine: Engine) -> float:
    engine.prefill(_TOKENS[:8], threading.Event(), Progress())
    for token in _TOKENS[:_WARM_UP_TOKENS]:
        engine.evaluate([token])
    started = time.perf_counter()
    for token in _TOKENS[:200]:
        engine.evaluate([token])
    return 200 / (time.perf_counter() - started)


def _read(engine: Engine) -> float:
    engine.prefill(_TOKENS[:8], threading.Event(), Progress())
    rest = _TOKENS[8:]
    started = time.perf_counter()
    for at in range(0, len(rest), _BATCH):
        engine.evaluate(rest[at : at + _BATCH])
    return len(rest) / (time.perf_counter() - started)


if __name__ == "__main__":
    main()
