"""Pages of other sites in real Chromium: what they try reaches neither the model nor the page."""

import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from playwright.sync_api import expect

from tests.conftest import require
from tests.support.engine import FakeEngine
from tests.support.process import InProcessServer
from tests.support.proxies import find, nginx
from tests.support.waiting import PATIENCE_S

pytestmark = pytest.mark.browser

# What a page can send without asking first (Fetch standard, "CORS-safelisted"), and what it must
# ask for; returns the status, or the kind of error that the page sees.
TRY = """async ([address, mode, type, body]) => {
  try {
    const headers = {"Content-Type": type};
    const response = await fetch(address, {method: "POST", mode, headers, body});
    return response.type === "opaque" ? "opaque" : `${response.status} ${await response.text()}`;
  } catch (error) { return error.name; }
}"""
FORM = """<form method=post enctype=text/plain action="{address}">
<input name="2 words" value="x"><button>Win a prize</button></form>"""


class Page(BaseHTTPRequestHandler):
    def do_GET(self):
        body = self.server.page.encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@contextmanager
def site(page):
    """Another site on this machine; yields its port."""
    server = HTTPServer(("127.0.0.1", 0), Page)
    server.page = page
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture
def page(chromium):
    context = chromium.new_context()
    context.set_default_timeout(PATIENCE_S * 1000)
    yield context.new_page()
    context.close()


@pytest.fixture
def server():
    with InProcessServer(FakeEngine()) as server:
        yield server.wait_until_ready()


def attempts(page, port):
    plain, json = "text/plain", "application/json"
    talk = '{"messages":[{"role":"user","content":"2 words"}]}'
    tried = [("/prompt", plain, "2 words"), ("/prompt", json, talk)]
    tried += [("/v1/chat/completions", kind, talk) for kind in (plain, json)]
    return [
        page.evaluate(TRY, [f"http://127.0.0.1:{port}{path}", mode, kind, body])
        for path, kind, body in tried
        for mode in ("no-cors", "cors")
    ]


@pytest.mark.parametrize("host", ["evil.example", "localhost", "127.0.0.1"])
def test_page_of_another_origin_neither_asks_nor_reads(page, server, host):
    """A port of the same machine is another origin, too."""
    with site("hello") as port:
        page.goto(f"http://{host}:{port}/")
        heard = attempts(page, server.port)
    assert set(heard) <= {"opaque", "TypeError"}
    assert server.engine.prompts == []


def test_form_of_another_origin_asks_nothing(page, server):
    with site(FORM.format(address=f"http://127.0.0.1:{server.port}/prompt")) as port:
        page.goto(f"http://evil.example:{port}/")
        page.get_by_role("button").click()
        expect(page.locator("body")).to_contain_text("Pages of other origins may not ask")
    assert server.engine.prompts == []


def test_page_in_a_sandbox_asks_nothing(page, server):
    """Its Origin is null."""
    with site('<iframe sandbox="allow-scripts" srcdoc="hello"></iframe>') as port:
        page.goto(f"http://evil.example:{port}/")
        heard = attempts(page.frames[1], server.port)
    assert set(heard) <= {"opaque", "TypeError"}
    assert server.engine.prompts == []


def test_page_of_an_allowed_origin_asks_and_reads(page):
    with site("hello") as port:
        origin = f"http://friend.example:{port}"
        with InProcessServer(FakeEngine(), cors_origin=(origin,)) as server:
            server.wait_until_ready()
            page.goto(origin)
            heard = attempts(page, server.port)
    assert heard[1] == "200 word0 word1 "
    assert "word0 word1 " in heard[-1]


@pytest.mark.parametrize("path", ["/", "/status", "/v1/models", "/metrics"])
def test_name_that_points_here_reads_nothing(page, server, path):
    """DNS rebinding: for the browser the page and the server are one origin."""
    response = page.goto(f"http://rebind.example:{server.port}{path}")
    assert response.status == 421
    assert page.evaluate("fetch('/status').then((response) => response.status)") == 421
    assert page.evaluate(TRY, ["/prompt", "cors", "text/plain", "2 words"]).startswith("421 ")
    assert server.engine.prompts == []


def test_name_that_is_allowed_is_answered(page):
    with InProcessServer(FakeEngine(), allowed_hosts=("pi.example",)) as server:
        server.wait_until_ready()
        page.goto(f"http://pi.example:{server.port}/")
        ask(page)
        expect(page.locator(".socrates .text")).to_have_text("word0 word1")


def test_page_works_under_a_path_behind_nginx(page, tmp_path):
    require(find("nginx"), "nginx")
    failed = []
    page.on("response", lambda got: failed.append(got.url) if got.status >= 400 else None)
    with (
        InProcessServer(FakeEngine()) as server,
        nginx(tmp_path, server.wait_until_ready().port, path="/socrates/") as (port, _),
    ):
        page.goto(f"http://127.0.0.1:{port}/socrates/")
        expect(page.locator("#version")).to_contain_text("fake")
        ask(page)
        expect(page.locator(".socrates .text")).to_have_text("word0 word1")
        expect(page.get_by_role("button", name="Copy")).to_be_visible()
        manifest = page.locator("link[rel=manifest]").evaluate("(link) => link.href")
        start = page.evaluate(
            "(url) => fetch(url).then((got) => got.json())"
            ".then((manifest) => new URL(manifest.start_url, url).href)",
            manifest,
        )
        names = page.evaluate("Object.keys(sessionStorage)")
    assert names == ["/socrates/talk"]  # another path may be another server's
    assert start == f"http://127.0.0.1:{port}/socrates/"
    assert failed == []


def ask(page):
    page.get_by_label("Your question").fill("2 words")
    page.get_by_role("button", name="Send").click()
