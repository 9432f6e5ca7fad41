"""The real hub client against a hub on loopback: downloads, failures, error messages."""

import hashlib
import os
import random
import re
import signal
import subprocess
import sys
import threading

import pytest
from gguf import GGUFValueType, TokenType
from tokenizers import pre_tokenizers

from server.model.job import Progress
from server.model.loader import EngineSettings, load_engine
from server.model.machine.governor import GovernorSettings
from server.model.prompt.conversation import Conversation
from server.model.prompt.persona import Persona
from server.model.sampler import Sampling
from tests.conftest import IN_CI
from tests.support.gguf_model import TOKENS, tensors, write_gguf
from tests.support.hub import Hub
from tests.support.process import ROOT
from tests.support.tiny_model import write_tiny_model
from tests.support.waiting import PATIENCE_S, wait_until

NAME = "llama-2-7b-chat"
REPOSITORY = "TheBloke/Llama-2-7B-Chat-GGML"
STRING = GGUFValueType.STRING
PORTION = 10 * 1024 * 1024  # what the client writes at a time
FILE = "llama-2-7b-chat.ggmlv3.q2_K.bin"
PROGRAM = (
    "import pathlib, sys; from server.model.files import catalog; "
    "from server.model.fetch import __main__ as fetch; "
    "fetch.MODELS_DIRECTORY = catalog.MODELS_DIRECTORY = pathlib.Path(sys.argv[1]); "
    "sys.exit(fetch.main([sys.argv[2]]))"
)
OF_THE_HUB = "hf:Owner/Repo-GGUF/tiny.gguf"


@pytest.fixture(scope="module")
def content(tmp_path_factory):
    """A tiny random model in the legacy container."""
    return write_tiny_model(tmp_path_factory.mktemp("hub") / "tiny.bin").read_bytes()


@pytest.fixture
def hub(content):
    with Hub(content) as hub:
        yield hub


@pytest.fixture
def large_hub(tmp_path_factory):
    """A model of more than two portions: what follows its tensors means nothing."""
    model = write_gguf(tmp_path_factory.mktemp("large") / "large.gguf").read_bytes()
    with Hub(model + random.Random(1).randbytes(2 * PORTION)) as hub:
        yield hub


def start(directory, hub, prefix=(), name=NAME, **environment):
    environment = {"HF_ENDPOINT": hub.url, "HF_HOME": str(directory / "home")} | environment
    return subprocess.Popen(
        [*prefix, sys.executable, "-c", PROGRAM, str(directory), name],
        cwd=ROOT,
        env={name: text for name, text in os.environ.items() if name != "HF_TOKEN"} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def fetch(directory, hub, prefix=(), name=NAME, **environment):
    """Fetch the model; returns (exit status, stdout, last line on stderr)."""
    process = start(directory, hub, prefix, name, **environment)
    out, err = process.communicate(timeout=PATIENCE_S)
    assert "Traceback" not in err
    return process.returncode, out, re.split(r"[\r\n]+", err.strip())[-1]


def model_in(directory):
    return directory / NAME / FILE


def files_in(directory):
    return sorted(path.name for path in (directory / NAME).iterdir())


def part_of(directory):
    return next((directory / NAME).glob("*.part"), None)


def test_model_comes_whole_and_answers(tmp_path, hub, content):
    status, out, _ = fetch(tmp_path, hub)
    assert (status, out) == (0, f"{model_in(tmp_path)}\n")
    assert model_in(tmp_path).read_bytes() == content
    assert files_in(tmp_path) == ["Notice", FILE]
    assert "LLAMA 2 Community License" in (tmp_path / NAME / "Notice").read_text()
    load_engine(EngineSettings(model_in(tmp_path), Persona("Be.", ()), 512))


def answers(path):
    engine = load_engine(EngineSettings(path, Persona("Be."), 256, governor=GovernorSettings(1)))
    prompt = engine.write_prompt(Conversation("ab, ba? ab"))
    sampling = Sampling(max_tokens=5, ignore_eos=True)
    return list(engine.generate(prompt, sampling, threading.Event(), Progress()))


def test_any_file_of_the_hub_comes_by_its_name(tmp_path):
    content = write_gguf(tmp_path / "tiny.gguf").read_bytes()
    with Hub(content) as hub:
        status, out, _ = fetch(tmp_path, hub, name=OF_THE_HUB)
    path = tmp_path / "hf" / "Owner" / "Repo-GGUF" / "tiny.gguf"
    assert (status, out) == (0, f"{path}\n")
    assert path.read_bytes() == content
    assert answers(path)


def write_smollm(path, pre="smollm"):
    """SmolLM2's kind of file: GPT-2's vocabulary, and no output matrix."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *letters, "ab", "ba"]
    kinds = [TokenType.CONTROL] * 3 + [TokenType.NORMAL] * (len(tokens) - 3)
    prefix = "tokenizer.ggml."
    weights = {"token_embd.weight": tensors()["token_embd.weight"][: len(tokens)]}
    return write_gguf(
        path,
        {f"{prefix}model": ("gpt2", STRING), f"{prefix}pre": (pre, STRING)},
        {
            f"{prefix}tokens": (tokens, STRING),
            f"{prefix}merges": (["a b", "b a"], STRING),
            f"{prefix}token_type": ([int(kind) for kind in kinds], GGUFValueType.INT32),
            f"{prefix}scores": None,
        },
        weights | {"output.weight": None},
    )


def test_a_file_of_the_family_is_adapted(tmp_path):
    with Hub(write_smollm(tmp_path / "tiny.gguf").read_bytes()) as hub:
        status, out, _ = fetch(tmp_path, hub, name=OF_THE_HUB)
    path = tmp_path / "hf" / "Owner" / "Repo-GGUF" / "tiny.gguf"
    assert (status, out) == (0, f"{path}\n")
    assert sorted(file.name for file in path.parent.iterdir()) == ["tiny.gguf", "tokenizer.json"]
    assert answers(path)


def test_a_file_for_the_other_engine_comes_as_it_is(tmp_path):
    content = write_smollm(tmp_path / "tiny.gguf", "llama-bpe").read_bytes()
    with Hub(content) as hub:
        status, out, _ = fetch(tmp_path, hub, name=OF_THE_HUB)
    path = tmp_path / "hf" / "Owner" / "Repo-GGUF" / "tiny.gguf"
    assert (status, out) == (0, f"{path}\n")
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    ("key", "value", "tokens", "words"),
    [
        ("general.type", "adapter", TOKENS, "it is a LoRA adapter"),
        ("tokenizer.ggml.model", "gpt2", [*TOKENS[:-1], "<s>"], "has a token twice"),
    ],
)
def test_a_file_that_no_engine_could_use_is_refused_by_name_and_not_kept(
    tmp_path, key, value, tokens, words
):
    path = write_gguf(
        tmp_path / "tiny.gguf", {key: (value, STRING)}, {"tokenizer.ggml.tokens": (tokens, STRING)}
    )
    with Hub(path.read_bytes()) as hub:
        status, out, said = fetch(tmp_path, hub, name=OF_THE_HUB)
    assert (status, out) == (1, "")
    assert words in said
    assert said.endswith("What was fetched is deleted.")
    assert list((tmp_path / "hf" / "Owner" / "Repo-GGUF").iterdir()) == []


def test_an_unknown_name_is_refused_with_the_known_ones(tmp_path, hub):
    status, _, said = fetch(tmp_path, hub, name="smollm3")
    assert status == 2
    assert "there is no model smollm3: take socrates, smollm2," in said


def test_second_time_asks_nobody(tmp_path, hub):
    fetch(tmp_path, hub)
    asked = len(hub.requests)
    assert fetch(tmp_path, hub)[0] == 0
    assert len(hub.requests) == asked


def test_token_is_sent_if_there_is_one(tmp_path, hub):
    hub.token = "hf_secret"
    assert fetch(tmp_path, hub, HF_TOKEN="hf_secret")[0] == 0
    assert {authorization for _, _, authorization in hub.requests} == {"Bearer hf_secret"}


def test_cut_is_mended_in_the_same_run(tmp_path, large_hub):
    large_hub.cuts = [PORTION + 1000, PORTION + 500]
    assert fetch(tmp_path, large_hub)[0] == 0
    assert large_hub.ranges == [None, f"bytes={PORTION}-", f"bytes={2 * PORTION}-"]
    assert model_in(tmp_path).read_bytes() == large_hub.content


def test_cut_is_mended_in_the_next_run(tmp_path, large_hub):
    # The client gives up after six attempts in a row without a portion.
    large_hub.cuts = [PORTION + 1000] + 6 * [0]
    status, _, sentence = fetch(tmp_path, large_hub)
    assert status == 1
    assert sentence.startswith(f"error: The connection to the hub at {large_hub.url} failed (")
    assert sentence.endswith("): if HF_ENDPOINT is right, run the same command again to continue.")
    assert not model_in(tmp_path).exists()
    assert part_of(tmp_path).stat().st_size == PORTION
    large_hub.cuts = []
    del large_hub.requests[:]
    assert fetch(tmp_path, large_hub)[0] == 0
    assert large_hub.ranges == [f"bytes={PORTION}-"]
    assert model_in(tmp_path).read_bytes() == large_hub.content
    assert part_of(tmp_path) is None


def test_ctrl_c_keeps_what_came_and_the_next_run_goes_on(tmp_path, large_hub):
    hub = large_hub
    hub.holds_after = PORTION + 2000
    process = start(tmp_path, hub)
    wait_until(lambda: (part := part_of(tmp_path)) and part.stat().st_size == PORTION)
    process.send_signal(signal.SIGINT)
    err = process.communicate(timeout=PATIENCE_S)[1]
    assert process.returncode == 130
    assert "Traceback" not in err
    assert err.endswith("error: Interrupted; run the same command again to continue.\n")
    assert not model_in(tmp_path).exists()
    hub.holds_after = None
    del hub.requests[:]
    assert fetch(tmp_path, hub)[0] == 0
    assert hub.ranges == [f"bytes={PORTION}-"]
    assert model_in(tmp_path).read_bytes() == hub.content


@pytest.mark.parametrize("size", [100, 10_000_000], ids=["short", "long"])
def test_part_with_other_bytes_in_it_is_not_taken(tmp_path, hub, content, size):
    part = tmp_path / NAME / f"{hub.etag}.part"
    part.parent.mkdir()
    part.write_bytes(b"x" * size)
    status, _, sentence = fetch(tmp_path, hub)
    if status:
        assert "wrong hash" in sentence
        assert fetch(tmp_path, hub)[0] == 0
    assert model_in(tmp_path).read_bytes() == content


def test_small_file_is_checked_by_its_git_hash(tmp_path, hub, content):
    hub.etag = "a" * 40
    status, _, sentence = fetch(tmp_path, hub)
    assert (status, "wrong hash" in sentence) == (1, True)
    hub.etag = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
    assert fetch(tmp_path, hub)[0] == 0
    assert model_in(tmp_path).read_bytes() == content


def test_second_process_waits_for_the_first(tmp_path, large_hub):
    large_hub.holds_after = PORTION + 2000
    first = start(tmp_path, large_hub)
    wait_until(lambda: (part := part_of(tmp_path)) and part.stat().st_size == PORTION)
    second = start(tmp_path, large_hub)
    assert second.stderr.readline().startswith("Another process is fetching this model")
    assert len(large_hub.ranges) == 1
    large_hub.ended.set()  # the hub goes on, and the client fetches the rest
    large_hub.holds_after = None
    for process in (first, second):
        out, err = process.communicate(timeout=PATIENCE_S)
        assert (process.returncode, out) == (0, f"{model_in(tmp_path)}\n"), err
    assert model_in(tmp_path).read_bytes() == large_hub.content
    assert large_hub.ranges == [None, f"bytes={PORTION}-"]


@pytest.mark.parametrize("endpoint", ["http://127.0.0.1:99999", "ftp://127.0.0.1", "127.0.0.1:9"])
def test_endpoint_that_is_none_is_refused(tmp_path, hub, endpoint):
    status, _, sentence = fetch(tmp_path, hub, HF_ENDPOINT=endpoint)
    assert status == 1
    assert sentence.startswith("error: ")
    assert "HF_ENDPOINT is" in sentence


def test_wrong_hash_is_refused_and_nothing_is_kept(tmp_path, hub):
    hub.etag = "ab" * 32
    status, _, sentence = fetch(tmp_path, hub)
    assert status == 1
    assert re.fullmatch(
        r"error: The downloaded file has the wrong hash \([0-9a-f]{12}\.\.\., not abababababab"
        r"\.\.\.\): it was damaged in transit and is deleted; run the command again\.",
        sentence,
    )
    assert files_in(tmp_path) == ["Notice"]


NO_ACCESS = f"error: The hub denies access to {REPOSITORY} (status {{}}): it does not exist, or it requires the token of an account that may read it in HF_TOKEN."  # fmt: skip
NO_FILE = f"error: The hub has no file {FILE} in {REPOSITORY} (status 404)."


@pytest.mark.parametrize(
    ("refusal", "sentence"),
    [
        ((401, "GatedRepo"), NO_ACCESS.format(401)),
        ((401, "RepoNotFound"), NO_ACCESS.format(401)),
        ((403, "GatedRepo"), NO_ACCESS.format(403)),
        ((404, "EntryNotFound"), NO_FILE),
        ((404, "RepoNotFound"), NO_FILE),
        ((500, ""), f"error: The hub failed on {REPOSITORY} with status 500; run the same command again to continue."),
    ],
)  # fmt: skip
def test_refusal_is_one_sentence(tmp_path, hub, refusal, sentence):
    hub.refusal = refusal
    assert fetch(tmp_path, hub) == (1, "", sentence)
    assert files_in(tmp_path) == ["Notice"]


def test_wrong_token_is_refused(tmp_path, hub):
    hub.token = "hf_secret"
    assert fetch(tmp_path, hub, HF_TOKEN="hf_other")[2] == NO_ACCESS.format(401)


def test_what_is_no_hub_is_refused(tmp_path, hub):
    hub.etag = ""
    status, _, sentence = fetch(tmp_path, hub)
    assert status == 1
    assert "is HF_ENDPOINT right?" in sentence


# A private disk, in a mount namespace that ends with the process.
def on_a_disk_of(size, directory):
    script = f'mount -t tmpfs -o size={size},mode=777 none "{directory}" && exec "$@"'
    return [*NAMESPACE, "sh", "-c", script, "sh"]


def find_namespace():
    ways = (
        ["unshare", "--mount"],
        ["unshare", "--user", "--map-root-user", "--mount"],
        ["sudo", "-n", "-E", "unshare", "--mount"],
    )
    return next((way for way in ways if subprocess.run([*way, "true"], stderr=subprocess.DEVNULL).returncode == 0), None)  # fmt: skip


NAMESPACE = find_namespace() if sys.platform == "linux" else None
ON_A_DISK = pytest.mark.skipif(
    NAMESPACE is None and not IN_CI, reason="no mount namespace can be made here"
)


@ON_A_DISK
def test_disk_without_room_is_refused_before_anything_comes(tmp_path, hub, content):
    prefix = on_a_disk_of(len(content) // 2, tmp_path)
    status, _, sentence = fetch(tmp_path, hub, prefix, HF_HOME="/nonexistent")
    assert status == 1
    assert re.fullmatch(
        rf"error: Not enough disk space for the model in {tmp_path}/{NAME}: [\d.]+ MB more needed, "
        r"[\d.]+ MB free\.",
        sentence,
    )
    assert hub.ranges == []


@ON_A_DISK
def test_disk_that_fills_up_meanwhile_is_reported(tmp_path, hub, content):
    """Report enough free space, so that only writing hits the limit."""
    prefix = on_a_disk_of(len(content) // 2, tmp_path)
    shown = "shutil.disk_usage = lambda _: __import__('types').SimpleNamespace(free=1 << 40); "
    command = f"import shutil; {shown}{PROGRAM}"
    result = subprocess.run(
        [*prefix, sys.executable, "-c", command, str(tmp_path), NAME],
        cwd=ROOT,
        env=os.environ | {"HF_ENDPOINT": hub.url, "HF_HOME": "/nonexistent"},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    assert result.stderr.endswith(
        "error: The disk is full; free some space, and run the same command again to continue.\n"
    )


def test_directory_that_cannot_be_written_is_reported(tmp_path, hub):
    (tmp_path / NAME).write_text("in the way")
    status, _, sentence = fetch(tmp_path, hub)
    assert status == 1
    assert sentence.startswith(f"error: Could not write the model {NAME}: ")
