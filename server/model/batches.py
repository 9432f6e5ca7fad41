"""Where a prompt is cut into batches, between which the cancel event is looked at.

ggml rounds differently in batches of other sizes, so an answer depends on where its prompt was cut.
Batches therefore have one size for a model (backends/ says which), counted from the end of the
persona, whatever the machine does and whatever is cached: the same request gives the same answer.
"""


def borders(length: int, persona: int, size: int) -> list[int]:
    """Where whole batches of a prompt begin and end, in order, from 0.

    Args:
        length: of the prompt, in tokens. What is behind the last border is less than a batch.
        persona: tokens of it that are the persona, so that all of them can be reused; or 0.
        size: of a batch, in tokens.
    """
    ends = list(range(persona, length + 1, size))
    return [*range(0, persona, size), *ends]
