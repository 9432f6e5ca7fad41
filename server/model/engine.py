"""The language model: token ids in, text out.

Owns the loaded model, its KV caches (contexts), and two loops: prefill, which evaluates a prompt,
and decode, which generates an answer. Knows nothing of queues, sockets or asyncio.

Guarantees:
  * Everything but `write_prompt` runs on one thread, the model thread (worker.py), because
    no backend's contexts are thread-safe. `write_prompt` only reads tables.
  * `cancelled` is checked before every batch of a prompt and before every token: once it is
    set, at most the current evaluation finishes and no other begins. llama.cpp looks at it
    during an evaluation, too.
  * The persona's tokens are the first of every prompt, so they stay in the KV cache even if the
    prompt is cancelled, fails or is refused. Only a prompt with a system text of its own
    replaces them, in one context.
  * The same prompt, seed and kind of CPU give the same answer, whatever is cached: batches are cut
    at the same places of every prompt (batches.py), and only whole ones are reused.
  * A token's text is sent before the token is evaluated, and never ends inside a UTF-8 character.
  * The context is never exceeded: too long a prompt is refused, an answer ends with LENGTH.

Why the libraries' own loops are not used (ctransformers' `llm(prompt, stream=True)`,
llama-cpp-python's `Llama`): they evaluate a prompt in calls that nothing interrupts, and every
token before its text is handed out, one evaluation late.
"""

import random
import threading
import time
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from itertools import pairwise

import numpy as np

from server.model.batches import borders
from server.model.context import Context, Contexts
from server.model.detokenizer import Detokenizer
from server.model.dry import Dry
from server.model.errors import ModelFileError
from server.model.job import Finish, Progress, Stage
from server.model.kvfile import KVFile
from server.model.machine.governor import CoolingState, Governor
from server.model.prompt.conversation import Conversation
from server.model.prompt.writer import Prompt, PromptWriter
from server.model.sampler import Sampling, penalise, sample

_PENALISED_TOKENS = 64  # llama.cpp's default window (`repeat_last_n`)
_LEAST_ANSWER_TOKENS = 64  # a prompt that leaves room for less is refused
_ANSWER_TOKENS_BESIDE_TALK = 256  # room that a shortened conversation leaves


class Engine:
    """A loaded model with its persona. Made by `load_engine` (loader.py)."""

    def __init__(
        self,
        contexts: Sequence[Context],
        control: frozenset[int],
        pieces: Sequence[bytes],
        prompts: PromptWriter,
        governor: Governor,
        kv_file: KVFile,
    ) -> None:
        self._pieces = pieces
        self._control = control
        self._control_index = np.array(sorted(control))
        self.prompts = prompts
        self._governor = governor
        self._kv_file = kv_file
        self._contexts = Contexts(contexts, prompts.persona_tokens)
        self._context = contexts[0]  # the one in use
        self.context_tokens = self._context.length

    @property
    def threads(self) -> int:
        """The number of threads that ggml currently uses for a token."""
        return self._governor.threads

    @property
    def cooling(self) -> CoolingState | None:
        """The last temperature and duty; None without a limit (`--max-celsius`)."""
        return self._governor.cooling

    def write_prompt(self, conversation: Conversation) -> Prompt:
        """Write the whole prompt for `conversation`. Safe on any thread.

        Turns that the context has no room for are left out, the oldest first.

        Raises:
            PromptEmpty: if nothing is left of the question once it is cleaned.
            PromptTooLong: if the context has no room for the question and a short answer.
        """
        most = self.context_tokens - _LEAST_ANSWER_TOKENS
        return self.prompts.write(
            conversation, most, self.context_tokens - _ANSWER_TOKENS_BESIDE_TALK
        )

    def prefill_persona(self, cancelled: threading.Event, progress: Progress) -> None:
        """Evaluate the persona, or read what an earlier start has kept, so that no prompt has to.

        Raises:
            ModelFileError: if the persona does not fit the context.
        """
        persona = self.prompts.persona_tokens
        if len(persona) + _LEAST_ANSWER_TOKENS >= self.context_tokens:
            raise ModelFileError(
                f"The persona has {len(persona):,} tokens and does not fit "
                f"a context of {self.context_tokens:,}."
            )
        for context in self._contexts:
            self._context = context
            if context.restore(self._kv_file):
                progress.prompt_tokens = progress.prefilled_tokens = len(persona)
            elif self._prefill(persona, cancelled, progress):
                context.keep(self._kv_file, progress.prefill_s)

    def prefill(
        self, prompt: Sequence[int], cancelled: threading.Event, progress: Progress
    ) -> bool:
        """Bring a context to `prompt`: reuse the common prefix, evaluate the rest.

        Returns:
            False if it was cancelled before the end.

        Raises:
            RuntimeError: if ggml fails to evaluate.
        """
        self._context = self._contexts.take(prompt)
        return self._prefill(prompt, cancelled, progress)

    def _prefill(
        self, prompt: Sequence[int], cancelled: threading.Event, progress: Progress
    ) -> bool:
        context = self._context
        cuts = borders(len(prompt), self._contexts.persona_prefix(prompt), context.batch)
        kept = context.keep_prefix(prompt, cuts)
        progress.prompt_tokens = len(prompt)
        progress.cached_tokens = progress.prefilled_tokens = kept
        progress.stage = Stage.PREFILL
        self._governor.begin_prompt()
        started = time.perf_counter()
        for start, end in pairwise(sorted({*cuts[cuts.index(kept) :], len(prompt)})):
            if cancelled.is_set():
                break
            is_last = end == len(prompt)
            if not self.evaluate(prompt[start:end], cancelled, end in cuts, is_last):
                break
            progress.prefilled_tokens = end
            self._governor.pause(cancelled)
        progress.prefill_s = time.perf_counter() - started
        return not cancelled.is_set()

    def generate(
        self,
        prompt: Prompt,
        sampling: Sampling,
        cancelled: threading.Event,
        progress: Progress,
    ) -> Iterator[str]:
        """Prefill `prompt` (from `write_prompt`), then yield the answer's text piece by piece.

        Every piece is yielded before its token is evaluated, so an iteration costs one
        evaluation. `progress` shows stage and counts meanwhile, and `finish` at the end.

        Raises:
            RuntimeError: if ggml fails to evaluate; the next prompt may still succeed.
        """
        if not self.prefill(prompt.tokens, cancelled, progress):
            progress.finish = Finish.CANCELLED
            return
        progress.stage = Stage.DECODE
        started = time.perf_counter()
        try:
            yield from self._decode(prompt, sampling, cancelled, progress)
        finally:
            progress.decode_s = time.perf_counter() - started

    def evaluate(
        self,
        tokens: Sequence[int],
        cancelled: threading.Event,
        is_reusable: bool = False,
        wants_logits: bool = True,
    ) -> bool:
        """Append `tokens`, at most LARGEST_BATCH, to the current context, in one call into ggml.

        Args:
            tokens: to append.
            cancelled: ends it early, where the backend can.
            is_reusable: whether they are a whole batch between two borders (batches.py).
            wants_logits: whether an answer begins or goes on behind them.

        Returns:
            False if it was cancelled before the end.

        Raises:
            RuntimeError: if ggml fails.
        """
        threads = self._governor.choose(len(tokens))
        started = time.perf_counter()
        if not self._context.evaluate(tokens, threads, cancelled, is_reusable, wants_logits):
            return False
        self._governor.record(len(tokens), time.perf_counter() - started)
        return True

    def _decode(
        self,
        prompt: Prompt,
        sampling: Sampling,
        cancelled: threading.Event,
        progress: Progress,
    ) -> Iterator[str]:
        draw = random.Random(sampling.seed)  # None seeds from the operating system
        limit = min(sampling.max_tokens, self.context_tokens - len(prompt.tokens))
        # Penalise only what this answer has said. Penalising the prompt too would suppress the
        # persona's "I" and "?" (a third fewer answers asked something back).
        recent: deque[int] = deque(maxlen=_PENALISED_TOKENS)
        dry = Dry(sampling.dry_multiplier, prompt.said)
        answer = Detokenizer([*sampling.stop, *self.prompts.stops])
        for token in prompt.opening:
            dry.accept(token)
            if piece := answer.feed(self._pieces[token]):
                yield piece
        finish: Finish | None = Finish.STOP if answer.is_stopped else None
        while finish is None:
            has_begun = progress.tokens > 0 or bool(prompt.opening)  # an answer is never empty
            may_end = has_begun and not sampling.ignore_eos
            token = self._next_token(recent, dry, sampling, draw, may_end)
            if token in self._control:
                finish = Finish.STOP
                break
            progress.tokens += 1
            if piece := answer.feed(self._pieces[token]):
                yield piece
            if answer.is_stopped:
                finish = Finish.STOP
            elif progress.tokens >= limit:
                finish = Finish.LENGTH
            elif cancelled.is_set() or not self.evaluate(
                [token], cancelled, is_reusable=self._context.batch == 1
            ):
                finish = Finish.CANCELLED
            else:
                self._governor.pause(cancelled)
                recent.append(token)
                dry.accept(token)
        if rest := answer.end():
            yield rest
        progress.finish = finish

    def _next_token(
        self,
        recent: Collection[int],
        dry: Dry,
        sampling: Sampling,
        draw: random.Random,
        may_end: bool,
    ) -> int:
        logits = self._context.logits()
        if not may_end:
            logits[self._control_index] = -np.inf
        penalise(logits, recent, sampling.repetition_penalty)
        dry.penalise(logits)
        return sample(logits, sampling, draw)
