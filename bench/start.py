"""How long from the start to the page, to a ready model, and to the first word?

A prompt is sent as soon as the page answers, and waits while the model loads. Cold: the model
file is dropped from the page cache first, so that it is read from the disk. The steps of loading
come from the server's own log.

    python -m bench.start
    python -m bench.start --command 'docker run --rm -p 8080:8080 socratic-chat-bot'
"""

import argparse
import os
import re
import shlex
import sys
import tempfile
import threading
import time
from datetime import datetime
from itertools import pairwise
from pathlib import Path

from bench.kit.client import ask
from bench.kit.report import Report, print_spreads
from bench.kit.server import free_port, running, wait_for
from bench.kit.subject import measured_model

Sample = dict[str, float]  # seconds from the start, or of a step of loading, by name
_STEP = re.compile(r"^(\S+ \S+) (?:INFO (loading) the model|DEBUG loading: (.+))$", re.MULTILINE)


def main() -> None:
    """Start the server several times and print card, table and JSON."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5, help="default: 5")
    parser.add_argument("--command", help="starts a server in the foreground on port 8080")
    options = parser.parse_args()
    model = None if options.command else measured_model()  # the command has its own model
    report = Report("start", model, command=options.command)
    samples: dict[str, list[Sample]] = {}
    for _ in range(options.rounds):
        if model is None:
            sample = _start(shlex.split(options.command), 8080)
            samples.setdefault("command", []).append(sample)
            continue
        for name in ("cold", "warm"):
            if name == "cold":
                _drop(model)
            port = free_port()
            command = [sys.executable, "-m", "server", "--port", str(port), "--log-level", "debug"]
            sample = _start(command, port)
            samples.setdefault(name, []).append(sample)
    for name, found in samples.items():
        print_spreads({what: [sample[what] for sample in found] for what in found[0]}, name)
    report.finish(samples=samples)


def _drop(file: Path) -> None:
    with file.open("rb") as opened:
        os.fsync(opened.fileno())
        os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _start(command: list[str], port: int) -> Sample:
    address = ("127.0.0.1", port)
    with tempfile.TemporaryFile("w+") as log:
        began = time.perf_counter()
        with running(command, address, "/", stderr=log.fileno()) as process:
            page_s = time.perf_counter() - began
            first_word_s: list[float] = []

            def be_visitor() -> None:
                sent_s = time.perf_counter() - began
                first_word_s.append(sent_s + ask(address, "Who?", "max_tokens=1").first_byte_s)

            visitor = threading.Thread(target=be_visitor)
            visitor.start()
            ready_s = wait_for(process, address, "/readyz") - began
            visitor.join()
        log.seek(0)
        steps = _read_steps(log.read())
    return {"page": page_s, "ready": ready_s, "first word": first_word_s[0], **steps}


# Seconds of each step of loading, by the message at its end.
def _read_steps(log: str) -> Sample:
    lines = [
        (datetime.strptime(found[1], "%Y-%m-%d %H:%M:%S,%f"), found[3] or found[2])
        for found in _STEP.finditer(log)
    ]
    return {what: (end - start).total_seconds() for (start, _), (end, what) in pairwise(lines)}


if __name__ == "__main__":
    main()
