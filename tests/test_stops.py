"""An answer ends before a stop text, wherever the pieces are cut."""

import pytest

from server.model.stops import StopFinder


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
