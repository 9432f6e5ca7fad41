"""Draws what the last runs found: bench/results/*.json to one picture.

Three panels, each only if its measurement was made: tokens/s by threads and world, first-byte
times, and milliseconds from a client's leaving to a free model.

    python -m bench.plot [FILE]        default: bench/results/plot.svg; wants `make rivals`
"""

import argparse
import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.report import RESULTS

_COLOURS = ("#7a8ca5", "#c2a878", "#2f5d62")


def main() -> None:
    """Draw every panel there are figures for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("file", type=Path, nargs="?", default=RESULTS / "plot.svg")
    file = parser.parse_args().file
    import matplotlib

    matplotlib.use("svg" if file.suffix == ".svg" else "agg")
    matplotlib.rcParams["svg.hashsalt"] = "socrates"  # the same figures give the same file
    from matplotlib import pyplot

    panels: dict[str, Callable[[Any, dict[str, Any]], None]] = {
        "threads": _draw_threads,
        "tokens": _draw_first_bytes,
        "cancel": _draw_cancels,
    }
    found = {name: path for name in panels if (path := RESULTS / f"{name}.json").exists()}
    if not found:
        raise SystemExit("error: no results yet: run `make bench` first")
    figure, axes = pyplot.subplots(1, len(found), figsize=(5 * len(found), 4), squeeze=False)
    card: dict[str, Any] = {}
    for axis, (name, path) in zip(axes[0], found.items(), strict=True):
        result = json.loads(path.read_text())
        card = result["card"]
        panels[name](axis, result)
        axis.spines[["top", "right"]].set_visible(False)
    figure.suptitle(f"{card['cpu']}, {card['usable_cores']} cores, {card['date']}", fontsize=10)
    figure.tight_layout()
    figure.savefig(file, metadata={"Date": None} if file.suffix == ".svg" else None)
    print(file)


def _draw_threads(axis: Any, result: dict[str, Any]) -> None:
    worlds = list(result["speeds"])
    counts = list(result["speeds"][worlds[0]])
    width = 0.8 / len(counts)
    for index, count in enumerate(counts):
        samples = [result["speeds"][world][count] for world in worlds]
        heights = [statistics.median(values) if values else 0 for values in samples]
        places = [place + index * width for place in range(len(worlds))]
        label = count if count == "governor" else f"{count} thread" + "s" * (count != "1")
        axis.bar(places, heights, width, label=label, color=_COLOURS[index % len(_COLOURS)])
        for place, values in zip(places, samples, strict=True):
            axis.plot([place] * len(values), values, ".", color="black", markersize=3)
    middle = 0.4 - width / 2
    axis.set_xticks([place + middle for place in range(len(worlds))], worlds, fontsize=7)
    axis.set_title("tokens/s by threads and world")
    axis.legend(frameon=False, fontsize=8)


def _draw_first_bytes(axis: Any, result: dict[str, Any]) -> None:
    rows = {
        "first byte": result["pairs"]["ms to the first byte, warm"],
        "evaluation only": result["pairs"]["ms of its evaluation only"],
    }
    _draw_strips(axis, rows)
    axis.set_title("ms to the first byte, 22 new tokens")


def _draw_cancels(axis: Any, result: dict[str, Any]) -> None:
    rows = {
        name.removeprefix("ms to free, ").removeprefix("ms of "): values
        for name, values in result["rows"].items()
        if name.startswith(("ms to free", "ms of one"))
    }
    _draw_strips(axis, rows)
    axis.set_title("ms from leaving to a free model")


# Every sample a dot, the median a line.
def _draw_strips(axis: Any, rows: dict[str, list[float]]) -> None:
    for index, values in enumerate(rows.values()):
        spread = [index + 0.3 * (number / len(values) - 0.5) for number in range(len(values))]
        axis.plot(spread, values, ".", color=_COLOURS[2], alpha=0.5)
        axis.hlines(statistics.median(values), index - 0.3, index + 0.3, color=_COLOURS[1])
    axis.set_xticks(range(len(rows)), rows, fontsize=7, rotation=20)
    axis.set_ylim(bottom=0)


if __name__ == "__main__":
    main()
