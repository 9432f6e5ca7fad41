"""How much memory does a model take, at which context length?

Each row is a process of its own: it loads the model, fills the whole context, and reads what
the system says of it. Private memory is what must be there; the mapped weights are page
cache, which counts as free memory in most tools, but is read back from the disk at every
token if there is no room for it.

    python -m bench.footprint
    python -m bench.footprint --contexts 512,2048 models/smollm2/*.gguf models/random-7b.bin

The second row of numbers is what server/model/footprint.py reckons before it loads.
"""

import argparse
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

from bench.card import machine_card
from bench.report import finish, print_card
from bench.subject import measured_model, measured_options, measured_settings
from server.model.files import modelfile
from server.model.job import Progress
from server.model.loader import EngineSettings, load_engine

_ORDINARY_TOKEN = 5


def main() -> None:
    """Measure every model at every length and print card, table and JSON."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("models", nargs="*", type=Path, help="files; default: the usual one")
    parser.add_argument(
        "--contexts", type=_numbers, default="512,2048,4096", help="default: 512,2048,4096"
    )
    parser.add_argument("--once", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    models = options.models or [measured_model()]
    if options.once:
        print(*_fill(models[0], options.once))
        return
    for model in models:
        for context in options.contexts:
            _settings(model, context)  # what cannot be measured is told before anything is
    card = machine_card(models[0])
    print_card(card)
    print(f"{'MB':36} {'context':>8} {'private':>8} {'weights':>8} {'cache, reckoned':>16}")
    rows = [_row(model, context) for model in models for context in options.contexts]
    finish("footprint", card, {"rows": rows})


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def _settings(model: Path, context: int) -> EngineSettings:
    return measured_settings(replace(measured_options(), model=str(model), context=context))


def _row(model: Path, context: int) -> dict[str, object]:
    command = [sys.executable, "-m", "bench.footprint", str(model), "--once", str(context)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    private, mapped = (int(text) for text in result.stdout.split())
    reckoned = context * modelfile.inspect(model).cache_bytes_per_token
    print(
        f"{model.name:36} {context:8,} {private / 1e6:8,.0f} {mapped / 1e6:8,.0f} "
        f"{reckoned / 1e6:16,.0f}",
        flush=True,
    )
    return {
        "model": model.name,
        "context": context,
        "private_bytes": private,
        "mapped_bytes": mapped,
        "cache_reckoned_bytes": reckoned,
    }


# Private and file-backed bytes of this process with a full context.
def _fill(model: Path, context: int) -> tuple[int, int]:
    engine = load_engine(_settings(model, context))
    engine.prefill([_ORDINARY_TOKEN] * (context - 1), threading.Event(), Progress())
    return _status_bytes("RssAnon"), _status_bytes("RssFile")


def _status_bytes(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise SystemExit("error: this system does not tell what memory a process has")


if __name__ == "__main__":
    main()
