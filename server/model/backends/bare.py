"""Lets one module of a package be imported without the package's own `__init__`.

ctransformers' imports the hub's client (half a second of every start, and a traceback where
HF_ENDPOINT is malformed), llama-cpp-python's its chat formats and disk caches.
"""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType


def enter(package: str) -> Path:
    """Make `package.module` importable; returns the package's folder. It must be installed."""
    if package not in sys.modules:
        found = importlib.util.find_spec(package)
        assert found is not None, package
        module = ModuleType(package)
        module.__spec__ = found
        module.__path__ = list(found.submodule_search_locations or ())
        sys.modules[package] = module
    return Path(sys.modules[package].__path__[0])
