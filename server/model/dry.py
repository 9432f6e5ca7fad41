"""DRY ("Don't Repeat Yourself"): penalises tokens that would continue a repetition.

Owns the index of what was said. The logit of a token that would extend a repeated sequence is
lowered by multiplier · 1.75^(length - 2), where length is how many tokens the end of the answer has
in common with the earlier occurrence (p-e-w's proposal for text-generation-webui, 2024;
names and defaults as in llama.cpp's `llama_sampler_init_dry`). Unlike in llama.cpp, only the
answers of the conversation count, not the prompt: taking up the visitor's words is wanted.

Cost per token: one look at each place where the last token was said before.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence

from server.model.backends import Logits

_BASE = 1.75
_ALLOWED_LENGTH = 2  # tokens that may be repeated without a penalty
_LONGEST = 40  # tokens; longer matches get the penalty of this length
_BREAK = -1  # between two answers: no sequence crosses it


class Dry:
    """One conversation's answers; `accept` each token of the answer, `penalise` before each draw.

    Args:
        multiplier: the strength of the penalty, in logits; 0 turns it off.
        said: the tokens of each earlier answer.
    """

    def __init__(self, multiplier: float, said: Iterable[Sequence[int]]) -> None:
        self._multiplier = multiplier
        self._history: list[int] = []
        self._places: defaultdict[int, list[int]] = defaultdict(list)  # where a token was said
        if multiplier:
            for answer in said:
                for token in answer:
                    self.accept(token)
                self._history.append(_BREAK)

    def accept(self, token: int) -> None:
        """Add a token that was said."""
        self._places[token].append(len(self._history))
        self._history.append(token)

    def penalise(self, logits: Logits) -> None:
        """Lower, in place, the logits of tokens that would continue a repetition."""
        if not self._multiplier or not self._history:
            return
        lengths: dict[int, int] = {}
        last = len(self._history) - 1
        for place in self._places.get(self._history[last], ()):
            if place == last:
                break
            token = self._history[place + 1]
            length = self._common_length(place, last)
            if token != _BREAK and length >= _ALLOWED_LENGTH:
                lengths[token] = max(length, lengths.get(token, 0))
        for token, length in lengths.items():
            logits[token] -= self._multiplier * _BASE ** (length - _ALLOWED_LENGTH)

    # How many tokens are the same, counted back from `place` and from `last`.
    def _common_length(self, place: int, last: int) -> int:
        history, length = self._history, 0
        while (
            length <= min(place, _LONGEST)
            and history[place - length] == history[last - length] != _BREAK
        ):
            length += 1
        return length
