"""Loads a model file into an `Engine`. The only importer of ctransformers."""

import threading
from dataclasses import dataclass, field
from pathlib import Path

from ctransformers import LLM, Config

from server.model.context import Context
from server.model.engine import Engine
from server.model.errors import ModelFileError, ModelUnavailable
from server.model.files import modelfile
from server.model.files.catalog import TOKENIZER_FILE
from server.model.files.pagecache import read_through
from server.model.job import Loading
from server.model.machine.governor import Governor, GovernorSettings
from server.model.prompt.persona import Persona
from server.model.prompt.templates import TEMPLATES, Control, detect_template
from server.model.prompt.tokenizer import HubTokenizer, NativeTokenizer, Tokenizer
from server.model.prompt.writer import PromptWriter

AUTO_TEMPLATE = "auto"


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """What `load_engine` needs to know."""

    model_file: Path
    persona: Persona
    template: str  # a key of TEMPLATES, or AUTO_TEMPLATE
    context_tokens: int
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
    file = modelfile.inspect(settings.model_file)
    loading = loading or Loading()
    loading.file_bytes = file.size_bytes
    try:
        for loading.read_bytes in read_through(file.path):
            if cancelled and cancelled.is_set():
                raise ModelUnavailable("Loading the model was cancelled.")
    except OSError as error:  # a worn-out SD card, say
        raise ModelFileError(f"{file.path} cannot be read: {error.strerror}.") from error
    llms = [_load(file, settings.context_tokens) for _ in range(settings.contexts)]
    llm = llms[0]
    control = _control_ids(llm)
    tokenizer_file = file.path.parent / TOKENIZER_FILE
    tokenizer: Tokenizer = (
        HubTokenizer(tokenizer_file, control, llm.vocab_size)
        if tokenizer_file.exists()
        else NativeTokenizer(llm, control)
    )
    name = settings.template
    if name == AUTO_TEMPLATE:
        name = detect_template(file.chat_template)
    ids = {Control.BOS: llm.bos_token_id, Control.EOS: llm.eos_token_id}
    prompts = PromptWriter(settings.persona, TEMPLATES[name], tokenizer, ids)
    contexts = [Context(llm) for llm in llms]
    return Engine(contexts, control, tokenizer.pieces, prompts, Governor(settings.governor))


def _load(file: modelfile.ModelFile, context_tokens: int) -> LLM:
    config = Config(context_length=context_tokens)
    try:
        return LLM(str(file.path), file.model_type, config=config)
    except (RuntimeError, OSError, ValueError) as error:
        raise ModelFileError(f"ctransformers cannot load {file.path}: {error}") from error


# The tokens that print nothing: these mark turns and ends, like a GGUF file's control tokens.
def _control_ids(llm: LLM) -> frozenset[int]:
    silent = {i for i in range(llm.vocab_size) if not llm.ctransformers_llm_detokenize(i)}
    return frozenset(silent | {llm.bos_token_id, llm.eos_token_id})
