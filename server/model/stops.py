"""Ends an answer before any of some texts (the `stop` of the chat completions API). Pure."""

from collections.abc import Sequence


class StopFinder:
    """Passes text on as it comes, but for what might become a stop text."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(filter(None, stops))
        self._held = ""
        self.is_found = False

    def feed(self, text: str) -> str:
        """What may be said now; once `is_found`, the rest is not to be said."""
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
        """What was held back, now that nothing follows."""
        held, self._held = self._held, ""
        return held

    # The length of the longest end of `text` that a stop text begins with.
    def _kept(self, text: str) -> int:
        longest = max(map(len, self._stops)) - 1
        for length in range(min(longest, len(text)), 0, -1):
            if any(stop.startswith(text[-length:]) for stop in self._stops):
                return length
        return 0
