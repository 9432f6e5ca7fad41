"""Fixed first words of an answer, for questions that match a pattern.

Owns the `[[openings]]` of persona files and the search. The patterns are matched by RE2, whose time
is linear in the length of the question, whatever an operator writes or a visitor sends. With the
shipped patterns, an ordinary message takes 0.5 ms and the longest that is searched, 2,000
characters, 16 ms on an EPYC. (Python's `re` took ten seconds for 16 KiB.)
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import re2

from server.model.prompt.conversation import Conversation

_MEMORY_BYTES = 8 * 2**20  # the limit of RE2's automaton, for each opening
_SEARCHED = 1000  # characters, at the start of a question and at its end


class BadPattern(Exception):
    """A pattern is not a valid regular expression; `str(error)` says why."""


@dataclass(frozen=True, slots=True)
class Opening:
    """First words for one kind of question.

    Args:
        pattern: what to look for.
        texts: used one after the other within a conversation; from then on, the last.
    """

    pattern: Any  # re2's compiled patterns have no type of their own
    texts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Openings:
    """All openings of a persona; the first that matches is used.

    Args:
        openings: in order.
        harmless: a pattern whose matches are cut out of a question first; None cuts nothing.
    """

    openings: tuple[Opening, ...] = ()
    harmless: Any = None

    def first_words(self, conversation: Conversation) -> str:
        """The fixed first words of the answer to `conversation`; "" if it has none."""
        question = self._simplify(conversation.question)
        for opening in self.openings:
            if opening.pattern.search(question):
                return _next_text(opening, conversation)
        return ""

    # The form that patterns expect: lower case, straight apostrophes, one space between words.
    def _simplify(self, text: str) -> str:
        if len(text) > 2 * _SEARCHED:
            text = f"{text[:_SEARCHED]} {text[-_SEARCHED:]}"
        plain = " ".join(text.lower().replace("\u2019", "'").split())
        return self.harmless.sub(" ~ ", plain) if self.harmless else plain


# The first text that no earlier answer begins with. (Searching the earlier questions instead would
# take seconds for a long conversation, on the event loop.)
def _next_text(opening: Opening, conversation: Conversation) -> str:
    for text in opening.texts[:-1]:
        if not any(turn.answer.startswith(text) for turn in conversation.turns):
            return text
    return opening.texts[-1]


def read_openings(table: Mapping[str, Any]) -> Openings:
    """Read the openings in a TOML table: `[[openings]]`, `[words]` and `harmless`.

    `{name}` in a pattern stands for the alternatives that `[words]` has under that name.

    Raises:
        KeyError, TypeError, AttributeError: if the table is malformed.
        BadPattern: if a pattern is not a valid regular expression.
    """
    words = {
        f"{{{name}}}": f"(?:{read_text(value)})" for name, value in table.get("words", {}).items()
    }
    openings = [
        Opening(_compile(_texts(row["patterns"]), words), _texts(row["texts"]))
        for row in table.get("openings", [])
    ]
    harmless = _texts(table["harmless"]) if "harmless" in table else ()
    return Openings(tuple(openings), _compile(harmless, words) if harmless else None)


def _compile(patterns: Sequence[str], words: Mapping[str, str]) -> Any:
    pattern = "|".join(f"(?:{pattern})" for pattern in patterns)
    for name, choices in words.items():
        pattern = pattern.replace(name, choices)
    options = re2.Options()
    options.max_mem = _MEMORY_BYTES
    options.never_capture = True
    options.log_errors = False
    try:
        return re2.compile(pattern, options)
    except re2.error as error:
        raise BadPattern(str(error)) from error


def _texts(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not value:
        raise TypeError
    return tuple(map(read_text, value))


def read_text(value: object) -> str:
    """Return `value` without surrounding whitespace.

    Raises:
        TypeError: if it is not a string.
    """
    if not isinstance(value, str):
        raise TypeError
    return value.strip()
