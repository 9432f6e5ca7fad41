"""What `bench.character` looks for in an answer: crude rules that anybody can read.

Pure. Each rule takes a visitor's message, the answer, and the answers before it in the talk, and
says whether the answer passes; None where the rule has nothing to judge.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

_MOST_WORDS = 60
_FOUR = 4  # words in a row that count as a repetition

_MACHINE = re.compile(
    r"\b(an? AI|as an AI|language model|chatbot|virtual assistant|SmolLM)\b", re.I
)
_LECTURE = re.compile(
    r"\bSocrates('s)? (was|is|were|are|has|had|did|does|believed|believes|argued|argues|taught|"
    r"teaches|said|says|thought|thinks|would|held|saw|asked|asks|famously|once|philosophy)\b"
)
# Marks of lists, headings and emphasis, and characters that no tokenizer should leave.
_MARKUP = re.compile(r"[*#`|<>\[\]{}\\_~\ufffd]|^\s*(\d+[.)]|[-\u2022])\s", re.M)
_SENTENCE_END = re.compile(r"[.?!\u2026][\"'\u201d\u2019)]*$")
_HELP = re.compile(
    r"\b(emergency number|doctor|someone (near|you trust)|call (someone|for help))", re.I
)
_WORD = re.compile(r"[a-z']+")
# Words that do not say what a message is about.
_EMPTY = frozenset(Path(__file__).with_name("empty_words.txt").read_text().split())

Rule = Callable[[str, str, Sequence[str]], bool | None]


def is_himself(message: str, answer: str, before: Sequence[str]) -> bool:
    """He is no machine, and gives no lecture about himself."""
    return not _MACHINE.search(answer) and not _LECTURE.search(answer)


def asks(message: str, answer: str, before: Sequence[str]) -> bool:
    """There is at least one question."""
    return "?" in answer


def is_brief(message: str, answer: str, before: Sequence[str]) -> bool:
    """There are at most 60 words, and at least one."""
    return 0 < len(answer.split()) <= _MOST_WORDS


def is_clean(message: str, answer: str, before: Sequence[str]) -> bool:
    """The sentences are plain, and the last one has ended."""
    return not _MARKUP.search(answer) and bool(_SENTENCE_END.search(answer.strip()))


def has_new_opening(message: str, answer: str, before: Sequence[str]) -> bool | None:
    """No answer of the talk began with the same three words."""
    if not before:
        return None
    return _words(answer)[:3] not in [_words(earlier)[:3] for earlier in before]


def has_new_words(message: str, answer: str, before: Sequence[str]) -> bool | None:
    """No four words in a row were said in the talk before."""
    if not before:
        return None
    said = {run for earlier in before for run in _runs(earlier)}
    return said.isdisjoint(_runs(answer))


def takes_up(message: str, answer: str, before: Sequence[str]) -> bool | None:
    """A word that says what the message is about occurs in the answer."""
    wanted = set(_stems(message))
    return not wanted.isdisjoint(_stems(answer)) if wanted else None


def helps(answer: str) -> bool:
    """The answer names a person or a number to call."""
    return bool(_HELP.search(answer))


RULES: dict[str, Rule] = {
    "himself": is_himself,
    "asks": asks,
    "brief": is_brief,
    "clean": is_clean,
    "opening new": has_new_opening,
    "words new": has_new_words,
    "takes up": takes_up,
}


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower().replace("\u2019", "'"))


def _runs(text: str) -> Iterator[tuple[str, ...]]:
    words = _words(text)
    return zip(*(words[start:] for start in range(_FOUR)), strict=False)


# The first five letters: "argued" and "argument" count as the same word.
def _stems(text: str) -> Iterator[str]:
    return (word[:5] for word in _words(text) if len(word) > 2 and word not in _EMPTY)
