"""Reads a model file's head in order to refuse a wrong file before C++ sees it.

ctransformers fails without a word on most wrong files and dies of a signal on some (a truncated
file is mapped and then read past its end), so a file is walked here first: magic, version, every
key, id, name, shape and extent that the C++ relies on. llama.cpp checks most of that by itself, and
gets what holds for every file. What is only nonsense (weights of noise) still loads. Every refusal
is one sentence that says what the file is.

Own code rather than the `gguf` package because this runs at every start: its reader took 4.3 s on
SmolLM2's 98 MB file, this walk takes a tenth of a second.
"""

import mmap
import struct
from pathlib import Path

from server.model.errors import ModelFileError
from server.model.files.catalog import CATALOG
from server.model.files.cursor import Cursor
from server.model.files.ggjt import read_ggjt
from server.model.files.gguf import describe, read_gguf
from server.model.files.modelfile import CTRANSFORMERS, LLAMA_CPP, ModelFile
from server.model.files.restrictions import check_for_ctransformers, check_for_llama_cpp

# What people hand over instead of a model, by how it begins.
_OTHERS = {
    b"version https://git-lfs": "a Git LFS pointer: the model itself was not downloaded",
    b"<": "a web page: download the file itself, on the hub by /resolve/ instead of /blob/",
    b"PK\x03\x04": "a PyTorch file or another zip archive: convert it to GGUF",
    b"\x1f\x8b": "compressed: unpack it first",
    b"{": "JSON: it may say where the model is",
    b"algg": "a LoRA adapter, which has to be merged into its model",
    b"lmgg": "a GGML file of before May 2023: take the same model as GGUF",
    b"fmgg": "a GGML file of before May 2023: take the same model as GGUF",
}
_SAFETENSORS_HEAD_BYTES = 100_000_000


def inspect(path: Path, engine: str = CTRANSFORMERS) -> ModelFile:
    """Walk the head of the file at `path`, which `engine` is to load.

    Raises:
        ModelFileError: if the file is missing, empty, truncated or of another kind.
        NotForCtransformers: if only llama.cpp may be able to load it.
    """
    try:
        _check_path(path)
        with path.open("rb") as file:
            if path.stat().st_size == 0:
                raise ModelFileError(f"The model file {path} is empty.")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return _inspect(Cursor(path, data), engine)
    except (FileNotFoundError, NotADirectoryError):
        raise ModelFileError(
            f"There is no model file at {path}: use {', '.join(CATALOG)}, or the path of a file."
        ) from None
    except OSError as error:
        raise ModelFileError(f"The model file {path} cannot be read: {error.strerror}.") from error


def _check_path(path: Path) -> None:
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise ModelFileError("The model file's path is not valid UTF-8.") from None
    if path.exists() and not path.is_file():  # opening a named pipe would block forever
        raise ModelFileError(f"{path} is not a regular file.")


def _inspect(cursor: Cursor, engine: str) -> ModelFile:
    magic = bytes(cursor.data[:4])
    if magic == b"GGUF":
        gguf = read_gguf(cursor)
        if engine == CTRANSFORMERS:
            check_for_ctransformers(gguf)
        else:
            check_for_llama_cpp(gguf)
        return describe(gguf, engine)
    if magic == b"tjgg":  # "ggjt" as a little-endian word
        if engine == LLAMA_CPP:
            raise cursor.refuse("it is GGML 'ggjt', which llama.cpp no longer reads")
        return read_ggjt(cursor)
    head = bytes(cursor.data[:64]).lstrip(b"\xef\xbb\xbf \t\r\n")
    for beginning, kind in _OTHERS.items():
        if head.startswith(beginning):
            raise ModelFileError(f"The file {cursor.path} is {kind}.")
    if _is_safetensors(bytes(cursor.data[:9])):
        raise ModelFileError(f"The file {cursor.path} holds safetensors: convert it to GGUF.")
    raise ModelFileError(
        f"The file {cursor.path} is not a model this program can load (GGUF, or GGML v3 'ggjt')."
    )


# The length of a JSON head, and its beginning.
def _is_safetensors(head: bytes) -> bool:
    if len(head) < 9:
        return False
    (length,) = struct.unpack("<Q", head[:8])
    return length < _SAFETENSORS_HEAD_BYTES and head[8:] == b"{"
