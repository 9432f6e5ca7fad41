"""The event that cancels a prompt, which C code can read without the interpreter's lock (the GIL).

llama.cpp checks it some 600 times per token. A check in Python would need the GIL each time, and a
busy event loop holds that for up to 5 ms: under pipelined requests, 30 tokens of SmolLM2 took 55 s
instead of 1.5.
"""

import ctypes
import threading


class Cancel(threading.Event):
    """A `threading.Event` with a C string beside it, which is empty until the event is set."""

    def __init__(self) -> None:
        super().__init__()
        self._text = ctypes.create_string_buffer(2)

    @property
    def address(self) -> int:
        """The address of the string, valid as long as the event lives."""
        return ctypes.addressof(self._text)

    def set(self) -> None:
        """Fill the string, then set the event."""
        self._text[0] = b"x"
        super().set()

    def clear(self) -> None:
        """Clear both."""
        self._text[0] = b"\0"
        super().clear()
