"""`python -m bench`: the short measurements, one after the other, in under 5 minutes.

Names as arguments choose others: `python -m bench threads cancel`. Each is told `--short`;
for all that a script can do, run it by itself: `python -m bench.threads --help`.
"""

import argparse
import subprocess
import sys

SHORT = ("tokens", "threads", "cancel", "queue", "parser")


def main() -> int:
    """Run the scripts; returns the exit status of the first that failed, else 0."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"default: {' '.join(SHORT)}")
    names = parser.parse_args().names or SHORT
    if unknown := set(names).difference(SHORT):
        parser.error(f"there is no short measurement {', '.join(sorted(unknown))}")
    for name in names:
        print(f"== {name}", flush=True)
        status = subprocess.run([sys.executable, "-m", f"bench.{name}", "--short"]).returncode
        if status != 0:
            return status
    return 0


if __name__ == "__main__":
    sys.exit(main())
