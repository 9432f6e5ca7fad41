"""What has been said so far: plain values, from a request to the prompt writer."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Exchange:
    """One question and its answer."""

    user: str
    answer: str


@dataclass(frozen=True, slots=True)
class Conversation:
    """A question, and what stood before it."""

    question: str
    exchanges: tuple[Exchange, ...] = ()  # the oldest first
    system: str | None = None  # instead of the persona
