"""Which context a prompt gets: the one it continues, or the least recently used."""

import threading

import pytest

from server.model.context import Context, Contexts

PERSONA = [1, 2, 3]


class FakeCache:
    """Holds what it is given, and cannot be cut if it is `stiff`, as a recurrent model's."""

    length = 100

    def __init__(self, stiff=False):
        self.held = []
        self.stiff = stiff

    def evaluate(self, tokens, threads, cancelled, wants_logits):
        if cancelled.is_set():
            return False
        self.held += tokens
        return True

    def cut(self, length):
        is_cut = length == len(self.held) or not self.stiff
        del self.held[length if is_cut else 0 :]
        return is_cut


def read(context, tokens, is_reusable=True):
    assert context.evaluate(tokens, 1, threading.Event(), is_reusable, wants_logits=True)
    assert context._cache.held == context.tokens


def holding(tokens, batch=1):
    context = Context(FakeCache(), batch)
    read(context, tokens)
    return context


def make(count):
    contexts = [holding(PERSONA) for _ in range(count)]
    return Contexts(contexts, PERSONA), contexts


def ask(contexts, prompt, answer):
    context = contexts.take(prompt)
    context.keep_prefix([0], [0])
    read(context, [*prompt, *answer])
    return context


def test_common_beginning():
    context = holding([1, 2, 3, 4])
    prompts = ([], [2], [1], [1, 2, 9], [1, 2, 3, 4, 5])
    assert [context.common_prefix(prompt) for prompt in prompts] == [0, 0, 1, 2, 4]


def held(*batches):
    """A context that has evaluated these; the last was cut elsewhere."""
    context = Context(FakeCache(), 4)
    for tokens in batches:
        read(context, tokens, is_reusable=tokens is not batches[-1])
    return context


@pytest.mark.parametrize(
    ("prompt", "kept"),
    [
        ([1, 2, 3, 4, 5, 6, 7, 8, 9], 8),
        ([1, 2, 3, 4, 5, 6, 7, 8], 4),  # one token is left to read
        ([1, 2, 3, 4, 5, 6, 9, 9, 9], 4),
        ([9, 2, 3, 4, 5], 0),
    ],
)
def test_only_whole_batches_are_reused(prompt, kept):
    context = held([1, 2, 3, 4], [5, 6, 7, 8], [9, 10])
    assert context.keep_prefix(prompt, [0, 4, 8]) == kept
    assert context.tokens == prompt[:kept]


def test_tokens_behind_the_last_whole_batch_are_not_reused():
    context = held([1, 2, 3, 4], [5, 6, 7, 8])
    assert context.keep_prefix([1, 2, 3, 4, 5, 6, 7, 8, 9], [0, 4, 8]) == 4


def test_what_was_cut_off_is_no_longer_reusable():
    context = held([1, 2, 3, 4], [5, 6, 7, 8], [9])
    context.keep_prefix([1, 2, 3, 4, 9, 9], [0, 4])
    read(context, [9, 9, 9, 9], is_reusable=False)
    assert context.keep_prefix([1, 2, 3, 4, 9, 9, 9, 9, 9], [0, 4, 8]) == 4


def test_what_was_cancelled_is_not_held():
    context = held([1, 2, 3, 4], [5])
    cancelled = threading.Event()
    cancelled.set()
    assert not context.evaluate([6, 7], 1, cancelled, is_reusable=True, wants_logits=False)
    assert context.tokens == [1, 2, 3, 4, 5]


def test_cache_that_cannot_be_cut_begins_anew():
    context = Context(FakeCache(stiff=True), 4)
    read(context, [1, 2, 3, 4])
    read(context, [5, 6])
    assert context.keep_prefix([1, 2, 3, 4, 9], [0, 4]) == 0
    assert context.tokens == context._cache.held == []
    read(context, [1, 2, 3, 4])
    assert context.keep_prefix([1, 2, 3, 4, 9], [0, 4]) == 4  # nothing to cut off


def test_people_who_talk_in_turn_keep_their_contexts():
    contexts, _ = make(3)
    talks = [[*PERSONA, 10 * person] for person in range(1, 4)]
    own = [ask(contexts, talk, [8]) for talk in talks]
    assert len({id(context) for context in own}) == 3
    for turn in range(3):
        for person in (1, 0, 2):
            talks[person] += [8, 100 * person + turn]
            assert ask(contexts, talks[person], [8]) is own[person]


def test_newcomer_gets_the_stalest():
    contexts, _ = make(2)
    first = ask(contexts, [*PERSONA, 10], [8, 8, 8])
    second = ask(contexts, [*PERSONA, 20], [8, 8, 8])
    assert ask(contexts, [*PERSONA, 10, 8, 8, 8, 11], [9]) is first
    assert ask(contexts, [*PERSONA, 30], [9]) is second


def test_few_words_in_common_are_no_talk():
    contexts, _ = make(2)
    talk = [*PERSONA, 50, 51, *range(60, 80)]
    first = ask(contexts, talk, [8])
    newcomer = ask(contexts, [*PERSONA, 50, 51, *range(80, 99)], [8])
    assert newcomer is not first
    assert ask(contexts, [*talk, 8, 9], []) is first


def test_talk_with_a_system_text_of_its_own_is_gone_on_with():
    contexts, _ = make(2)
    foreign = ask(contexts, [7, 7, 20, 21], [8])
    ask(contexts, [*PERSONA, 30], [8])
    assert ask(contexts, [7, 7, 20, 21, 8, 22], [9]) is foreign


def test_talks_with_system_texts_of_their_own_keep_their_contexts_in_turn():
    contexts, _ = make(2)
    talks = [[7, 10, 11], [6, 20, 21]]
    own = [ask(contexts, talk, [8]) for talk in talks]
    assert own[0] is not own[1]
    for turn in range(3):
        for person in (0, 1):
            talks[person] += [8, turn]
            assert ask(contexts, talks[person], [8]) is own[person]


def test_after_a_stranger_both_talks_find_their_places_again():
    contexts, _ = make(2)
    talks = [[*PERSONA, 10], [*PERSONA, 20]]
    for talk in talks:
        ask(contexts, talk, [8])
    ask(contexts, [7, 30], [8])
    for turn in range(3):
        found = []
        for talk in talks:
            talk += [8, turn]
            found.append(ask(contexts, talk, [8]))
        assert found[0] is not found[1]
