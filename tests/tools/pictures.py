"""Pictures of the page: `icons` draws the PNG icons, `screenshots` the page in four variants.

python -m tests.tools.pictures icons          client/static/icon-*.png from socrates.svg
python -m tests.tools.pictures screenshots    tests/tools/screenshots/*.png, of the real SmolLM2
"""

import io
import sys
from contextlib import contextmanager

from PIL import Image
from playwright.sync_api import expect, sync_playwright

from tests.support.process import ROOT, ServerProcess, find_chromium
from tests.support.waiting import PATIENCE_S

STATIC = ROOT / "client" / "static"
SCREENSHOTS = ROOT / "tests" / "tools" / "screenshots"
SIZES = (192, 512)
COLOURS = 12
SCREENS = {"phone": (390, 844), "desktop": (1280, 800)}
QUESTIONS = ("What is virtue?", "How can I become wise?")


@contextmanager
def chromium():
    with sync_playwright() as playwright:
        path = find_chromium()
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


def icons():
    drawing = (STATIC / "socrates.svg").read_text()
    with chromium() as browser:
        for size in SIZES:
            page = browser.new_page(viewport={"width": size, "height": size})
            page.set_content(f"<style>body{{margin:0}}svg{{display:block}}</style>{drawing}")
            picture = Image.open(io.BytesIO(page.screenshot(omit_background=True)))
            # A dozen colours suffice; with all shades of the edges it would be ten times the size.
            picture.quantize(COLOURS).save(STATIC / f"icon-{size}.png", optimize=True)


def screenshots():
    SCREENSHOTS.mkdir(exist_ok=True)
    with ServerProcess() as server, chromium() as browser:
        server.wait_until_ready()
        for screen, (width, height) in SCREENS.items():
            for scheme in ("light", "dark"):
                page = browser.new_page(
                    viewport={"width": width, "height": height},
                    color_scheme=scheme,
                    device_scale_factor=1,
                )
                page.set_default_timeout(PATIENCE_S * 1000)
                page.goto(f"http://127.0.0.1:{server.port}/")
                if scheme == "light":
                    talk(page)
                page.screenshot(path=SCREENSHOTS / f"{screen}-{scheme}.png")


def talk(page):
    for number, question in enumerate(QUESTIONS, 1):
        page.get_by_label("Your question").fill(question)
        page.get_by_role("button", name="Send").click()
        expect(page.get_by_role("button", name="Copy")).to_have_count(
            number, timeout=PATIENCE_S * 1000
        )


if __name__ == "__main__":
    {"icons": icons, "screenshots": screenshots}[sys.argv[1]]()
