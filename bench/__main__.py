"""`python -m bench`: the short measurements, one after the other, in under 5 minutes.

Names choose others: `python -m bench threads turns`. Each runs with `--short`; for all options of a
script, run it by itself: `python -m bench.threads --help`.
"""

import argparse
import subprocess
import sys

_DEFAULT = ("tokens", "threads", "cancel", "queue", "parser")
_SHORT = (*_DEFAULT, "turns")


def main() -> int:
    """Run the scripts; returns the exit status of the first that failed, else 0."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"default: {' '.join(_DEFAULT)}")
    for name in (names := parser.parse_args().names or _DEFAULT):
        if name not in _SHORT:
            parser.error(f"there is no short measurement {name}")
    for name in names:
        print(f"== {name}", flush=True)
        status = subprocess.run([sys.executable, "-m", f"bench.{name}", "--short"]).returncode
        if status != 0:
            return status
    return 0


if __name__ == "__main__":
    sys.exit(main())
