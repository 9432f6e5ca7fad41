"""The persona's keys and values are saved, and are read back only where they fit."""

import dataclasses
import logging
import os
import subprocess
import sys
import threading

import pytest

from server.model import kvfile
from server.model.job import Progress
from server.model.loader import EngineSettings, load_engine
from server.model.machine.governor import GovernorSettings
from server.model.prompt.conversation import Conversation, Turn
from server.model.prompt.persona import Persona
from server.model.sampler import Sampling
from tests.support.families import write_family
from tests.support.process import ROOT
from tests.support.tiny_model import write_tiny_model

WRITER = """
import sys
from pathlib import Path
from server.model.backends.choice import choose, load
from server.model.kvfile import KVFile
import threading
path = Path(sys.argv[1])
backend = load(choose(path), 1024, 1)
(cache,) = backend.caches
cache.evaluate(list(range(20, 220)), 1, threading.Event())
for number in range(60):
    KVFile(path, backend, range(20, 220)).write(cache, 10)
"""

pytestmark = pytest.mark.usefixtures("_keep_all")


@pytest.fixture
def _keep_all(monkeypatch):
    monkeypatch.setattr(kvfile, "_WORTHWHILE_S", 0.0)


# With an example, because Gemma's template puts the system text into the first question.
def persona(system):
    return Persona(system, (Turn("Ha?", "Ha."),))


@pytest.fixture(params=["qwen3", "gemma3"])
def settings(request, tmp_path):
    path = write_family(tmp_path / "m [1].gguf", request.param)
    return EngineSettings(
        path, persona("He is the other one. " * 10), 1024, governor=GovernorSettings(1)
    )


def start(settings):
    """An engine, and how many tokens it evaluated for its persona."""
    engine = load_engine(settings)
    evaluated = []
    evaluate = engine.evaluate

    def watched(tokens, *arguments, **options):
        evaluated.extend(tokens)
        return evaluate(tokens, *arguments, **options)

    engine.evaluate = watched
    progress = Progress()
    engine.prefill_persona(threading.Event(), progress)
    engine.evaluate = evaluate
    assert progress.prefilled_tokens == progress.prompt_tokens == len(engine.prompts.persona_tokens)
    return engine, len(evaluated)


def answer(engine, question="What is the aether?"):
    progress = Progress()
    prompt = engine.write_prompt(Conversation(question))
    sampling = Sampling(max_tokens=20, temperature=1.0, seed=1, ignore_eos=True)
    pieces = list(engine.generate(prompt, sampling, threading.Event(), progress))
    return pieces, progress.cached_tokens


def files(settings):
    return sorted(
        path.name for path in settings.model_file.parent.iterdir() if path.suffix != ".gguf"
    )


def test_next_start_reads_it_and_answers_alike(settings):
    engine, evaluated = start(settings)
    length = len(engine.prompts.persona_tokens)
    assert evaluated == length
    expected = answer(engine)
    assert expected[1] == length
    (name,) = files(settings)
    assert name.startswith("m [1].gguf.")
    assert name.endswith(".kv")
    engine, evaluated = start(settings)
    assert evaluated == 0
    assert answer(engine) == expected
    assert files(settings) == [name]


def test_every_context_reads_it(settings):
    start(settings)
    engine, evaluated = start(dataclasses.replace(settings, contexts=2))
    assert evaluated == 0
    assert answer(engine)[1] == answer(engine, "Why?")[1] == len(engine.prompts.persona_tokens)


def test_another_persona_or_model_does_not_take_it(settings):
    start(settings)
    other = dataclasses.replace(settings, persona=persona("She is the other one. " * 10))
    assert start(other)[1] > 0
    data = bytearray(settings.model_file.read_bytes())
    data[-1] ^= 1  # of the weights
    settings.model_file.write_bytes(data)
    assert start(settings)[1] > 0


def test_two_are_kept_the_latest(settings):
    for number in range(4):
        start(dataclasses.replace(settings, persona=persona(f"He is number {number}.")))
        for place, name in enumerate(files(settings)):  # the clock of a file system may be coarse
            path = settings.model_file.with_name(name)
            os.utime(path, (place, path.stat().st_mtime - 10))
    assert len(files(settings)) == 2
    assert start(dataclasses.replace(settings, persona=persona("He is number 3.")))[1] == 0


@pytest.mark.parametrize("damage", ["truncated", "empty", "flipped", "of another size"])
def test_damaged_file_is_detected_and_replaced(settings, caplog, damage):
    expected = answer(start(settings)[0])
    (name,) = files(settings)
    path = settings.model_file.with_name(name)
    data = bytearray(path.read_bytes())
    if damage == "flipped":
        data[len(data) // 2] ^= 1
    kept = {"truncated": -1, "empty": 0, "flipped": None, "of another size": 64}[damage]
    path.write_bytes(data[:kept])
    engine, evaluated = start(settings)
    assert evaluated == len(engine.prompts.persona_tokens)
    assert answer(engine) == expected
    assert str(path) in caplog.text
    assert start(settings)[1] == 0


def test_everything_else_works_where_nothing_can_be_written(settings, monkeypatch, caplog):
    def refuse(*arguments):
        raise OSError(28, "No space left on device")

    caplog.set_level(logging.INFO)
    monkeypatch.setattr("os.posix_fallocate", refuse)
    assert answer(start(settings)[0])[0]
    assert files(settings) == []
    assert "the persona is not kept for the next start: [Errno 28]" in caplog.text


def test_cancelled_start_keeps_nothing(settings):
    engine = load_engine(settings)
    cancelled = threading.Event()
    cancelled.set()
    engine.prefill_persona(cancelled, Progress())
    assert files(settings) == []


def test_quick_prefill_is_not_kept(settings, monkeypatch):
    monkeypatch.setattr(kvfile, "_WORTHWHILE_S", 3600.0)
    start(settings)
    assert files(settings) == []


def test_ctransformers_keeps_nothing(tmp_path):
    path = write_tiny_model(tmp_path / "m.gguf")
    settings = EngineSettings(path, Persona("Be he."), 512, governor=GovernorSettings(1))
    assert start(settings)[1] > 0
    assert files(settings) == []


def test_two_servers_write_at_the_same_time(settings):
    """Each writes to a file of its own and renames it once it is complete."""
    start(settings)
    (name,) = files(settings)
    settings.model_file.with_name(name).unlink()
    command = [sys.executable, "-c", WRITER, str(settings.model_file)]
    writers = [subprocess.Popen(command, cwd=ROOT) for _ in range(3)]
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    assert len(files(settings)) == 1
    assert files(settings)[0].endswith(".kv")


def test_what_is_not_ours_is_left_alone(settings):
    mine = settings.model_file.with_name("m [1].gguf.of-mine.kv")
    mine.write_bytes(b"x")
    crashed = settings.model_file.with_name("m [1].gguf.abc123.kv.part")
    crashed.write_bytes(b"x")
    os.utime(crashed, (0, 0))
    for number in range(4):
        start(dataclasses.replace(settings, persona=persona(f"He is number {number}.")))
    assert mine.exists()
    assert not crashed.exists()


def test_another_context_length_does_not_take_it(settings):
    start(settings)
    assert start(dataclasses.replace(settings, context_tokens=768))[1] > 0
