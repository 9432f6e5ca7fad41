"""A current llama.cpp, through llama-cpp-python's C bindings; its Python loop is not used.

llama.cpp checks the prompt's event before every node of the graph, some twenty per layer, so even a
large model is free within milliseconds of a cancel. The check is C's strlen on the string of a
`Cancel`: 0 goes on, 1 aborts. Any other event is checked through Python, which is slow.

Flash attention is off: with it, logits depend on the number of threads once 512 tokens are cached
(ggml splits the KV cache among the threads), and a seed would not repeat. Everything runs on the
CPU, the only place where llama.cpp can be interrupted.
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

# Tokens in one graph (`n_ubatch`). Only whole batches can be reused, so each turn of a conversation
# evaluates half a batch again. Batches of 64 or 256 would speed up the first prompt by 1.1 or 1.2
# (SmolLM2 178, 192, 209 tokens/s; Gemma 3 270M 272, 309, 323) and slow down every later turn.
_BATCH = 16
_SEQUENCE = 0  # every context has just this one
_ABORTED = 2  # from llama_decode, when the abort callback said so
_NONE = -1  # LLAMA_TOKEN_NULL
_SWALLOWING = 1 << 8  # LLAMA_TOKEN_ATTR_RSTRIP


class LlamaCppCache:
    """See `Cache`. A llama_context with one sequence."""

    def __init__(self, model: "_Model", context_tokens: int) -> None:
        self._c = c = bindings()
        self._model = model  # must live as long as its contexts
        self._watched = watched = [threading.Event()]  # by the evaluation in progress
        self._ask = c.ggml_abort_callback(lambda _: watched[0].is_set())
        self._look = ctypes.cast(ctypes.CDLL(None).strlen, c.ggml_abort_callback)
        parameters = c.llama_context_default_params()
        parameters.n_ctx = context_tokens
        parameters.n_batch, parameters.n_ubatch = LARGEST_BATCH, _BATCH
        parameters.n_outputs_max = 1
        parameters.flash_attn_type = c.LLAMA_FLASH_ATTN_TYPE_DISABLED
        parameters.swa_full = True  # or `cut` would fail
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
        ids = (ctypes.c_int32 * len(tokens))(*tokens)  # the batch only points to it
        batch = self._c.llama_batch_get_one(ids, len(tokens))
        if not wants_logits:  # which cost a quarter of a batch with Gemma's vocabulary
            batch.logits = (ctypes.c_int8 * len(tokens))()
        forget()
        status = self._c.llama_decode(self._context, batch)
        if status not in (0, _ABORTED):
            raise RuntimeError(explain(f"llama_decode returned {status}"))
        return bool(status == 0)

    def cut(self, length: int) -> bool:
        """See `Cache`. A recurrent model's cache can only be emptied."""
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
        file: as `inspect` approved it for llama.cpp.
        context_tokens: the length of each context.
        contexts: how many to make.

    Raises:
        ModelFileError: if it cannot be loaded, or does not generate text.
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
        compiled_for = c.llama_print_system_info().decode()
        self.build = f"llama-cpp-python {version('llama-cpp-python')} {compiled_for}"
        self.caches: Sequence[Cache] = [
            LlamaCppCache(model, context_tokens) for _ in range(contexts)
        ]
        self.vocabulary_size = model.size
        # llama.cpp recognises tokens that end an answer by their text, however the file marks them.
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


# The weights and the vocabulary, freed when nothing uses them any more.
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
            raise ModelFileError(f"The model {file.path} does not generate text token by token.")


def _text_of(model: _Model, index: int) -> str:
    text: bytes = bindings().llama_vocab_get_text(model.words, index)
    return text.decode("utf-8", "replace")
