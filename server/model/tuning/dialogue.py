"""Talks as the model sees them: token ids, and which of them it has to learn.

Owns the reading of `talks/*.jsonl` and the ChatML layout of a training sequence, which is token
for token what the server writes (`PromptWriter`; a test compares them). Needs neither numpy nor
PyTorch.
"""

import json
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer

TALKS = Path(__file__).parent / "talks"
LAST_TALKS = TALKS / "last"
_BOS, _EOS = 1, 2  # <|im_start|> and <|im_end|> of every SmolLM2

Talk = tuple[str, ...]  # the visitor and Socrates in turn


class TalkError(Exception):
    """A line of a talks file is not a talk."""


@dataclass(frozen=True, slots=True)
class Lesson:
    """One talk, encoded."""

    ids: tuple[int, ...]
    is_learnt: tuple[bool, ...]  # True for Socrates' words and the end mark after them


def read_talks(folder: Path) -> list[Talk]:
    """Read all talks in the folder's `*.jsonl` files: one JSON array of strings per line.

    Raises:
        TalkError: naming file and line, if a line is anything else, or if there is no talk.
        OSError: if a file cannot be read.
    """
    talks = [talk for path in sorted(folder.glob("*.jsonl")) for talk in _read_file(path)]
    if not talks:
        raise TalkError(f"There are no talks in {folder}.")
    return talks


def _read_file(path: Path) -> Iterable[Talk]:
    for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        try:
            talk = json.loads(line)
        except ValueError as error:
            raise TalkError(f"{path.name} line {number} is not JSON: {error}.") from None
        is_text = isinstance(talk, list) and all(isinstance(turn, str) for turn in talk)
        if not is_text or not talk or len(talk) % 2:
            raise TalkError(f"{path.name} line {number} is not an even number of strings.")
        yield tuple(talk)


class Encoder:
    """Encodes talks with one tokenizer and one system text.

    Args:
        tokenizer: the `tokenizer.json` written by `fetch`.
        system: the persona's system text.
        most_tokens: a longer talk is cut to this length.
    """

    def __init__(self, tokenizer: Path, system: str, most_tokens: int = 1024) -> None:
        self._tokenizer = Tokenizer.from_file(str(tokenizer))
        self._most = most_tokens
        self._opening = [_BOS, *self._ids("system\n"), *self._ids(system), _EOS, *self._ids("\n")]
        self._user, self._socrates = self._ids("user\n"), self._ids("assistant\n")
        self._newline = self._ids("\n")

    def encode(self, talk: Talk) -> Lesson:
        """The token ids of `talk`, and which of them are Socrates' own."""
        ids, learnt = list(self._opening), [False] * len(self._opening)
        for question, answer in zip(talk[::2], talk[1::2], strict=True):
            asked = [_BOS, *self._user, *self._ids(question), _EOS, *self._newline]
            asked += [_BOS, *self._socrates]
            said = [*self._ids(answer), _EOS]
            ids += [*asked, *said, *self._newline]
            learnt += [False] * len(asked) + [True] * len(said) + [False] * len(self._newline)
        return Lesson(tuple(ids[: self._most]), tuple(learnt[: self._most]))

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids


def batches(
    sequences: Sequence[Lesson], most_tokens: int, draw: random.Random | None = None
) -> list[list[Lesson]]:
    """Group sequences of similar length, each group at most `most_tokens` with its padding.

    With `draw` the lengths are jittered and the groups shuffled, so that every epoch differs.
    """

    def length(lesson: Lesson) -> float:
        return len(lesson.ids) + (30 * draw.random() if draw else 0)

    groups: list[list[Lesson]] = [[]]
    for sequence in sorted(sequences, key=length):
        longest = max(len(s.ids) for s in [*groups[-1], sequence])
        if groups[-1] and (len(groups[-1]) + 1) * longest > most_tokens:
            groups.append([])
        groups[-1].append(sequence)
    if draw:
        draw.shuffle(groups)
    return groups
