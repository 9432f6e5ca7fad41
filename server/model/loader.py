"""Loads a model file into an `Engine`. The only importer of ctransformers."""

import importlib
import importlib.util
import logging
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from server.model.batches import batch_tokens
from server.model.context import Context
from server.model.engine import Engine
from server.model.errors import ModelFileError, ModelUnavailable
from server.model.files.catalog import TOKENIZER_FILE
from server.model.files.inspection import inspect
from server.model.files.modelfile import ModelFile
from server.model.files.pagecache import read_through
from server.model.job import Loading
from server.model.machine.cpus import features
from server.model.machine.governor import Governor, GovernorSettings
from server.model.prompt.persona import Persona
from server.model.prompt.templates import AUTO, find_template
from server.model.prompt.tokenizer import HubTokenizer, NativeTokenizer, Tokenizer
from server.model.prompt.writer import PromptWriter

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """What `load_engine` needs to know."""

    model_file: Path
    persona: Persona
    context_tokens: int
    template: str = AUTO  # or what else `find_template` takes
    contexts: int = 1
    governor: GovernorSettings = field(default_factory=GovernorSettings)


def load_engine(
    settings: EngineSettings,
    loading: Loading | None = None,
    cancelled: threading.Event | None = None,
) -> Engine:
    """Load the model file: takes seconds for a small model, longer from a slow disk.

    Args:
        settings: what to load.
        loading: receives the progress.
        cancelled: is checked while the file is read.

    Raises:
        ModelFileError: if the file or the tokenizer beside it cannot be used.
        ModelUnavailable: if it was cancelled.
    """
    file = inspect(settings.model_file)
    log.debug("loading: the file is checked")
    loading = loading or Loading()
    loading.file_bytes = file.size_bytes
    try:
        for loading.read_bytes in read_through(file.path):
            if cancelled and cancelled.is_set():
                raise ModelUnavailable("Loading the model was cancelled.")
    except OSError as error:  # a worn-out SD card, say
        raise ModelFileError(f"{file.path} cannot be read: {error.strerror}.") from error
    log.debug("loading: the file is read")
    llms = [_load(file, settings.context_tokens) for _ in range(settings.contexts)]
    log.debug("loading: the weights are mapped")
    llm = llms[0]
    control = file.control | {llm.bos_token_id, llm.eos_token_id}
    tokenizer_file = file.path.parent / TOKENIZER_FILE
    tokenizer: Tokenizer = (
        HubTokenizer(tokenizer_file, control, llm.vocab_size)
        if tokenizer_file.exists()
        else NativeTokenizer(llm, control, file.special)
    )
    template = find_template(file, settings.template)
    bos = llm.bos_token_id if file.adds_bos else None
    prompts = PromptWriter(settings.persona, template, tokenizer, file.special, bos)
    log.debug("loading: the tokenizer is built")
    contexts = [Context(llm, batch_tokens(file.size_bytes)) for llm in llms]
    return Engine(contexts, control, tokenizer.pieces, prompts, Governor(settings.governor))


def _load(file: ModelFile, context_tokens: int) -> Any:
    library = _import_ctransformers()
    config = library.Config(context_length=context_tokens)
    try:
        return library.LLM(str(file.path), file.model_type, config=config, lib=_build())
    except (RuntimeError, OSError, ValueError) as error:
        raise ModelFileError(f"ctransformers cannot load {file.path}: {error}") from error


# `ctransformers.llm` without the package's `__init__`, which imports the hub's client: half a
# second of every start, and a traceback where HF_ENDPOINT is malformed.
def _import_ctransformers() -> Any:
    if "ctransformers" not in sys.modules:
        found = importlib.util.find_spec("ctransformers")
        assert found is not None, "it is one of our pinned packages"
        package = ModuleType("ctransformers")
        package.__path__ = list(found.submodule_search_locations or ())
        sys.modules["ctransformers"] = package
    return importlib.import_module("ctransformers.llm")


# Which of the wheel's builds this CPU runs; None leaves the choice to ctransformers, which asks
# py-cpuinfo: 1.2 s. One compiled here ("local", as on Arm) is the only one and needs no choice.
def _build() -> str | None:
    package = Path(sys.modules["ctransformers"].__path__[0])
    supported = features()
    if (package / "lib" / "local").is_dir() or not supported:
        return None
    if {"avx2", "fma", "f16c"} <= supported:
        return "avx2"
    return "avx" if {"avx", "f16c"} <= supported else "basic"
