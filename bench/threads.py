"""Does the thread governor find the best thread count in every world, and how soon?

Four worlds: nothing else runs; another process burns one core; a CFS quota leaves 1.5 CPUs
(wants root and a writable cgroup); affinity leaves one CPU. In each, answers of 200 tokens
are evaluated by every fixed count that may be used and by the governor, in turn, and the
governor's speed is divided by that of the best fixed count, round by round.

Then every change from one world to another: 20 tokens behind it, how fast are the next 100,
again over the new world's best fixed count, measured there and then?

    python -m bench.threads

Run nothing else meanwhile.
"""

import argparse
import itertools
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path

from bench.card import machine_card
from bench.report import finish, print_card
from bench.subject import measured_options, measured_settings
from server.model.engine import Engine
from server.model.job import Progress
from server.model.loader import load_engine
from server.model.machine.cpus import Cpus
from server.model.machine.governor import GovernorSettings
from server.model.prompt.conversation import Conversation

_PROMPT = "What is virtue?"
_AUTO = "governor"
_WARM_UP_TOKENS = 16
_FOUND_TOKENS = 20
_CHANGE_TOKENS = 100
_QUOTA_CPUS = 1.5
_PERIOD_US = 100_000

World = Callable[[], AbstractContextManager[object]]


def main() -> None:
    """Measure the worlds and the changes, and print card, tables and JSON."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3, help="default: 3")
    parser.add_argument("--tokens", type=int, default=200, help="of an answer (default: 200)")
    parser.add_argument("--short", action="store_true", help="1 round, no changes of world")
    options = parser.parse_args()
    if options.short:
        options.rounds = 1
    settings = measured_settings(measured_options())
    card = machine_card(settings.model_file)
    print_card(card)
    cpus = Cpus().usable()
    engines = {
        str(count): load_engine(replace(settings, governor=GovernorSettings(count)))
        for count in range(1, cpus + 1)
    } | {_AUTO: load_engine(settings)}
    worlds = _worlds()
    speeds = {
        name: _measure(name, world, engines, options.rounds, options.tokens)
        for name, world in worlds.items()
    }
    ratios = _report_speeds(speeds, list(engines))
    changes = {} if options.short else _measure_changes(engines, worlds, speeds, options.rounds)
    finish("threads", card, {"speeds": speeds, "ratios": ratios, "ratios_behind_changes": changes})


# -- worlds -------------------------------------------------------------------------------


def _worlds() -> dict[str, World]:
    worlds: dict[str, World] = {"idle": nullcontext, "one core burning": _burning}
    if quota := _quota_directory():
        worlds["quota of 1.5 CPUs"] = lambda: _limited_by_quota(quota)
    else:
        print("no world with a quota: cgroups cannot be written here", file=sys.stderr)
    if hasattr(os, "sched_setaffinity") and len(os.sched_getaffinity(0)) > 1:
        worlds["affinity to one CPU"] = _on_one_cpu
    return worlds


@contextmanager
def _burning() -> Iterator[None]:
    program = "print('burning', flush=True)\nwhile True: pass"
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        process.stdout.readline()
        yield
    finally:
        process.kill()
        process.wait()


@contextmanager
def _on_one_cpu() -> Iterator[None]:
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


# A cgroup of our own with room for quotas: version 1 under cpu/, version 2 at the root.
def _quota_directory() -> Path | None:
    for parent, file in (("cpu", "cpu.cfs_quota_us"), (".", "cpu.max")):
        directory = Path("/sys/fs/cgroup") / parent / f"bench-threads-{os.getpid()}"
        try:
            directory.mkdir()
            if (directory / file).exists():
                return directory
            directory.rmdir()
        except OSError:
            continue
    return None


@contextmanager
def _limited_by_quota(directory: Path) -> Iterator[None]:
    directory.mkdir(exist_ok=True)
    quota = f"{round(_QUOTA_CPUS * _PERIOD_US)}"
    if (directory / "cpu.max").exists():
        (directory / "cpu.max").write_text(f"{quota} {_PERIOD_US}")
    else:
        (directory / "cpu.cfs_quota_us").write_text(quota)
    (directory / "cgroup.procs").write_text(str(os.getpid()))
    try:
        yield
    finally:
        (directory.parent / "cgroup.procs").write_text(str(os.getpid()))
        directory.rmdir()


# -- measuring ----------------------------------------------------------------------------


# Tokens a second by round, of every fixed count and the governor.
def _measure(
    name: str, world: World, engines: dict[str, Engine], rounds: int, tokens: int
) -> dict[str, list[float]]:
    speeds: dict[str, list[float]] = {count: [] for count in engines}
    with world():
        usable = Cpus().usable()
        for number in range(rounds):
            for count, engine in engines.items():
                if count != _AUTO and int(count) > usable:
                    continue  # a token a second
                _decode(engine, _WARM_UP_TOKENS)
                speeds[count].append(_decode(engine, tokens))
                print(f"{name}, round {number + 1}: {count}: {speeds[count][-1]:.1f} tokens/s",
                      file=sys.stderr)  # fmt: skip
    return speeds


def _decode(engine: Engine, tokens: int) -> float:
    prompt = engine.write_prompt(Conversation(_PROMPT)).tokens
    engine.prefill(prompt, threading.Event(), Progress())
    started = time.perf_counter()
    for index in range(tokens):
        engine.evaluate([prompt[index % len(prompt)]])
    return tokens / (time.perf_counter() - started)


def _report_speeds(
    speeds: dict[str, dict[str, list[float]]], counts: list[str]
) -> dict[str, list[float]]:
    columns = [f"{count} threads" for count in counts if count != _AUTO]
    print(f"{'median tokens/s':22}" + "".join(f"{name:>12}" for name in [*columns, _AUTO, "ratio"]))
    ratios = {}
    for world, samples in speeds.items():
        best = _best(samples)
        pairs = zip(samples[_AUTO], samples[best], strict=True)
        ratios[world] = [auto / fixed for auto, fixed in pairs]
        medians = [
            f"{statistics.median(samples[count]):12.1f}" if samples[count] else f"{'-':>12}"
            for count in counts
        ]
        print(f"{world:22}{''.join(medians)}{statistics.median(ratios[world]):12.3f}")
    return ratios


def _best(samples: dict[str, list[float]]) -> str:
    fixed = [count for count in samples if count != _AUTO and samples[count]]
    return max(fixed, key=lambda count: statistics.median(samples[count]))


# The speed in the new world behind the first 20 tokens, over the best fixed count's there.
def _measure_changes(
    engines: dict[str, Engine],
    worlds: dict[str, World],
    speeds: dict[str, dict[str, list[float]]],
    rounds: int,
) -> dict[str, list[float]]:
    ratios: dict[str, list[float]] = {}
    print(f"\n{'from':22}{'to':22}{'median ratio':>14}{'min':>8}")
    for old, new in itertools.permutations(worlds, 2):
        fixed = engines[_best(speeds[new])]
        samples = ratios[f"{old} -> {new}"] = []
        for _ in range(rounds):
            with worlds[old]():
                _decode(engines[_AUTO], _CHANGE_TOKENS)
            with worlds[new]():
                _decode(engines[_AUTO], _FOUND_TOKENS)
                found = _decode(engines[_AUTO], _CHANGE_TOKENS)
                _decode(fixed, _WARM_UP_TOKENS)
                samples.append(found / _decode(fixed, _CHANGE_TOKENS))
        print(f"{old:22}{new:22}{statistics.median(samples):14.3f}{min(samples):8.3f}")
    return ratios


if __name__ == "__main__":
    main()
