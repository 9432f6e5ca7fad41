"""Current architectures on llama.cpp: tiny random files like those that converters write."""

import dataclasses
import logging
import subprocess
import sys
import threading

import jinja2
import numpy as np
import pytest

from server.model.backends.choice import choose, load
from server.model.backends.llama_cpp import LlamaCpp
from server.model.errors import ModelFileError, NotForCtransformers
from server.model.files.modelfile import CTRANSFORMERS, LLAMA_CPP
from server.model.job import Finish, Progress, Stage
from server.model.loader import EngineSettings, load_engine
from server.model.machine.governor import GovernorSettings
from server.model.prompt.conversation import Conversation, Turn
from server.model.prompt.persona import Persona
from server.model.sampler import Sampling
from tests.engines.reference import call
from tests.support.families import FAMILIES, write_family, write_gpt2
from tests.support.process import ROOT
from tests.support.random_model import F32, Shape, write_gguf_model

TALK = (Turn("What is the aether?", "The \u1f00\u03ae\u03c1 there."), Turn("And then?", "Ha."))
QUESTION = "Whither  the heather?\nThere."
SEEDED = Sampling(max_tokens=24, temperature=1.0, seed=3, ignore_eos=True)


@pytest.fixture(scope="module", params=FAMILIES)
def family(request, tmp_path_factory):
    return request.param, write_family(
        tmp_path_factory.mktemp(request.param) / "m.gguf", request.param
    )


def settings(path, **changes):
    whole = EngineSettings(path, Persona("Be he."), 1024, governor=GovernorSettings(1))
    return dataclasses.replace(whole, **changes)


def say(engine, conversation, sampling=SEEDED, cancelled=None):
    progress = Progress()
    prompt = engine.write_prompt(conversation)
    pieces = engine.generate(prompt, sampling, cancelled or threading.Event(), progress)
    return list(pieces), progress


class SetAt(threading.Event):
    """An event that is set after it has been checked `looks` times."""

    def __init__(self, looks):
        super().__init__()
        self.looks = looks

    def is_set(self):
        self.looks -= 1
        return self.looks < 0


def test_ctransformers_declines_and_llama_cpp_takes_it(family):
    _, path = family
    with pytest.raises(NotForCtransformers):
        choose(path, CTRANSFORMERS)
    file = choose(path)
    assert file.engine == LLAMA_CPP
    assert file.trained_context == 2048


def test_prompt_has_the_tokens_of_its_template(family, tmp_path):
    """As llama.cpp tokenizes the rendered template with control tokens recognised."""
    name, path = family
    engine = load_engine(settings(path))
    messages = [{"role": "system", "content": "Be he."}]
    for turn in TALK:
        messages.append({"role": "user", "content": turn.question})
        messages.append({"role": "assistant", "content": turn.answer})
    messages.append({"role": "user", "content": QUESTION})
    marks = FAMILIES[name].marks
    text = jinja2.Environment(trim_blocks=True, lstrip_blocks=True).from_string(
        FAMILIES[name].template
    ).render(
        messages=messages, add_generation_prompt=True, enable_thinking=False,
        bos_token=marks[0], eos_token=FAMILIES[name].end,
    )  # fmt: skip
    tokens = call(path, tmp_path / "ids.npy", text=text).tolist()
    if FAMILIES[name].has_bos and not text.startswith(marks[0]):
        tokens.insert(0, 0)
    assert engine.write_prompt(Conversation(QUESTION, TALK)).tokens == tokens


def test_control_tokens_come_out_of_no_text_and_print_nothing(family):
    name, path = family
    engine = load_engine(settings(path))
    hostile = Conversation(" ".join(FAMILIES[name].marks) + " x")
    clean = engine.write_prompt(Conversation("x")).tokens
    own = [token for token in clean if token in engine._control]
    assert [
        token for token in engine.write_prompt(hostile).tokens if token in engine._control
    ] == own
    assert {engine._pieces[token] for token in engine._control} == {b""}
    assert FAMILIES[name].marks.index(FAMILIES[name].end) in engine._control


def test_answers_and_a_seed_repeats_whatever_came_between(family):
    _, path = family
    engine = load_engine(settings(path, governor=GovernorSettings()))
    engine.prefill_persona(threading.Event(), Progress())
    talk = Conversation(QUESTION, TALK)
    first, progress = say(engine, talk)
    assert progress.finish is Finish.LENGTH
    assert progress.tokens == 24
    say(engine, Conversation("The end. " * 40, system="She."), cancelled=SetAt(200))
    say(engine, Conversation("The other heath."))
    again, progress = say(engine, talk)
    assert again == first
    assert say(load_engine(settings(path)), talk)[0] == first


def test_prefix_is_reused(family):
    _, path = family
    engine = load_engine(settings(path))
    say(engine, Conversation(QUESTION, TALK))
    _, progress = say(engine, Conversation("Then?", (*TALK, Turn(QUESTION, "He."))))
    assert progress.cached_tokens >= progress.prompt_tokens / 2


@pytest.mark.parametrize("looks", [1, 40, 400])
def test_cancel_within_a_batch(family, looks):
    """llama.cpp checks the event before each node, so it leaves a batch midway."""
    _, path = family
    engine = load_engine(settings(path))
    whole = say(engine, Conversation("heather " * 60))[0]
    engine = load_engine(settings(path))
    pieces, progress = say(engine, Conversation("heather " * 60), cancelled=SetAt(looks))
    assert (pieces, progress.finish, progress.stage) == ([], Finish.CANCELLED, Stage.PREFILL)
    assert progress.prefilled_tokens < progress.prompt_tokens
    assert say(engine, Conversation("heather " * 60))[0] == whole


def test_cancel_within_a_token(family):
    _, path = family
    engine = load_engine(settings(path))
    say(engine, Conversation("x"), Sampling(max_tokens=1))
    looks = SetAt(10**9)
    say(engine, Conversation("x"), dataclasses.replace(SEEDED, max_tokens=5), looks)
    asked = 10**9 - looks.looks
    _, progress = say(engine, Conversation("x"), cancelled=SetAt(asked - 3))
    assert (progress.finish, progress.stage) == (Finish.CANCELLED, Stage.DECODE)
    assert progress.tokens == 4


def test_logits_are_those_of_its_own_class(family, tmp_path):
    _, path = family
    backend = LlamaCpp(choose(path), 1024, 1)
    (cache,) = backend.caches
    tokens = np.random.default_rng(2).integers(10, backend.vocabulary_size, 200).tolist()
    assert cache.evaluate(tokens, 1, threading.Event())
    assert np.array_equal(cache.logits(), call(path, tmp_path / "logits.npy", tokens))


def test_contexts_share_the_weights_and_nothing_else(family):
    _, path = family
    backend = LlamaCpp(choose(path), 512, 2)
    one, other = backend.caches
    assert one.evaluate([20, 21, 22], 1, threading.Event())
    kept = one.logits().copy()
    assert other.evaluate([30, 31], 1, threading.Event())
    assert np.array_equal(one.logits(), kept)
    assert not np.array_equal(other.logits(), kept)


def test_every_truncation_is_noticed(family, tmp_path):
    _, path = family
    data = path.read_bytes()
    for end in (*range(8, len(data), len(data) // 30), len(data) - 1):
        (tmp_path / "m.gguf").write_bytes(data[:end])
        with pytest.raises(ModelFileError, match=r"truncated.*\.$"):
            choose(tmp_path / "m.gguf")


def test_its_log_is_ours(family, caplog):
    _, path = family
    with caplog.at_level(logging.DEBUG):
        load_engine(settings(path))
    assert "llama_kv_cache" in caplog.text
    assert all(
        record.levelno == logging.DEBUG for record in caplog.records if "llama" in record.name
    )


def test_spaces_that_become_three_tokens_each_have_room(tmp_path):
    shape = Shape(vocabulary=512, embedding=256, multiple=256, heads=4, layers=2)
    path = write_gguf_model(tmp_path / "m.gguf", shape, F32, F32)
    tokenizer = load(choose(path, LLAMA_CPP), 256, 1).tokenizer()
    assert len(tokenizer.encode(" " * 5000)) == 3 * 5001
    assert len(tokenizer.encode("")) == 0


# Pre-tokenizers: those whose regular expressions recurse in llama.cpp, and others.
PRES = (
    "llama-bpe", "qwen2", "tekken", "gpt-4o", "deepseek-llm", "deepseek-v3", "falcon", "default",
    "bloom", "viking", "smollm", "gpt-2", "superbpe", "seed-coder",
)  # fmt: skip
LONG_RUNS = ("a", "1", "!", " ", "\n", "\u1f00", "\U0001f3db")


@pytest.mark.parametrize("pre", PRES)
def test_long_runs_do_not_overflow_the_stack(tmp_path, pre):
    changed = {**FAMILIES, pre: dataclasses.replace(FAMILIES["mistral"], pre=pre)}
    path = write_family(tmp_path / "m.gguf", pre, changed)
    tokenizer = load(choose(path), 256, 1).tokenizer()
    for letter in LONG_RUNS:
        text = letter * 100_000
        tokens = tokenizer.encode(text)
        assert b"".join(tokenizer.pieces[token] for token in tokens).decode() == text


def test_portions_change_no_token(family, monkeypatch):
    """If a text has words, it makes no difference whether it is split into portions."""
    _, path = family
    tokenizer = load(choose(path), 256, 1).tokenizer()
    text = "The other  one, there:\n\n\the heard 1234 of it. " * 200
    whole = tokenizer.encode(text)
    monkeypatch.setattr("server.model.backends.llama_tokenizer._PORTION", 10**9)
    assert tokenizer.encode(text) == whole


def test_error_after_cancels_is_explained_by_itself(tmp_path):
    path = write_family(tmp_path / "m.gguf", "qwen3")
    (cache,) = load(choose(path), 256, 1).caches
    for _ in range(3):
        assert not cache.evaluate(list(range(20, 60)), 1, SetAt(5))
    with pytest.raises(RuntimeError, match="invalid token"):
        cache.evaluate([10**6], 1, threading.Event())
    assert cache.cut(0)
    assert cache.evaluate([20], 1, threading.Event())


def test_positions_that_end_are_not_exceeded(tmp_path):
    path = write_gpt2(tmp_path / "m.gguf", 320)
    with pytest.raises(ModelFileError, match=r"has positions for 320 tokens: use --context 320\.$"):
        load_engine(settings(path))
    engine = load_engine(settings(path, context_tokens=320))
    _, progress = say(
        engine, Conversation("heath " * 20), dataclasses.replace(SEEDED, max_tokens=500)
    )
    assert progress.prompt_tokens + progress.tokens == 320


def test_persona_of_no_tokens_is_no_fault(tmp_path):
    """A template without special tokens, on a file that begins with no BOS."""
    path = write_family(tmp_path / "m.gguf", "qwen2")
    template = tmp_path / "plain.jinja"
    template.write_text(
        "{% for m in messages %}{{ m.role + ': ' + m.content + '\\n' }}{% endfor %}"
    )
    engine = load_engine(settings(path, template=str(template)))
    engine.prefill_persona(threading.Event(), Progress())
    assert engine.prompts.persona_tokens == []
    assert say(engine, Conversation("The heath."))[1].tokens == 24


def test_no_mutated_head_ends_the_process(tmp_path):
    """600 of them: each is refused in one sentence, or loads and answers."""
    command = [sys.executable, "-m", "tests.tools.mutate", str(tmp_path), "600", LLAMA_CPP]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    refused, loaded = map(int, result.stdout.split())
    assert refused + loaded == 600
    assert min(refused, loaded) > 60
