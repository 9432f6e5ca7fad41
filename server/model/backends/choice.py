"""Picks the engine for a model file: ctransformers if it can, else llama.cpp if installed."""

import importlib.util
from pathlib import Path

from server.model.backends import Backend
from server.model.backends.ctransformers import CTransformers
from server.model.backends.llama_cpp import LlamaCpp
from server.model.errors import ModelFileError, NotForCtransformers
from server.model.files.inspection import inspect
from server.model.files.modelfile import ANY_ENGINE, CTRANSFORMERS, LLAMA_CPP, ModelFile

_INSTALL = "install it with `make llama-cpp`, or into an image with --build-arg LLAMA_CPP=1"


def choose(path: Path, engine: str = ANY_ENGINE) -> ModelFile:
    """Inspect the file at `path` for `engine`, or for the first engine that can run it.

    Raises:
        ModelFileError: if no engine can run the file, or the one it needs is not installed.
    """
    if engine == LLAMA_CPP:
        if not is_llama_cpp_installed():
            raise ModelFileError(f"The engine llama.cpp is not installed: {_INSTALL}.")
        return inspect(path, LLAMA_CPP)
    try:
        return inspect(path, CTRANSFORMERS)
    except NotForCtransformers as error:
        if engine == CTRANSFORMERS:
            raise
        file = inspect(path, LLAMA_CPP)
        if not is_llama_cpp_installed():
            sentence = str(error).removesuffix(".")
            raise NotForCtransformers(f"{sentence}; llama.cpp may: {_INSTALL}.") from error
        return file


def is_llama_cpp_installed() -> bool:
    """Whether llama-cpp-python is installed: a package, not just a file or folder of that name."""
    found = importlib.util.find_spec("llama_cpp")
    return found is not None and found.origin is not None and bool(found.submodule_search_locations)


def load(file: ModelFile, context_tokens: int, contexts: int) -> Backend:
    """Load the file with the engine that it was inspected for, and make its contexts.

    Raises:
        ModelFileError: if the engine cannot load it.
    """
    backend = CTransformers if file.engine == CTRANSFORMERS else LlamaCpp
    return backend(file, context_tokens, contexts)
