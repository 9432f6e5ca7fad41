"""Imports go one way between the rooms, with no cycle inside them."""

import ast
import graphlib

import pytest

from tests.support.process import ROOT

# Which of our rooms each room may import, besides itself. A module belongs to the room with the
# longest of these names that is a prefix of its own.
ROOMS = {
    "server.http": set(),
    "server.model.errors": set(),
    "server.model.machine": set(),
    "server.model.files": {"server.model.errors", "server.model.machine"},
    "server.model.prompt": {"server.model.errors", "server.model.files"},
    "server.model.backends": {
        "server.model.errors",
        "server.model.machine",
        "server.model.files",
        "server.model.prompt",
    },
    "server.model.fetch": {"server.model.errors", "server.model.files"},
    "server.model.tuning": {"server.model.files", "server.model.prompt"},
    "server.model": {
        "server.model.backends",
        "server.model.errors",
        "server.model.machine",
        "server.model.files",
        "server.model.prompt",
    },
    "server.api": {"server", "server.http", "server.model", "server.model.errors"}
    | {"server.model.machine", "server.model.prompt"},
    "server": {"server.api", "server.http", "server.model", "server.model.errors"}
    | {"server.model.backends", "server.model.files", "server.model.machine"}
    | {"server.model.prompt"},
}
# The only modules that may import these packages; all other packages are unrestricted.
ONLY = {
    "asyncio": {
        "server.__main__",
        "server.http.connection",
        "server.http.flow",
        "server.lifecycle",
        "server.model.worker",
    },
    "ctransformers": {"server.model.backends.ctransformers"},
    "llama_cpp": {"server.model.backends.llama_bindings"},
    "uvloop": {"server.__main__"},
    "torch": {
        "server.model.tuning.__main__",
        "server.model.tuning.network",
        "server.model.tuning.trainer",
    },
}


def name_of(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room_of(module):
    return max((room for room in ROOMS if f"{module}.".startswith(f"{room}.")), key=len)


MODULES = {name_of(path): path for path in (ROOT / "server").rglob("*.py")}


def imports_of(name):
    """Every module that `name` imports, as full names."""
    for node in ast.walk(ast.parse(MODULES[name].read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name} imports relatively"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield full if full in MODULES else node.module
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "importlib.import_module":
            yield ast.literal_eval(node.args[0])


def ours(name):
    return {found for found in imports_of(name) if found.partition(".")[0] == "server"}


@pytest.mark.parametrize("name", MODULES)
def test_a_room_imports_only_the_rooms_below_it(name):
    room = room_of(name)
    assert {room_of(found) for found in ours(name)} <= ROOMS[room] | {room}


def test_there_is_no_circle():
    graphlib.TopologicalSorter({name: ours(name) for name in MODULES}).prepare()


@pytest.mark.parametrize("package", ONLY)
def test_special_packages_are_imported_in_their_place_only(package):
    found = {n for n in MODULES if package in {i.partition(".")[0] for i in imports_of(n)}}
    assert found == ONLY[package]


def test_every_module_says_what_it_owns():
    for name, path in MODULES.items():
        assert ast.get_docstring(ast.parse(path.read_text())), name
