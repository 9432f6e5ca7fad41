"""A random Llama of a few KB, in the legacy container."""

from pathlib import Path

from tests.support.random_model import F32, Shape, byte_vocabulary, write_model

TINY = Shape(vocabulary=265, embedding=32, multiple=32, heads=2, layers=2)


def write_tiny_model(path: Path, bytes_left_out=0, version=3) -> Path:
    """Write the model to `path`; its vocabulary lacks the last `bytes_left_out` bytes."""
    vocabulary = byte_vocabulary(TINY.vocabulary - bytes_left_out, bytes_left_out)
    return write_model(path, TINY, F32, F32, vocabulary, version)
