"""The persona's keys and values in a file beside the model, so that a large one starts in seconds.

A 7B reads a long persona for minutes on a Pi. After that first time its keys and values are
written to `MODEL.KEY.kv`, and the next start reads them back.

Promises:
  * KEY is a digest of all that they depend on: the model's contents, the tokens, the batches that
    these were cut into, the engine's build, the CPU. What no longer fits is not found;
  * a damaged file is noticed by its own digest, and written anew;
  * a file has its name only once it is whole, there are two a model at most, and where none can be
    written (a read-only image, a full disk) everything else goes on.
"""

import ctypes
import hashlib
import logging
import mmap
import os
import re
import shutil
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from tempfile import NamedTemporaryFile

from server.model.backends import Backend, Buffer, Cache
from server.model.machine.cpus import features

log = logging.getLogger(__name__)

_WORTHWHILE_S = 2.0  # what takes less to evaluate is not kept
_MOST_FILES = 2  # of one model: two personas
_LONGEST_WRITING_S = 3600.0
_MAGIC = b"socrates-kv 1\n".ljust(32, b"\0")
_HEAD_BYTES = len(_MAGIC) + hashlib.sha256().digest_size
_SAMPLES, _SAMPLE_BYTES = 512, 4096  # of a model file's contents: all of 4 GB would take seconds


class KVFile:
    """Where the keys and values of `tokens` are kept, if that is worthwhile.

    Args:
        model_file: beside which.
        backend: what evaluates them, as loaded from that file.
        tokens: the persona's.
    """

    def __init__(self, model_file: Path, backend: Backend, tokens: Sequence[int]) -> None:
        self._model_file = model_file
        # The context's length, since some models rotate positions otherwise in a long one.
        conditions = (backend.build, sorted(features()), backend.batch, backend.caches[0].length)
        self._conditions = f"{conditions} {list(tokens)}"
        self.tokens = tokens

    @cached_property
    def path(self) -> Path:
        """Where they are, or will be."""
        digest = _fingerprint(self._model_file)
        digest.update(self._conditions.encode())
        name = f"{self._model_file.name}.{digest.hexdigest()[:16]}.kv"
        return self._model_file.with_name(name)

    def read(self, cache: Cache) -> bool:
        """Fill an empty `cache` from the file; False if there is none that is whole."""
        if not cache.state_bytes():
            return False
        started = time.perf_counter()
        try:
            with self.path.open("rb") as file:
                head, data = _map(file.fileno(), mmap.ACCESS_COPY)
        except FileNotFoundError:
            return False
        except (OSError, ValueError) as error:  # ValueError: it is shorter than a head
            log.warning("%s cannot be read, and is written anew: %s", self.path, error)
            return False
        if head != _MAGIC + hashlib.sha256(data).digest() or not cache.restore(data):
            log.warning("%s is damaged, and is written anew", self.path)
            return False
        with suppress(OSError):
            os.utime(self.path)  # the latest in use is kept
        took_s = time.perf_counter() - started
        log.info("the persona was read from %s in %.1f s", self.path.name, took_s)
        return True

    def write(self, cache: Cache, took_s: float) -> None:
        """Write the file, if `cache` can be saved, and was `took_s` seconds in the making."""
        size = cache.state_bytes()
        if took_s < _WORTHWHILE_S or not size:
            return
        try:
            self._write(cache, size)
        except (OSError, RuntimeError) as error:
            log.info("the persona is not kept for the next start: %s", error)
            return
        log.info("the persona is kept for the next start: %s, %.0f MB", self.path.name, size / 1e6)

    def _write(self, cache: Cache, size: int) -> None:
        if shutil.disk_usage(self.path.parent).free < 2 * size:
            raise OSError("too little disk space")
        # A name of its own: another server may be writing the same at the same time.
        directory, name = self.path.parent, self._model_file.name
        with NamedTemporaryFile(
            dir=directory, prefix=f"{name}.", suffix=".kv.part", delete=False
        ) as file:
            part = Path(file.name)
            try:
                os.posix_fallocate(file.fileno(), 0, _HEAD_BYTES + size)  # a full disk shows here
                head, data = _map(file.fileno(), mmap.ACCESS_WRITE)
                cache.save(data)
                head[:] = _MAGIC + hashlib.sha256(data).digest()
                os.fchmod(file.fileno(), 0o644)
                os.fsync(file.fileno())
                part.replace(self.path)
            finally:
                part.unlink(missing_ok=True)
        self._forget_older()

    # The oldest of this model's, and what a crash has left.
    def _forget_older(self) -> None:
        name = re.escape(self._model_file.name)
        kept = re.compile(rf"{name}\.[0-9a-f]{{16}}\.kv")
        left = re.compile(rf"{name}\.\w+\.kv\.part")
        found = sorted(self.path.parent.iterdir(), key=_last_use, reverse=True)
        old = [path for path in found if kept.fullmatch(path.name)][_MOST_FILES:]
        old += [path for path in found if left.fullmatch(path.name) and _is_left(path)]
        for path in old:
            path.unlink(missing_ok=True)


def _last_use(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:  # another server has removed it
        return 0.0


def _is_left(part: Path) -> bool:
    return time.time() - _last_use(part) > _LONGEST_WRITING_S


# Two models that differ at all, differ nearly everywhere.
def _fingerprint(path: Path) -> "hashlib._Hash":
    digest = hashlib.sha256()
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        digest.update(b"%d " % size)
        for number in range(_SAMPLES):
            file.seek(number * size // _SAMPLES)
            digest.update(file.read(_SAMPLE_BYTES))
    return digest


# The head of an open file, and what follows it, as memory that C can use. It is unmapped when the
# last of both is forgotten.
def _map(descriptor: int, access: int) -> tuple[memoryview, Buffer]:
    memory = mmap.mmap(descriptor, 0, access=access)
    size = len(memory) - _HEAD_BYTES
    if size <= 0:
        raise ValueError("it is too short")
    data = (ctypes.c_uint8 * size).from_buffer(memory, _HEAD_BYTES)
    return memoryview(memory)[:_HEAD_BYTES], data
