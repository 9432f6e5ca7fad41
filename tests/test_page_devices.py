"""The page on what people have: phones, other writing systems, other browsers' ways, paper."""

import pytest
from playwright.sync_api import expect

from server.model.job import Finish
from tests.support.page import ask, last_answer, last_note, open_page
from tests.support.waiting import PATIENCE_S

pytestmark = pytest.mark.browser

ARABIC = "\u0645\u0627 \u0647\u064a \u0627\u0644\u0641\u0636\u064a\u0644\u0629\u061f"


def say(gated, *pieces):
    """Have the model say this, whatever it is asked."""

    def generate(prompt, sampling, cancelled, progress):
        yield from pieces
        progress.finish = Finish.STOP

    gated.engine.generate = generate


@pytest.fixture
def phone(chromium):
    context = chromium.new_context(
        viewport={"width": 412, "height": 839}, is_mobile=True, has_touch=True
    )
    context.set_default_timeout(PATIENCE_S * 1000)
    yield context.new_page()
    context.close()


# -- keyboards ------------------------------------------------------------------------------

# What Safari sends when Enter commits an input method's text: compositionend comes before it.
COMMIT = """(key) => document.activeElement.dispatchEvent(new KeyboardEvent("keydown",
  {key, keyCode: 229, isComposing: false, bubbles: true, cancelable: true}))"""


def test_enter_that_commits_in_safari_does_not_send(page, gated):
    open_page(page, gated)
    field = page.get_by_label("Your question")
    field.fill("2 words")
    page.evaluate(COMMIT, "Enter")
    expect(page.locator(".you")).to_have_count(0)
    expect(field).to_have_value("2 words")
    field.press("Enter")
    expect(page.locator(".you")).to_have_count(1)


def test_escape_within_a_composition_does_not_stop(page, gated):
    open_page(page, gated)
    ask(page, "2 words")
    page.get_by_label("Your question").focus()
    page.evaluate(COMMIT, "Escape")
    gated.engine.allow(10)
    expect(last_note(page)).to_have_text("CopyAgain")


def test_enter_breaks_the_line_on_a_phone_and_the_button_sends(phone, gated):
    open_page(phone, gated)
    field = phone.get_by_label("Your question")
    assert field.evaluate("(field) => field.enterKeyHint") == "enter"
    field.fill("2 words")
    field.press("Enter")
    field.press("x")
    expect(field).to_have_value("2 words\nx")
    phone.get_by_role("button", name="Send").tap()
    expect(phone.locator(".you .text")).to_have_text("2 words\nx")


def test_keyboard_of_a_desktop_says_send(page, gated):
    open_page(page, gated)
    assert page.get_by_label("Your question").evaluate("(field) => field.enterKeyHint") == "send"


# -- browsers -------------------------------------------------------------------------------


def test_page_without_a_segmenter_works(page, gated):
    page.add_init_script("delete Intl.Segmenter;")
    say(gated, "What is it? ", "I do not know.")
    open_page(page, gated)
    ask(page, "1 word")
    expect(last_note(page)).to_have_text("CopyAgain")
    spoken = [text for text, _ in page.evaluate("window.spoken")]
    assert spoken[2:] == ["What is it?", "I do not know."]


@pytest.mark.parametrize("thrower", ["speak", "getVoices", "cancel"])
def test_whatever_throws_in_an_answer_ends_in_its_bubble(page, gated, thrower):
    """As a voice does that another program has taken away."""
    open_page(page, gated)
    gated.engine.allow(100)
    page.evaluate(f"void (speechSynthesis.{thrower} = () => {{ throw new Error('gone'); }})")
    ask(page, "1 word")
    expect(page.get_by_role("button", name="Retry")).to_be_visible()
    expect(page.locator(".socrates")).to_have_attribute("aria-busy", "false")
    page.evaluate(f"void (speechSynthesis.{thrower} = () => [])")
    page.get_by_role("button", name="Retry").click()
    expect(last_answer(page)).to_have_text("word0")


# -- the view -------------------------------------------------------------------------------


@pytest.mark.parametrize(("width", "height"), [(740, 340), (667, 331), (320, 256), (390, 844)])
@pytest.mark.parametrize("anchoring", ["auto", "none"])  # Safari has none
def test_newest_word_comes_into_view(page, gated, width, height, anchoring):
    page.set_viewport_size({"width": width, "height": height})
    open_page(page, gated)
    page.evaluate(
        "(value) => { for (const element of document.querySelectorAll('*'))"
        " element.style.overflowAnchor = value; }",
        anchoring,
    )
    say(gated, *(f"word{number} " for number in range(120)))
    for _ in range(2):
        ask(page, "120 words")
        expect(last_note(page)).to_have_text("CopyAgain")
        bottom = last_note(page).evaluate("(note) => note.getBoundingClientRect().bottom")
        assert 0 < bottom <= height


@pytest.mark.parametrize("width", [320, 360, 412, 1280])
def test_text_at_twice_its_size_is_not_wider_than_the_screen(page, gated, width):
    page.set_viewport_size({"width": width, "height": 800})
    page.add_init_script(
        "document.addEventListener('DOMContentLoaded',"
        " () => document.documentElement.style.setProperty('font-size', '200%'))"
    )
    open_page(page, gated)
    gated.engine.allow(100)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    ask(page, "2 words")
    expect(last_note(page)).to_have_text("CopyAgain")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_each_text_has_the_direction_of_its_own_writing(page, gated):
    say(gated, ARABIC)
    open_page(page, gated)
    field = page.get_by_label("Your question")
    direction = "(element) => getComputedStyle(element).direction"
    field.fill(ARABIC)
    assert field.evaluate(direction) == "rtl"
    ask(page, ARABIC)
    expect(last_note(page)).to_have_text("CopyAgain")
    assert page.locator(".you .text").evaluate(direction) == "rtl"
    assert last_answer(page).evaluate(direction) == "rtl"
    assert last_note(page).evaluate(direction) == "ltr"


def test_forced_colours_show_what_is_on_and_who_speaks(page, gated):
    page.emulate_media(forced_colors="active")
    open_page(page, gated)
    gated.engine.allow(100)
    ask(page, "2 words")
    expect(last_note(page)).to_have_text("CopyAgain")
    border = "(element) => getComputedStyle(element).border"
    on = page.get_by_role("button", name="Memory").evaluate(border)
    off = page.get_by_role("button", name="Mute").evaluate(border)
    assert on != off
    page.get_by_role("button", name="Mute").click()
    assert page.get_by_role("button", name="Mute").evaluate(border) == on
    assert page.locator(".you").evaluate(border).startswith("1px solid")


def test_paper_gets_the_whole_talk_and_no_controls(page, gated):
    page.set_viewport_size({"width": 800, "height": 500})
    open_page(page, gated)
    say(gated, *(f"word{number} " for number in range(300)))
    for _ in range(3):
        ask(page, "many")
        expect(last_note(page)).to_have_text("CopyAgain")
    page.emulate_media(media="print")
    chat = page.locator("#chat")
    assert chat.evaluate("(chat) => chat.scrollHeight <= chat.clientHeight")
    assert chat.evaluate("(chat) => chat.clientHeight") > 500
    expect(page.locator("#form")).to_be_hidden()
    for name in ("Copy", "Again", "Edit", "Memory", "New talk"):
        expect(page.get_by_role("button", name=name).first).to_be_hidden()
