"""What has been said so far: plain values that a request passes to the prompt writer."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Turn:
    """One question and its answer."""

    question: str
    answer: str


@dataclass(frozen=True, slots=True)
class Conversation:
    """A question, and what was said before it."""

    question: str
    turns: tuple[Turn, ...] = ()  # the oldest first
    system: str | None = None  # instead of the persona
    begun: str = ""  # how the answer begins already: it is continued, and not repeated
