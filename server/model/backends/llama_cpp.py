"""llama.cpp of today, through llama-cpp-python's plain bindings: its own loop is not used.

An evaluation looks at the prompt's event before every node of the graph, some twenty a layer, so
even a large model is free within milliseconds of a cancel. It looks by C's strlen on the text of a
`Cancel`: 0 is no, 1 is yes. An event of another kind is asked through Python, and slows it down.

Flash attention is off: with it a token's logits depend on the number of threads once 512 tokens are
cached (ggml splits the KV cache among them), and a seed would not repeat. Everything is computed on
the CPU, where alone llama.cpp can be interrupted.
"""

import ctypes
import threading
import weakref
from collections.abc import Mapping, Sequence
from functools import partial
from importlib.metadata import version

from server.model.backends import LARGEST_BATCH, Buffer, Cache, Logits, logits_at
from server.model.backends.cancel import Cancel
from server.model.backends.llama_bindings import bindings, explain, forget
from server.model.backends.llama_tokenizer import LlamaCppTokenizer
from server.model.errors import ModelFileError
from server.model.files.modelfile import ModelFile
from server.model.prompt.tokenizer import Tokenizer

# Tokens of one graph (`n_ubatch`). Only whole batches can be reused, so each turn of a conversation
# reads half a batch again: by 64s and 256s a new prompt would be read 1.1 and 1.2 times faster
# (SmolLM2 178, 192, 209 tokens/s; Gemma 3 270M 272, 309, 323), and every turn after it later.
_BATCH = 16
_SEQUENCE = 0  # the only one of every context
_ABORTED = 2  # what llama_decode returns then
_NONE = -1  # LLAMA_TOKEN_NULL
_SWALLOWING = 1 << 8  # LLAMA_TOKEN_ATTR_RSTRIP


class LlamaCppCache:
    """See `Cache`. A llama_context with one sequence."""

    def __init__(self, model: "_Model", context_tokens: int) -> None:
        self._c = c = bindings()
        self._model = model  # lives as long as its contexts
        self._watched = watched = [threading.Event()]  # of the running evaluation
        self._ask = c.ggml_abort_callback(lambda _: watched[0].is_set())
        self._look = ctypes.cast(ctypes.CDLL(None).strlen, c.ggml_abort_callback)
        parameters = c.llama_context_default_params()
        parameters.n_ctx = context_tokens
        parameters.n_batch, parameters.n_ubatch = LARGEST_BATCH, _BATCH
        parameters.n_outputs_max = 1
        parameters.flash_attn_type = c.LLAMA_FLASH_ATTN_TYPE_DISABLED
        parameters.swa_full = True  # or nothing could be cut off
        parameters.no_perf = True
        self._context = c.llama_init_from_model(model.pointer, parameters)
        self._memory = self._context and c.llama_get_memory(self._context)
        if not self._memory:
            raise ModelFileError(explain("llama.cpp has no KV cache for this model"))
        weakref.finalize(self, c.llama_free, self._context).atexit = False
        self.length = context_tokens

    def evaluate(
        self,
        tokens: Sequence[int],
        threads: int,
        cancelled: threading.Event,
        wants_logits: bool = True,
    ) -> bool:
        """See `Cache`."""
        self._watched[0] = cancelled
        if isinstance(cancelled, Cancel):
            self._c.llama_set_abort_callback(self._context, self._look, cancelled.address)
        else:
            self._c.llama_set_abort_callback(self._context, self._ask, None)
        self._c.llama_set_n_threads(self._context, threads, threads)
        ids = (ctypes.c_int32 * len(tokens))(*tokens)  # the batch holds only its address
        batch = self._c.llama_batch_get_one(ids, len(tokens))
        if not wants_logits:  # else the last token's: a quarter of the time with Gemma's vocabulary
            batch.logits = (ctypes.c_int8 * len(tokens))()
        forget()
        status = self._c.llama_decode(self._context, batch)
        if status not in (0, _ABORTED):
            raise RuntimeError(explain(f"llama_decode returned {status}"))
        return bool(status == 0)

    def cut(self, length: int) -> bool:
        """See `Cache`. A recurrent model's can only be emptied."""
        if self._c.llama_memory_seq_rm(self._memory, _SEQUENCE, length, -1):
            return True
        self._c.llama_memory_clear(self._memory, True)
        return False

    def logits(self) -> Logits:
        """See `Cache`."""
        return logits_at(self._c.llama_get_logits_ith(self._context, -1), self._model.size)

    def state_bytes(self) -> int:
        """See `Cache`."""
        return int(self._c.llama_state_seq_get_size(self._context, _SEQUENCE))

    def save(self, buffer: Buffer) -> None:
        """See `Cache`."""
        size = self._c.llama_state_seq_get_data(self._context, buffer, len(buffer), _SEQUENCE)
        if size != len(buffer):
            raise RuntimeError(f"llama.cpp saved {size:,} of {len(buffer):,} bytes")

    def restore(self, buffer: Buffer) -> bool:
        """See `Cache`."""
        read = self._c.llama_state_seq_set_data(self._context, buffer, len(buffer), _SEQUENCE)
        if read == len(buffer):
            return True
        self.cut(0)
        return False


class LlamaCpp:
    """See `Backend`.

    Args:
        file: found in order by `inspect`, for llama.cpp.
        context_tokens: of every context.
        contexts: how many.

    Raises:
        ModelFileError: if it cannot be loaded, or is no model that writes text.
    """

    batch = _BATCH

    def __init__(self, file: ModelFile, context_tokens: int, contexts: int) -> None:
        c = bindings()
        if file.positions and context_tokens > file.positions:  # ggml would end the process
            raise ModelFileError(
                f"The model {file.path} has positions for {file.positions:,} tokens: "
                f"use --context {file.positions}."
            )
        self._model = model = _Model(file)
        self.build = f"llama-cpp-python {version('llama-cpp-python')} {c.llama_print_system_info()}"
        self.caches: Sequence[Cache] = [
            LlamaCppCache(model, context_tokens) for _ in range(contexts)
        ]
        self.vocabulary_size = model.size
        # llama.cpp knows tokens that end an answer by their text, whatever the file says of them.
        is_end = partial(c.llama_vocab_is_eog, model.words)
        ends = frozenset(filter(is_end, range(model.size)))
        named = {_text_of(model, index): index for index in ends}
        self.special: Mapping[str, int] = {**file.special, **named}
        self.control = file.control | ends
        self.swallowing = frozenset(
            index
            for index in self.special.values()
            if c.llama_vocab_get_attr(model.words, index) & _SWALLOWING
        )
        bos = c.llama_vocab_bos(model.words)
        has_bos = c.llama_vocab_get_add_bos(model.words) and bos != _NONE
        self.bos: int | None = bos if has_bos else None

    def tokenizer(self) -> Tokenizer:
        """See `Backend`."""
        return LlamaCppTokenizer(self._model, self.control)


# The weights and the vocabulary, which last as long as somebody uses them.
class _Model:
    def __init__(self, file: ModelFile) -> None:
        c = bindings()
        forget()
        parameters = c.llama_model_default_params()
        parameters.n_gpu_layers = 0
        self.pointer = c.llama_model_load_from_file(str(file.path).encode(), parameters)
        if not self.pointer:
            raise ModelFileError(explain(f"llama.cpp cannot load {file.path}"))
        weakref.finalize(self, c.llama_model_free, self.pointer).atexit = False
        self.words = c.llama_model_get_vocab(self.pointer)
        self.size: int = c.llama_vocab_n_tokens(self.words)
        if c.llama_model_has_encoder(self.pointer) or c.llama_model_is_diffusion(self.pointer):
            raise ModelFileError(f"The model {file.path} does not write one token after another.")


def _text_of(model: _Model, index: int) -> str:
    text: bytes = bindings().llama_vocab_get_text(model.words, index)
    return text.decode("utf-8", "replace")
