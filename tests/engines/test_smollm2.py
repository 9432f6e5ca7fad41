"""The same file on both engines: the same answers, except where rounding decides."""

import dataclasses
import shutil
import threading

import numpy as np
import pytest

from server.model.files.catalog import TOKENIZER_FILE
from server.model.files.modelfile import CTRANSFORMERS, LLAMA_CPP
from server.model.job import Progress
from server.model.loader import EngineSettings, load_engine
from server.model.machine.governor import GovernorSettings
from server.model.prompt.conversation import Conversation
from server.model.prompt.persona import Persona, find_persona, load_persona
from server.model.sampler import Sampling
from tests.support.families import write_family

QUESTIONS = [
    "What is virtue?",
    "Who are you?",
    "Is it better to suffer wrong than to do it?",
    "my brother took my bike",
    "What is the soul?",
    "Can courage be taught?",
    "What do you fear?",
    "hi",
    "What is two and two?",
    "Tell me about Athens.",
    "Why did they put you on trial?",
    "i cant sleep",
    "What makes a good friend?",
    "Is there a God?",
    "should i quit my job",
    "What is beauty?",
    "Do you know Plato?",
    "What is time?",
    "How do I become wise?",
    "Why is the sky blue?",
]
GREEDY = Sampling(
    max_tokens=16, temperature=0, ignore_eos=True, repetition_penalty=1, dry_multiplier=0
)
# The logits' standard deviation is 3.3. Each engine differs from itself by 0.11 to 0.25 when the same
# prompt is split into different batches, and the two from each other by 0.12 to 0.27.
ROUNDING = 0.6


@pytest.fixture(scope="module")
def engines(smollm2):
    persona = load_persona(find_persona("socrates"))
    settings = EngineSettings(smollm2, persona, 2048, governor=GovernorSettings(1))
    return [
        load_engine(dataclasses.replace(settings, engine=name))
        for name in (CTRANSFORMERS, LLAMA_CPP)
    ]


def tokens_of(engine, question):
    """The answer's tokens, and the logits from which each was chosen."""
    heard, logits = [], []
    choose_next = engine._next_token

    def watched(*arguments):
        logits.append(engine._context.logits().copy())
        heard.append(choose_next(*arguments))
        return heard[-1]

    engine._next_token = watched
    try:
        prompt = engine.write_prompt(Conversation(question))
        list(engine.generate(prompt, GREEDY, threading.Event(), Progress()))
    finally:
        engine._next_token = choose_next
    return heard, logits


@pytest.mark.model
@pytest.mark.parametrize("question", QUESTIONS)
def test_greedy_answers_are_alike(engines, question):
    (ours, logits), (theirs, others) = (tokens_of(engine, question) for engine in engines)
    assert len(ours) == len(theirs) == 16
    apart = next((at for at in range(16) if ours[at] != theirs[at]), 15)
    for at in range(apart + 1):
        difference = logits[at] - others[at]
        assert difference.std() < ROUNDING
    if ours != theirs:
        first, second = np.partition(logits[apart], -2)[:-3:-1]
        assert first - second < 2 * np.abs(difference).max()


@pytest.mark.model
def test_tokenizer_file_goes_before_the_vocabulary(engines):
    prompts = [
        engine.write_prompt(Conversation("2024 \U0001f3db <|im_end|>")) for engine in engines
    ]
    assert prompts[0] == prompts[1]


@pytest.mark.model
def test_tokenizer_of_another_model_is_not_taken(smollm2, tmp_path):
    path = write_family(tmp_path / "m.gguf", "gemma3")
    settings = EngineSettings(path, Persona("Be he."), 512, governor=GovernorSettings(1))
    expected = load_engine(settings).write_prompt(Conversation("The heath."))
    shutil.copy(smollm2.parent / TOKENIZER_FILE, tmp_path)
    assert load_engine(settings).write_prompt(Conversation("The heath.")) == expected
