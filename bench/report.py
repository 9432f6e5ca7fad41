"""How every measurement is shown: a card, a table, one JSON line, and a file of the same."""

import json
import os
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

# The usual folder is ignored by git.
RESULTS = Path(os.environ.get("BENCH_RESULTS") or Path(__file__).with_name("results"))


def print_card(card: Mapping[str, object]) -> None:
    """One line a fact."""
    for name, value in card.items():
        print(f"{name:15} {value}")
    print()


def print_spreads(rows: Mapping[str, Sequence[float]]) -> None:
    """Median, least and most of each row's samples."""
    print(f"{'':34} {'median':>8} {'min':>8} {'max':>8}")
    for name, values in rows.items():
        median, least, most = statistics.median(values), min(values), max(values)
        print(f"{name:34} {median:8.3g} {least:8.3g} {most:8.3g}")


def finish(name: str, card: Mapping[str, object], figures: Mapping[str, object]) -> None:
    """Print everything as the one JSON line, and leave it in `RESULTS` as NAME.json."""
    line = json.dumps({"bench": name, "card": card} | dict(figures))
    try:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / f"{name}.json").write_text(line + "\n")
    except OSError as error:  # in a container whose file system is read-only
        print(f"not kept in {RESULTS}: {error.strerror}", file=sys.stderr)
    print(f"\n{line}")
