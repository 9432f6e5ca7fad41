"""Training on a tiny random model: it learns, it is reproducible, and merging is lossless."""

import json
import random

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType, GGUFReader, GGUFWriter, quants
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from server.model.files.adapter import Adapter, write_adapter
from server.model.prompt.conversation import Conversation, Turn
from server.model.prompt.persona import Persona
from server.model.prompt.templates import compile_template
from server.model.prompt.tokenizer import HubTokenizer
from server.model.prompt.writer import PromptWriter
from server.model.tuning import __main__ as command
from server.model.tuning.dialogue import Encoder, batches, read_talks
from server.model.tuning.network import (
    Network,
    UnsupportedModelError,
    round_to_q4_1,
    round_to_q8_0,
)
from server.model.tuning.trainer import Recipe, Trainer
from tests.support.templates import FAMILIES

WIDTH, HIDDEN, HEADS, KV_HEADS, LAYERS = 64, 96, 2, 1, 3
Q4_1, Q8_0 = GGMLQuantizationType.Q4_1, GGMLQuantizationType.Q8_0
SHAPES = {
    "attn_q": (WIDTH, WIDTH),
    "attn_k": (WIDTH // 2, WIDTH),
    "attn_v": (WIDTH // 2, WIDTH),
    "attn_output": (WIDTH, WIDTH),
    "ffn_gate": (HIDDEN, WIDTH),
    "ffn_up": (HIDDEN, WIDTH),
    "ffn_down": (WIDTH, HIDDEN),
}
TALKS = [
    ("who are you", "I am Socrates.", "what do you want", "I want to know what you think."),
    ("i am sad", "You are sad. What happened to you?"),
    ("what is virtue", "I do not know. What do you say?", "kindness", "Is every kind man good?"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny model, its tokenizer, and some talks."""
    folder = tmp_path_factory.mktemp("tiny")
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate(["<pad>", "<s>", "</s>", *letters])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save(str(folder / "tokenizer.json"))
    write_model(folder / "model.gguf", len(vocabulary))
    (folder / "talks" / "last").mkdir(parents=True)
    lines = [json.dumps(talk) for talk in TALKS * 8]
    for place in ("talks", "talks/last"):
        (folder / place / "all.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def write_model(path, vocabulary, kind=Q4_1):
    draw = np.random.default_rng(0)
    writer = GGUFWriter(path, "llama")
    writer.add_block_count(LAYERS)
    writer.add_head_count(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10_000.0)

    def add(name, shape, scale, kind):
        values = draw.normal(scale=scale, size=shape).astype(np.float32)
        writer.add_tensor(name, quants.quantize(values, kind), raw_dtype=kind)

    add("token_embd.weight", (vocabulary, WIDTH), 0.5, Q8_0)
    writer.add_tensor("output_norm.weight", np.ones(WIDTH, np.float32))
    for layer in range(LAYERS):
        for name, shape in SHAPES.items():
            add(f"blk.{layer}.{name}.weight", shape, 0.1, kind)
        for name in ("attn_norm", "ffn_norm"):
            writer.add_tensor(f"blk.{layer}.{name}.weight", np.ones(WIDTH, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def recipe(**changes):
    settings = {
        "frozen_layers": 0,
        "rank": 4,
        "steps": 80,
        "last_steps": 20,
        "batches_per_step": 1,
        "rate": 1e-2,
        "held_out": 3,
    }
    return Recipe(**settings | changes)


def trainer(folder, checkpoint=None, **changes):
    torch.manual_seed(1)
    chosen = recipe(**changes)
    network = Network(folder / "model.gguf", chosen.rank, chosen.gain, chosen.frozen_layers)
    encoder = Encoder(folder / "tokenizer.json", "You are Socrates.")
    lessons = [encoder.encode(talk) for talk in read_talks(folder / "talks")]
    half = len(lessons) // 2
    return network, Trainer(network, lessons[:half], lessons[half:], chosen, checkpoint)


def random_corrections(network, scale=0.02):
    draw = np.random.default_rng(3)
    return {
        name: (
            draw.normal(scale=scale, size=matrix.a.shape).astype(np.float32),
            draw.normal(scale=scale, size=matrix.b.shape).astype(np.float32),
        )
        for name, matrix in network.adapters().items()
    }


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"frozen_layers": 1},
        {"batches_per_step": 2},
        {"last_steps": 0},
    ],
    ids=str,
)
def test_loss_falls_on_what_was_trained_and_on_what_was_held_out(folder, changes):
    _, run = trainer(folder, **changes)
    before = run.held_out_losses()
    reports = []
    run.run(reports.append)
    assert [report.step for report in reports] == list(range(1, 81))
    assert reports[-1].loss < 0.7 * reports[0].loss
    assert all(now < 0.8 * then for now, then in zip(run.held_out_losses(), before, strict=True))
    assert reports[-1].held_out_loss in run.held_out_losses()


def test_each_course_has_its_own_steps_and_talks(folder):
    _, run = trainer(folder, steps=6, last_steps=2)
    used = []
    for name, course in zip(("first", "last"), run._courses, strict=True):
        lessons = set(course.lessons)

        def groups(step, name=name, lessons=lessons, original=course.groups):
            for group in original(step):
                assert set(group) <= lessons
                used.append(name)
                yield group

        course.groups = groups
    run.run(lambda report: None)
    assert used == ["first"] * 4 + ["last"] * 2


def test_same_recipe_gives_the_same_adapter(folder):
    results = []
    for _ in range(2):
        network, run = trainer(folder, steps=4, last_steps=2)
        run.run(lambda report: None)
        results.append(network.corrections())
    for name, (a, b) in results[0].items():
        assert np.array_equal(a, results[1][name][0])
        assert np.array_equal(b, results[1][name][1])


def test_interrupted_run_goes_on_to_the_same_end(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("server.model.tuning.trainer._CHECKPOINT_STEPS", 2)
    whole, run = trainer(folder, steps=12, last_steps=6)
    run.run(lambda report: None)

    def interrupt(report):
        if report.step == 5:
            raise KeyboardInterrupt

    checkpoint = tmp_path / "checkpoint.pt"
    _, run = trainer(folder, checkpoint, steps=12, last_steps=6)
    with pytest.raises(KeyboardInterrupt):
        run.run(interrupt)
    continued, run = trainer(folder, checkpoint, steps=12, last_steps=6)
    steps = []
    run.run(lambda report: steps.append(report.step))
    assert steps[0] == 5  # the fourth step was saved, the fifth was not
    for name, (a, b) in whole.corrections().items():
        assert np.array_equal(a, continued.corrections()[name][0])
        assert np.array_equal(b, continued.corrections()[name][1])


def test_checkpoint_of_another_recipe_is_not_continued(folder, tmp_path):
    checkpoint = tmp_path / "checkpoint.pt"
    _, run = trainer(folder, checkpoint, steps=4, last_steps=2)
    run.run(lambda report: None)
    _, other = trainer(folder, checkpoint, steps=4, last_steps=2, rate=2e-2)
    steps = []
    other.run(lambda report: steps.append(report.step))
    assert steps[0] == 1


@pytest.mark.parametrize(("kind", "rounded"), [(Q4_1, round_to_q4_1), (Q8_0, round_to_q8_0)])
def test_rounding_is_that_of_the_file_format(kind, rounded):
    values = np.random.default_rng(1).normal(size=(64, 128)).astype(np.float32)
    values[0, :32] = 0.25  # a block of equal values
    expected = quants.dequantize(quants.quantize(values, kind), kind)
    found = rounded(torch.from_numpy(values)).numpy()
    assert np.allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("kind", [Q4_1, Q8_0])
def test_merged_file_has_the_weights_that_training_used(folder, tmp_path, kind):
    vocabulary = GGUFReader(folder / "model.gguf").tensors[0].shape[1]
    path = tmp_path / "model.gguf"
    write_model(path, int(vocabulary), kind)
    network = Network(path, rank=4, gain=1.0)
    write_adapter(tmp_path / "a.gguf", random_corrections(network), "test")
    adapter = Adapter(tmp_path / "a.gguf")
    for name, matrix in network.adapters().items():
        stored_a, stored_b = adapter.low_rank(name)
        with torch.no_grad():
            matrix.a.copy_(torch.from_numpy(stored_a))
            matrix.b.copy_(torch.from_numpy(stored_b))
        matrix.round()
    base = {tensor.name: tensor for tensor in GGUFReader(path).tensors}
    for name, matrix in network.adapters().items():
        merged = quants.dequantize(adapter.merge(base[name]), kind)
        step = np.abs(merged).max() / (15 if kind is Q4_1 else 127)
        difference = np.abs(merged - matrix.weights.numpy())
        # float32 and float64 sums may fall on different sides of a border between two steps.
        assert (difference > 1e-6).mean() < 1e-3
        assert difference.max() < 2 * step


def test_gradient_of_an_adapter_is_that_of_its_definition(folder):
    """Compare with autograd on W0 + gain·B·A without rounding: it must not change the gradient."""
    network = Network(folder / "model.gguf", rank=4, gain=0.5)
    matrix = next(iter(network.adapters().values()))
    with torch.no_grad():
        matrix.b.normal_()
    matrix._round_weights = torch.clone
    matrix.round()
    x = torch.randn(7, WIDTH, requires_grad=True)
    (matrix(x) ** 2).sum().backward()
    found = [x.grad.clone(), matrix.a.grad.clone(), matrix.b.grad.clone()]
    x.grad = matrix.a.grad = matrix.b.grad = None
    plain = x @ (matrix.base + matrix.gain * matrix.b @ matrix.a).t()
    (plain**2).sum().backward()
    for ours, theirs in zip(found, (x.grad, matrix.a.grad, matrix.b.grad), strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-3, atol=1e-4)


def test_matrices_of_an_unknown_type_are_refused(folder, tmp_path):
    path = tmp_path / "model.gguf"
    write_model(path, 259, GGMLQuantizationType.Q5_0)
    with pytest.raises(UnsupportedModelError, match=r"Q5_0; training supports Q4_1, Q8_0, F32\.$"):
        Network(path, rank=4, gain=1.0)


def test_training_sees_what_the_server_writes(folder):
    talk = ("hello", "Who are you?", "ann", "What do you want, Ann?")
    lesson = Encoder(folder / "tokenizer.json", "You are Socrates.").encode(talk)
    special = {"<|im_start|>": 1, "<|im_end|>": 2}
    tokenizer = HubTokenizer(folder / "tokenizer.json", frozenset({1, 2}), 259)
    persona = Persona("You are Socrates.")
    template = compile_template(FAMILIES["SmolLM2"][0], "<|im_start|>", "<|im_end|>")
    writer = PromptWriter(persona, template, tokenizer, special)
    asked = Conversation("ann", (Turn("hello", "Who are you?"),))
    prompt = list(writer.write(asked, 1000, 1000).tokens)
    assert list(lesson.ids[: len(prompt)]) == prompt
    answer = tokenizer.encode("What do you want, Ann?")
    learnt = [i for i, is_learnt in zip(lesson.ids, lesson.is_learnt, strict=True) if is_learnt]
    assert learnt[-len(answer) - 1 :] == [*answer, 2]


def test_batches_hold_every_talk_once_and_are_not_too_large(folder):
    encoder = Encoder(folder / "tokenizer.json", "You are Socrates.")
    lessons = [encoder.encode(talk) for talk in read_talks(folder / "talks")]
    groups = batches(lessons, 500, random.Random(1))
    assert sorted(map(id, lessons)) == sorted(id(lesson) for group in groups for lesson in group)
    assert all(len(group) * max(len(lesson.ids) for lesson in group) <= 500 for group in groups)


def test_command_trains_and_writes_an_adapter(folder, tmp_path, capsys):
    out = tmp_path / "adapter.gguf"
    status = command.main(
        ["--base", str(folder / "model.gguf"), "--talks", str(folder / "talks"), "--out", str(out),
         "--checkpoint", str(tmp_path / "c.pt"), "--rank", "4", "--steps", "4", "--last-steps", "2",
         "--held-out", "3",
         "--frozen-layers", "0"]
    )  # fmt: skip
    assert status == 0
    assert len(Adapter(out).names) == LAYERS * len(SHAPES)
    assert "held-out loss" in capsys.readouterr().err
    assert not (tmp_path / "c.pt").exists()


def test_line_that_is_no_talk_is_named(folder, tmp_path, capsys):
    (tmp_path / "bad.jsonl").write_text('["a", "b"]\n["a"]\n')
    status = command.main(["--base", str(folder / "model.gguf"), "--talks", str(tmp_path)])
    assert status == 1
    assert capsys.readouterr().err == "error: bad.jsonl line 2 is not an even number of strings.\n"
