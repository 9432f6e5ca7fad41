"""The page in real headless Chromium, against the real server."""

import threading
from urllib.parse import urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from server.model.job import Finish
from tests.support.engine import FakeEngine
from tests.support.page import ask, break_off, last_answer, last_note, open_page
from tests.support.process import ROOT, InProcessServer
from tests.support.waiting import PATIENCE_S, wait_until
from tests.support.wire import prompt_request

pytestmark = pytest.mark.browser

ENDLESS = "?max_tokens=1500&ignore_eos=true"


@pytest.mark.model
def test_ask_see_it_grow_stop_and_ask_again(page, talkative_server):
    # The answer must still grow when a slow browser looks, so the model may not end it.
    page.route("**/prompt", lambda route: route.continue_(url=f"{route.request.url}{ENDLESS}"))
    open_page(page, talkative_server)
    expect(page.locator("#version")).to_contain_text("smollm2")
    ask(page, "Tell me a long story about the sea, with many words.")
    expect(last_answer(page)).not_to_have_text("")
    first = last_answer(page).inner_text()
    expect(last_answer(page)).not_to_have_text(first)  # it grows
    page.get_by_role("button", name="Stop").click()
    expect(last_note(page)).to_contain_text("Stopped.")
    wait_until(lambda: talkative_server.status()["busy"] is False)
    assert talkative_server.status()["last"]["finish"] == "cancelled"
    page.unroute("**/prompt")
    ask(page, "What is virtue?")
    expect(page.get_by_role("button", name="Send")).to_be_visible()
    assert len(page.locator(".you").all()) == 2
    assert last_answer(page).inner_text().strip()
    assert talkative_server.status()["last"]["finish"] in ("stop", "length")


def test_enter_sends_and_shift_enter_breaks_the_line(page, gated):
    open_page(page, gated)
    field = page.get_by_label("Your question")
    field.fill("2 words")
    field.press("Shift+Enter")
    assert field.input_value() == "2 words\n"
    field.press("Enter")
    expect(page.locator(".you .text")).to_have_text("2 words")
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
    wait_until(lambda: gated.server.worker.is_cancelling)
    gated.engine.allow(1)
    wait_until(lambda: gated.status()["prompts"].get("cancelled_decode") == 1)
    assert gated.engine.steps_after_cancel == 0


def test_refusal_is_shown_and_can_be_retried(page, gated):
    open_page(page, gated)
    ask(page, "crash now")
    gated.engine.allow(1)
    expect(last_note(page)).to_contain_text("The model failed on this prompt.")
    expect(page.get_by_role("button", name="Send")).to_be_enabled()
    page.get_by_role("button", name="Retry").click()
    wait_until(lambda: gated.engine.prompts == ["crash now", "crash now"])
    gated.engine.allow(1)
    expect(page.get_by_role("button", name="Retry")).to_have_count(1)
    expect(page.locator(".you")).to_have_count(1)


def test_broken_stream_differs_from_a_finished_one(page, gated):
    open_page(page, gated)
    break_off(page, gated)
    expect(page.get_by_role("button", name="Retry")).to_be_visible()
    ask(page, "1 word")
    gated.engine.allow(5)
    expect(last_note(page)).to_have_text("CopyAgain")


def test_server_that_is_gone_is_announced_and_found_again(page):
    with InProcessServer(FakeEngine()) as server:
        open_page(page, server.wait_until_ready())
        expect(page.locator("#version")).to_contain_text("fake")
    ask(page, "1 word")
    expect(last_note(page)).to_contain_text("The connection was lost.")
    expect(page.locator("#notice")).to_have_text("The server cannot be reached. Trying again…")
    with InProcessServer(FakeEngine(), port=server.port) as again:
        again.wait_until_ready()
        expect(page.locator("#notice")).to_have_text("")
        page.get_by_role("button", name="Retry").click()
        expect(last_answer(page)).to_have_text("word0")


def test_lost_network_is_announced_and_found_again(page, gated):
    open_page(page, gated)
    expect(page.locator("#version")).to_contain_text("fake")
    page.context.set_offline(True)
    expect(page.locator("#notice")).to_have_text("The server cannot be reached. Trying again…")
    page.context.set_offline(False)
    expect(page.locator("#notice")).to_have_text("")


def test_model_text_never_becomes_markup(page, gated):
    def generate(prompt, sampling, cancelled, progress):
        yield from ("<img src=x onerror=", "alert(1)>", "<b>bold</b>")
        progress.finish = Finish.STOP

    gated.engine.generate = generate
    open_page(page, gated)
    ask(page, "<i>hello</i>")
    expect(last_answer(page)).to_have_text("<img src=x onerror=alert(1)><b>bold</b>")
    expect(page.locator(".you .text")).to_have_text("<i>hello</i>")
    assert page.locator(".bubble img, .bubble b, .bubble i").count() == 0


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
        [" ", "el-GR"],  # primed within the submit event
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
    expect(last_note(page)).to_contain_text("Stopped.")
    assert page.evaluate("window.spoken.at(-1)") == ["(silence)", ""]


def test_page_without_speech_works(page, gated):
    page.add_init_script("delete window.SpeechSynthesisUtterance;")
    open_page(page, gated)
    ask(page, "1 word")
    gated.engine.allow(5)
    expect(last_answer(page)).to_have_text("word0")


# -- the first screen -----------------------------------------------------------------------


def test_a_tap_on_a_starter_asks_it(page, gated):
    open_page(page, gated)
    page.get_by_role("button", name="What is virtue?").click()
    expect(page.locator(".you .text")).to_have_text("What is virtue?")
    expect(page.locator("#welcome")).to_be_hidden()
    wait_until(lambda: gated.engine.prompts == ["What is virtue?"])


@pytest.mark.parametrize(("width", "height"), [(390, 844), (1280, 800), (320, 568)])
def test_first_screen_fits_without_scrolling(page, gated, width, height):
    page.set_viewport_size({"width": width, "height": height})
    open_page(page, gated)
    expect(page.locator("#version")).to_contain_text("fake")
    chat = page.locator("#chat")
    assert chat.evaluate("e => e.scrollHeight <= e.clientHeight")
    assert page.evaluate(
        "document.documentElement.scrollWidth <= innerWidth"
        " && document.documentElement.scrollHeight <= innerHeight"
    )


def test_page_is_small_and_asks_nobody_else(page, gated):
    sizes, hosts = [], set()

    def note(response):
        hosts.add(urlsplit(response.url).netloc)
        sizes.append(int(response.headers.get("content-length", 0)))

    page.on("response", note)
    open_page(page, gated)
    expect(page.locator("#version")).to_contain_text("fake")
    page.evaluate(
        "Promise.all(['icon-192.png', 'icon-512.png', 'socrates.webmanifest']"
        ".map(async (name) => (await fetch('/static/' + name)).arrayBuffer()))"
    )
    assert hosts == {f"127.0.0.1:{gated.port}"}
    assert sum(sizes) < 40_000


def test_manifest_names_icons_that_are_there(page, gated):
    open_page(page, gated)
    manifest = page.evaluate(
        "fetch(document.querySelector('link[rel=manifest]').href).then((r) => r.json())"
    )
    for icon in manifest["icons"]:
        size = page.evaluate(
            "(src) => new Promise((resolve, reject) => { const image = new Image();"
            " image.onload = () => resolve(`${image.naturalWidth}x${image.naturalHeight}`);"
            " image.onerror = () => reject(src); image.src = src; })",
            f"/static/{icon['src']}",
        )
        assert icon["sizes"] in (size, "any")


# -- waiting, stopping, copying -------------------------------------------------------------


def test_waiting_person_sees_who_is_before(page, gated):
    with gated.connect() as other:
        other.sendall(prompt_request("3 words"))
        wait_until(lambda: gated.status()["busy"])
        open_page(page, gated)
        ask(page, "1 word")
        expect(last_note(page)).to_have_text("One question is before yours…")
        gated.engine.allow(10)
        expect(last_answer(page)).to_have_text("word0")
        expect(last_note(page)).to_have_text("CopyAgain")


def test_waiting_person_sees_that_he_thinks(page, gated):
    open_page(page, gated)
    ask(page, "1 word")
    expect(last_note(page)).to_have_text("Socrates is thinking…")
    gated.engine.allow(10)
    expect(last_answer(page)).to_have_text("word0")


def test_waiting_person_sees_that_the_model_loads(page):
    gate = threading.Event()

    def load(loading, cancelled):
        assert gate.wait(PATIENCE_S)
        return FakeEngine()

    with InProcessServer(FakeEngine(), load) as server:
        open_page(page, server)
        ask(page, "1 word")
        expect(last_note(page)).to_have_text("The model is still loading…")
        gate.set()
        expect(last_answer(page)).to_have_text("word0")


def test_escape_stops_and_keeps_what_was_said(page, gated):
    open_page(page, gated)
    ask(page, "100 words")
    gated.engine.allow(2)
    expect(last_answer(page)).to_contain_text("word1")
    page.keyboard.press("Escape")
    expect(last_note(page)).to_contain_text("Stopped.")
    expect(last_answer(page)).to_have_text("word0 word1")
    wait_until(lambda: gated.server.worker.is_cancelling)
    gated.engine.allow(1)
    wait_until(lambda: gated.status()["prompts"].get("cancelled_decode") == 1)


def test_double_click_on_send_does_not_stop(page, gated):
    open_page(page, gated)
    page.get_by_label("Your question").fill("2 words")
    page.get_by_role("button", name="Send").dblclick()
    gated.engine.allow(10)
    expect(last_answer(page)).to_have_text("word0 word1")
    expect(last_note(page)).to_have_text("CopyAgain")


def test_escape_silences_a_voice_that_is_behind_the_text(page, gated):
    open_page(page, gated)
    ask(page, "2 words")
    gated.engine.allow(10)
    expect(last_note(page)).to_have_text("CopyAgain")
    page.keyboard.press("Escape")
    assert page.evaluate("window.spoken.at(-1)") == ["(silence)", ""]


def test_new_question_takes_an_old_retry_away(page, gated):
    open_page(page, gated)
    ask(page, "crash now")
    gated.engine.allow(1)
    expect(page.get_by_role("button", name="Retry")).to_be_visible()
    ask(page, "1 word")
    gated.engine.allow(5)
    expect(last_note(page)).to_have_text("CopyAgain")
    expect(page.get_by_role("button", name="Retry")).to_have_count(0)


def test_answer_can_be_copied(page, gated):
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    open_page(page, gated)
    ask(page, "2 words")
    gated.engine.allow(10)
    page.get_by_role("button", name="Copy").click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == "word0 word1"


def test_too_long_a_question_is_announced_before_it_is_sent(page, gated):
    open_page(page, gated)
    ask(page, "a" * 16385)
    expect(page.locator("#notice")).to_contain_text("That is too long: 16,385 bytes")
    expect(page.locator(".you")).to_have_count(0)
    page.get_by_label("Your question").fill("2 words")
    expect(page.locator("#notice")).to_have_text("")


def test_view_follows_only_while_the_reader_is_at_its_end(page, gated):
    page.set_viewport_size({"width": 390, "height": 400})
    open_page(page, gated)
    ask(page, "400 words")
    chat = page.locator("#chat")
    gated.engine.allow(200)
    expect(last_answer(page)).to_contain_text("word199")
    assert chat.evaluate("e => e.scrollHeight - e.scrollTop - e.clientHeight") < 40
    chat.evaluate("e => { e.scrollTop = 10; }")
    gated.engine.allow(100)
    expect(last_answer(page)).to_contain_text("word299")
    assert chat.evaluate("e => e.scrollTop") == 10
    gated.engine.allow(200)
    expect(page.locator(".socrates").last).to_have_attribute("aria-busy", "false")
    assert chat.evaluate("e => e.scrollTop") == 10


def test_field_grows_with_its_text(page, gated):
    open_page(page, gated)
    field = page.get_by_label("Your question")
    low = field.evaluate("e => e.offsetHeight")
    field.fill("a\nb\nc\nd")
    assert field.evaluate("e => e.offsetHeight") > 2 * low - 20
    field.fill("\n" * 50)
    assert field.evaluate("e => e.offsetHeight") <= 9 * 16 + 4


def test_two_tabs_are_answered_in_order(page, gated):
    second = page.context.new_page()
    open_page(page, gated)
    open_page(second, gated)
    ask(page, "2 first")
    wait_until(lambda: gated.status()["busy"])
    ask(second, "2 second")
    wait_until(lambda: gated.status()["waiting"] == 1)
    gated.engine.allow(20)
    expect(last_answer(second)).to_have_text("word0 word1")
    assert gated.engine.prompts == ["2 first", "2 second"]


def test_mute_is_remembered(page, gated):
    open_page(page, gated)
    page.get_by_role("button", name="Mute").click()
    page.reload()
    expect(page.get_by_role("button", name="Mute")).to_have_attribute("aria-pressed", "true")
    ask(page, "1 word")
    gated.engine.allow(5)
    expect(last_note(page)).to_have_text("CopyAgain")
    assert "word0" not in str(page.evaluate("window.spoken"))


def test_key_is_asked_for_and_remembered(page):
    with InProcessServer(FakeEngine(), api_key="secret") as server:
        server.wait_until_ready()
        open_page(page, server)
        ask(page, "2 words")
        expect(last_note(page)).to_contain_text("An API key is required")
        key = page.get_by_placeholder("The server's key")
        key.fill("s€cret")  # not allowed in a header field
        page.get_by_role("button", name="Enter").click()
        assert key.evaluate("field => field.validity.patternMismatch")
        key.fill("secret")
        page.get_by_role("button", name="Enter").click()
        expect(last_answer(page)).to_have_text("word0 word1")
        page.reload()
        ask(page, "1 word")
        expect(last_answer(page)).to_have_text("word0")
        expect(page.get_by_placeholder("The server's key")).to_be_hidden()


# -- accessibility --------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(page, gated, scheme):
    page.emulate_media(color_scheme=scheme)
    open_page(page, gated)
    assert_no_violations(page)
    ask(page, "crash now")
    gated.engine.allow(1)
    expect(page.get_by_role("button", name="Retry")).to_be_visible()
    ask(page, "2 words")
    gated.engine.allow(10)
    expect(last_note(page)).to_have_text("CopyAgain")
    assert_no_violations(page)


def assert_no_violations(page):
    results = Axe().run(page)
    assert results.violations_count == 0, results.generate_report()


def test_answer_is_announced_once_and_whole(page, gated):
    open_page(page, gated)
    page.evaluate(
        "window.heard = []; new MutationObserver((changes) => window.heard.push("
        "...changes.flatMap((change) => [...change.addedNodes].map((node) => node.textContent))))"
        ".observe(document.getElementById('announcer'), {childList: true})"
    )
    ask(page, "3 words")
    bubble = page.locator(".socrates").last
    expect(bubble).to_have_attribute("aria-busy", "true")
    gated.engine.allow(10)
    expect(bubble).to_have_attribute("aria-busy", "false")
    assert page.evaluate("window.heard") == ["Socrates is thinking.", "word0 word1 word2"]
    assert page.locator("#chat [aria-live], #chat[aria-live]").count() == 0


def test_sentences_that_come_at_once_are_all_announced(page, gated):
    def generate(prompt, sampling, cancelled, progress):
        yield "One is said. Two is said. Three is said. And four"
        progress.finish = Finish.STOP

    gated.engine.generate = generate
    open_page(page, gated)
    ask(page, "1 word")
    expect(last_note(page)).to_have_text("CopyAgain")
    expect(page.locator("#announcer p")).to_have_text(
        ["Socrates is thinking.", "One is said.", "Two is said.", "Three is said.", "And four"]
    )


def test_keyboard_alone_is_enough(page, gated):
    open_page(page, gated)
    page.keyboard.type("9 words")
    page.keyboard.press("Enter")
    gated.engine.allow(1)
    expect(last_answer(page)).to_have_text("word0")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "stop"
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"
    page.keyboard.press("Enter")
    expect(last_note(page)).to_contain_text("Stopped.")
    expect(page.get_by_label("Your question")).to_be_focused()


def test_reduced_motion_is_respected(page, gated):
    page.emulate_media(reduced_motion="reduce")
    open_page(page, gated)
    ask(page, "1 word")
    expect(last_note(page)).to_have_text("Socrates is thinking…")
    assert last_note(page).evaluate("e => getComputedStyle(e).animationName") == "none"


def test_nothing_moves_while_he_speaks(page, gated):
    page.add_init_script(
        "window.shifts = 0; new PerformanceObserver((list) => list.getEntries().forEach("
        "(entry) => { window.shifts += entry.value; })).observe({type: 'layout-shift'});"
    )
    open_page(page, gated)
    ask(page, "30 words")
    expect(last_note(page)).to_have_text("Socrates is thinking…")
    page.evaluate("window.shifts = 0")
    gated.engine.allow(40)
    expect(last_note(page)).to_have_text("CopyAgain")
    assert page.evaluate("window.shifts") < 0.02


@pytest.mark.parametrize(
    ("width", "height"), [(320, 568), (320, 200)], ids=["320px", "400_percent"]
)
def test_nothing_is_lost_on_a_tiny_screen(page, gated, width, height):
    page.set_viewport_size({"width": width, "height": height})
    open_page(page, gated)
    ask(page, "40 words")
    gated.engine.allow(50)
    expect(last_note(page)).to_have_text("CopyAgain")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    send = page.get_by_role("button", name="Send")
    send.scroll_into_view_if_needed()
    expect(send).to_be_in_viewport(ratio=0.9)


def test_page_has_no_long_files():
    for path in (ROOT / "client").rglob("*.[jch]*s*"):
        assert len(path.read_text().splitlines()) <= 400, path
