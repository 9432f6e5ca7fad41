"""The talks that the default model is trained on: their form, and no overlap with bench."""

import re
import tomllib

import pytest

from server.model.tuning.dialogue import LAST_TALKS, TALKS, read_talks
from tests.support.process import ROOT

FILES = sorted(TALKS.rglob("*.jsonl"))
_MARKUP = re.compile(r"[*#`|<>\[\]{}\\_~\u2013\u2014\n;]")
_NOT_HIS = re.compile(r"\b(AI|chatbot|language model|assistant)\b")
_FILLER_WORDS = 3  # "i dont know" is said in every talk


@pytest.fixture(scope="module")
def talks():
    return [*read_talks(TALKS), *read_talks(LAST_TALKS)]


def plain(text):
    return " ".join(re.findall(r"[a-z0-9']+", text.lower().replace("\u2019", "'")))


def opening(answer):
    return plain(answer).split()[:3]


def test_there_are_enough(talks):
    assert len(talks) > 5000
    assert len({talk[:2] for talk in talks}) == len(talks)


def test_answers_are_brief_plain_and_his_own(talks):
    for talk in talks:
        for answer in talk[1::2]:
            assert 2 <= len(answer.split()) <= 60, answer
            assert not _MARKUP.search(answer), answer
            assert not _NOT_HIS.search(answer), answer


def test_no_two_answers_of_a_talk_begin_alike(talks):
    for talk in talks:
        openings = [tuple(opening(answer)) for answer in talk[1::2]]
        assert len(set(openings)) == len(openings), talk


def measured():
    """Every message that `bench.character` reports on."""
    bench = ROOT / "bench"
    yield from tomllib.loads((bench / "questions.toml").read_text())["report"]
    scripts = tomllib.loads((bench / "talks.toml").read_text())
    for script in scripts["report"]:
        yield from script
    for probe in scripts["memory"]:
        yield from probe["turns"]
    for messages in tomllib.loads((bench / "danger.toml").read_text()).values():
        yield from messages


def test_nothing_measured_was_trained_on(talks):
    forbidden = {plain(message) for message in measured()}
    for talk in talks:
        for turn, message in enumerate(talk[::2]):
            is_filler = turn > 0 and len(plain(message).split()) <= _FILLER_WORDS
            assert is_filler or plain(message) not in forbidden, message
