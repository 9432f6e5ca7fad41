"""A talk on the page is something one has: remembered, kept, changed, saved; in real Chromium."""

from pathlib import Path

import pytest
from playwright.sync_api import expect

from server.model.prompt.conversation import Turn
from tests.support.engine import FakeEngine
from tests.support.page import ask, break_off, last_answer, last_note, open_page
from tests.support.process import InProcessServer
from tests.support.waiting import wait_until

pytestmark = pytest.mark.browser


def ask_in_turn(page, *questions):
    for question in questions:
        ask(page, question)
        expect(page.get_by_role("button", name="Send")).to_be_visible()
        expect(last_note(page)).to_contain_text("Copy")


def turns_told(server):
    """Return the earlier turns that the last question sent along."""
    return server.engine.conversations[-1].turns


def test_second_question_brings_the_first_along(page, gated):
    open_page(page, gated)
    gated.engine.allow(100)
    ask_in_turn(page, "1 word", "2 words")
    assert turns_told(gated) == (Turn("1 word", "word0"),)


def test_answer_that_broke_off_is_not_remembered(page, gated):
    open_page(page, gated)
    break_off(page, gated)
    page.get_by_role("button", name="Retry").click()
    gated.engine.allow(1)
    expect(last_answer(page)).to_have_text("word0")
    assert turns_told(gated) == ()
    gated.engine.allow(1)
    expect(last_note(page)).to_contain_text("The answer broke off here.")
    gated.engine.allow(100)
    ask(page, "1 word")
    expect(last_answer(page)).to_have_text("word0")
    assert turns_told(gated) == ()


def test_answer_that_was_stopped_is_remembered(page, gated):
    open_page(page, gated)
    ask(page, "9 words")
    gated.engine.allow(1)
    expect(last_answer(page)).to_have_text("word0")
    page.keyboard.press("Escape")
    expect(last_note(page)).to_contain_text("Stopped.")
    gated.engine.allow(100)
    ask(page, "1 word")
    expect(last_answer(page)).to_have_text("word0")
    assert turns_told(gated) == (Turn("9 words", "word0"),)


def test_half_a_character_does_not_spoil_the_talk(page, gated):
    open_page(page, gated)
    gated.engine.allow(100)
    page.evaluate("document.getElementById('prompt').value = '1 word \\ud800'")
    page.get_by_role("button", name="Send").click()
    expect(last_note(page)).to_have_text("CopyAgain")
    ask(page, "2 words")
    expect(last_answer(page)).to_have_text("word0 word1")
    assert turns_told(gated) == (Turn("1 word \ufffd", "word0"),)


def test_memory_can_be_turned_off_and_stays_off(page, gated):
    open_page(page, gated)
    gated.engine.allow(100)
    page.get_by_role("button", name="Memory").click()
    page.reload()
    expect(page.get_by_role("button", name="Memory")).to_have_attribute("aria-pressed", "false")
    ask_in_turn(page, "1 word", "2 words")
    assert turns_told(gated) == ()


def bubbles(page):
    return page.locator(".bubble .text").all_inner_texts()


def have_two_turns(page, gated, is_reloaded=False):
    open_page(page, gated)
    gated.engine.allow(100)
    ask_in_turn(page, "1 word", "2 words")
    if is_reloaded:
        page.reload()


def press(page, name):
    page.get_by_role("button", name=name, exact=True).click()


# -- a new talk -----------------------------------------------------------------------------


def test_new_talk_clears_the_last_one_here_and_after_a_reload(page, gated):
    have_two_turns(page, gated)
    press(page, "New talk")
    expect(page.locator("#welcome")).to_be_visible()
    expect(page.get_by_label("Your question")).to_be_focused()
    assert bubbles(page) == []
    page.reload()
    expect(page.locator("#welcome")).to_be_visible()
    ask_in_turn(page, "3 words")
    assert turns_told(gated) == ()


def test_new_talk_in_mid_answer_stops_the_model_and_the_voice(page, gated):
    open_page(page, gated)
    ask(page, "100 words")
    gated.engine.allow(2)
    expect(last_answer(page)).to_contain_text("word1")
    press(page, "New talk")
    wait_until(lambda: gated.server.worker.is_cancelling)
    assert page.evaluate("window.spoken.at(-1)") == ["(silence)", ""]
    gated.engine.allow(100)
    ask_in_turn(page, "1 word")
    assert bubbles(page) == ["1 word", "word0 "]
    assert turns_told(gated) == ()
    assert gated.status()["prompts"]["cancelled_decode"] == 1


# -- a reload -------------------------------------------------------------------------------


def test_reload_keeps_the_talk(page, gated):
    have_two_turns(page, gated)
    page.reload()
    expect(page.locator("#welcome")).to_be_hidden()
    assert bubbles(page) == ["1 word", "word0", "2 words", "word0 word1"]
    ask_in_turn(page, "3 words")
    assert turns_told(gated) == (Turn("1 word", "word0"), Turn("2 words", "word0 word1"))


def test_with_memory_off_nothing_is_kept(page, gated):
    open_page(page, gated)
    gated.engine.allow(100)
    ask_in_turn(page, "1 word")
    press(page, "Memory")
    ask_in_turn(page, "2 words")
    assert page.evaluate("sessionStorage.length") == 0
    page.reload()
    expect(page.locator("#welcome")).to_be_visible()
    assert bubbles(page) == []


def test_another_tab_begins_its_own_talk(page, gated):
    open_page(page, gated)
    gated.engine.allow(100)
    ask_in_turn(page, "1 word")
    other = open_page(page.context.new_page(), gated)
    expect(other.locator("#welcome")).to_be_visible()


@pytest.mark.parametrize("kept", ["{", "[1]", '[{"question": 1}]', "null", '[{"answer": "a"}]'])
def test_what_is_no_talk_is_not_restored(page, gated, kept):
    page.add_init_script(f"sessionStorage.setItem('/talk', {kept!r})")
    open_page(page, gated)
    gated.engine.allow(100)
    expect(page.locator("#welcome")).to_be_visible()
    ask_in_turn(page, "1 word")
    assert turns_told(gated) == ()


# -- the last question, and the last answer ---------------------------------------------------


@pytest.mark.parametrize("is_reloaded", [False, True])
def test_last_question_can_be_put_otherwise(page, gated, is_reloaded):
    have_two_turns(page, gated, is_reloaded)
    press(page, "Edit")
    field = page.get_by_label("Your question")
    expect(field).to_have_value("2 words")
    expect(field).to_be_focused()
    assert [text.strip() for text in bubbles(page)] == ["1 word", "word0"]
    ask_in_turn(page, "3 words")
    assert turns_told(gated) == (Turn("1 word", "word0"),)


def test_question_can_be_put_otherwise_while_it_is_answered(page, gated):
    open_page(page, gated)
    ask(page, "100 words")
    gated.engine.allow(2)
    expect(last_answer(page)).to_contain_text("word1")
    press(page, "Edit")
    wait_until(lambda: gated.server.worker.is_cancelling)
    assert bubbles(page) == []
    gated.engine.allow(100)
    ask_in_turn(page, "2 words")
    assert bubbles(page) == ["2 words", "word0 word1 "]
    assert turns_told(gated) == ()


@pytest.mark.parametrize("is_reloaded", [False, True])
def test_last_answer_can_be_drawn_again(page, gated, is_reloaded):
    have_two_turns(page, gated, is_reloaded)
    expect(page.get_by_role("button", name="Again")).to_have_count(1)
    press(page, "Again")
    wait_until(lambda: len(gated.engine.prompts) == 3)
    expect(last_note(page)).to_have_text("CopyAgain")
    assert turns_told(gated) == (Turn("1 word", "word0"),)
    assert [text.strip() for text in bubbles(page)] == ["1 word", "word0", "2 words", "word0 word1"]
    ask_in_turn(page, "3 words")
    assert turns_told(gated) == (Turn("1 word", "word0"), Turn("2 words", "word0 word1"))


def test_only_the_last_question_can_be_changed(page, gated):
    open_page(page, gated)
    gated.engine.allow(100)
    ask_in_turn(page, "1 word", "2 words", "3 words")
    expect(page.get_by_role("button", name="Edit")).to_have_count(1)
    expect(page.get_by_role("button", name="Again")).to_have_count(1)


def test_answer_is_kept_if_none_comes_in_its_place(page, gated):
    have_two_turns(page, gated)

    def generate(prompt, sampling, cancelled, progress):
        raise RuntimeError("ggml failed")
        yield

    gated.engine.generate = generate
    press(page, "Again")
    expect(last_note(page)).to_contain_text("The model failed on this prompt.")
    page.reload()
    assert bubbles(page) == ["1 word", "word0", "2 words", "word0 word1"]


@pytest.mark.parametrize("way", ["New talk", "Edit"])
def test_question_that_is_gone_is_not_asked_when_the_key_comes(page, way):
    with InProcessServer(FakeEngine(), api_key="secret") as server:
        server.wait_until_ready()
        open_page(page, server)
        ask(page, "2 words")
        expect(last_note(page)).to_contain_text("An API key is required")
        press(page, way)
        expect(page.get_by_placeholder("The server's key")).to_be_hidden()
        assert bubbles(page) == []
        assert server.engine.prompts == []


# -- a file ---------------------------------------------------------------------------------


@pytest.mark.parametrize("has_memory", [True, False])
def test_talk_is_saved_as_text(page, gated, has_memory):
    open_page(page, gated)
    gated.engine.allow(100)
    if not has_memory:
        press(page, "Memory")
    ask_in_turn(page, "1 word", "2 words")
    with page.expect_download() as download:
        press(page, "Save")
    assert download.value.suggested_filename == "socrates.txt"
    assert Path(download.value.path()).read_text() == (
        "You: 1 word\n\nSocrates: word0\n\nYou: 2 words\n\nSocrates: word0 word1\n"
    )
