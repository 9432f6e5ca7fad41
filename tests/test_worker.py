"""The model thread and its queue, with a gated engine: every step waits for the test."""

import asyncio
import contextlib
import gc
import threading
import weakref

import pytest

from server.model.errors import (
    ClientQueueFull,
    ModelFileError,
    ModelUnavailable,
    PromptEmpty,
    PromptTooLong,
    QueueFull,
)
from server.model.job import Finish, Stage
from server.model.prompt.conversation import Conversation
from server.model.sampler import Sampling
from server.model.worker import State, Worker
from tests.support.engine import FakeEngine, Recorder
from tests.support.waiting import PATIENCE_S

SAMPLING = Sampling(max_tokens=1000)


@contextlib.asynccontextmanager
async def ready_worker(gated=True, limit=16):
    """Yield a worker whose engine is loaded, and the engine; close the worker at the end."""
    engine = FakeEngine(gated)
    worker = Worker(lambda *_: engine, limit, limit)
    async with asyncio.timeout(PATIENCE_S):
        await worker.start()
        try:
            yield worker, engine
        finally:
            engine.gated = False
            engine.allow(10_000)
            assert await worker.close(0, PATIENCE_S)


def submit(worker, text, client="127.0.0.1"):
    recorder = Recorder()
    return worker.submit(Conversation(text), SAMPLING, recorder, client), recorder


async def until(condition):
    """Give the loop and the thread turns until `condition` holds."""
    while not condition():
        await asyncio.sleep(0.001)


async def test_answer_is_heard_in_order_and_ended_once():
    async with ready_worker(gated=False) as (worker, _):
        _, recorder = submit(worker, "5 words")
        await recorder.ended.wait()
        assert "".join(recorder.texts) == "word0 word1 word2 word3 word4 "
        assert recorder.ends == 1
        assert recorder.outcome.finish is Finish.STOP
        assert recorder.outcome.tokens == 5
        assert recorder.outcome.cached_tokens == 7
        assert worker.speed == 10
        assert worker.counts == {"done": 1}


async def test_prompts_are_answered_in_the_order_they_came():
    async with ready_worker(gated=False) as (worker, engine):
        recorders = [submit(worker, f"1 number {n}")[1] for n in range(10)]
        for recorder in recorders:
            await recorder.ended.wait()
        assert engine.prompts == [f"1 number {n}" for n in range(10)]


async def test_pieces_come_before_their_token_is_evaluated():
    async with ready_worker() as (worker, engine):
        _, recorder = submit(worker, "3 words")
        engine.allow(1)  # the prompt
        await until(lambda: recorder.texts == ["word0 "])
        engine.allow(1)  # word0's token
        await until(lambda: "".join(recorder.texts) == "word0 word1 ")


async def test_pieces_coalesce_while_the_loop_is_busy():
    async with ready_worker(gated=False) as (worker, engine):
        _, recorder = submit(worker, "50 words")
        while engine.steps < 51:  # without giving the loop a turn
            pass
        await recorder.ended.wait()
        assert len(recorder.texts) == 1
        assert recorder.texts[0].startswith("word0 word1 ")
        assert recorder.texts[0].endswith("word49 ")


async def test_cancel_while_waiting_never_starts():
    async with ready_worker() as (worker, engine):
        submit(worker, "1 first")
        await until(engine.is_waiting.is_set)
        job, recorder = submit(worker, "1 second")
        _, third = submit(worker, "1 third")
        assert worker.waiting == 2
        worker.cancel(job)
        assert worker.waiting == 1
        assert (recorder.ends, recorder.outcome.stage) == (1, Stage.WAITING)
        engine.allow(10)
        await third.ended.wait()
        assert engine.prompts == ["1 first", "1 third"]
        assert worker.counts == {"cancelled_waiting": 1, "done": 2}


async def test_cancel_while_reading_ends_within_a_batch():
    async with ready_worker() as (worker, engine):
        job, recorder = submit(worker, "batches 10")
        _, second = submit(worker, "1 second")
        engine.allow(3)
        await until(lambda: engine.steps == 4)
        worker.cancel(job)
        engine.allow(10)
        await second.ended.wait()
        assert recorder.outcome.finish is Finish.CANCELLED
        assert recorder.outcome.stage is Stage.PREFILL
        assert recorder.texts == []
        assert engine.steps == 4 + 2  # and the second prompt's own
        assert engine.steps_after_cancel == 0


async def test_cancel_while_speaking_ends_within_a_token():
    async with ready_worker() as (worker, engine):
        job, recorder = submit(worker, "100 words")
        _, second = submit(worker, "1 second")
        engine.allow(3)
        said = "word0 word1 word2 "
        await until(lambda: "".join(recorder.texts) == said and engine.steps == 4)
        worker.cancel(job)
        engine.allow(10)
        await second.ended.wait()
        assert recorder.outcome.stage is Stage.DECODE
        assert engine.steps == 4 + 2
        assert engine.steps_after_cancel == 0
        assert "".join(recorder.texts) == said  # none after the cancel


async def test_cancel_twice_or_after_the_end_is_harmless():
    async with ready_worker() as (worker, engine):
        job, recorder = submit(worker, "1 word")
        worker.cancel(job)
        worker.cancel(job)
        engine.allow(10)
        await recorder.ended.wait()
        worker.cancel(job)
        assert recorder.ends == 1


async def test_queue_is_bounded_and_a_cancel_makes_room():
    async with ready_worker() as (worker, engine):
        submit(worker, "1 first")
        await until(engine.is_waiting.is_set)
        jobs = [submit(worker, "1 more")[0] for _ in range(16)]
        assert not worker.has_room
        with pytest.raises(QueueFull, match="16 prompts are waiting"):
            submit(worker, "1 too many")
        worker.cancel(jobs[3])
        assert worker.has_room
        submit(worker, "1 more")


async def test_cancelled_waiting_prompts_leave_nothing_behind():
    async with ready_worker() as (worker, engine):
        submit(worker, "1 first")
        await until(engine.is_waiting.is_set)
        gone = []
        for _ in range(100):
            job, recorder = submit(worker, "1 more")
            gone.append(weakref.ref(recorder))
            worker.cancel(job)
            del job, recorder
        gc.collect()
        assert not any(ref() for ref in gone)
        assert worker._executor._work_queue.qsize() == 0


async def test_bad_prompts_are_refused_at_once():
    async with ready_worker(gated=False) as (worker, _):
        with pytest.raises(PromptEmpty):
            submit(worker, " ")
        with pytest.raises(PromptTooLong):
            submit(worker, "x" * 2000)
        assert worker.waiting == 0


@pytest.mark.parametrize(("prompt", "pieces"), [("crash now", 0), ("fail now", 1)])
async def test_failure_is_one_prompts_alone(prompt, pieces):
    async with ready_worker(gated=False) as (worker, _):
        _, broken = submit(worker, prompt)
        _, healthy = submit(worker, "2 words")
        await healthy.ended.wait()
        assert broken.outcome.finish is Finish.FAILED
        assert isinstance(broken.outcome.error, ModelUnavailable)
        assert len(broken.texts) == pieces
        assert healthy.outcome.finish is Finish.STOP
        assert worker.counts == {"failed": 1, "done": 1}


async def test_current_and_queued_tell_the_stage():
    async with ready_worker() as (worker, engine):
        assert worker.current is None
        submit(worker, "batches 2")
        submit(worker, "1 second")
        await until(engine.is_waiting.is_set)
        assert worker.current.stage is Stage.PREFILL
        engine.allow(2)
        await until(lambda: worker.current.stage is Stage.DECODE)
        assert worker.waiting == 1


# -- loading --------------------------------------------------------------------------------


async def test_prompts_wait_while_the_model_loads():
    engine, gate = FakeEngine(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def load(loading, cancelled):
        asyncio.run_coroutine_threadsafe(gate.wait(), loop).result(PATIENCE_S)
        return engine

    worker = Worker(load, 16, 16)
    loading = worker.start()
    _, first = submit(worker, "1 word")
    _, too_long = submit(worker, "x" * 2000)  # no tokenizer yet: refused later
    assert worker.state is State.LOADING
    assert worker.threads is None
    gate.set()
    await loading
    await too_long.ended.wait()
    assert worker.state is State.READY
    assert first.outcome.finish is Finish.STOP
    assert isinstance(too_long.outcome.error, PromptTooLong)
    assert await worker.close(0, PATIENCE_S)


async def test_slow_load_is_logged_now_and_then(monkeypatch, caplog):
    monkeypatch.setattr("server.model.worker._LOG_LOADING_S", 0.01)
    caplog.set_level("INFO", "server.model.worker")

    engine, logged = FakeEngine(), threading.Event()

    def load(loading, cancelled):
        loading.file_bytes, loading.read_bytes = 2_900_000_000, 1_000_000_000
        assert logged.wait(PATIENCE_S)
        return engine

    def prefill_persona(cancelled, progress):
        progress.prompt_tokens, progress.prefilled_tokens = 253, 64
        logged.clear()
        assert logged.wait(PATIENCE_S)

    engine.prefill_persona = prefill_persona
    worker = Worker(load, 16, 16)
    loading = worker.start()
    await until(lambda: "loading the model: 1000 of 2900 MB" in caplog.text)
    logged.set()
    await until(lambda: "reading the persona: 64 of 253 tokens" in caplog.text)
    assert worker.loading.share == pytest.approx(64 / 253)
    logged.set()
    await loading
    assert await worker.close(0, PATIENCE_S)


async def test_closing_ends_a_load_quietly():
    def load(loading, cancelled):
        assert cancelled.wait(PATIENCE_S)
        raise ModelUnavailable("Loading the model was cancelled.")

    worker = Worker(load, 16, 16)
    loading = worker.start()
    assert await worker.close(0, PATIENCE_S)
    await loading
    assert worker.state is State.LOADING


async def test_failed_load_fails_what_waits_and_what_comes():
    def load(loading, cancelled):
        raise ModelFileError("The model file x is empty.")

    worker = Worker(load, 16, 16)
    loading = worker.start()
    _, waiting = submit(worker, "1 word")
    with pytest.raises(ModelFileError, match="x is empty"):
        await loading
    await waiting.ended.wait()
    assert isinstance(waiting.outcome.error, ModelUnavailable)
    assert worker.state is State.FAILED
    with pytest.raises(ModelUnavailable, match="could not be loaded"):
        submit(worker, "1 word")
    assert await worker.close(0, PATIENCE_S)


async def test_one_client_may_not_fill_the_queue():
    async with ready_worker() as (worker, engine):
        worker.client_limit = 2
        submit(worker, "1 word", "a")
        await until(lambda: engine.is_waiting.is_set())
        for _ in range(2):
            submit(worker, "1 word", "a")
        with pytest.raises(ClientQueueFull, match="2 of your prompts are waiting already"):
            submit(worker, "1 word", "a")
        _, other = submit(worker, "1 word", "b")
        engine.allow(100)
        await other.ended.wait()
        submit(worker, "1 word", "a")


async def test_outcome_tells_when_the_first_text_came():
    async with ready_worker(gated=False) as (worker, _):
        heard = []
        worker.on_outcome = heard.append
        _, recorder = submit(worker, "2 words")
        await recorder.ended.wait()
        assert heard == [recorder.outcome]
        assert recorder.outcome.first_text_s >= recorder.outcome.queue_s
        assert recorder.outcome.cancel_s is None


async def test_outcome_tells_how_long_a_cancel_took():
    async with ready_worker() as (worker, engine):
        job, recorder = submit(worker, "5 words")
        await until(lambda: engine.is_waiting.is_set())
        worker.cancel(job)
        engine.allow(1)
        await recorder.ended.wait()
        assert recorder.outcome.cancel_s >= 0
        assert recorder.outcome.first_text_s is None


# -- closing --------------------------------------------------------------------------------


async def test_close_refuses_what_waits_and_lets_the_running_answer_end():
    engine = FakeEngine(gated=True)
    worker = Worker(lambda *_: engine, 16, 16)
    await worker.start()
    _, running = submit(worker, "2 words")
    await until(engine.is_waiting.is_set)
    _, waiting = submit(worker, "1 word")
    closing = asyncio.ensure_future(worker.close(PATIENCE_S / 2, PATIENCE_S))
    await waiting.ended.wait()
    assert str(waiting.outcome.error) == "The server is shutting down."
    with pytest.raises(ModelUnavailable, match="shutting down"):
        submit(worker, "1 word")
    engine.allow(10)
    assert await closing
    assert running.outcome.finish is Finish.STOP


async def test_close_cancels_an_answer_that_outlasts_its_grace():
    engine = FakeEngine(gated=True)
    worker = Worker(lambda *_: engine, 16, 16)
    await worker.start()
    job, running = submit(worker, "100 words")
    await until(engine.is_waiting.is_set)
    closing = asyncio.ensure_future(worker.close(0.01, PATIENCE_S))
    await until(job.cancelled.is_set)
    engine.allow(100)
    assert await closing
    assert running.outcome.finish is Finish.CANCELLED


async def test_close_tells_when_the_thread_cannot_be_had():
    engine = FakeEngine(gated=True)
    worker = Worker(lambda *_: engine, 16, 16)
    await worker.start()
    submit(worker, "1 word")
    await until(engine.is_waiting.is_set)
    assert not await worker.close(0.01, 0.05)
    engine.allow(100)


def test_thread_survives_the_end_of_the_loop():
    engine = FakeEngine(gated=True)

    async def leave_at_work():
        worker = Worker(lambda *_: engine, 16, 16)
        await worker.start()
        submit(worker, "2 words")
        await until(engine.is_waiting.is_set)
        return worker

    worker = asyncio.run(leave_at_work())
    engine.allow(100)
    worker._executor.shutdown(wait=True)
    assert engine.steps == 3
