"""Real clients of the chat completions API against the real server with the real model."""

import json
import os
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import openai
import pytest

from tests.support.process import ServerProcess
from tests.support.waiting import PATIENCE_S, wait_until

pytestmark = pytest.mark.model

QUESTION = [{"role": "user", "content": "What is virtue?"}]


@pytest.fixture
def client(real_server):
    with connect(real_server) as client:
        yield client


def connect(server):
    address = f"http://127.0.0.1:{server.port}/v1"
    return openai.OpenAI(base_url=address, api_key="none", max_retries=0)


def test_openai_whole(client):
    answer = client.chat.completions.create(model="any", messages=QUESTION, seed=2, max_tokens=30)
    assert answer.model == "socrates"
    assert answer.choices[0].message.content
    assert answer.choices[0].finish_reason in ("stop", "length")
    assert answer.usage.completion_tokens <= 30
    assert answer.usage.prompt_tokens > answer.usage.prompt_tokens_details.cached_tokens > 10


def test_openai_streamed_says_the_same(client):
    asked = {"model": "any", "messages": QUESTION, "seed": 2, "max_tokens": 30}
    whole = client.chat.completions.create(**asked)
    pieces = list(
        client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True})
    )
    text = "".join(piece.choices[0].delta.content or "" for piece in pieces if piece.choices)
    assert text == whole.choices[0].message.content
    assert pieces[-1].usage.completion_tokens == whole.usage.completion_tokens
    assert len(pieces) > 10


def test_openai_stop(client):
    asked = {"model": "any", "messages": QUESTION, "seed": 2, "max_tokens": 60, "temperature": 0}
    whole = client.chat.completions.create(**asked).choices[0].message.content
    word = whole.split()[4]
    stopped = client.chat.completions.create(**asked, stop=[word]).choices[0]
    assert stopped.message.content == whole[: whole.index(word)]
    assert stopped.finish_reason == "stop"


def test_openai_system_and_talk_are_heard(talkative_server):
    """Use the untrained model: the trained one stays Socrates whatever the system message."""
    messages = [
        {"role": "system", "content": "You repeat what you are told."},
        {"role": "user", "content": "Say: red"},
        {"role": "assistant", "content": "red"},
        {"role": "user", "content": "Say: blue"},
        {"role": "assistant", "content": "blue"},
        {"role": "user", "content": "Say: green"},
    ]
    with connect(talkative_server) as client:
        answer = client.chat.completions.create(model="any", messages=messages, temperature=0)
    assert answer.choices[0].message.content == "green"
    assert answer.usage.prompt_tokens < 100  # without the persona


def test_openai_errors_are_of_its_classes(client):
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(model="any", messages=QUESTION, temperature=5)
    assert refused.value.param == "temperature"
    assert "must be a number from 0 to 2" in refused.value.message
    with pytest.raises(openai.NotFoundError):
        client.embeddings.create(model="any", input="x")


def test_openai_models(client):
    assert [model.id for model in client.models.list()] == ["socrates"]
    assert client.models.retrieve("socrates").owned_by == "socratic-chat-bot"


def test_openai_that_stops_listening_stops_the_model(client, real_server):
    before = real_server.status()["prompts"].get("cancelled_decode", 0)
    messages = [{"role": "user", "content": "Tell me a very long story."}]
    stream = client.chat.completions.create(
        model="any", messages=messages, stream=True, extra_body={"ignore_eos": True}
    )
    next(event for event in stream if event.choices[0].delta.content)
    stream.close()
    wait_until(lambda: real_server.status()["prompts"].get("cancelled_decode", 0) > before)


def test_openai_next_turn_costs_the_last_one_and_its_new_tokens(client):
    talk, spoken = list(QUESTION), 0
    for turn in range(3):
        answer = client.chat.completions.create(
            model="any", messages=talk, seed=turn, max_tokens=60
        )
        usage = answer.usage
        if turn:
            new = usage.prompt_tokens - usage.prompt_tokens_details.cached_tokens
            # What was spoken is read again, from the last border of batches on (16 tokens each).
            assert new < 30 + spoken + 16
        spoken = usage.completion_tokens
        question = {"role": "user", "content": f"And why is that so, for the {turn}th time?"}
        talk += [{"role": "assistant", "content": answer.choices[0].message.content}, question]


def test_key_of_the_openai_client(socrates):
    with ServerProcess("--threads", "1", environment={"SOCRATES_API_KEY": "sk-1"}) as server:
        address = f"http://127.0.0.1:{server.port}/v1"
        stranger = openai.OpenAI(base_url=address, api_key="wrong", max_retries=0)
        with pytest.raises(openai.AuthenticationError):
            stranger.models.list()
        assert openai.OpenAI(base_url=address, api_key="sk-1").models.list().data


def test_llm_command(real_server, tmp_path):
    """Run `llm` with its documented setting for other endpoints: extra-openai-models.yaml."""
    (tmp_path / "extra-openai-models.yaml").write_text(
        "- model_id: socrates\n"
        "  model_name: socrates\n"
        f"  api_base: http://127.0.0.1:{real_server.port}/v1\n"
        "  api_key_name: socrates\n"
    )
    (tmp_path / "keys.json").write_text('{"socrates": "none"}')
    command = [str(Path(sys.executable).parent / "llm"), "-m", "socrates"]
    options = ["-o", "seed", "2", "-o", "max_tokens", "30"]
    environment = os.environ | {"LLM_USER_PATH": str(tmp_path)}

    def prompt_tokens():
        metrics = real_server.request("GET", "/metrics")[2].decode()
        return float(re.search(r"(?m)^socrates_prompt_tokens_total (\S+)", metrics)[1])

    start = prompt_tokens()
    result = subprocess.run(
        [*command, *options, "What is virtue?"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert result.returncode == 0, result.stderr
    assert len(result.stdout.split()) > 5
    middle = prompt_tokens()
    follow_up = subprocess.run(
        [*command, *options, "--continue", "Why?"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert follow_up.returncode == 0, follow_up.stderr
    first, second = (after - before for before, after in pairwise([start, middle, prompt_tokens()]))
    assert second > first + 10  # the first turn comes with it


def test_curl(real_server):
    address = f"http://127.0.0.1:{real_server.port}/v1/chat/completions"
    body = json.dumps({"messages": QUESTION, "stream": True, "max_tokens": 5, "seed": 1})
    command = ["curl", "-sN", address, "-H", "Content-Type: application/json", "-d", body]
    result = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S)
    assert result.stdout.startswith('data: {"id":"chatcmpl-')
    assert result.stdout.endswith("data: [DONE]\n\n")
    assert '"finish_reason":"length"' in result.stdout
