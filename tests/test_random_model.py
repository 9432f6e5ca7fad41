"""The random models that stand in for real ones load and run, quantised or not."""

import threading

import pytest

from server.model.backends.choice import choose, load
from server.model.files.modelfile import CTRANSFORMERS
from server.model.job import Progress
from server.model.loader import EngineSettings, load_engine
from server.model.machine.governor import GovernorSettings
from server.model.prompt.persona import find_persona, load_persona
from tests.support.random_model import (
    F32,
    Q2_K,
    Q6_K,
    Shape,
    byte_vocabulary,
    write_gguf_model,
    write_model,
)

SMALL = Shape(vocabulary=512, embedding=256, multiple=256, heads=4, layers=2)


@pytest.mark.parametrize("kind", ["bin", "gguf"])
@pytest.mark.parametrize(("matrices", "output"), [(F32, F32), (Q2_K, Q6_K)], ids=["f32", "q2_k"])
def test_random_model_runs(tmp_path, kind, matrices, output):
    path = tmp_path / f"random.{kind}"
    if kind == "gguf":
        write_gguf_model(path, SMALL, matrices, output)
    else:
        write_model(path, SMALL, matrices, output, byte_vocabulary(SMALL.vocabulary))
    persona = load_persona(find_persona("socrates"))
    engine = load_engine(EngineSettings(path, persona, 2048, governor=GovernorSettings(1)))
    assert engine.prefill(list(range(3, 30)), threading.Event(), Progress())
    logits = engine._context.logits()
    assert len(logits) == SMALL.vocabulary
    assert abs(logits).max() < 1e4
    assert logits.std() > 0


def test_spaces_that_become_three_tokens_each_have_room(tmp_path):
    """The vocabulary has no token for SentencePiece's space mark, so that becomes three bytes."""
    path = write_gguf_model(tmp_path / "m.gguf", SMALL, F32, F32)
    tokenizer = load(choose(path, CTRANSFORMERS), 256, 1).tokenizer()
    tokens = tokenizer.encode(" " * 5000)
    assert len(tokens) == 3 * 5001
    assert len(tokenizer.encode("a b" * 3000)) == 3 + 5 * 3000


def test_feed_forward_is_llama_2s():
    assert Shape().feed_forward == 11008
