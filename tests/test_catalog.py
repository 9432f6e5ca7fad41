"""The models known by name."""

import re
from pathlib import Path

import pytest

from server.model.files import catalog
from server.model.files.catalog import CATALOG, HubSource, find
from server.model.prompt.persona import find_persona, load_persona


@pytest.mark.parametrize("model", CATALOG.values(), ids=CATALOG)
def test_model_names_a_persona_and_a_licence(model):
    assert load_persona(find_persona(model.persona)).system
    assert model.licence
    assert 0 < model.temperature <= 1
    assert model.path.parent == catalog.MODELS_DIRECTORY / model.name


@pytest.mark.parametrize("model", CATALOG.values(), ids=CATALOG)
def test_what_is_adapted_is_pinned(model):
    if isinstance(model.source, HubSource):
        return
    assert re.fullmatch(r"[\w-]+==[\d.]+", model.source.requirement)
    assert re.fullmatch(r"[0-9a-f]{64}", model.source.sha256)
    has_adapter = model.source.adapter is not None
    assert bool(re.fullmatch(r"[0-9a-f]{64}", model.source.merged_sha256)) == has_adapter


def test_a_name_is_a_model_and_all_else_is_a_path():
    assert find("smollm2") is CATALOG["smollm2"]
    assert find("models/own.gguf") == Path("models/own.gguf")
    assert find("smollm3") == Path("smollm3")


def test_a_file_of_the_hub_has_a_place_of_its_own():
    model = find("hf:Owner/Repo-GGUF/sub/model.Q4_K_M.gguf")
    assert model.source == HubSource("Owner/Repo-GGUF", "sub/model.Q4_K_M.gguf")
    place = catalog.MODELS_DIRECTORY / "hf" / "Owner" / "Repo-GGUF" / "sub" / "model.Q4_K_M.gguf"
    assert model.path == place
    assert model.licence == "see https://huggingface.co/Owner/Repo-GGUF"


@pytest.mark.parametrize(
    "name", ["hf:a/b", "hf:../b/c.gguf", "hf:a/b/../c.gguf", "hf:a/b/c.txt", "hf:/b/c.gguf", "hf:"]
)
def test_no_other_name_leaves_the_models_folder(name):
    assert isinstance(find(name), Path)


def test_home_is_expanded(monkeypatch):
    monkeypatch.setenv("HOME", "/home/someone")
    assert find("~/x.gguf") == Path("/home/someone/x.gguf")
