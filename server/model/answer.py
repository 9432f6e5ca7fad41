"""From tokens to the text of one answer. Pure: no model, no clock."""

import codecs
from collections.abc import Sequence

from server.model.stops import StopFinder


class Answer:
    """What has been spoken, joined into text and ended before a stop text."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._joiner = _TextJoiner()
        self._stops = StopFinder(stops)
        self.tokens: list[int] = []
        self.text = ""  # what was said of them

    @property
    def is_stopped(self) -> bool:
        """Whether a stop text has come: nothing more is to be said."""
        return self._stops.is_found

    @property
    def is_exact(self) -> bool:
        """Whether `tokens` say just `text`: no stop text, nor half a character, behind it."""
        return bool(self.text) and not self.is_stopped and not self._joiner.is_within_character

    def feed(self, token: int, piece: bytes) -> str:
        """Take a token and its text; returns what may be said now."""
        self.tokens.append(token)
        return self._say(self._stops.feed(self._joiner.feed(piece)))

    def end(self) -> str:
        """What was held back for what might have followed."""
        return self._say(self._stops.end())

    def _say(self, text: str) -> str:
        self.text += text
        return text


class _TextJoiner:
    """Joins token pieces into text: whole characters only, and no blanks at the start."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._started = False

    @property
    def is_within_character(self) -> bool:
        return self._decoder.getstate()[0] != b""

    def feed(self, piece: bytes) -> str:
        text = self._decoder.decode(piece)
        if not self._started:
            text = text.lstrip()
            self._started = bool(text)
        return text
