"""A seed repeats its answer, and so does temperature 0, whatever came between and is cached."""

import os
import random
import subprocess
import sys
import threading
from dataclasses import replace

import pytest

from server.model.job import Progress
from server.model.loader import load_engine
from server.model.machine.governor import GovernorSettings
from server.model.prompt.conversation import Conversation, Turn
from server.model.sampler import Sampling

TALKS = [
    ["What is virtue?", "Can it be taught?", "By whom?"],
    ["my brother took my bike", "he said sorry", "should i forgive him"],
    ["hi", "idk", "lol ok"],
    ["I lost my job today.", "I had worked there for eleven years.", "What shall I tell my wife?"],
    ["my name is Nora", "i live in bergen", "do you remember my name?"],
    ["Is courage the absence of fear?", "Then what is it?", "I do not agree."],
    ["can you write python", "why not", "do it anyway " * 20],
    ["\u03a3\u03ce\u03ba\u03c1\u03b1\u03c4\u03b5\u03c2", "???", "What is the good life?" * 5],
]
# 16 rounds of all talks (share 1) take 25 minutes; this is what every run can afford.
ROUNDS = int(os.environ.get("REPEAT_ROUNDS", "2"))


@pytest.fixture
def burning_core():
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    yield
    process.kill()
    process.wait()


def answers(engine, messages, temperature):
    turns = []
    for message in messages:
        prompt = engine.write_prompt(Conversation(message, tuple(turns)))
        sampling = Sampling(max_tokens=16, temperature=temperature, seed=5)
        pieces = engine.generate(prompt, sampling, threading.Event(), Progress())
        turns.append(Turn(message, "".join(pieces).strip() or "..."))
    return [turn.answer for turn in turns]


@pytest.mark.model
@pytest.mark.parametrize(
    ("temperature", "contexts", "share"), [(0.8, 1, 2), (0.0, 1, 4), (0.8, 2, 4)]
)
@pytest.mark.usefixtures("burning_core")
def test_the_same_talk_gets_the_same_answers(engine_settings, temperature, contexts, share):
    settings = replace(engine_settings, contexts=contexts, governor=GovernorSettings())
    engine = load_engine(settings)
    draw = random.Random(1)
    heard = {index: set() for index in range(0, len(TALKS), share)}
    for _ in range(ROUNDS):
        for index in draw.sample(list(heard), len(heard)):
            heard[index].add(tuple(answers(engine, TALKS[index], temperature)))
            broken = threading.Event()
            foreign = Conversation("Who are you? " * draw.randrange(1, 30), system="Be a pirate.")
            pieces = engine.generate(
                engine.write_prompt(foreign), Sampling(max_tokens=3), broken, Progress()
            )
            next(pieces, None)
            broken.set()
            pieces.close()
    assert {index: len(found) for index, found in heard.items()} == dict.fromkeys(heard, 1)
