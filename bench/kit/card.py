"""The machine card: what a figure was measured on, without which it means nothing."""

import os
import platform
import shutil
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


def machine_card(model: Path | None) -> dict[str, object]:
    """Return facts about machine, software and model; None where unknown."""
    millicelsius = _read("/sys/class/thermal/thermal_zone0/temp")
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "commit": _run(["git", "describe", "--always", "--dirty"]),
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "usable_cores": len(os.sched_getaffinity(0)),
        "governor": _read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        "clock_khz": _read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq"),
        "celsius": int(millicelsius) / 1000 if millicelsius else None,
        "throttled": _throttled(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "uvloop": version("uvloop"),
        "ctransformers": version("ctransformers"),
        "llama-cpp-python": _optional_version("llama-cpp-python"),
        "model": model and model.name,
        "model_bytes": model and model.stat().st_size,
    }


def _optional_version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


# A Raspberry Pi's name is in both files, but a container does not see the first.
def _cpu_model(root: Path = Path("/proc")) -> str | None:
    if board := _read(root / "device-tree" / "model"):
        return board.rstrip("\0")
    lines = [line.partition(":") for line in (_read(root / "cpuinfo") or "").splitlines()]
    found = {key.strip(): value.strip() for key, _, value in lines}
    return found.get("Model") or found.get("model name")


# From a Raspberry Pi's firmware: 0x0 if it has never been throttled or undervolted. The kernel's
# driver shows it as a file, too, which a container can read without the Pi's own tools.
def _throttled(devices: Path = Path("/sys/devices/platform")) -> str | None:
    for file in devices.glob("*/*firmware/get_throttled"):
        if bits := _read(file):
            return f"0x{bits.removeprefix('0x')}"
    said = _run(["vcgencmd", "get_throttled"]) if shutil.which("vcgencmd") else None
    return said and said.partition("=")[2]


def _run(command: Sequence[str]) -> str | None:
    here = Path(__file__).parent
    try:
        result = subprocess.run(command, cwd=here, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return result.stdout.strip()


def _read(path: str | Path) -> str | None:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return None
