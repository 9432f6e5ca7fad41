"""What the head of a model file says, as far as the program needs it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

CTRANSFORMERS, LLAMA_CPP = "ctransformers", "llama.cpp"
ANY_ENGINE = "auto"
ENGINES = (ANY_ENGINE, CTRANSFORMERS, LLAMA_CPP)  # what `--engine` takes


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A file whose head has been found in order (inspection.py)."""

    path: Path
    size_bytes: int
    model_type: str  # as ctransformers names it: "gguf" or "llama" (ggjt)
    engine: str  # CTRANSFORMERS or LLAMA_CPP, by whose abilities the file was judged
    cache_bytes_per_token: int  # in the KV cache: all layers' keys and values, in half floats
    trained_context: int | None  # tokens that the model was trained on; None if not said
    chat_template: str | None  # Jinja
    is_llama_2: bool  # of the legacy container, or of that name
    special: Mapping[str, int]  # ids of tokens that a template may name, by their text
    control: frozenset[int]  # those of them that print nothing and end an answer
    bos: str  # the text of the token at the beginning ...
    eos: str  # ... and of that at the end
    adds_bos: bool  # every prompt begins with the former
    needs_tokenizer_file: bool = False  # its own vocabulary cannot spell every byte
    positions: int | None = None  # tokens after which a model with learned positions has none
