"""One prompt's way through the model: its stages, progress, outcome and listener.

Owns no lock. Every field of `Progress` and `Loading` is one value, written by the model thread and
read by anyone: a reader sees the current value or the previous one, never half of one.
"""

from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

from server.model.backends.cancel import Cancel
from server.model.errors import ModelError
from server.model.outbox import Outbox
from server.model.prompt.conversation import Conversation
from server.model.prompt.writer import Prompt
from server.model.sampler import Sampling


class Stage(Enum):
    """How far a prompt has come."""

    WAITING = "waiting"
    PREFILL = "prefill"
    DECODE = "decode"


class Finish(Enum):
    """How an answer ended."""

    STOP = "stop"  # the model ended it
    LENGTH = "length"  # it reached max_tokens or the end of the context
    CANCELLED = "cancelled"
    FAILED = "failed"


@dataclass(slots=True)
class Progress:
    """One prompt's progress: written by the model thread, read by anyone (single fields)."""

    stage: Stage = Stage.WAITING
    finish: Finish | None = None
    prompt_tokens: int = 0
    cached_tokens: int = 0  # of the prompt, those that were still in the context
    prefilled_tokens: int = 0  # of the prompt, those that are in the context so far
    tokens: int = 0  # of the answer
    prefill_s: float = 0.0  # time to evaluate the uncached tokens
    decode_s: float = 0.0  # time from the first token's sampling to the end


@dataclass(slots=True)
class Loading:
    """Progress of loading the model: written by the model thread, read by anyone."""

    file_bytes: int = 0
    read_bytes: int = 0  # of the file, from the disk
    persona: Progress = field(default_factory=Progress)

    @property
    def share(self) -> float:
        """Fraction of the current step that is done, 0 to 1."""
        if self.persona.prompt_tokens:
            return self.persona.prefilled_tokens / self.persona.prompt_tokens
        return self.read_bytes / self.file_bytes if self.file_bytes else 0.0

    def describe(self) -> str:
        """The current step, for the log."""
        persona = self.persona
        if persona.prompt_tokens:
            return (
                f"reading the persona: {persona.prefilled_tokens} of {persona.prompt_tokens} tokens"
            )
        return f"loading the model: {self.read_bytes / 1e6:.0f} of {self.file_bytes / 1e6:.0f} MB"


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a job ended. Durations in seconds."""

    finish: Finish
    stage: Stage  # how far it had come
    prompt_tokens: int
    cached_tokens: int
    tokens: int
    queue_s: float
    prefill_s: float
    decode_s: float
    first_text_s: float | None = None  # from `submit` to the first text, if there was any
    cancel_s: float | None = None  # from `cancel` to the end, if it was cancelled
    error: ModelError | None = None  # why it was refused or failed, if it was

    @property
    def ending(self) -> str:
        """How it ended, in one word: done, length, cancelled_STAGE or failed."""
        if self.finish is Finish.CANCELLED:
            return f"cancelled_{self.stage.value}"
        return "done" if self.finish is Finish.STOP else str(self.finish.value)

    @property
    def tokens_per_second(self) -> float | None:
        """Speed of the answer alone, or None if there was none to measure."""
        return self.tokens / self.decode_s if self.decode_s > 0 and self.tokens else None


ENDINGS = (
    "done",
    "length",
    "failed",
    *(f"cancelled_{stage.value}" for stage in Stage),
)


class Listener(Protocol):
    """Receives one answer. Called on the event loop."""

    def on_text(self, text: str) -> None:
        """The next piece of the answer."""

    def on_end(self, outcome: Outcome) -> None:
        """Called exactly once, however the job ended."""


@dataclass(eq=False, slots=True)
class Job:
    """One prompt on its way. Made by `Worker.submit`; only `Worker` looks inside."""

    conversation: Conversation
    prompt: Prompt | None  # None if the tokenizer was not loaded yet
    sampling: Sampling
    listener: Listener
    client: str  # whose limit it counts towards
    submitted_at: float
    cancelled: Cancel = field(default_factory=Cancel)
    progress: Progress = field(default_factory=Progress)
    started_at: float | None = None
    first_text_at: float | None = None
    cancelled_at: float | None = None
    outbox: Outbox = field(default_factory=Outbox)
