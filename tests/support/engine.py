"""A fake model that the test controls, and a listener that records what it hears."""

import asyncio
import queue
import threading
from dataclasses import dataclass, field

from server.model.errors import PromptEmpty, PromptTooLong
from server.model.job import Finish, Stage
from tests.support.waiting import PATIENCE_S


class FakeEngine:
    """An engine that waits for the test before every step, if it is `gated`.

    A prompt "n words" is answered with n pieces "word0 ", "word1 ", ...; "batches n" prefills n
    batches first; "fail" raises mid-answer, "crash" before its first piece.
    """

    context_tokens = 100
    threads = 1
    cooling = None

    def __init__(self, gated=False):
        self.gated = gated
        self.gate = queue.Queue()
        self.steps = 0  # evaluations begun, of any kind
        self.steps_after_cancel = 0
        self.prompts = []
        self.conversations = []
        self.is_waiting = threading.Event()

    def allow(self, steps=1):
        for _ in range(steps):
            self.gate.put(None)

    def prefill_persona(self, cancelled, progress):
        pass

    def write_prompt(self, conversation):
        text = conversation.question
        self.conversations.append(conversation)
        if not text.strip():
            raise PromptEmpty("The prompt is empty.")
        if len(text) > 1000:
            raise PromptTooLong("The prompt has 1,001 tokens, and there is room for 1,000.")
        return text.split()

    def generate(self, prompt, sampling, cancelled, progress):
        self.prompts.append(" ".join(prompt))
        progress.prompt_tokens, progress.cached_tokens = len(prompt) + 7, 7
        progress.stage = Stage.PREFILL
        batches = int(prompt[1]) if prompt[0] == "batches" else 1
        for _ in range(batches):
            if cancelled.is_set():
                progress.finish = Finish.CANCELLED
                return
            self._step(cancelled)
        if prompt[0] == "crash":
            raise RuntimeError("ggml failed")
        progress.stage = Stage.DECODE
        words = int(prompt[0]) if prompt[0].isdigit() else 2
        for index in range(words):
            progress.tokens += 1
            yield f"word{index} "
            if progress.tokens >= sampling.max_tokens:
                progress.finish = Finish.LENGTH
                return
            if cancelled.is_set():
                progress.finish = Finish.CANCELLED
                return
            self._step(cancelled)
            if prompt[0] == "fail":
                raise RuntimeError("ggml failed")
        progress.decode_s = 0.5
        progress.finish = Finish.STOP

    def _step(self, cancelled):
        self.steps += 1
        self.steps_after_cancel += cancelled.is_set()
        if self.gated:
            self.is_waiting.set()
            self.gate.get(timeout=PATIENCE_S)


@dataclass
class Recorder:
    """A `Listener` that records what it hears."""

    texts: list = field(default_factory=list)
    outcome: object = None
    ends: int = 0
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    spoke: asyncio.Event = field(default_factory=asyncio.Event)

    def on_text(self, text):
        assert self.outcome is None
        self.texts.append(text)
        self.spoke.set()

    def on_end(self, outcome):
        self.outcome = outcome
        self.ends += 1
        self.ended.set()
