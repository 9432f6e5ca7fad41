"""The same file on both engines: the same answers, but for what rounding decides."""

import dataclasses
import threading

import numpy as np
import pytest

from server.model.backends.choice import choose, load
from server.model.files.modelfile import CTRANSFORMERS, LLAMA_CPP
from server.model.job import Progress
from server.model.loader import EngineSettings, load_engine
from server.model.machine.governor import GovernorSettings
from server.model.prompt.conversation import Conversation
from server.model.prompt.persona import find_persona, load_persona
from server.model.sampler import Sampling

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
# Of logits whose standard deviation is 3.3. Each engine differs from itself by 0.11 to 0.25 when
# the same prompt is cut into other batches, and the two from each other by 0.12 to 0.27.
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


class CountedEvent(threading.Event):
    """Is set when it is looked at for the n-th time."""

    def __init__(self, looks):
        super().__init__()
        self.looks = looks

    def is_set(self):
        self.looks -= 1
        return self.looks < 0


@pytest.mark.model
def test_large_batch_is_left_in_its_middle(smollm2):
    """512 tokens in one call: 32 graphs of some 600 nodes, before each of which it looks."""
    (cache,) = load(choose(smollm2, LLAMA_CPP), 2048, 1).caches
    tokens = np.random.default_rng(1).integers(20, 49000, 512).tolist()
    event = CountedEvent(10**9)
    assert cache.evaluate(tokens, 2, event)
    expected, looks = cache.logits().copy(), 10**9 - event.looks
    assert looks > 32 * 300
    cache.cut(0)
    event = CountedEvent(looks // 2)
    assert not cache.evaluate(tokens, 2, event)
    assert event.looks > -10  # it did not go on
    assert cache.cut(0)
    assert cache.evaluate(tokens, 2, threading.Event())
    assert np.array_equal(cache.logits(), expected)
