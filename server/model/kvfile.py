"""Keeps the persona's keys and values in a file beside the model, so that a large one starts fast.

On a Pi, a 7B takes minutes to prefill a long persona. The first start writes the resulting keys and
values to `MODEL.KEY.kv`, and later starts read them back.

Guarantees:
  * KEY is a digest of everything they depend on: the model's contents, the tokens and how they were
    split into batches, the engine's build, the CPU. A file that no longer fits is not found.
  * A damaged file is detected by the digest inside it, and replaced.
  * A file gets its name only when it is complete. At most two are kept for each model. If none can
    be written (a read-only image, a full disk), everything else still works.
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

_WORTHWHILE_S = 2.0  # a shorter prefill is not worth a file
_MOST_FILES = 2  # for each model: two personas
_LONGEST_WRITING_S = 3600.0
_MAGIC = b"socrates-kv 1\n".ljust(32, b"\0")
_HEAD_BYTES = len(_MAGIC) + hashlib.sha256().digest_size
_SAMPLES, _SAMPLE_BYTES = 512, 4096  # of a model's contents: hashing all of 4 GB would take seconds


class KVFile:
    """The file for the keys and values of `tokens`, whether it exists or not.

    Args:
        model_file: the model, beside which the file is kept.
        backend: the model as loaded.
        tokens: those of the persona.
    """

    def __init__(self, model_file: Path, backend: Backend, tokens: Sequence[int]) -> None:
        self._model_file = model_file
        # The context's length matters too: some models rotate positions differently in a long one.
        conditions = (backend.build, sorted(features()), backend.batch, backend.caches[0].length)
        self._conditions = f"{conditions} {list(tokens)}"
        self.tokens = tokens

    @cached_property
    def path(self) -> Path:
        """Where the file is or would be."""
        digest = _fingerprint(self._model_file)
        digest.update(self._conditions.encode())
        name = f"{self._model_file.name}.{digest.hexdigest()[:16]}.kv"
        return self._model_file.with_name(name)

    def read(self, cache: Cache) -> bool:
        """Fill the empty `cache` from the file; False if there is no valid one."""
        if not cache.state_bytes():
            return False
        started = time.perf_counter()
        try:
            with self.path.open("rb") as file:
                head, data = _map(file.fileno(), mmap.ACCESS_COPY)
        except FileNotFoundError:
            return False
        except (OSError, ValueError) as error:  # ValueError: shorter than its head
            log.warning("%s cannot be read and will be replaced: %s", self.path, error)
            return False
        if head != _MAGIC + hashlib.sha256(data).digest() or not cache.restore(data):
            log.warning("%s is damaged and will be replaced", self.path)
            return False
        with suppress(OSError):
            os.utime(self.path)  # the most recently used are kept
        took_s = time.perf_counter() - started
        log.info("the persona was read from %s in %.1f s", self.path.name, took_s)
        return True

    def write(self, cache: Cache, took_s: float) -> None:
        """Write the file, if `cache` can be saved and took long enough (`took_s`) to prefill."""
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
        # A unique name: another server may be writing the same file.
        directory, name = self.path.parent, self._model_file.name
        with NamedTemporaryFile(
            dir=directory, prefix=f"{name}.", suffix=".kv.part", delete=False
        ) as file:
            part = Path(file.name)
            try:
                os.posix_fallocate(file.fileno(), 0, _HEAD_BYTES + size)  # a full disk fails here
                head, data = _map(file.fileno(), mmap.ACCESS_WRITE)
                cache.save(data)
                head[:] = _MAGIC + hashlib.sha256(data).digest()
                os.fchmod(file.fileno(), 0o644)
                os.fsync(file.fileno())
                part.replace(self.path)
            finally:
                part.unlink(missing_ok=True)
        self._forget_older()

    # The least recently used files of this model, and parts that a crash left behind.
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


# Samples are enough: two models that differ at all differ nearly everywhere.
def _fingerprint(path: Path) -> "hashlib._Hash":
    digest = hashlib.sha256()
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        digest.update(b"%d " % size)
        for number in range(_SAMPLES):
            file.seek(number * size // _SAMPLES)
            digest.update(file.read(_SAMPLE_BYTES))
    return digest


# Maps an open file; returns its head, and the rest as memory that C can use. The file stays mapped
# while either is referenced.
def _map(descriptor: int, access: int) -> tuple[memoryview, Buffer]:
    memory = mmap.mmap(descriptor, 0, access=access)
    size = len(memory) - _HEAD_BYTES
    if size <= 0:
        raise ValueError("it is too short")
    data = (ctypes.c_uint8 * size).from_buffer(memory, _HEAD_BYTES)
    return memoryview(memory)[:_HEAD_BYTES], data
