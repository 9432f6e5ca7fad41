"""How much memory a model needs, and whether this machine has it.

The weights are mapped from the file, so they are page cache: the system may drop them, but then
reads them back from the disk at every token. llama.cpp copies some tensor types (Q4_0 and Q4_K on a
CPU with AVX2 or dot products) into private memory in another order, and no longer needs the file.
The KV cache is private memory and fills up with the context. Everything else (Python, ggml's
buffers) takes 50 to 100 MB. Measured by `bench.tokens`; its README has the table.
"""

import os

from server.model.errors import ModelFileError
from server.model.files.modelfile import ModelFile
from server.model.machine.cgroups import memory_limit

_STEP = 256
_LEAST_CONTEXT = 768  # less has no room for persona and conversation


def available_memory() -> int | None:
    """Bytes of memory that this process may use: the machine's, or its cgroup's if less."""
    try:
        installed = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):
        installed = 0
    known = [limit for limit in (installed, memory_limit()) if limit]
    return min(known, default=None)


def check_fits(
    file: ModelFile, context_tokens: int, contexts: int, memory_bytes: int | None
) -> None:
    """Refuse a model whose weights and full contexts are larger than all the memory.

    Raises:
        ModelFileError: if so. It would run, but at the speed of the disk, or be killed.
    """
    if memory_bytes is None:
        return
    cache = contexts * context_tokens * file.cache_bytes_per_token
    if file.size_bytes + cache <= memory_bytes:
        return
    many = "a context" if contexts == 1 else f"{contexts} contexts"
    raise ModelFileError(
        f"The model {file.path.name} needs {_show(file.size_bytes)} for its weights and "
        f"{_show(cache)} for {many} of {context_tokens:,} tokens, but there is only "
        f"{_show(memory_bytes)} of memory: {_advice(file, contexts, memory_bytes)}."
    )


def _advice(file: ModelFile, contexts: int, memory_bytes: int) -> str:
    bytes_per_token = max(1, file.cache_bytes_per_token)  # 0 of an unknown architecture
    fitting = (memory_bytes - file.size_bytes) // (contexts * bytes_per_token)
    if fitting < _LEAST_CONTEXT:
        return "use a smaller model"
    return f"use a smaller model, or --context {fitting // _STEP * _STEP}"


def _show(size_bytes: float) -> str:
    return f"{size_bytes / 1e9:.2f} GB" if size_bytes >= 1e9 else f"{size_bytes / 1e6:.0f} MB"
