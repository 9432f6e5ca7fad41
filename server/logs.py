"""The log on stderr: one line per event and one per request, as text or as JSON.

Owns the formats only. Of what a client sends, only method and path are logged, which the parser
lets through as visible ASCII only, so nobody can forge a line; beside them the client's address.
Prompts and answers never are.

Requests do not go through `logging`, which takes 40 us per line: they are formatted here, and
the lines of one event-loop iteration are written with one call.

A thread does the writing, so that a log that nobody reads (a pager, a pipe that is full, Ctrl-S)
stops nothing: what does not fit its buffer is dropped, counted, and reported later.
"""

import functools
import json
import logging
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, TextIO

from server.http.exchange import Record

FORMATS = ("text", "json")
_LAST_LINES_S = 1.0


def set_up(level: str, log_format: str) -> None:
    """Log this process's events to stderr."""
    stream = log_stream()
    handler = make_handler(stream, log_format)
    report_dropped(stream, handler)
    logging.basicConfig(level=level.upper(), handlers=[handler])


def report_dropped(stream: "PatientStream", handler: logging.Handler) -> None:
    """Have `stream` report lines that it drops as `handler` writes events."""
    stream.describe_dropped = lambda count: handler.format(_record_dropped(count)) + "\n"


@functools.cache
def log_stream() -> "PatientStream":
    """The stream for all lines of this process."""
    return PatientStream(sys.stderr)


def flush_log() -> None:
    """Write what is buffered, unless nobody reads it: before the process ends."""
    log_stream().drain(_LAST_LINES_S)


class PatientStream:
    """Writes to a stream that may block, from a thread of its own; `write` never waits.

    Args:
        stream: where the lines go.
        most: characters that are kept for it.
    """

    def __init__(self, stream: TextIO, most: int = 2**20) -> None:
        self._stream = stream
        self._most = most
        self._changed = threading.Condition()
        self._lines: list[str] = []
        self._size = 0
        self._dropped = 0
        self.describe_dropped: Callable[[int], str] = _describe_dropped
        self._is_writing = False
        threading.Thread(target=self._run, name="log", daemon=True).start()

    def write(self, lines: str) -> None:
        """Have whole lines written soon, or dropped."""
        with self._changed:
            if self._size + len(lines) > self._most:
                self._dropped += lines.count("\n")
                return
            self._lines.append(lines)
            self._size += len(lines)
            self._changed.notify_all()

    def flush(self) -> None:
        """Do nothing: the thread flushes."""

    def drain(self, seconds: float) -> None:
        """Wait until all is written, but no longer than this."""
        with self._changed:
            self._changed.wait_for(lambda: not self._lines and not self._is_writing, seconds)

    def _run(self) -> None:
        while True:
            text = self._take()
            try:
                self._stream.write(text)
                self._stream.flush()
            except (OSError, ValueError):  # closed: there is no place to say so
                pass
            with self._changed:
                self._is_writing = False
                self._changed.notify_all()

    def _take(self) -> str:
        with self._changed:
            self._changed.wait_for(lambda: self._lines or self._dropped)
            self._is_writing = True
            lines, self._lines, self._size = self._lines, [], 0
            if self._dropped:
                lines.append(self.describe_dropped(self._dropped))
                self._dropped = 0
            return "".join(lines)


def _describe_dropped(count: int) -> str:
    return f"{count} lines of the log were dropped: nobody read it\n"


def _record_dropped(count: int) -> logging.LogRecord:
    text = _describe_dropped(count).strip()
    return logging.LogRecord(__name__, logging.WARNING, "", 0, text, (), None)


def make_handler(stream: Any, log_format: str) -> logging.Handler:
    """Make a handler that writes lines in one of `FORMATS` to `stream`."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(_JsonFormatter() if log_format == "json" else _TextFormatter())
    return handler


class RequestLog:
    """Writes one line per request.

    Args:
        stream: where to write.
        log_format: one of `FORMATS`.
        call_soon: schedules a callback for the event loop's next iteration.
    """

    def __init__(
        self, stream: Any, log_format: str, call_soon: Callable[[Callable[[], None]], object]
    ) -> None:
        self._stream = stream
        self._format = _format_json if log_format == "json" else _format_text
        self._call_soon = call_soon
        self._lines: list[str] = []

    def __call__(self, record: Record) -> None:
        """Log one request that is over."""
        if not self._lines:
            self._call_soon(self._write)
        self._lines.append(self._format(time.time(), record))

    def _write(self) -> None:
        lines, self._lines = self._lines, []
        self._stream.write("".join(lines))


def _format_text(now: float, record: Record) -> str:
    details = "".join(f" {name}={_show(value)}" for name, value in record.details.items())
    return (
        f"{_TEXT_CLOCK.show(now)} INFO request "
        f"client={record.client} method={record.method} path={record.path} "
        f"status={_show(record.status)} bytes={record.sent_bytes} "
        f"ms={1000 * record.duration_s:.1f}{details}\n"
    )


def _format_json(now: float, record: Record) -> str:
    line = {
        "time": _JSON_CLOCK.show(now),
        "level": "info",
        "message": "request",
        "client": record.client,
        "method": record.method,
        "path": record.path,
        "status": record.status,
        "bytes": record.sent_bytes,
        "ms": round(1000 * record.duration_s, 1),
        **record.details,
    }
    return json.dumps(line) + "\n"


def _show(value: object) -> object:
    return "-" if value is None else value


class _Clock:
    """Formats timestamps; the part down to the second is made once a second."""

    def __init__(
        self, pattern: str, milliseconds: str, convert: Callable[[float], time.struct_time]
    ) -> None:
        self._pattern = pattern
        self._milliseconds = milliseconds
        self._convert = convert
        self._second = -1
        self._shown = ""

    def show(self, now: float) -> str:
        second = int(now)
        if second != self._second:
            self._second = second
            self._shown = time.strftime(self._pattern, self._convert(now))
        return self._shown + self._milliseconds % (1000 * (now - second))


_TEXT_CLOCK = _Clock("%Y-%m-%d %H:%M:%S", ",%03d", time.localtime)
_JSON_CLOCK = _Clock("%Y-%m-%dT%H:%M:%S", ".%03dZ", time.gmtime)


class _TextFormatter(logging.Formatter):
    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s")


class _JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": _JSON_CLOCK.show(record.created),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)
