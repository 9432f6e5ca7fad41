"""Text on its way from the model thread to the event loop. No lock: a deque and a flag."""

from collections import deque


class Outbox:
    """Pieces of one answer: the model thread puts them in, the event loop takes them out."""

    __slots__ = ("_is_wake_up_sent", "_pieces")

    def __init__(self) -> None:
        self._pieces: deque[str] = deque()
        self._is_wake_up_sent = False

    def put(self, text: str) -> bool:
        """Append a piece, on the model thread.

        Returns:
            True if the loop must be woken to `take` it; False if an earlier wake-up is still on
            its way and will serve this piece, too.
        """
        self._pieces.append(text)
        is_due = not self._is_wake_up_sent
        self._is_wake_up_sent = True
        return is_due

    def take(self) -> str:
        """Remove and return everything that waits, on the loop.

        The flag is cleared before the deque is emptied: a piece put in after that finds it
        cleared and asks for a new wake-up, so no piece is forgotten.
        """
        self._is_wake_up_sent = False
        text = ""
        while self._pieces:
            text += self._pieces.popleft()
        return text
