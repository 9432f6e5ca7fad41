"""Turns an answer's tokens into text, up to a stop sequence. Pure: no model, no clock."""

import codecs
from collections.abc import Sequence


class Detokenizer:
    """Joins the tokens of an answer into text, and ends it before a stop sequence."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._joiner = _TextJoiner()
        self._stops = StopFinder(stops)

    @property
    def is_stopped(self) -> bool:
        """Whether a stop sequence was found, which ends the answer."""
        return self._stops.is_found

    def feed(self, piece: bytes) -> str:
        """Take a token's bytes; returns the text that may be sent now."""
        return self._stops.feed(self._joiner.feed(piece))

    def end(self) -> str:
        """Return the text that was held back, since no stop sequence can follow any more."""
        return self._stops.end()


class _TextJoiner:
    """Joins token pieces into text: whole characters only, and no whitespace at the start."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._started = False

    def feed(self, piece: bytes) -> str:
        text = self._decoder.decode(piece)
        if not self._started:
            text = text.lstrip()
            self._started = bool(text)
        return text


class StopFinder:
    """Passes text on as it comes, except for what might become a stop sequence."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(filter(None, stops))
        self._held = ""
        self.is_found = False

    def feed(self, text: str) -> str:
        """Return the text that may be sent now; once `is_found`, the rest must not be sent."""
        if not self._stops:
            return text
        text = self._held + text
        found = [at for stop in self._stops if (at := text.find(stop)) >= 0]
        if found:
            self.is_found = True
            self._held = ""
            return text[: min(found)]
        kept = self._kept(text)
        self._held = text[len(text) - kept :]
        return text[: len(text) - kept]

    def end(self) -> str:
        """Return what was held back, now that nothing follows."""
        held, self._held = self._held, ""
        return held

    # The length of the longest suffix of `text` that is a prefix of a stop sequence.
    def _kept(self, text: str) -> int:
        longest = max(map(len, self._stops)) - 1
        for length in range(min(longest, len(text)), 0, -1):
            if any(stop.startswith(text[-length:]) for stop in self._stops):
                return length
        return 0
