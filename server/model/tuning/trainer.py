"""The training loop: steps, learning rate, held-out loss, checkpoints.

Owns the recipe (`Recipe`) and everything that a run changes. Promises: the same recipe, talks and
kind of CPU give the same adapter, even if the run was interrupted and resumed: a checkpoint
holds the adapters, the optimizer and the step, and the order of the talks depends on the recipe's
seed and the epoch alone.

A run has two courses: many talks by many authors come first; the few whose manner the model should
keep come last, while the learning rate falls.
"""

import dataclasses
import itertools
import math
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from server.model.tuning.dialogue import Lesson, batches
from server.model.tuning.network import Network

# Per forward pass, padding included: the activations then stay in the CPU's caches
# (EPYC, 2 cores: 249 tokens/s at 512, 179 at 3,072).
_BATCH_TOKENS = 512
_PAD_TO = 8  # tokens
_WARM_UP_STEPS = 10
_LEAST_RATE = 0.05  # of the full rate, at the end of the cosine
_CHECKPOINT_STEPS = 20
_EVALUATION_STEPS = 40


@dataclass(frozen=True, slots=True)
class Recipe:
    """What determines the result of a run, besides the base model and the talks."""

    rank: int = 16
    gain: float = 2.0
    frozen_layers: int = 12
    steps: int = 1100
    last_steps: int = 700  # of these, on the talks that come last
    batches_per_step: int = 2  # of 512 tokens at most
    rate: float = 2e-3
    held_out: int = 48  # talks of each course that are not trained on
    seed: int = 1


@dataclass(frozen=True, slots=True)
class Report:
    """The state of a run after a step."""

    step: int
    steps: int
    loss: float  # mean over the answer tokens of the step, in nats
    held_out_loss: float | None  # of the course's held-out talks, where it was measured
    tokens_per_s: float  # of this process's run, padding not counted
    seconds_a_step: float  # likewise


class _Course:
    """Talks that are trained on together, and the steps that they are used in."""

    def __init__(self, lessons: Sequence[Lesson], recipe: Recipe, steps: range) -> None:
        shuffled = random.Random(recipe.seed).sample(list(lessons), len(lessons))
        self.held_out = shuffled[: recipe.held_out]
        self.lessons = shuffled[recipe.held_out :]
        self.tokens = sum(len(lesson.ids) for lesson in self.lessons)
        self.steps = steps
        self._recipe = recipe

    def groups(self, step: int) -> Iterator[list[Lesson]]:
        """The batches from `step` on; an epoch's order depends on its number alone."""
        skipped = (step - self.steps.start) * self._recipe.batches_per_step
        for epoch in itertools.count():
            draw = random.Random(f"{self._recipe.seed}/{epoch}")
            groups = batches(self.lessons, _BATCH_TOKENS, draw)
            yield from groups[skipped:]
            skipped = max(0, skipped - len(groups))


class Trainer:
    """One run.

    Args:
        network: with the adapters to train.
        first: the talks of the first course, encoded; some are held out, chosen by the seed.
        last: those of the last course, likewise.
        recipe: how to train.
        checkpoint: the file to continue from and to save to; None saves nothing.
    """

    def __init__(
        self,
        network: Network,
        first: Sequence[Lesson],
        last: Sequence[Lesson],
        recipe: Recipe,
        checkpoint: Path | None,
    ) -> None:
        self._network = network
        self._recipe = recipe
        self._checkpoint = checkpoint
        turn = recipe.steps - recipe.last_steps
        self._courses = (
            _Course(first, recipe, range(turn)),
            _Course(last, recipe, range(turn, recipe.steps)),
        )
        self._parameters = [p for m in network.adapters().values() for p in (m.a, m.b)]
        self._optimizer = torch.optim.AdamW(
            self._parameters, lr=recipe.rate, betas=(0.9, 0.99), weight_decay=0.0
        )
        self._known_below: dict[Lesson, Tensor] = {}
        self._step = 0
        self._resume()

    @property
    def tokens(self) -> tuple[int, ...]:
        """Tokens per epoch, for each course."""
        return tuple(course.tokens for course in self._courses)

    def run(self, report: Callable[[Report], None]) -> None:
        """Train to the end, calling `report` after every step."""
        started, first, tokens = time.perf_counter(), self._step, 0
        for course in self._courses:
            groups = course.groups(max(self._step, course.steps.start))
            while self._step in course.steps:
                loss, step_tokens = self._train_step(groups)
                tokens += step_tokens
                elapsed_s = time.perf_counter() - started
                pace_s = elapsed_s / (self._step - first)
                held_out = self._measure_and_save(course)
                report(
                    Report(
                        self._step, self._recipe.steps, loss, held_out, tokens / elapsed_s, pace_s
                    )
                )

    def held_out_losses(self) -> tuple[float, ...]:
        """Each course's mean loss, in nats per token, on the answers of its held-out talks."""
        return tuple(self._held_out_loss(course) for course in self._courses)

    def _measure_and_save(self, course: _Course) -> float | None:
        is_last = self._step == course.steps.stop
        if is_last or self._step % _CHECKPOINT_STEPS == 0:
            self._save()
        if is_last or self._step % _EVALUATION_STEPS == 0:
            return self._held_out_loss(course)
        return None

    @torch.no_grad()
    def _held_out_loss(self, course: _Course) -> float:
        total, count = 0.0, 0
        for group in batches(course.held_out, _BATCH_TOKENS):
            losses = self._losses(group)
            total += losses.sum().item()
            count += losses.numel()
        return total / max(1, count)

    def _train_step(self, groups: Iterator[list[Lesson]]) -> tuple[float, int]:
        total, count, tokens = 0.0, 0, 0
        for group in itertools.islice(groups, self._recipe.batches_per_step):
            losses = self._losses(group)
            losses.sum().backward()  # type: ignore[no-untyped-call]
            total += losses.sum().item()
            count += losses.numel()
            tokens += sum(len(lesson.ids) for lesson in group)
        for parameter in self._parameters:
            assert parameter.grad is not None
            parameter.grad.div_(count)
        torch.nn.utils.clip_grad_norm_(self._parameters, 1.0)
        for parameters in self._optimizer.param_groups:
            parameters["lr"] = self._rate()
        self._optimizer.step()
        self._optimizer.zero_grad()
        self._network.round()
        self._step += 1
        return total / count, tokens

    def _rate(self) -> float:
        warm = min(1.0, (self._step + 1) / _WARM_UP_STEPS)
        cosine = 0.5 * (1 + math.cos(math.pi * self._step / self._recipe.steps))
        return self._recipe.rate * warm * (_LEAST_RATE + (1 - _LEAST_RATE) * cosine)

    # The loss of each token to be learnt.
    def _losses(self, group: Sequence[Lesson]) -> Tensor:
        length = -(-max(len(lesson.ids) for lesson in group) // _PAD_TO) * _PAD_TO
        ids = torch.zeros((len(group), length), dtype=torch.long)
        x = torch.zeros((len(group), length, self._network.width))
        self._look_below(group)
        learnt = torch.zeros((len(group), length), dtype=torch.bool)
        for row, lesson in enumerate(group):
            ids[row, : len(lesson.ids)] = torch.tensor(lesson.ids)
            x[row, : len(lesson.ids)] = self._known_below[lesson]
            learnt[row, : len(lesson.ids)] = torch.tensor(lesson.is_learnt)
        before = torch.zeros_like(learnt)
        before[:, :-1] = learnt[:, 1:]
        return F.cross_entropy(self._network(x, before), ids[learnt], reduction="none")

    # Computed once per talk and cached: 2.3 KB per token.
    def _look_below(self, group: Sequence[Lesson]) -> None:
        new = [lesson for lesson in group if lesson not in self._known_below]
        if not new:
            return
        ids = torch.zeros((len(new), max(len(lesson.ids) for lesson in new)), dtype=torch.long)
        for row, lesson in enumerate(new):
            ids[row, : len(lesson.ids)] = torch.tensor(lesson.ids)
        for lesson, x in zip(new, self._network.below(ids), strict=True):
            self._known_below[lesson] = x[: len(lesson.ids)].clone()

    def _identity(self) -> dict[str, Any]:
        return {**dataclasses.asdict(self._recipe), "tokens": self.tokens}

    def _save(self) -> None:
        if self._checkpoint is None:
            return
        state = {
            "identity": self._identity(),
            "adapters": [p.detach() for p in self._parameters],
            "optimizer": self._optimizer.state_dict(),
            "step": self._step,
        }
        part = self._checkpoint.with_suffix(".part")
        torch.save(state, part)
        part.replace(self._checkpoint)

    def _resume(self) -> None:
        if self._checkpoint is None or not self._checkpoint.exists():
            return
        state = torch.load(self._checkpoint, weights_only=True)
        if state["identity"] != self._identity():
            return  # of another recipe or other talks: start afresh
        with torch.no_grad():
            for parameter, saved in zip(self._parameters, state["adapters"], strict=True):
                parameter.copy_(saved)
        self._optimizer.load_state_dict(state["optimizer"])
        self._step = state["step"]
        self._network.round()
