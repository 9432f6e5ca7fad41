"""A measurement's options and its output: card, table, one JSON line, and a file of the same."""

import argparse
import json
import os
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.kit.card import machine_card

# The default folder is ignored by git.
RESULTS = Path(os.environ.get("BENCH_RESULTS") or Path(__file__).parents[1] / "results")


def read_options(
    doc: str | None, short: Mapping[str, int] | None = None, **defaults: float | str
) -> argparse.Namespace:
    """Read the command line: a value for each default, and --short.

    Args:
        doc: the script's docstring; its first line describes it.
        short: what --short sets; None if there is no such option.
        **defaults: the default of each value, by name.
    """
    parser = argparse.ArgumentParser(description=(doc or "").partition("\n")[0])
    for name, value in defaults.items():
        parser.add_argument(f"--{name}", type=type(value), default=value, help=f"default: {value}")
    if short is not None:
        values = ", ".join(f"{value} {name}" for name, value in short.items())
        parser.add_argument("--short", action="store_true", help=values or "same as without it")
    options = parser.parse_args()
    if short and options.short:
        vars(options).update(short)
    return options


class Report:
    """One measurement's output, begun with the machine's card."""

    def __init__(self, name: str, model: Path | None, **facts: object) -> None:
        self._name = name
        self._card = machine_card(model) | facts
        for fact, value in self._card.items():
            print(f"{fact:15} {value}")
        print()

    def finish(self, **figures: object) -> None:
        """Print everything as the one JSON line, and keep it in `RESULTS` as NAME.json."""
        line = json.dumps({"bench": self._name, "card": self._card} | figures)
        try:
            RESULTS.mkdir(exist_ok=True)
            (RESULTS / f"{self._name}.json").write_text(line + "\n")
        except OSError as error:  # in a container whose file system is read-only
            note(f"not kept in {RESULTS}: {error.strerror}")
        print(f"\n{line}")


def print_spreads(rows: Mapping[str, Sequence[float]], unit: str = "") -> None:
    """Print median, least and most of each row's samples."""
    print(f"{unit:34} {'median':>8} {'min':>8} {'max':>8}")
    for name, values in rows.items():
        spread = (statistics.median(values), min(values), max(values)) if values else ()
        print(f"{name:34} " + " ".join(f"{value:8.3g}" for value in spread))


def note(line: str) -> None:
    """Show progress."""
    print(line, file=sys.stderr, flush=True)
