"""SmolLM2 in PyTorch, its matrices frozen and quantized, with low-rank adapters to train.

Owns the forward pass and the quantization in the loop. The network computes what ggml computes
from the merged file: each adapted matrix is W0 + B·A rounded to the type that it has in the file,
so training sees the rounding that the served model has. Gradients pass the rounding unchanged
(the straight-through estimator, Bengio et al. 2013).

Sizes come from the GGUF file's own metadata, so any SmolLM2 works whose matrices are of a type in
`ROUND_TO`. Only SmolLM2-135M in Q4_1 has been tried.
"""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 (PyTorch's own convention)
from gguf import GGMLQuantizationType, GGUFReader, quants
from torch import Tensor

from server.model.files.adapter import LowRank

_MATRICES = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
_BLOCK = 32  # weights that share a scale and a minimum in Q4_1


def round_to_q4_1(weights: Tensor) -> Tensor:
    """`weights` as Q4_1 stores them: blocks of 32, each 16 equal steps from a minimum.

    The scale and the minimum are stored as float16, but the steps are computed with the exact
    values, as ggml's `quantize_row_q4_1_ref` and `gguf.quants` do.
    """
    blocks = weights.view(-1, _BLOCK)
    least = blocks.amin(1, keepdim=True)
    step = (blocks.amax(1, keepdim=True) - least) / 15
    inverse = torch.where(step == 0, torch.zeros_like(step), 1 / step)
    steps = (blocks - least).mul_(inverse).add_(0.5).floor_().clamp_(0, 15)
    return steps.mul_(step.half().float()).add_(least.half().float()).view_as(weights)


def round_to_q8_0(weights: Tensor) -> Tensor:
    """`weights` as Q8_0 stores them: blocks of 32, in whole steps of the largest value / 127."""
    blocks = weights.view(-1, _BLOCK)
    step = blocks.abs().amax(1, keepdim=True) / 127
    inverse = torch.where(step == 0, torch.zeros_like(step), 1 / step)
    return (blocks * inverse).round_().mul_(step.half().float()).view_as(weights)


ROUND_TO: dict[GGMLQuantizationType, Callable[[Tensor], Tensor]] = {
    GGMLQuantizationType.Q4_1: round_to_q4_1,
    GGMLQuantizationType.Q8_0: round_to_q8_0,
    GGMLQuantizationType.F32: torch.clone,
}


class UnsupportedModelError(Exception):
    """The base model cannot be trained here; `str(error)` is one sentence."""


class _StraightThrough(torch.autograd.Function):
    """x·Wᵀ with a rounded W = W0 + B·A, whose gradient goes to A and B."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weights: Tensor, a: Tensor, b: Tensor) -> Tensor:
        ctx.save_for_backward(x, weights, a, b)
        return F.linear(x, weights)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weights, a, b = ctx.saved_tensors
        flat = gradients[0].reshape(-1, weights.shape[0])
        inputs = x.reshape(-1, weights.shape[1])
        to_a = (flat @ b).t() @ inputs
        to_b = flat.t() @ (inputs @ a.t())
        to_x = (flat @ weights).view_as(x) if ctx.needs_input_grad[0] else None
        return to_x, None, to_a, to_b


class AdaptedLinear:
    """A frozen matrix with a low-rank correction (LoRA, Hu et al. 2021), rounded as one.

    A starts as noise of unit row norm and B as zero, so the correction starts at zero. `gain`
    scales the correction as LoRA's alpha / rank does.
    """

    def __init__(
        self, base: Tensor, rank: int, gain: float, round_weights: Callable[[Tensor], Tensor]
    ) -> None:
        outputs, inputs = base.shape
        self.base = base
        self._round_weights = round_weights
        self.gain = gain
        self.a = (torch.randn(rank, inputs) / math.sqrt(inputs)).requires_grad_()
        self.b = torch.zeros(outputs, rank).requires_grad_()
        self.weights = torch.empty_like(base)
        self.round()

    @torch.no_grad()
    def round(self) -> None:
        """Fold the corrections learnt since the last call into the weights that are used."""
        corrected = torch.addmm(self.base, self.b, self.a, alpha=self.gain)
        self.weights = self._round_weights(corrected)

    def __call__(self, x: Tensor) -> Tensor:
        """x·Wᵀ with the rounded weights."""
        result: Tensor = _StraightThrough.apply(x, self.weights, self.a, self.b * self.gain)
        return result


class _Layer:
    def __init__(
        self, matrices: dict[str, AdaptedLinear], norms: dict[str, Tensor], heads: int
    ) -> None:
        self.matrices = matrices
        self._norms = norms
        self._heads = heads
        self._head_size = matrices["attn_q"].base.shape[0] // heads
        self._kv_heads = matrices["attn_k"].base.shape[0] // self._head_size

    def __call__(self, x: Tensor, rotation: Tensor, epsilon: float) -> Tensor:
        at = self.matrices
        hidden = _rms_norm(x, self._norms["attn_norm"], epsilon)
        q = _rotate(self._split(at["attn_q"](hidden), self._heads), rotation)
        k = _rotate(self._split(at["attn_k"](hidden), self._kv_heads), rotation)
        v = self._split(at["attn_v"](hidden), self._kv_heads)
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        x = x + at["attn_output"](attended.transpose(1, 2).flatten(2))
        hidden = _rms_norm(x, self._norms["ffn_norm"], epsilon)
        return x + at["ffn_down"](F.silu(at["ffn_gate"](hidden)) * at["ffn_up"](hidden))

    def _split(self, x: Tensor, heads: int) -> Tensor:
        return x.unflatten(-1, (heads, self._head_size)).transpose(1, 2)


def _rms_norm(x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    return F.rms_norm(x, weight.shape, weight, epsilon)


# Rotary positions (Su et al. 2021) on neighbouring pairs, as llama.cpp lays the rows out.
def _rotate(x: Tensor, rotation: Tensor) -> Tensor:
    pairs = torch.view_as_complex(x.unflatten(-1, (-1, 2)).contiguous())
    return torch.view_as_real(pairs * rotation[: x.shape[-2]]).flatten(-2)


class Network:
    """The model in `path`, a GGUF file as published.

    Args:
        path: of the base model.
        rank: of every adapter.
        gain: factor of every correction.
        frozen_layers: the lowest layers that get no adapter, which saves their backward pass.
        most_tokens: the longest sequence.

    Raises:
        UnsupportedModelError: if a matrix is of a type that is not in `ROUND_TO`.
    """

    def __init__(
        self, path: Path, rank: int, gain: float, frozen_layers: int = 0, most_tokens: int = 1024
    ) -> None:
        reader = GGUFReader(path)
        tensors = {tensor.name: tensor for tensor in reader.tensors}

        def load(name: str) -> Tensor:
            data = quants.dequantize(tensors[name].data, tensors[name].tensor_type)
            return torch.from_numpy(np.array(data, dtype=np.float32))

        def read(key: str) -> Any:
            return reader.fields[f"llama.{key}"].contents()

        heads = read("attention.head_count")
        self._epsilon = read("attention.layer_norm_rms_epsilon")
        self._embedding = load("token_embd.weight")
        self._last_norm = load("output_norm.weight")

        def adapted(name: str) -> AdaptedLinear:
            kind = tensors[name].tensor_type
            if kind not in ROUND_TO:
                raise UnsupportedModelError(
                    f"{path} has {name} in {kind.name}; training supports "
                    f"{', '.join(known.name for known in ROUND_TO)}."
                )
            return AdaptedLinear(load(name), rank, gain, ROUND_TO[kind])

        self._layers: list[_Layer] = []
        for number in range(read("block_count")):
            matrices = {kind: adapted(f"blk.{number}.{kind}.weight") for kind in _MATRICES}
            norms = {n: load(f"blk.{number}.{n}.weight") for n in ("attn_norm", "ffn_norm")}
            self._layers.append(_Layer(matrices, norms, heads))
        self._frozen_layers = frozen_layers
        head_size = self._embedding.shape[1] // heads
        self._rotation = _rotation(read("rope.freq_base"), head_size, most_tokens)

    @torch.no_grad()
    def below(self, ids: Tensor) -> Tensor:
        """The output of the frozen layers for `ids` (batch, length): (batch, length, width).

        It never changes in training, so it is computed once per talk.
        """
        x = F.embedding(ids, self._embedding)
        for layer in self._layers[: self._frozen_layers]:
            x = layer(x, self._rotation, self._epsilon)
        return x

    def __call__(self, x: Tensor, wanted: Tensor) -> Tensor:
        """The logits (n, vocabulary) after each of the n positions marked in `wanted`.

        Args:
            x: from `below`, padded at the end.
            wanted: (batch, length), True where the next token is to be predicted.
        """
        for layer in self._layers[self._frozen_layers :]:
            x = layer(x, self._rotation, self._epsilon)
        return F.linear(_rms_norm(x[wanted], self._last_norm, self._epsilon), self._embedding)

    @property
    def width(self) -> int:
        """The length of a token's vector between layers."""
        return self._embedding.shape[1]

    def adapters(self) -> dict[str, AdaptedLinear]:
        """The matrices that are trained, by their names in the file."""
        return {
            f"blk.{number}.{kind}.weight": matrix
            for number, layer in enumerate(self._layers)
            for kind, matrix in layer.matrices.items()
            if number >= self._frozen_layers
        }

    def round(self) -> None:
        """Round all adapted matrices again, after a step of the optimizer."""
        for matrix in self.adapters().values():
            matrix.round()

    def corrections(self) -> dict[str, LowRank]:
        """A and B of each adapted matrix, the gain multiplied into B."""
        return {
            name: (
                matrix.a.detach().numpy().copy(),
                (matrix.b.detach() * matrix.gain).numpy().copy(),
            )
            for name, matrix in self.adapters().items()
        }


def _rotation(base: float, head_size: int, length: int) -> Tensor:
    frequencies = base ** (-torch.arange(0, head_size, 2, dtype=torch.float64) / head_size)
    angles = torch.outer(torch.arange(length, dtype=torch.float64), frequencies)
    return torch.polar(torch.ones_like(angles), angles).to(torch.complex64)
