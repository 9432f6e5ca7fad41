"""Imports one module of a package without running the package's `__init__`.

ctransformers' `__init__` imports the hub's client, which costs half a second at every start and
fails with a traceback if HF_ENDPOINT is malformed. llama-cpp-python's imports chat formats and disk
caches.
"""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType


def enter(package: str) -> Path:
    """Make modules of the installed `package` importable; returns the package's folder."""
    if package not in sys.modules:
        found = importlib.util.find_spec(package)
        assert found is not None, package
        module = ModuleType(package)
        module.__spec__ = found
        module.__path__ = list(found.submodule_search_locations or ())
        sys.modules[package] = module
    return Path(sys.modules[package].__path__[0])
