"""The engine alone, with no sampling, no text and no network around it: the ceiling."""

import time
from collections.abc import Sequence

from server.model.backends import LARGEST_BATCH
from server.model.backends.cancel import Cancel
from server.model.engine import Engine
from server.model.job import Progress
from server.model.prompt.conversation import Conversation

# Before each measurement, in the same process: after a pause the first tokens take up to five
# times as long, until the kernel has the pages at hand and ggml's threads on separate cores.
WARM_UP_TOKENS = 16
_NEVER = Cancel()


def prompt_tokens(engine: Engine, question: str) -> Sequence[int]:
    """The whole prompt in which `question` is asked."""
    return engine.write_prompt(Conversation(question)).tokens


def decode_speed(engine: Engine, count: int, question: str = "What is virtue?") -> float:
    """Return the tokens/s of `count` evaluations, one token each, after a question."""
    prompt = prompt_tokens(engine, question)
    engine.prefill(prompt, _NEVER, Progress())
    started = time.perf_counter()
    for index in range(count):
        engine.evaluate([prompt[index % len(prompt)]], _NEVER)
    return count / (time.perf_counter() - started)


def prefill_seconds(engine: Engine, question: str, cached: int) -> float:
    """Return the seconds to prefill all but the first `cached` tokens, in the largest batches."""
    prompt = prompt_tokens(engine, question)
    engine.prefill(prompt[:cached], _NEVER, Progress())
    started = time.perf_counter()
    for at in range(cached, len(prompt), LARGEST_BATCH):
        engine.evaluate(prompt[at : at + LARGEST_BATCH], _NEVER)
    return time.perf_counter() - started
