"""Loads a model file into an `Engine`."""

import logging
import threading
from dataclasses import dataclass, field
from pathlib import Path

from server.model.backends import choice
from server.model.context import Context
from server.model.engine import Engine
from server.model.errors import ModelFileError, ModelUnavailable
from server.model.files.catalog import TOKENIZER_FILE
from server.model.files.modelfile import ANY_ENGINE
from server.model.files.pagecache import read_through
from server.model.job import Loading
from server.model.kvfile import KVFile
from server.model.machine.governor import Governor, GovernorSettings
from server.model.prompt.persona import Persona
from server.model.prompt.templates import AUTO, find_template
from server.model.prompt.tokenizer import HubTokenizer
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
    engine: str = ANY_ENGINE  # or what else `choose` takes
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
    file = choice.choose(settings.model_file, settings.engine)
    log.debug("loading: the file is checked")
    log.info("the engine is %s", file.engine)
    loading = loading or Loading()
    loading.file_bytes = file.size_bytes
    try:
        for loading.read_bytes in read_through(file.path):
            if cancelled and cancelled.is_set():
                raise ModelUnavailable("Loading the model was cancelled.")
    except OSError as error:  # a worn-out SD card, say
        raise ModelFileError(f"{file.path} cannot be read: {error.strerror}.") from error
    log.debug("loading: the file is read")
    backend = choice.load(file, settings.context_tokens, settings.contexts)
    log.debug("loading: the weights are mapped")
    tokenizer_file = file.path.parent / TOKENIZER_FILE
    tokenizer = (
        HubTokenizer(tokenizer_file, backend.control, backend.vocabulary_size)
        if tokenizer_file.exists() and file.takes_tokenizer_file
        else backend.tokenizer()
    )
    template = find_template(file, settings.template)
    prompts = PromptWriter(
        settings.persona, template, tokenizer, backend.special, backend.bos, backend.swallowing
    )
    log.debug("loading: the tokenizer is built")
    contexts = [Context(cache, backend.batch) for cache in backend.caches]
    governor = Governor(settings.governor)
    kv_file = KVFile(file.path, backend, prompts.persona_tokens)
    return Engine(contexts, backend.control, tokenizer.pieces, prompts, governor, kv_file)
