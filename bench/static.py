"""How fast are small static files served, compared with uvicorn and a bare protocol?

One process each, started before the first measurement and idle while another is measured; then
rounds in which wrk drives each in turn: 64 connections, keep-alive, the same small file. Ratios
are taken round by round. The ceiling is a bare uvloop protocol that writes the same bytes without
reading the request. "No two alike" adds a field that differs from request to request, so that
none is answered from memory (server/http/fastpath.py); wrk itself is slower then.

    python -m bench.static          needs wrk (Debian: apt install wrk) and `make rivals`
"""

import re
import shutil
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from urllib.request import urlopen

from bench.kit.client import Address
from bench.kit.report import Report, note, print_spreads, read_options
from bench.kit.server import free_port, running, running_server
from bench.kit.subject import measured_model

_TARGET = "/static/favicon.svg"
_VARIED = ", no two alike"
_VARY = str(Path(__file__).with_name("vary.lua"))
_RIVALS = ("uvicorn", "ceiling")
_CONNECTIONS = 64


def main() -> None:
    """Run the rounds and print card, table and JSON."""
    options = read_options(__doc__, rounds=5, seconds=3)
    if not shutil.which("wrk"):
        raise SystemExit("error: wrk is not installed (Debian: apt install wrk)")
    report = Report("static", measured_model())
    with ExitStack() as stack:
        ports = _start_all(stack)
        rows: dict[str, dict[str, list[float]]] = {name: {} for name in ports}
        for number in range(options.rounds + 1):
            for name, port in ports.items():
                script = ["-s", _VARY] if name.endswith(_VARIED) else []
                measured = _drive(port, options.seconds, script)
                note(f"round {number}: {name} {measured}")
                for what, figure in measured.items() if number else ():  # the first warms up
                    rows[name].setdefault(what, []).append(figure)
    for name, found in rows.items():
        ours = rows["ours" + _VARIED if name.endswith(_VARIED) else "ours"]
        pairs = zip(ours["requests/s"], found["requests/s"], strict=True)
        found["ours over it"] = [mine / theirs for mine, theirs in pairs]
        print_spreads(found, name)
    report.finish(rows=rows)


def _start_all(stack: ExitStack) -> dict[str, int]:
    _, ours = stack.enter_context(running_server())
    logging = running_server("--log-level", "info", stderr=subprocess.DEVNULL)
    _, logged = stack.enter_context(logging)
    ports = {"ours": ours[1], "ours, logging": logged[1]}
    head, body = _fetch(ours)
    with tempfile.NamedTemporaryFile(delete=False) as file:
        file.write(head + body)
    stack.callback(Path(file.name).unlink)
    for name in _RIVALS:
        address = ("127.0.0.1", free_port())
        ports[name] = address[1]
        command = [sys.executable, "-m", "bench.rivals", name, str(address[1]), file.name]
        stack.enter_context(running(command, address, _TARGET))
        assert _fetch(address)[1] == body, f"{name} does not send the same bytes"
    return ports | {name + _VARIED: ports[name] for name in ("ours", "uvicorn", "ceiling")}


# The response to a client that keeps the connection open: the bytes of head and body.
def _fetch(address: Address) -> tuple[bytes, bytes]:
    with urlopen(f"http://{address[0]}:{address[1]}{_TARGET}") as response:
        fields = [field for field in response.getheaders() if field[0] != "Connection"]
        lines = ["HTTP/1.1 200 OK", *(f"{name}: {value}" for name, value in fields), "", ""]
        return "\r\n".join(lines).encode(), response.read()


def _drive(port: int, seconds: int, script: list[str]) -> dict[str, float]:
    command = ["wrk", "-t1", f"-c{_CONNECTIONS}", f"-d{seconds}s", "--latency", *script]
    url = f"http://127.0.0.1:{port}{_TARGET}"
    output = subprocess.run([*command, url], capture_output=True, text=True, check=True).stdout
    if "Non-2xx" in output or "Socket errors" in output:
        raise SystemExit(f"error: wrk met errors:\n{output}")
    found = re.search(r"50% +(\S+)\n.*99% +(\S+)\n.*Requests/sec: +(\S+)", output, re.S)
    assert found is not None, output
    p50, p99 = (float(n[:-2]) / {"u": 1000, "m": 1}[n[-2]] for n in found.groups()[:2])
    return {"requests/s": float(found[3]), "p50, ms": p50, "p99, ms": p99}


if __name__ == "__main__":
    main()
