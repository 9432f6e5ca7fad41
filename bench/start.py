r"""How long from the start to the page, to a ready model, and to the first word?

A prompt is sent as soon as the page answers: it waits while the model loads. Cold: the model
file has been dropped from the page cache before, so that it comes from the disk.

    python -m bench.start
    python -m bench.start --url http://127.0.0.1:8080 \
        --command 'docker run --rm -p 8080:8080 socratic-chat-bot'

With --command the file is not dropped: what is in the cache is the engine's affair.
"""

import argparse
import os
import shlex
import signal
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import urlopen

from bench.card import machine_card
from bench.client import ask, free_port
from bench.report import finish, print_card
from bench.subject import measured_model

_ROOT = Path(__file__).resolve().parents[1]
_PATIENCE_S = 600
_POLL_S = 0.005

Sample = dict[str, float]  # seconds from the start, by what happened then


def main() -> None:
    """Start some times over and print card, table and JSON."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5, help="default: 5")
    parser.add_argument("--command", help="starts the server in the foreground")
    parser.add_argument("--url", help="where the command's server will be")
    options = parser.parse_args()
    if bool(options.command) != bool(options.url):
        parser.error("--command and --url go together")
    model = None if options.command else measured_model()  # the command's is its own
    card = machine_card(model)
    print_card(card)
    samples: dict[str, list[Sample]] = {}
    for _ in range(options.rounds):
        if model is None:
            url = urlsplit(options.url)
            address = (url.hostname or "127.0.0.1", url.port or 80)
            samples.setdefault("command", []).append(_start(shlex.split(options.command), address))
            continue
        for name in ("cold", "warm"):
            if name == "cold":
                _drop(model)
            port = free_port()
            command = [sys.executable, "-m", "server", "--port", str(port)]
            samples.setdefault(name, []).append(_start(command, ("127.0.0.1", port)))
    _report(samples)
    finish("start", card, {"samples": samples})


def _drop(file: Path) -> None:
    with file.open("rb") as opened:
        os.fsync(opened.fileno())
        os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _start(command: list[str], address: tuple[str, int]) -> Sample:
    began = time.perf_counter()
    try:
        process = subprocess.Popen(command, cwd=_ROOT, stderr=subprocess.DEVNULL)
    except OSError as error:
        raise SystemExit(f"error: cannot start {command[0]}: {error.strerror}") from error
    try:
        page_s = _until(address, "/", began, process)
        # On a thread: meanwhile we look when the model is ready.
        first_word: list[float] = []
        sent = time.perf_counter() - began
        asking = threading.Thread(
            target=lambda: first_word.append(ask(address, "Who?", "max_tokens=1").first_byte_s)
        )
        asking.start()
        ready_s = _until(address, "/readyz", began, process)
        asking.join()
        return {"page": page_s, "ready": ready_s, "first word": sent + first_word[0]}
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


def _until(
    address: tuple[str, int], path: str, began: float, process: "subprocess.Popen[bytes]"
) -> float:
    while time.perf_counter() - began < _PATIENCE_S and process.poll() is None:
        try:
            urlopen(f"http://{address[0]}:{address[1]}{path}").close()
        except OSError:  # nobody listens yet, or 503
            time.sleep(_POLL_S)
        else:
            return time.perf_counter() - began
    raise SystemExit("error: the server did not start: run the command by hand to see why")


def _report(samples: dict[str, list[Sample]]) -> None:
    print(f"{'seconds to the':16} {'page':>18} {'ready':>18} {'first word':>18}")
    for name, found in samples.items():
        cells = []
        for what in ("page", "ready", "first word"):
            values = [sample[what] for sample in found]
            cells.append(f"{statistics.median(values):.2f} ({min(values):.2f}-{max(values):.2f})")
        print(f"{name:16} " + " ".join(f"{cell:>18}" for cell in cells))


if __name__ == "__main__":
    main()
