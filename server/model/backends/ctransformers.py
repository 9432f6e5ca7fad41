"""ctransformers 0.2.27: fast to decode, small to install, with a llama.cpp of 2023 inside.

The only module that imports ctransformers; server/README.md tells how that really behaves. Its KV
cache cannot be saved: the library exports llama.cpp's functions for it, but hides the context that
they need inside a C++ object.
"""

import ctypes
import importlib
import threading
from collections.abc import Mapping, Sequence
from typing import Any

from server.model.backends import (
    MORE_TOKENS,
    TOKENS_A_BYTE,
    Buffer,
    Cache,
    Logits,
    bare,
    logits_at,
)
from server.model.errors import ModelFileError
from server.model.files.catalog import TOKENIZER_FILE
from server.model.files.modelfile import ModelFile
from server.model.machine.cpus import features
from server.model.prompt.tokenizer import Tokenizer

# An evaluation cannot be interrupted. Large batches are faster (SmolLM2, 2 threads: 110 tokens/s in
# batches of one, 172 of 8, 185 of 64); small ones end sooner after a cancel. So a batch is what two
# cores of an EPYC evaluate in about 0.1 s: 16 tokens with 100 MB of weights, one with 2 GB.
_MODEL_BYTES_A_BATCH = 2.9e9  # read in 0.1 s, when every token reads all weights
_LARGEST_USEFUL = 64  # tokens; larger batches gained next to nothing (195 tokens/s with 128)


def batch_tokens(model_bytes: int) -> int:
    """The size of every whole batch for a model of this size: a power of two, 1 to 64."""
    fitting = max(1, min(_LARGEST_USEFUL, int(_MODEL_BYTES_A_BATCH / max(1, model_bytes))))
    return 1 << (fitting.bit_length() - 1)


class CTransformersCache:
    """See `Cache`. Belongs to one `LLM`; all of these map the same file for their weights."""

    def __init__(self, llm: Any) -> None:
        self._llm = llm
        self.length: int = llm.context_length

    def evaluate(
        self,
        tokens: Sequence[int],
        threads: int,
        cancelled: threading.Event,
        wants_logits: bool = True,
    ) -> bool:
        """See `Cache`."""
        self._llm.eval(tokens, batch_size=len(tokens), threads=threads)
        return True

    def cut(self, length: int) -> bool:
        """See `Cache`."""
        del self._llm._context[length:]
        return True

    def logits(self) -> Logits:
        """See `Cache`."""
        return logits_at(self._llm.ctransformers_llm_logits_data(), self._llm.vocab_size)

    def state_bytes(self) -> int:
        """See `Cache`."""
        return 0

    def save(self, buffer: Buffer) -> None:
        """See `Cache`."""
        raise NotImplementedError

    def restore(self, buffer: Buffer) -> bool:
        """See `Cache`."""
        raise NotImplementedError


class CTransformers:
    """See `Backend`.

    Args:
        file: as `inspect` approved it for ctransformers.
        context_tokens: the length of each context.
        contexts: how many to make.

    Raises:
        ModelFileError: if it cannot be loaded.
    """

    build = "ctransformers 0.2.27"
    swallowing: frozenset[int] = frozenset()

    def __init__(self, file: ModelFile, context_tokens: int, contexts: int) -> None:
        package = bare.enter("ctransformers")
        library = importlib.import_module("ctransformers.llm")
        config = library.Config(context_length=context_tokens)
        # None leaves the choice to ctransformers, which asks py-cpuinfo: 1.2 s. One compiled here
        # ("local", as on Arm) is the only one and needs no choice.
        build = None if (package / "lib" / "local").is_dir() else _fitting_build()
        try:
            llms = [
                library.LLM(str(file.path), file.model_type, config=config, lib=build)
                for _ in range(contexts)
            ]
        except (RuntimeError, OSError, ValueError) as error:
            raise ModelFileError(f"ctransformers cannot load {file.path}: {error}") from error
        self._llm = llms[0]
        self.batch = batch_tokens(file.size_bytes)
        self.caches: Sequence[Cache] = [CTransformersCache(llm) for llm in llms]
        self.vocabulary_size: int = self._llm.vocab_size
        self.special: Mapping[str, int] = file.special
        self.control = file.control | {self._llm.bos_token_id, self._llm.eos_token_id}
        self.bos: int | None = self._llm.bos_token_id if file.adds_bos else None

    def tokenizer(self) -> Tokenizer:
        """See `Backend`."""
        return NativeTokenizer(self._llm, self.control, self.special)


# Which of the wheel's builds this CPU runs.
def _fitting_build() -> str | None:
    supported = features()
    if not supported:
        return None
    if {"avx2", "fma", "f16c"} <= supported:
        return "avx2"
    return "avx" if {"avx", "f16c"} <= supported else "basic"


class NativeTokenizer:
    """ctransformers' SentencePiece tokenizer, with a buffer of the right size.

    `LLM.tokenize` allocates len(text) + 1 ints, but one character can become four tokens: one
    prompt of rare characters overflows the heap. Here the buffer is large enough. A byte that the
    vocabulary lacks throws a C++ exception, which ends the process, so such a vocabulary is refused
    when the model is loaded.

    Args:
        llm: a `ctransformers.LLM`.
        control: ids that print nothing and that `encode` never returns.
        special: token ids by text; ctransformers itself prints none of these.

    Raises:
        ModelFileError: if the vocabulary cannot spell every byte.
    """

    def __init__(
        self, llm: Any, control: frozenset[int], special: Mapping[str, int] | None = None
    ) -> None:
        self._llm = llm
        self._control = control
        printed = {index: text.encode() for text, index in (special or {}).items()}
        self.pieces = [
            printed.get(index) or llm.ctransformers_llm_detokenize(index)
            if index not in control
            else b""
            for index in range(llm.vocab_size)
        ]
        spelled = {piece for piece in self.pieces if len(piece) == 1}
        # NUL needs no token: it ends a C string, and writer.py removes it from prompts.
        missing = 255 - len(spelled - {b"\0"})
        if missing:
            raise ModelFileError(
                f"The model's vocabulary lacks {missing} of 255 byte tokens, so ctransformers' "
                f"tokenizer is not safe with it; put a {TOKENIZER_FILE} beside the model."
            )

    def encode(self, text: str) -> list[int]:
        """See `Tokenizer`. `text` is cut at its first NUL (writer.py leaves none)."""
        raw = text.encode()
        buffer = (ctypes.c_int * (TOKENS_A_BYTE * len(raw) + MORE_TOKENS))()
        count = self._llm.ctransformers_llm_tokenize(raw, False, buffer)
        return [index for index in buffer[:count] if index not in self._control]
