"""How fast this machine reads memory: what bounds tokens a second, whatever the software.

For every token each weight is read once, so no program is faster than bandwidth divided by
the model's bytes, unless the model fits a cache.
"""

import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np

_BYTES = 512 * 2**20  # well beyond any cache
_RUNS = 5


def bytes_per_second(threads: int) -> float:
    """The best of some runs in which `threads` threads sum up an array together."""
    parts = np.array_split(np.ones(_BYTES // 8), threads)
    best = 0.0
    with ThreadPoolExecutor(threads) as pool:  # numpy lets go of the interpreter meanwhile
        for _ in range(_RUNS):
            started = time.perf_counter()
            list(pool.map(np.sum, parts))
            best = max(best, _BYTES / (time.perf_counter() - started))
    return best
