"""Where a prompt is cut into batches, between which the cancel event is looked at.

ggml rounds differently in batches of other sizes, so an answer depends on where its prompt was cut.
Batches therefore have one size for a model, counted from the end of the persona, whatever the
machine does and whatever is cached: the same request gives the same answer.

Large batches are faster (SmolLM2, 2 threads: 110 tokens/s one by one, 172 by eights, 185 by 64s);
small ones let a cancelled prompt go sooner. The size is chosen so that a batch takes some 0.1 s on
two cores of an EPYC: 16 tokens for 100 MB of weights, one for 2 GB.
"""

_MODEL_BYTES_A_BATCH = 2.9e9  # read in 0.1 s, each batch reading the weights once a token
_LARGEST = 64  # tokens; beyond it nothing was gained (195 tokens/s by 128s)


def batch_tokens(model_bytes: int) -> int:
    """The size of every whole batch for a model of this size: a power of two, 1 to 64."""
    fitting = max(1, min(_LARGEST, int(_MODEL_BYTES_A_BATCH / max(1, model_bytes))))
    return 1 << (fitting.bit_length() - 1)


def borders(length: int, persona: int, size: int) -> list[int]:
    """Where whole batches of a prompt begin and end, in order, from 0.

    Args:
        length: of the prompt, in tokens. What is behind the last border is less than a batch.
        persona: tokens of it that are the persona, so that all of them can be reused; or 0.
        size: of a batch, in tokens.
    """
    ends = list(range(persona, length + 1, size))
    return [*range(0, persona, size), *ends]
