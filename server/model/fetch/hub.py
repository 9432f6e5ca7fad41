"""Downloads one file from a Hugging Face hub: resumes across runs, verifies the hash.

Owns the part file and the error sentences. The requests go through the hub's own client
(HF_ENDPOINT and HF_TOKEN work as its documentation says), but not through `hf_hub_download`:
since version 2 that discards a partial download when it is interrupted, and it compares sizes
only. 2.9 GB over a Pi's wireless network deserve better.

Never imported by the serving process.
"""

import errno
import hashlib
import logging
import re
import shutil
from contextlib import suppress
from pathlib import Path

from huggingface_hub import get_hf_file_metadata, hf_hub_url
from huggingface_hub.constants import ENDPOINT
from huggingface_hub.errors import (
    FileMetadataError,
    GatedRepoError,
    HfHubHTTPError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
)
from huggingface_hub.file_download import http_get
from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]  # documented
from tqdm import tqdm

from server.model.errors import FetchError
from server.model.files.pagecache import PORTION_BYTES

_ETAG = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")  # a file's git hash, or in LFS its SHA-256
_SHA256_DIGITS = 64
_AGAIN = "run the same command again to continue"


def fetch_from_hub(repository: str, file_name: str, directory: Path) -> Path:
    """Download a file into `directory`, under a name of its own, and return its path.

    Resumes a partial download of the same version.

    Raises:
        FetchError: if it cannot be downloaded, or does not have the hash that the hub reports.
    """
    # The client warns of every retry; the outcome is reported once.
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    try:
        url = hf_hub_url(repository, file_name)
        metadata = get_hf_file_metadata(url)
        if not _ETAG.fullmatch(metadata.etag or "") or metadata.size is None:
            raise FileMetadataError("it reports no hash and size")
        assert metadata.etag is not None
        part = directory / f"{metadata.etag}.part"
        _check_room(part, metadata.size)
        _download(url, metadata.size, file_name, part)
        _check_hash(part, metadata.etag)
    except FetchError:
        raise
    except Exception as error:  # the client lets its HTTP library's errors through, too
        raise FetchError(_explain(error, repository, file_name)) from error
    return part


def _check_room(part: Path, size_bytes: int) -> None:
    missing = size_bytes - (part.stat().st_size if part.exists() else 0)
    free = shutil.disk_usage(part.parent).free
    if missing > free:
        raise FetchError(
            f"Not enough disk space for the model in {part.parent}: {missing / 1e6:,.1f} MB more "
            f"needed, {free / 1e6:,.1f} MB free."
        )


def _download(url: str, size_bytes: int, file_name: str, part: Path) -> None:
    with part.open("ab") as file:
        if file.tell() > size_bytes:
            file.truncate(0)
            file.seek(0)
        http_get(
            url,
            file,
            resume_size=file.tell(),
            headers=build_hf_headers(),  # with the token, which a redirect elsewhere drops
            expected_size=size_bytes,
            displayed_filename=file_name,
        )


def _check_hash(part: Path, etag: str) -> None:
    digest = hashlib.sha256()
    if len(etag) != _SHA256_DIGITS:  # outside LFS the hub gives git's hash of the blob
        digest = hashlib.sha1(b"blob %d\0" % part.stat().st_size, usedforsecurity=False)
    bar = tqdm(total=part.stat().st_size, unit="B", unit_scale=True, desc="checking")
    with part.open("rb") as file, bar:
        while portion := file.read(PORTION_BYTES):
            digest.update(portion)
            bar.update(len(portion))
    if digest.hexdigest() != etag:
        part.unlink()
        raise FetchError(
            f"The downloaded file has the wrong hash ({digest.hexdigest()[:12]}..., not "
            f"{etag[:12]}...): it was damaged in transit and is deleted; run the command again."
        )


def _explain(error: Exception, repository: str, file_name: str) -> str:
    status = error.response.status_code if isinstance(error, HfHubHTTPError) else None
    # The hub hides private repositories: one that does not exist gets a 401, too.
    if isinstance(error, GatedRepoError) or status in (401, 403):
        return (
            f"The hub denies access to {repository} (status {status}): it does not exist, or it "
            "requires the token of an account that may read it in HF_TOKEN."
        )
    if isinstance(error, RepositoryNotFoundError | RemoteEntryNotFoundError) or status == 404:
        return f"The hub has no file {file_name} in {repository} (status 404)."
    if status is not None:
        return f"The hub failed on {repository} with status {status}; {_AGAIN}."
    if isinstance(error, FileMetadataError):
        return f"This server is not a Hugging Face hub (is HF_ENDPOINT right?): {error}."
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return f"The disk is full; free some space, and {_AGAIN}."
    if isinstance(error, OSError) and error.errno is not None:
        return f"Could not write {file_name}: {error.strerror}."
    return (
        f"The connection to the hub at {ENDPOINT} failed ({_first_line(error)}): if HF_ENDPOINT is "
        f"right, {_AGAIN}."
    )


def _first_line(error: Exception) -> str:
    with suppress(IndexError):
        return str(error).strip().splitlines()[0].rstrip(".")
    return type(error).__name__
