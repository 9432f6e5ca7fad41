"""Where a prompt is cut into batches; the cancel event is checked between them.

ggml rounds differently in batches of different sizes, so an answer depends on where its prompt was
cut. Therefore all batches of a model have the same size (backends/ chooses it) and are counted from
the end of the persona, whatever is cached: the same request gives the same answer.
"""


def borders(length: int, persona: int, size: int) -> list[int]:
    """Where whole batches of a prompt begin and end, in order, from 0.

    Args:
        length: of the prompt, in tokens. Less than a batch is left after the last border.
        persona: how many of them are the persona. It ends at a border, so all of it can be reused.
        size: of a batch, in tokens.
    """
    ends = list(range(persona, length + 1, size))
    return [*range(0, persona, size), *ends]
