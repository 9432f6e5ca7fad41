"""The page in Chromium: what a test does with it, and what it hears.

Importing this sets how long Playwright's `expect` waits.
"""

from playwright.sync_api import expect

from tests.support.waiting import PATIENCE_S

expect.set_options(timeout=PATIENCE_S * 1000)

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


def open_page(page, server):
    page.goto(f"http://127.0.0.1:{server.port}/")
    return page


def ask(page, text):
    page.get_by_label("Your question").fill(text)
    page.get_by_role("button", name="Send").click()


def last_answer(page):
    return page.locator(".socrates .text").last


def last_note(page):
    return page.locator(".socrates .note").last


def break_off(page, gated):
    """Ask for an answer that breaks off after its first word."""
    ask(page, "fail now")
    gated.engine.allow(1)
    expect(last_answer(page)).to_have_text("word0")
    gated.engine.allow(1)
    expect(last_note(page)).to_contain_text("The answer broke off here.")
