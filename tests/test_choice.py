"""Which engine a file gets, and the error if that engine is not installed."""

import pytest
from gguf import GGUFValueType

from server.model.backends import choice
from server.model.backends.choice import choose
from server.model.errors import ModelFileError, NotForCtransformers
from server.model.files.modelfile import ANY_ENGINE, CTRANSFORMERS, LLAMA_CPP
from tests.support.families import FAMILIES, write_family
from tests.support.gguf_model import TOKENS, write_gguf
from tests.support.tiny_model import write_tiny_model

INSTALL = "install it with `make llama-cpp`, or into an image with --build-arg LLAMA_CPP=1."


@pytest.fixture
def has_llama_cpp(monkeypatch):
    """Pretend that llama.cpp is or is not installed: these tests only read heads of files."""

    def say(is_installed):
        monkeypatch.setattr(choice, "is_llama_cpp_installed", lambda: is_installed)

    return say


@pytest.mark.parametrize("is_installed", [True, False])
@pytest.mark.parametrize("write", [write_gguf, write_tiny_model])
def test_ctransformers_gets_what_it_can_run(tmp_path, has_llama_cpp, is_installed, write):
    has_llama_cpp(is_installed)
    assert choose(write(tmp_path / "m.bin")).engine == CTRANSFORMERS


@pytest.mark.parametrize("name", FAMILIES)
def test_llama_cpp_gets_the_rest(tmp_path, has_llama_cpp, name):
    has_llama_cpp(True)
    file = choose(write_family(tmp_path / "m.gguf", name))
    assert file.engine == LLAMA_CPP
    assert file.cache_bytes_per_token == 4 * 2 * 2 * FAMILIES[name].head * 2
    assert set(FAMILIES[name].marks) <= set(file.special)


@pytest.mark.parametrize("name", FAMILIES)
def test_without_it_the_sentence_says_what_the_file_is_and_what_to_do(
    tmp_path, has_llama_cpp, name
):
    has_llama_cpp(False)
    path = write_family(tmp_path / "m.gguf", name)
    with pytest.raises(NotForCtransformers) as refusal:
        choose(path, ANY_ENGINE)
    sentence = str(refusal.value)
    assert sentence.startswith(f"The model file {path} cannot be used by ctransformers: its ")
    assert sentence.endswith(f"; llama.cpp may: {INSTALL}")
    architecture = FAMILIES[name].architecture
    assert architecture in ("llama", "gemma3") or f"architecture is {architecture}," in sentence


def test_engine_that_is_asked_for_is_not_replaced(tmp_path, has_llama_cpp):
    path = write_family(tmp_path / "m.gguf", "qwen3")
    has_llama_cpp(True)
    with pytest.raises(NotForCtransformers, match=r"its architecture is qwen3, and .*Zephyr\.$"):
        choose(path, CTRANSFORMERS)
    assert choose(write_gguf(tmp_path / "n.gguf"), LLAMA_CPP).engine == LLAMA_CPP
    has_llama_cpp(False)
    with pytest.raises(ModelFileError, match=r"^The engine llama\.cpp is not installed: install"):
        choose(path, LLAMA_CPP)


def test_what_no_engine_can_load_is_refused_as_that(tmp_path, has_llama_cpp):
    has_llama_cpp(False)
    path = write_family(tmp_path / "m.gguf", "qwen3")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ModelFileError, match="is truncated"):
        choose(path)
    with pytest.raises(ModelFileError, match="There is no model file"):
        choose(tmp_path / "none.gguf")
    has_llama_cpp(True)
    with pytest.raises(ModelFileError, match=r"which llama\.cpp no longer reads"):
        choose(write_tiny_model(tmp_path / "m.bin"), LLAMA_CPP)


def test_what_would_end_llama_cpps_process_is_refused(tmp_path, has_llama_cpp):
    has_llama_cpp(True)
    for tokens, words in (
        ([*TOKENS[:-1], TOKENS[-2]], "a token twice"),
        ([*TOKENS[:3], "x", *TOKENS[4:]], "lacks 1 of 256 byte tokens"),
        ([*TOKENS[:-1], "x" * 5000], "a token of 5,000 bytes"),
        ([*TOKENS[:-1], "a\0b"], "its vocabulary is damaged"),
        ([*TOKENS[:-1], "[EMPTY_5]"], "its vocabulary is damaged"),
    ):
        key = "tokenizer.ggml.tokens"
        path = write_gguf(tmp_path / "m.gguf", lists={key: (tokens, GGUFValueType.STRING)})
        with pytest.raises(ModelFileError, match=words):
            choose(path, LLAMA_CPP)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("tokenizer.ggml.model", "bert", "(bert) is not one for generating text"),
        ("tokenizer.ggml.model", "no_vocab", "(no_vocab) is not one for"),
        ("llama.block_count", 0, "it has no layers"),
        ("llama.rope.dimension_count", 15, "rotates 15 dimensions of heads that have 16"),
        ("llama.rope.dimension_count", 18, "rotates 18 dimensions of heads that have 16"),
        ("llama.expert_used_count", 2, "more experts than it has"),
        ("llama.attention.layer_norm_rms_epsilon", -1.0, "epsilon is -1.0"),
    ],
)
def test_what_would_end_the_process_is_refused_by_name(tmp_path, has_llama_cpp, key, value, words):
    has_llama_cpp(True)
    kinds = {str: GGUFValueType.STRING, int: GGUFValueType.UINT32, float: GGUFValueType.FLOAT32}
    kind = kinds[type(value)]
    path = write_gguf(tmp_path / "m.gguf", {key: (value, kind)})
    with pytest.raises(ModelFileError) as refusal:
        choose(path, LLAMA_CPP)
    assert words in str(refusal.value)
    assert "install" not in str(refusal.value)
