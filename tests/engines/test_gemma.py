"""Gemma 3 270M: a real, current file, with 262,144 tokens and sliding windows."""

import threading

import pytest

from server.model.backends.choice import choose
from server.model.errors import NotForCtransformers
from server.model.files.modelfile import CTRANSFORMERS
from server.model.job import Finish, Progress, Stage
from server.model.loader import EngineSettings, load_engine
from server.model.machine.governor import GovernorSettings
from server.model.prompt.conversation import Conversation, Turn
from server.model.prompt.persona import find_persona, load_persona
from server.model.sampler import Sampling
from tests.engines.gemma import fetch
from tests.support.families import GEMMA
from tests.support.process import ServerProcess
from tests.support.wire import parse_response, prompt_request, read_all

LONG = "Tell me about the river and the sea. " * 100  # longer than its window of 512 tokens


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """The file has none, because it is a base model."""
    path = tmp_path_factory.mktemp("template") / "gemma.jinja"
    path.write_text(GEMMA)
    return path


@pytest.fixture(scope="module")
def engine(template):
    persona = load_persona(find_persona("socrates"))
    engine = load_engine(
        EngineSettings(fetch(), persona, 2048, str(template), governor=GovernorSettings(2))
    )
    engine.prefill_persona(threading.Event(), Progress())
    return engine


def say(engine, conversation, **changes):
    progress, sampling = Progress(), Sampling(**({"max_tokens": 16, "seed": 1} | changes))
    prompt = engine.write_prompt(conversation)
    return list(engine.generate(prompt, sampling, threading.Event(), progress)), progress


def test_only_llama_cpp_takes_it():
    with pytest.raises(NotForCtransformers, match="its architecture is gemma3"):
        choose(fetch(), CTRANSFORMERS)
    file = choose(fetch())
    assert file.cache_bytes_per_token == 18 * 1 * (256 + 256) * 2
    assert (file.bos, file.eos, file.trained_context) == ("<bos>", "<eos>", 32768)


def test_it_speaks_english(engine):
    pieces, progress = say(engine, Conversation("What is virtue?"), temperature=0)
    words = "".join(pieces).lower().split()
    assert {"i", "is", "a", "the", "not", "virtue", "of", "to"}.intersection(words)
    assert progress.cached_tokens == len(engine.prompts.persona_tokens) > 300


def test_a_talk_beyond_its_window_repeats(engine):
    talk = Conversation("And the sea?", (Turn(LONG, "It is blue."),))
    first, progress = say(engine, talk)
    assert progress.prompt_tokens > 1024
    say(engine, Conversation("Who are you?", system="Be a pirate."))
    again, progress = say(engine, talk)
    assert again == first
    _, progress = say(engine, Conversation("Why?", (*talk.turns, Turn("And the sea?", "It is."))))
    assert progress.cached_tokens > 1000


def test_every_byte_of_a_text_is_tokenized(engine):
    text = "".join(chr(plane * 0x10000 + 0x101) for plane in range(17)) + "\U0001f3db a  b\tc"
    tokens = engine.prompts._tokenizer.encode(text)
    assert b"".join(engine._pieces[token] for token in tokens).decode() == text


def test_whole_server_answers_and_says_what_it_is(template):
    with ServerProcess(
        "--model", str(fetch()), "--template", str(template), "--threads", "2"
    ) as server:
        server.wait_until_ready()
        client = server.connect()
        client.sendall(prompt_request("What is courage?", "?max_tokens=8"))
        status, _, body = parse_response(read_all(client))
        assert (status, len(body) > 0) == (200, True)
        assert server.status()["last"]["finish"] in ("length", "stop")


def test_cancel_while_reading_leaves_at_once(engine):
    cancelled, progress = threading.Event(), Progress()
    evaluate = engine.evaluate

    def watched(*arguments, **options):
        cancelled.set()  # before the first node
        return evaluate(*arguments, **options)

    engine.evaluate = watched
    prompt = engine.write_prompt(Conversation(LONG + "x"))
    assert list(engine.generate(prompt, Sampling(max_tokens=5), cancelled, progress)) == []
    engine.evaluate = evaluate
    assert (progress.finish, progress.stage) == (Finish.CANCELLED, Stage.PREFILL)
    assert progress.prefilled_tokens == progress.cached_tokens
    assert say(engine, Conversation("What is virtue?"))[0]
