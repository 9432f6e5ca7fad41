"""One engine with one image of ours for all tests."""

import os

import pytest

from tests.docker.engine import CACHE, Engine, add_base_images
from tests.support.process import ROOT

IMAGE = "socrates"


@pytest.fixture(scope="session", autouse=True)
def _root():
    if os.geteuid() != 0:
        pytest.skip("a Docker engine of the tests' own needs root")


@pytest.fixture(scope="session")
def engine():
    """An engine on this machine, with the base images."""
    with Engine(CACHE / "engine", keeps=True) as engine:
        add_base_images(engine)
        yield engine


@pytest.fixture(scope="session")
def image(engine):
    """Our image, built as server/deploy/README.md says, on the engine."""
    engine("build", "--build-arg", "MODEL=socrates", "-t", IMAGE, ".", cwd=ROOT)
    return IMAGE
