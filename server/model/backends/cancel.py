"""The event that ends a prompt, readable by C without the interpreter's lock.

llama.cpp looks at it some 600 times a token. Through Python each look would need the lock, which a
busy event loop may keep for 5 ms: under pipelined requests 30 tokens of SmolLM2 took
55 s instead of 1.5.
"""

import ctypes
import threading


class Cancel(threading.Event):
    """A `threading.Event` with a C text beside it: of no letters, and of one once it is set."""

    def __init__(self) -> None:
        super().__init__()
        self._text = ctypes.create_string_buffer(2)

    @property
    def address(self) -> int:
        """Where the text is, as long as the event lives."""
        return ctypes.addressof(self._text)

    def set(self) -> None:
        """Set the event, and the text before it."""
        self._text[0] = b"x"
        super().set()

    def clear(self) -> None:
        """Unset both."""
        self._text[0] = b"\0"
        super().clear()
