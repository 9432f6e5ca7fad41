"""What the program needs to know about a model file."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

CTRANSFORMERS, LLAMA_CPP = "ctransformers", "llama.cpp"
ANY_ENGINE = "auto"
ENGINES = (ANY_ENGINE, CTRANSFORMERS, LLAMA_CPP)  # what `--engine` takes


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A file whose head has been checked (inspection.py)."""

    path: Path
    size_bytes: int
    model_type: str  # as ctransformers names it: "gguf" or "llama" (ggjt)
    engine: str  # CTRANSFORMERS or LLAMA_CPP: the one that it was checked for
    cache_bytes_per_token: int  # in the KV cache: all layers' keys and values, in half floats
    trained_context: int | None  # tokens that the model was trained on; None if not said
    chat_template: str | None  # Jinja
    is_llama_2: bool  # in the legacy container, or named so
    special: Mapping[str, int]  # ids of tokens that a template may use, by their text
    control: frozenset[int]  # those of them that print nothing and end an answer
    bos: str  # the text of the token at the beginning ...
    eos: str  # ... and of that at the end
    adds_bos: bool  # every prompt begins with the former
    takes_tokenizer_file: bool = True  # a tokenizer.json beside it goes before its own vocabulary
    positions: int | None = None  # the longest context of a model with learned positions
