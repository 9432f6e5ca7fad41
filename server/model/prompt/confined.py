"""Runs somebody else's program, a chat template, where it can neither hang nor eat the memory.

A child of this process runs it, with a limit on its memory, and is killed when its time is over.
Forked rather than started anew, since a new interpreter would cost 0.2 s of every start.
"""

import os
import pickle
import resource
import select
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

_Result = TypeVar("_Result")

_TIME_S = 5.0
_MEMORY_BYTES = 256 * 2**20


class ConfinedError(Exception):
    """It failed, or reached a limit; `str(error)` says what, to follow its name."""


def run_confined(function: Callable[..., _Result], *arguments: Any) -> _Result:
    """Call `function` in a child process and return its result, which must be picklable.

    Raises:
        ConfinedError: if it raises (with the same words), or takes over 5 s or 256 MiB.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        _run_and_exit(writer, function, arguments)
    os.close(writer)
    try:
        data = _read_all(reader, time.monotonic() + _TIME_S)
    finally:
        os.close(reader)
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    if not data:
        raise ConfinedError("takes too long, or too much memory")
    result, refusal = pickle.loads(data)  # our own bytes
    if refusal is not None:
        raise ConfinedError(refusal)
    return result  # type: ignore[no-any-return]


# Never returns, and runs nothing of the parent's: no handlers, no cleanup.
def _run_and_exit(writer: int, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    try:
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + _MEMORY_BYTES,) * 2)
    except (OSError, ValueError):  # not Linux: only the time is bounded
        pass
    outcome: tuple[Any, str | None]
    try:
        outcome = (function(*arguments), None)
    except MemoryError:
        outcome = (None, "takes too much memory")
    except BaseException as error:
        outcome = (None, str(error))
    try:
        with os.fdopen(writer, "wb") as pipe:
            pipe.write(pickle.dumps(outcome))
    finally:
        os._exit(0)


# All that comes before the deadline; empty if it does not end by then.
def _read_all(reader: int, deadline: float) -> bytes:
    data = b""
    while select.select([reader], [], [], max(0.0, deadline - time.monotonic()))[0]:
        part = os.read(reader, 65536)
        if not part:
            return data
        data += part
    return b""
