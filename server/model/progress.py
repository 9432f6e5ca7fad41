"""How far the model thread has come, for all who want to tell it: /status, the log, the page.

Owns no lock: every field is one value, written by the model thread and read by anyone, so a
reader sees each as it is or as it just was, never half of it.
"""

from dataclasses import dataclass, field
from enum import Enum


class Stage(Enum):
    """How far a prompt has come."""

    WAITING = "waiting"
    READING = "reading"
    SPEAKING = "speaking"


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
    read_tokens: int = 0  # of the prompt, those that are in the context by now
    tokens: int = 0  # of the answer
    prompt_s: float = 0.0  # time to read the uncached tokens
    generate_s: float = 0.0  # time from the first token's sampling to the end


@dataclass(slots=True)
class Loading:
    """How far the start has come: written by the model thread, read by anyone."""

    file_bytes: int = 0
    read_bytes: int = 0  # of the file, from the disk
    persona: Progress = field(default_factory=Progress)

    @property
    def share(self) -> float:
        """Of the step that it is at, from 0 to 1."""
        if self.persona.prompt_tokens:
            return self.persona.read_tokens / self.persona.prompt_tokens
        return self.read_bytes / self.file_bytes if self.file_bytes else 0.0

    def describe(self) -> str:
        """The step that it is at, for the log."""
        persona = self.persona
        if persona.prompt_tokens:
            return f"reading the persona: {persona.read_tokens} of {persona.prompt_tokens} tokens"
        return f"loading the model: {self.read_bytes / 1e6:.0f} of {self.file_bytes / 1e6:.0f} MB"
