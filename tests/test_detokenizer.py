"""Token pieces become text of whole characters, which ends before a stop sequence."""

import pytest

from server.model.detokenizer import Detokenizer, StopFinder


def fed(pieces, stops=()):
    """Return the answer, and the text it released for each piece."""
    answer = Detokenizer(stops)
    return answer, [answer.feed(piece) for piece in pieces]


def test_pieces_never_split_a_character():
    raw = "é🏛️ x".encode()
    answer, said = fed([raw[i : i + 1] for i in range(len(raw))])
    assert "".join([*said, answer.end()]) == "é🏛️ x"
    assert said[:2] == ["", "é"]


def test_bytes_that_are_no_text_become_the_replacement_character():
    assert fed([b"a\xffb"])[1] == ["a\ufffdb"]


def test_answer_does_not_begin_with_blanks():
    assert fed([b"\n", b" ", b" yes", b" no"])[1] == ["", "", "yes", " no"]


def test_nothing_is_said_from_a_stop_text_on():
    answer, said = fed([b"one ", b"st", b"op two"], stops=["stop"])
    assert said == ["one ", "", ""]
    assert answer.is_stopped
    assert answer.end() == ""


def test_what_was_held_back_is_said_at_the_end():
    answer, said = fed([b"one st"], stops=["stop"])
    assert said == ["one "]
    assert not answer.is_stopped
    assert answer.end() == "st"


def test_a_character_cut_by_the_end_is_dropped():
    answer, said = fed([b" caf", b"\xc3"])
    assert [*said, answer.end()] == ["caf", "", ""]


def say(stops, text, size):
    finder, said = StopFinder(stops), []
    for at in range(0, len(text), size):
        said.append(finder.feed(text[at : at + size]))
        if finder.is_found:
            break
    return "".join(said) + finder.end(), finder.is_found


CASES = [
    ((), "hello", "hello", False),
    (("x",), "hello", "hello", False),
    (("l",), "hello", "he", True),
    (("lo!", "ll"), "hello!", "he", True),
    (("lo!",), "hello", "hello", False),
    (("aab",), "aaaab", "aa", True),
    (("\n\n",), "a\nb\n\nc", "a\nb", True),
    (("hello",), "hello", "", True),
    (("é🏛",), "ca é🏛 x", "ca ", True),
]


@pytest.mark.parametrize("size", [1, 2, 3, 100])
@pytest.mark.parametrize(("stops", "text", "said", "is_found"), CASES)
def test_stop(stops, text, said, is_found, size):
    assert say(stops, text, size) == (said, is_found)


def test_what_cannot_become_a_stop_is_said_at_once():
    finder = StopFinder(("stop",))
    assert finder.feed("one st") == "one "
    assert finder.feed("ep") == "step"
