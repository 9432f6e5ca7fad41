"""The model thread: a queue of prompts and the one thread that answers them, beside an event loop.

A prompt takes seconds of C code that must not run on the loop, and only one thread may use a model.
So an executor with exactly one thread owns the engine: loading, the persona's prefill and every
prompt are jobs on it, done in order of arrival.

What runs where
  loop          submit, cancel, close; every call on a `Listener`; all of `Worker`'s state
  model thread  `_load` and `_run`: they touch the engine, and of a job only `progress`
                (plain fields that the loop may read at any time) and `outbox`

What crosses
  loop -> thread   one `threading.Event` per prompt (a `Cancel`), which the thread only reads
  thread -> loop   pieces of text through `outbox`, woken by `call_soon_threadsafe`; one
                   wake-up serves all waiting pieces, so a slow loop is not flooded and a
                   fast one gets each piece at once
  The thread never waits for the loop or for a reader: an answer is bounded by its token
  limit, a few KB. Once the loop is closed, what crosses is dropped.

Guarantees
  order         answers begin in the order of `submit`
  cancel        a waiting job never starts and leaves the queue at once; one in prefill ends
                within a batch, one in decode within a token; then the next one starts
  listener      gets `on_text` any number of times, then `on_end` exactly once, also when
                the job was refused, failed or cancelled; after `cancel`, no more text
  failure       one prompt's failure is that prompt's alone
"""

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from enum import Enum

from server.model.backends.cancel import Cancel
from server.model.engine import Engine
from server.model.errors import ClientQueueFull, ModelError, ModelUnavailable, QueueFull
from server.model.job import Finish, Job, Listener, Loading, Outcome, Progress, Stage
from server.model.machine.governor import CoolingState
from server.model.prompt.conversation import Conversation
from server.model.sampler import Sampling

log = logging.getLogger(__name__)

_SHUTTING_DOWN = "The server is shutting down."
_NOT_LOADED = "The model could not be loaded."
_LOG_LOADING_S = 2.0  # first interval; doubles up to _LOG_LOADING_MOST_S
_LOG_LOADING_MOST_S = 16.0

LoadEngine = Callable[[Loading, threading.Event], Engine]


class State(Enum):
    """Whether the model can answer prompts."""

    LOADING = "loading"
    READY = "ready"
    FAILED = "failed"


def _is_waiting(job: Job) -> bool:
    return job.progress.stage is Stage.WAITING


class Worker:
    """Owns the model thread and its queue. Every method is for the event loop.

    Args:
        load: makes the engine; called once, on the model thread. It reports its progress,
            and gives up when the event is set.
        waiting_limit: how many prompts may wait, besides the one being answered.
        client_limit: how many of them may be one client's.
    """

    def __init__(self, load: LoadEngine, waiting_limit: int, client_limit: int) -> None:
        self._load_engine = load
        self.waiting_limit = waiting_limit
        self.client_limit = client_limit
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="model")
        self._loop = asyncio.get_running_loop()
        self._closing = Cancel()
        self._engine: Engine | None = None
        self._jobs: dict[Job, None] = {}  # all that have not ended, in order of submission
        # The waiting jobs. Our own queue, not the executor's, because a cancelled job and all
        # that it references must be freed at once. The loop appends and removes, the thread pops.
        self._waiting: deque[Job] = deque()
        self._is_taking = False  # the thread is working through `_waiting`
        self._idle = asyncio.Event()
        self._idle.set()
        self.state = State.LOADING
        self.loading = Loading()
        self.last: Outcome | None = None
        self.speed: float | None = None  # tokens per second of the last answer that had any
        self.counts: dict[str, int] = {}  # ended jobs by their `Outcome.ending`
        self.on_outcome: Callable[[Outcome], None] | None = None  # called for every ended job

    def start(self) -> "asyncio.Future[None]":
        """Start loading. The future fails with ModelFileError if the model cannot be used."""
        # Submitted to the executor right here, so that it runs before any prompt.
        loading = self._loop.run_in_executor(self._executor, self._load)
        return asyncio.ensure_future(self._await_load(loading))

    @property
    def waiting(self) -> int:
        """Prompts waiting for the model thread."""
        return sum(map(_is_waiting, self._jobs))

    @property
    def is_busy(self) -> bool:
        """Whether any prompt is waiting or running."""
        return bool(self._jobs)

    @property
    def is_cancelling(self) -> bool:
        """Whether a cancelled prompt has not ended yet."""
        return any(job.cancelled.is_set() for job in self._jobs)

    @property
    def current(self) -> Progress | None:
        """Progress of the prompt in prefill or decode, if there is one."""
        for job in self._jobs:
            if not _is_waiting(job):
                return job.progress
        return None

    @property
    def threads(self) -> int | None:
        """Threads given to ggml, once the model is loaded."""
        return self._engine.threads if self._engine else None

    @property
    def cooling(self) -> CoolingState | None:
        """The last temperature and duty, if there is a temperature limit."""
        return self._engine.cooling if self._engine else None

    @property
    def is_closing(self) -> bool:
        """Whether `close` has been called."""
        return self._closing.is_set()

    @property
    def has_room(self) -> bool:
        """Whether `submit` would accept one more prompt now."""
        return not self._closing.is_set() and self.waiting < self.waiting_limit

    def submit(
        self, conversation: Conversation, sampling: Sampling, listener: Listener, client: str
    ) -> Job:
        """Queue a prompt. `listener` is called only after this call has returned.

        Args:
            conversation: what is asked, and what was said before.
            sampling: how to answer.
            listener: receives the answer.
            client: who asks; any text that is the same for the same client.

        Raises:
            PromptEmpty, PromptTooLong: at once if the tokenizer is loaded; before that the
                same errors reach the listener in the outcome.
            QueueFull: if the queue is full.
            ClientQueueFull: if this client's share of the queue is full.
            ModelUnavailable: if the model failed, or the worker is closing.
        """
        if self._closing.is_set():
            raise ModelUnavailable(_SHUTTING_DOWN)
        if self.state is State.FAILED:
            raise ModelUnavailable(_NOT_LOADED)
        if not self.has_room:
            raise QueueFull(f"{self.waiting_limit} prompts are waiting already; try again soon.")
        if self._waiting_of(client) >= self.client_limit:
            raise ClientQueueFull(
                f"{self.client_limit} of your prompts are waiting already; wait for an answer."
            )
        prompt = self._engine.write_prompt(conversation) if self._engine else None
        job = Job(conversation, prompt, sampling, listener, client, time.perf_counter())
        self._jobs[job] = None
        self._idle.clear()
        self._waiting.append(job)
        self._start_taking()
        return job

    def _waiting_of(self, client: str) -> int:
        return sum(job.client == client for job in self._jobs if _is_waiting(job))

    def cancel(self, job: Job) -> None:
        """Stop a job at any stage; a waiting one ends within this call. No effect if it is over."""
        job.cancelled_at = job.cancelled_at or time.perf_counter()
        job.cancelled.set()
        if self._withdraw(job):
            self._end(job, self._outcome(job, Finish.CANCELLED, None))

    async def close(self, grace_s: float, limit_s: float) -> bool:
        """Refuse waiting prompts, give the running answer `grace_s` to finish, then cancel it.

        Returns:
            Whether the model thread was free within `limit_s`. If not, it is inside a C call
            that cannot be interrupted.
        """
        self._closing.set()
        self._refuse_waiting(_SHUTTING_DOWN)
        if not await self._is_idle_within(grace_s):
            for job in list(self._jobs):
                job.cancelled.set()
        last = self._executor.submit(lambda: None)
        self._executor.shutdown(wait=False)
        try:
            await asyncio.wait_for(asyncio.wrap_future(last), limit_s - grace_s)
        except TimeoutError:
            return False
        return True

    async def _is_idle_within(self, seconds: float) -> bool:
        try:
            await asyncio.wait_for(self._idle.wait(), seconds)
        except TimeoutError:
            return False
        return True

    # -- starting -----------------------------------------------------------------------

    async def _await_load(self, loading: "asyncio.Future[Engine]") -> None:
        started = time.perf_counter()
        log.info("loading the model")
        interval_s = _LOG_LOADING_S
        while not (await asyncio.wait((loading,), timeout=interval_s))[0]:
            log.info("%s", self.loading.describe())
            interval_s = min(2 * interval_s, _LOG_LOADING_MOST_S)
        error = loading.exception()
        if self._closing.is_set():
            return
        if error is not None:
            self._fail()
            raise error
        engine = loading.result()
        self.state = State.READY
        log.info(
            "model ready after %.1f s: context of %d tokens, %d threads",
            time.perf_counter() - started, engine.context_tokens, engine.threads,
        )  # fmt: skip

    def _load(self) -> Engine:  # model thread
        engine = self._load_engine(self.loading, self._closing)
        engine.prefill_persona(self._closing, self.loading.persona)
        log.debug("loading: the persona is evaluated")
        self._engine = engine  # from now on `submit` can tokenize
        return engine

    def _fail(self) -> None:
        self.state = State.FAILED
        self._refuse_waiting(_NOT_LOADED)

    # -- the queue ----------------------------------------------------------------------

    def _start_taking(self) -> None:
        if not self._is_taking:
            self._is_taking = True
            self._executor.submit(self._take_all)

    def _take_all(self) -> None:  # model thread
        while True:
            try:
                job = self._waiting.popleft()
            except IndexError:
                break
            self._run(job)
        self._to_loop(self._on_all_taken)

    # A job may have arrived between the thread's last look and this call.
    def _on_all_taken(self) -> None:
        self._is_taking = False
        if self._waiting:
            self._start_taking()

    # False if the thread has taken it already.
    def _withdraw(self, job: Job) -> bool:
        try:
            self._waiting.remove(job)
        except ValueError:
            return False
        return True

    def _refuse_waiting(self, sentence: str) -> None:
        for job in list(self._waiting):
            if self._withdraw(job):
                error = ModelUnavailable(sentence)
                self._end(job, self._outcome(job, Finish.FAILED, error))

    # -- one job ------------------------------------------------------------------------

    def _run(self, job: Job) -> None:  # model thread
        job.started_at = time.perf_counter()
        error: ModelError | None = None
        try:
            finish = self._answer(job)
        except ModelError as refused:
            finish, error = Finish.FAILED, refused
        except Exception:  # nothing that one prompt causes may end the model thread
            log.exception("the model failed on a prompt")
            finish, error = Finish.FAILED, ModelUnavailable("The model failed on this prompt.")
        self._to_loop(self._end, job, self._outcome(job, finish, error))

    def _answer(self, job: Job) -> Finish:  # model thread
        if job.cancelled.is_set():
            return Finish.CANCELLED
        if self._engine is None:
            raise ModelUnavailable(_NOT_LOADED)
        prompt = self._engine.write_prompt(job.conversation) if job.prompt is None else job.prompt
        for text in self._engine.generate(prompt, job.sampling, job.cancelled, job.progress):
            if job.outbox.put(text):
                self._to_loop(self._deliver, job)
        assert job.progress.finish is not None
        return job.progress.finish

    def _deliver(self, job: Job) -> None:
        text = job.outbox.take()
        if text and not job.cancelled.is_set():
            job.first_text_at = job.first_text_at or time.perf_counter()
            job.listener.on_text(text)

    def _end(self, job: Job, outcome: Outcome) -> None:
        if job.cancelled_at is not None:
            outcome = replace(outcome, cancel_s=time.perf_counter() - job.cancelled_at)
        if job.first_text_at is not None:
            outcome = replace(outcome, first_text_s=job.first_text_at - job.submitted_at)
        del self._jobs[job]
        if not self._jobs:
            self._idle.set()
        self.last = outcome
        self.speed = outcome.tokens_per_second or self.speed
        self.counts[outcome.ending] = self.counts.get(outcome.ending, 0) + 1
        if self.on_outcome:
            self.on_outcome(outcome)
        job.listener.on_end(outcome)

    def _to_loop(self, call: Callable[..., None], *arguments: object) -> None:  # model thread
        try:
            self._loop.call_soon_threadsafe(call, *arguments)
        except RuntimeError:  # the loop is closed: nobody is left to notify
            log.debug("the event loop is closed; dropped %s", call.__name__)

    @staticmethod
    def _outcome(job: Job, finish: Finish, error: ModelError | None) -> Outcome:
        done = job.progress
        started_at = job.started_at or time.perf_counter()
        return Outcome(
            finish=finish,
            stage=done.stage,
            prompt_tokens=done.prompt_tokens,
            cached_tokens=done.cached_tokens,
            tokens=done.tokens,
            queue_s=started_at - job.submitted_at,
            prefill_s=done.prefill_s,
            decode_s=done.decode_s,
            error=error,
        )
