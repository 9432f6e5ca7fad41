"""Cancelling as the server does: another thread sets an event that llama.cpp itself reads."""

import threading

import numpy as np
import pytest

from server.model.backends.cancel import Cancel
from server.model.backends.choice import choose, load
from server.model.files.modelfile import LLAMA_CPP
from tests.support.waiting import wait_until


def test_event_is_one_for_python_and_for_c():
    import ctypes

    cancel = Cancel()
    text = ctypes.c_char_p(cancel.address)
    assert (cancel.is_set(), text.value) == (False, b"")
    cancel.set()
    assert (cancel.is_set(), text.value) == (True, b"x")
    cancel.clear()
    assert (cancel.is_set(), text.value) == (False, b"")


@pytest.mark.model
def test_large_batch_is_left_in_its_middle(smollm2):
    """512 tokens in one call, evaluated as 32 graphs: cancel once the second has begun."""
    (cache,) = load(choose(smollm2, LLAMA_CPP), 2048, 1).caches
    tokens = np.random.default_rng(1).integers(20, 49000, 512).tolist()
    assert cache.evaluate(tokens, 2, Cancel())
    expected = cache.logits().copy()
    assert cache.cut(0)
    cancel, returned = Cancel(), []
    thread = threading.Thread(target=lambda: returned.append(cache.evaluate(tokens, 2, cancel)))
    thread.start()
    held = cache._c.llama_memory_seq_pos_max
    wait_until(lambda: held(cache._memory, 0) >= 16 or not thread.is_alive())
    cancel.set()
    thread.join()
    assert returned == [False]
    assert held(cache._memory, 0) < 511
    assert cache.cut(0)
    assert cache.evaluate(tokens, 2, Cancel())
    assert np.array_equal(cache.logits(), expected)
