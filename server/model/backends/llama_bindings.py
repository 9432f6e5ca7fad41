"""llama-cpp-python's C bindings, and llama.cpp's log. The only module that imports llama_cpp."""

import importlib
import logging
import os
from functools import cache
from typing import Any

from server.model.backends import bare
from server.model.errors import ModelFileError

log = logging.getLogger(__name__)

_INFORMATION, _WARNING, _ERROR = 2, 3, 4  # GGML_LOG_LEVEL_*; 1 reports every evaluation
_complaints: list[str] = []  # llama.cpp explains its failures only in its log


@cache
def bindings() -> Any:
    """The library, loaded once per process, with its log redirected to ours.

    Raises:
        ModelFileError: if it is installed but cannot be loaded.
    """
    os.environ.setdefault("GGML_NO_BACKTRACE", "1")  # a crash would start a debugger
    bare.enter("llama_cpp")
    try:
        library: Any = importlib.import_module("llama_cpp.llama_cpp")
    except Exception as error:  # half installed, or compiled for another machine
        raise ModelFileError(f"The engine llama.cpp cannot be used: {error}.") from error
    library.hear = library.llama_log_callback(_hear)  # must live as long as the library
    library.llama_log_set(library.hear, None)
    library.llama_backend_init()
    return library


def forget() -> None:
    """Forget the errors logged so far."""
    _complaints.clear()


def explain(what: str) -> str:
    """`what` as a sentence, with the first error that llama.cpp logged since `forget`."""
    first = next(filter(None, _complaints), "")
    return f"{what}: {first}." if first else f"{what}."


def _hear(level: int, text: bytes, _: object) -> None:
    said = text.decode("utf-8", "replace").strip().removesuffix(".")
    if level == _ERROR:
        _complaints.append(said)
    if level in (_INFORMATION, _WARNING, _ERROR) and len(said) > 1:  # it draws progress in dots
        log.debug("%s", said)
