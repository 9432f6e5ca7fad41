"""How many microseconds does it take to read a request?

Parsing alone, as the connection does it: a whole request first goes to fastpath.py, and what that
does not recognise goes to the parser. No socket, no routing, no response. Each figure is the median
of several runs, shown with the fastest and the slowest.

    python -m bench.parser
"""

import time

from bench.kit.report import Report, print_spreads, read_options
from bench.kit.subject import measured_model
from server.http.fastpath import read_plain_head
from server.http.parser import RequestParser
from server.http.request import ParserLimits

_REQUESTS_A_RUN = 20_000
_RUNS = 7
_BODY_LIMIT = 16 * 1024

_BROWSER = (
    b"GET /static/app.js HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nConnection: keep-alive\r\n"
    b"User-Agent: Mozilla/5.0 (X11; Linux aarch64) AppleWebKit/537.36 (KHTML, like Gecko) "
    b"Chrome/150.0.0.0 Safari/537.36\r\nAccept: */*\r\nSec-Fetch-Site: same-origin\r\n"
    b"Sec-Fetch-Mode: cors\r\nSec-Fetch-Dest: script\r\nReferer: http://127.0.0.1:8080/\r\n"
    b"Accept-Encoding: gzip, deflate, br, zstd\r\nAccept-Language: el-GR,el;q=0.9\r\n"
    b'If-None-Match: "0123456789abcdef0123"\r\n\r\n'
)
_CASES = {
    "wrk, one field": b"GET /static/favicon.svg HTTP/1.1\r\nHost: 127.0.0.1:8080\r\n\r\n",
    "browser, 11 fields": _BROWSER,
    "curl, a prompt": b"POST /prompt HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nUser-Agent: curl/8.0\r\n"
    b"Accept: */*\r\nContent-Length: 15\r\n"
    b"Content-Type: application/x-www-form-urlencoded\r\n\r\nWhat is virtue?",
    "a prompt in chunks": b"POST /prompt HTTP/1.1\r\nHost: 127.0.0.1:8080\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n8\r\nWhat is \r\n7\r\nvirtue?\r\n0\r\n\r\n",
}


def main() -> None:
    """Time every case and print card, table and JSON."""
    read_options(__doc__, {})
    report = Report("parser", measured_model())
    samples = {
        name: [_time(request) for _ in range(_RUNS + 1)][1:] for name, request in _CASES.items()
    }
    print_spreads(samples, "microseconds a request")
    report.finish(microseconds=samples)


def _time(request: bytes) -> float:
    limits = ParserLimits()
    parser = RequestParser(limits)
    started = time.perf_counter()
    for _ in range(_REQUESTS_A_RUN):
        if read_plain_head(request, limits):
            continue
        parser.receive(request)
        head = parser.read_head()
        assert head is not None
        if head.has_body:
            parser.read_body(_BODY_LIMIT)
    return (time.perf_counter() - started) / _REQUESTS_A_RUN * 1e6


if __name__ == "__main__":
    main()
