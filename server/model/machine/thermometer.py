"""The machine's temperature, as Linux reports it under /sys/class/thermal.

Owns nothing but the paths: every call reads the sensors again (0.1 ms for one zone).
"""

from pathlib import Path

THERMAL_ROOT = Path("/sys/class/thermal")
_PLAUSIBLE_C = (-40.0, 150.0)  # a sensor without power may report 0 K or 2^31


class Thermometer:
    """The hottest of the thermal zones; a Raspberry Pi 5 has one, PCs have several."""

    def __init__(self, root: Path = THERMAL_ROOT) -> None:
        self._files = sorted(root.glob("thermal_zone*/temp"))

    def celsius(self) -> float | None:
        """Degrees of the hottest zone, or None if none can be read."""
        found = [value for file in self._files if (value := _read(file)) is not None]
        return max(found, default=None)


# Millidegrees Celsius (Linux, Documentation/driver-api/thermal/sysfs-api.rst).
def _read(file: Path) -> float | None:
    try:
        value = int(file.read_text()) / 1000
    except (OSError, ValueError):  # a zone may be switched off, or come and go
        return None
    least, most = _PLAUSIBLE_C
    return value if least < value < most else None
