"""`python -m server`: options, event loop, exit status."""

import os
import signal
import sys

# The imports below take half a second; a signal during them must end the process quietly, too.
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
    if signal.getsignal(number) is not signal.SIG_IGN:  # nohup
        signal.signal(number, lambda *_: os._exit(0))

import asyncio  # noqa: E402

import uvloop  # noqa: E402

from server import logs  # noqa: E402
from server.assembly import StartError  # noqa: E402
from server.lifecycle import serve  # noqa: E402
from server.options import main_options  # noqa: E402


def main() -> int:
    """Serve until a signal arrives, and return the exit status."""
    options = main_options()
    logs.set_up(options.log_level, options.log_format)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            is_model_thread_free = runner.run(serve(options))
    except StartError as error:
        logs.flush_log()
        print(f"error: {error}", file=sys.stderr)
        return 1
    logs.flush_log()
    if not is_model_thread_free:
        os._exit(0)  # the interpreter would wait for the thread
    return 0


if __name__ == "__main__":
    sys.exit(main())
