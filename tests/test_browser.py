"""The page in real headless Chromium, against the real server."""

import shutil

import pytest
from playwright.sync_api import expect, sync_playwright

from server.model.engine import Finish
from tests.conftest import require
from tests.inprocess import InProcessServer
from tests.support import PATIENCE_S, FakeEngine, wait_until

pytestmark = pytest.mark.browser

# Records what would be spoken. Installed before the page's own script.
SPEECH = """
  window.spoken = [];
  const synthesis = {
    speak: (utterance) => window.spoken.push([utterance.text, utterance.lang]),
    cancel: () => window.spoken.push(["(silence)", ""]),
    getVoices: () => [{name: "Daniel", lang: "en-GB"}, {name: "Microsoft Nestoras", lang: "el-GR"}],
  };
  Object.defineProperty(window, "speechSynthesis", {value: synthesis});
  window.SpeechSynthesisUtterance = class { constructor(text) { this.text = text; } };
"""


@pytest.fixture(scope="module")
def chromium():
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    require(path, "Chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=path, args=["--no-sandbox", "--disable-background-networking"]
        )
        yield browser
        browser.close()


@pytest.fixture
def page(chromium):
    """A new page that fails the test on any error, CSP violations among them."""
    context = chromium.new_context()
    context.set_default_timeout(PATIENCE_S * 1000)
    page = context.new_page()
    faults = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda line: faults.append(line.text) if is_fault(line) else None)
    page.add_init_script(SPEECH)
    yield page
    context.close()
    assert faults == []


# A refused prompt is logged by Chromium itself; everything else is a fault of the page.
def is_fault(line):
    return line.type == "error" and "Failed to load resource" not in line.text


@pytest.fixture
def gated():
    with InProcessServer(FakeEngine(gated=True), queue=1) as server:
        yield server.wait_until_ready()


def open_page(page, server):
    page.goto(f"http://127.0.0.1:{server.port}/")
    return page


def ask(page, text):
    page.get_by_label("Your question").fill(text)
    page.get_by_role("button", name="Send").click()


def last_answer(page):
    return page.locator(".socrates").last


@pytest.mark.model
def test_ask_see_it_grow_stop_and_ask_again(page, real_server):
    open_page(page, real_server)
    expect(page.locator("#version")).to_contain_text("smollm2")
    ask(page, "Tell me a long story about the sea, with many words.")
    expect(last_answer(page)).not_to_have_text("")
    first = last_answer(page).inner_text()
    expect(last_answer(page)).not_to_have_text(first)  # it grows
    page.get_by_role("button", name="Stop").click()
    expect(last_answer(page)).to_contain_text("Stopped.")
    wait_until(lambda: real_server.status()["busy"] is False)
    assert real_server.status()["last"]["finish"] == "cancelled"
    ask(page, "What is virtue?")
    expect(page.get_by_role("button", name="Send")).to_be_visible()
    assert len(page.locator(".you").all()) == 2
    assert last_answer(page).inner_text().strip()
    assert real_server.status()["last"]["finish"] in ("stop", "length")


def test_enter_sends_and_shift_enter_breaks_the_line(page, gated):
    open_page(page, gated)
    field = page.get_by_label("Your question")
    field.fill("2 words")
    field.press("Shift+Enter")
    assert field.input_value() == "2 words\n"
    field.press("Enter")
    expect(page.locator(".you")).to_have_text("2 words")
    assert field.input_value() == ""


def test_empty_input_does_nothing(page, gated):
    open_page(page, gated)
    ask(page, "  \n ")
    expect(page.locator(".you")).to_have_count(0)
    assert gated.engine.prompts == []


def test_text_appears_word_by_word(page, gated):
    open_page(page, gated)
    ask(page, "3 words")
    for said in ("word0", "word0 word1", "word0 word1 word2"):
        gated.engine.allow(1)
        expect(last_answer(page)).to_have_text(said)


def test_reload_in_mid_answer_cancels_on_the_server(page, gated):
    open_page(page, gated)
    ask(page, "100 words")
    gated.engine.allow(2)
    expect(last_answer(page)).to_contain_text("word1")
    page.reload()
    wait_until(lambda: any(job.cancelled.is_set() for job in gated.server.worker._jobs))
    gated.engine.allow(1)
    wait_until(lambda: gated.status()["prompts"].get("cancelled_speaking") == 1)
    assert gated.engine.steps_after_cancel == 0


def test_refusal_is_told_and_the_question_kept(page, gated):
    open_page(page, gated)
    ask(page, "crash now")
    gated.engine.allow(1)
    expect(page.get_by_role("status")).to_have_text("The model failed on this prompt.")
    assert page.get_by_label("Your question").input_value() == "crash now"
    expect(page.get_by_role("button", name="Send")).to_be_enabled()


def test_broken_stream_is_told_apart_from_a_finished_one(page, gated):
    open_page(page, gated)
    ask(page, "fail now")
    gated.engine.allow(1)
    expect(last_answer(page)).to_have_text("word0")
    gated.engine.allow(1)
    expect(last_answer(page)).to_contain_text("The answer broke off here.")
    expect(page.get_by_role("status")).to_contain_text("The connection was lost.")


def test_server_that_is_gone_is_told(page, gated):
    open_page(page, gated)
    expect(page.locator("#version")).to_contain_text("fake")
    gated.close()
    gated.thread.join()
    ask(page, "1 word")
    expect(page.get_by_role("status")).to_contain_text("The connection was lost.")


def test_model_text_never_becomes_markup(page, gated):
    def generate(prompt, sampling, cancelled, progress):
        yield from ("<img src=x onerror=", "alert(1)>", "<b>bold</b>")
        progress.finish = Finish.STOP

    gated.engine.generate = generate
    open_page(page, gated)
    ask(page, "<i>hello</i>")
    expect(last_answer(page)).to_have_text("<img src=x onerror=alert(1)><b>bold</b>")
    expect(page.locator(".you")).to_have_text("<i>hello</i>")
    assert page.locator("main img, main b, main i").count() == 0


def test_sentences_are_spoken_in_order_by_the_greek_voice(page, gated):
    def generate(prompt, sampling, cancelled, progress):
        yield from ("Mr. Plato ", "said 3.1", "4 is near pi. Is", " it? I do not know")
        progress.finish = Finish.STOP

    gated.engine.generate = generate
    open_page(page, gated)
    ask(page, "1 word")
    expect(last_answer(page)).to_contain_text("know")
    page.wait_for_function("window.spoken.length >= 5")
    assert page.evaluate("window.spoken") == [
        ["(silence)", ""],
        ["", "el-GR"],  # primed within the submit event
        ["Mr. Plato said 3.14 is near pi.", "el-GR"],
        ["Is it?", "el-GR"],
        ["I do not know", "el-GR"],
    ]


def test_stop_silences(page, gated):
    open_page(page, gated)
    ask(page, "100 words")
    gated.engine.allow(2)
    expect(last_answer(page)).to_contain_text("word1")
    page.get_by_role("button", name="Stop").click()
    expect(last_answer(page)).to_contain_text("Stopped.")
    assert page.evaluate("window.spoken.at(-1)") == ["(silence)", ""]


def test_page_without_speech_works(page, gated):
    page.add_init_script("delete window.SpeechSynthesisUtterance;")
    open_page(page, gated)
    ask(page, "1 word")
    gated.engine.allow(5)
    expect(last_answer(page)).to_have_text("word0")
