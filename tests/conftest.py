"""Fixtures around the real model. Where it is absent, tests skip, but never in CI."""

import os

import pytest

from server.model import catalog
from server.model.effort import EffortSettings
from server.model.engine import Engine, EngineSettings
from server.model.persona import SOCRATES, load_persona
from tests.support import ServerProcess

IN_CI = os.environ.get("CI") == "true"


def require(is_there, what):
    """Skip a test for want of `what`; in CI, where everything must be there, fail."""
    if not is_there:
        (pytest.fail if IN_CI else pytest.skip)(f"{what} is not here: run make test")


@pytest.fixture(scope="session")
def smollm2():
    """The path to the real small model."""
    path = catalog.CATALOG["smollm2"].path
    require(path.exists(), "SmolLM2")
    return path


@pytest.fixture(scope="session")
def engine_settings(smollm2):
    """One thread: these tests must not depend on what else the machine does."""
    return EngineSettings(smollm2, load_persona(SOCRATES), "chatml", 2048, effort=EffortSettings(1))


@pytest.fixture(scope="session")
def engine(engine_settings):
    """The real engine, used by one test at a time; its context carries over, as in life."""
    return Engine.load(engine_settings)


@pytest.fixture(scope="session")
def real_server(smollm2):
    """The real process with the real model."""
    with ServerProcess("--threads", "1") as server:
        yield server.wait_until_ready()
