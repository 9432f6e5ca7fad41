"""Does the thread governor find the best thread count under every load, and how soon?

Four loads: nothing else runs; another process burns one core; a CFS quota leaves 1.5 CPUs
(needs root and a writable cgroup); affinity leaves one CPU. Under each, every fixed count and
the governor decode 200 tokens in turn, and the governor's speed is divided by the best count's.
Then every change from one load to another: how fast are the 21st to 120th token after it?

    python -m bench.threads
"""

import itertools
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import replace
from pathlib import Path

from bench.kit.decode import WARM_UP_TOKENS, decode_speed
from bench.kit.report import Report, note, print_spreads, read_options
from bench.kit.subject import measured_options, measured_settings
from server.model.engine import Engine
from server.model.loader import load_engine
from server.model.machine.cpus import Cpus
from server.model.machine.governor import GovernorSettings

_AUTO = "governor"
_FOUND_TOKENS = 20
_CHANGE_TOKENS = 100

Load = Callable[[], AbstractContextManager[object]]
Samples = dict[str, list[float]]  # tokens/s of every fixed count and of the governor


def main() -> None:
    """Measure the loads and the changes, and print card, tables and JSON."""
    options = read_options(__doc__, {"rounds": 1, "changes": 0}, rounds=3, changes=3, tokens=200)
    settings = measured_settings(measured_options())
    report = Report("threads", settings.model_file)
    engines = {
        str(count): load_engine(replace(settings, governor=GovernorSettings(count)))
        for count in range(1, Cpus().usable() + 1)
    } | {_AUTO: load_engine(settings)}
    loads = _loads()
    speeds = {
        name: _measure(name, load, engines, options.rounds, options.tokens)
        for name, load in loads.items()
    }
    for name, samples in speeds.items():
        print_spreads(samples, name)
    ratios = {name: _over_best(samples) for name, samples in speeds.items()}
    print_spreads(ratios, "governor over best")
    changes = {
        f"{old} -> {new}": [
            _change(engines, loads[old], loads[new], _best(speeds[new]))
            for _ in range(options.changes)
        ]
        for old, new in itertools.permutations(loads, 2)
    }
    print_spreads(changes, "governor over best, after a change")
    report.finish(speeds=speeds, ratios=ratios, ratios_after_changes=changes)


def _loads() -> dict[str, Load]:
    loads: dict[str, Load] = {"idle": nullcontext, "one core burning": _burning}
    if quota := _quota_directory():
        loads["quota of 1.5 CPUs"] = lambda: _limited_by_quota(quota)
    else:
        note("no scenario with a quota: cgroups cannot be written here")
    if hasattr(os, "sched_setaffinity") and len(os.sched_getaffinity(0)) > 1:
        loads["affinity to one CPU"] = _on_one_cpu
    return loads


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


# A directory for our own cgroup with quotas: version 1 under cpu/, version 2 at the root.
def _quota_directory() -> Path | None:
    for parent, file in (("cpu", "cpu.cfs_quota_us"), (".", "cpu.max")):
        directory = Path("/sys/fs/cgroup") / parent / f"bench-threads-{os.getpid()}"
        with suppress(OSError):
            directory.mkdir()
            if (directory / file).exists():
                return directory
            directory.rmdir()
    return None


@contextmanager
def _limited_by_quota(directory: Path) -> Iterator[None]:
    directory.mkdir(exist_ok=True)
    if (directory / "cpu.max").exists():
        (directory / "cpu.max").write_text("150000 100000")  # microseconds: quota, period
    else:
        (directory / "cpu.cfs_quota_us").write_text("150000")
    (directory / "cgroup.procs").write_text(str(os.getpid()))
    try:
        yield
    finally:
        (directory.parent / "cgroup.procs").write_text(str(os.getpid()))
        directory.rmdir()


def _measure(
    name: str, load: Load, engines: dict[str, Engine], rounds: int, tokens: int
) -> Samples:
    speeds: Samples = {count: [] for count in engines}
    with load():
        usable = Cpus().usable()
        for number in range(rounds):
            for count, engine in engines.items():
                if count != _AUTO and int(count) > usable:
                    continue  # it would decode about one token a second
                decode_speed(engine, WARM_UP_TOKENS)
                speeds[count].append(decode_speed(engine, tokens))
                note(f"{name}, round {number + 1}: {count}: {speeds[count][-1]:.1f} tokens/s")
    return speeds


def _best(samples: Samples) -> str:
    fixed = [count for count in samples if count != _AUTO and samples[count]]
    return max(fixed, key=lambda count: statistics.median(samples[count]))


def _over_best(samples: Samples) -> list[float]:
    pairs = zip(samples[_AUTO], samples[_best(samples)], strict=True)
    return [governor / fixed for governor, fixed in pairs]


# The speed under the new load after the first 20 tokens, over that of the best fixed count.
def _change(engines: dict[str, Engine], old: Load, new: Load, best: str) -> float:
    with old():
        decode_speed(engines[_AUTO], _CHANGE_TOKENS)
    with new():
        decode_speed(engines[_AUTO], _FOUND_TOKENS)
        found = decode_speed(engines[_AUTO], _CHANGE_TOKENS)
        decode_speed(engines[best], WARM_UP_TOKENS)
        return found / decode_speed(engines[best], _CHANGE_TOKENS)


if __name__ == "__main__":
    main()
