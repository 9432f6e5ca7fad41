"""Chooses the next token from the logits: penalty, top-k, temperature, top-p, one draw.

Pure numpy on the caller's buffer: no model, no thread, no clock. The order of the steps
and their meaning follow llama.cpp's samplers (repetition penalty after Keskar et al. 2019,
"CTRL"; top-p after Holtzman et al. 2020).

Why not `LLM.sample`: its penalty searches the last tokens once per vocabulary entry
(1.1 ms a token at 49,152 entries, against 7 ms of evaluation), and its `seed=-1` restarts
the generator from the clock's second for every token.
"""

import math
import random
from bisect import bisect_left, bisect_right
from collections.abc import Collection
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from server.model.backends import Logits

_COLDEST = 1e-3  # below it only the likeliest token has a chance, and divisions overflow
_ROWS = 64  # of the matrix that `_largest` folds the logits into


@dataclass(frozen=True, slots=True)
class Sampling:
    """How one answer is to be sampled."""

    max_tokens: int
    temperature: float = 0.6  # 0 picks the likeliest token every time
    top_k: int = 40
    top_p: float = 0.9
    repetition_penalty: float = 1.1  # 1 is none
    dry_multiplier: float = 0.8  # against repeating earlier answers (dry.py); 0 is off
    seed: int | None = None  # None draws one from the operating system
    ignore_eos: bool = False  # run to `max_tokens`, for measuring (llama.cpp's and vLLM's name)
    stop: tuple[str, ...] = ()  # sequences before which the answer ends


def penalise(logits: Logits, recent: Collection[int], penalty: float) -> None:
    """Make the tokens in `recent` less likely, in place; a repeated one counts once."""
    if penalty == 1.0:
        return
    ids = np.fromiter(recent, dtype=np.intp, count=len(recent))
    values = logits[ids]
    logits[ids] = np.where(values > 0, values / penalty, values * penalty)


def sample(logits: Logits, sampling: Sampling, draw: random.Random) -> int:
    """Choose the next token's id: one draw from `draw`, none at temperature 0."""
    if sampling.temperature < _COLDEST:
        return int(logits.argmax())
    ids = _largest(logits, sampling.top_k)
    # For this few numbers, lists are faster than arrays.
    values = logits[ids].tolist()
    # llama.cpp cuts by top-p before it applies the temperature, and so do we.
    cumulative = _cumulative_weights(values, 1.0)
    kept = bisect_left(cumulative, sampling.top_p * cumulative[-1]) + 1
    cumulative = _cumulative_weights(values[:kept], sampling.temperature)
    chosen = bisect_right(cumulative, draw.random() * cumulative[-1])
    return int(ids[min(chosen, len(cumulative) - 1)])


# Ids of the k largest logits, the largest first. A full partition of 49,152 values costs
# 0.4 ms. So fold them into 64 rows first: each of the k largest column maxima is a value, so
# the least of them is a bound that at least k values reach, and hardly more do. Exact, and
# two passes over the values (0.03 ms).
def _largest(logits: Logits, k: int) -> NDArray[np.intp]:
    columns = len(logits) // _ROWS
    if k < columns:
        maxima = logits[: columns * _ROWS].reshape(_ROWS, columns).max(axis=0)
        candidates = (logits >= np.partition(maxima, -k)[-k]).nonzero()[0]
    else:
        candidates = np.arange(len(logits))
    order = logits[candidates].argsort()[::-1]
    largest: NDArray[np.intp] = candidates[order[:k]]
    return largest


# Cumulative sums of softmax's numerators. `values` are in descending order: none overflows.
def _cumulative_weights(values: list[float], temperature: float) -> list[float]:
    largest = values[0]
    return list(accumulate([math.exp((value - largest) / temperature) for value in values]))
