"""Fixtures for the real model. Where it is missing, tests skip, but in CI they fail."""

import os
import signal

import pytest
from playwright.sync_api import sync_playwright

from server.model.files import catalog
from server.model.loader import EngineSettings, load_engine
from server.model.machine.governor import GovernorSettings
from server.model.prompt.persona import find_persona, load_persona
from tests.support.engine import FakeEngine
from tests.support.page import SPEECH
from tests.support.process import InProcessServer, ServerProcess, find_chromium
from tests.support.waiting import PATIENCE_S

# In the background, or under nohup, these are ignored, and our servers would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

# What runs the real models: `make test-llama-cpp` runs tests of the engine again with llama.cpp.
ENGINE = os.environ.get("SOCRATES_ENGINE", "auto")
IN_CI = os.environ.get("CI") == "true"


def require(is_there, what):
    """Skip a test that lacks `what`; in CI, where everything must be present, fail it."""
    if not is_there:
        (pytest.fail if IN_CI else pytest.skip)(f"{what} is missing: run make test")


@pytest.fixture(scope="module")
def chromium():
    """A headless Chromium, for which all names under .example are this machine."""
    path = find_chromium()
    require(path, "Chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=path,
            args=[
                "--no-sandbox",
                "--disable-background-networking",
                "--host-resolver-rules=MAP *.example 127.0.0.1",
            ],
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
    page.on("console", lambda line: faults.append(line.text) if _is_fault(line) else None)
    page.add_init_script(SPEECH)
    yield page
    context.close()
    assert faults == []


# A refused prompt is logged by Chromium itself; everything else is a fault of the page.
def _is_fault(line):
    return line.type == "error" and "Failed to load resource" not in line.text


@pytest.fixture
def gated():
    """A server whose model goes on when the test allows it."""
    with InProcessServer(FakeEngine(gated=True), queue=1) as server:
        yield server.wait_until_ready()


@pytest.fixture(scope="session")
def anyio_backend():
    """Run coroutine tests on the event loop that the server uses."""
    return "asyncio", {"use_uvloop": True}


@pytest.fixture(scope="session")
def socrates():
    """The path to the default model."""
    path = catalog.CATALOG["socrates"].path
    require(path.exists(), "The model socrates")
    return path


@pytest.fixture(scope="session")
def smollm2():
    """The path to the untrained base model."""
    path = catalog.CATALOG["smollm2"].path
    require(path.exists(), "The model smollm2")
    return path


@pytest.fixture(scope="session")
def engine_settings(socrates):
    """Settings with one thread, so that other load does not matter, and a long persona."""
    persona = load_persona(find_persona("socrates"))
    return EngineSettings(socrates, persona, 2048, engine=ENGINE, governor=GovernorSettings(1))


@pytest.fixture(scope="session")
def engine(engine_settings):
    """The real engine, used by one test at a time; its context carries over, as in the server."""
    return load_engine(engine_settings)


@pytest.fixture(scope="session")
def real_server(socrates):
    """The real process with the real model."""
    with ServerProcess("--threads", "1") as server:
        yield server.wait_until_ready()


@pytest.fixture(scope="session")
def talkative_server(smollm2):
    """The real process with the untrained base model, whose answers are long."""
    with ServerProcess("--threads", "1", "--model", "smollm2") as server:
        yield server.wait_until_ready()
