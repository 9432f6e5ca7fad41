"""Imports go one way. The table is the design: what each module may import of ours."""

import ast

import pytest

from tests.support import ROOT

# From the bottom up. A name stands for itself and for everything it may import in turn.
LAYERS = {
    "server": set(),
    "server.clients": set(),
    "server.options": {"server", "server.clients"},
    "server.http.errors": set(),
    "server.http.response": {"server.http.errors"},
    "server.http.request": {"server.http.errors"},
    "server.http.plain": {"server.http.request"},
    "server.http.deadline": set(),
    "server.http.parser": {"server.http.request"},
    "server.http.static": {"server.http.request", "server.http.response"},
    "server.http.exchange": {"server.http.request", "server.http.response"},
    "server.http.shared": {
        "server.http.deadline",
        "server.http.exchange",
    },
    "server.http.connection": {
        "server.http.parser",
        "server.http.plain",
        "server.http.shared",
    },
    "server.model.errors": set(),
    "server.model.bytelevel": set(),
    "server.model.catalog": set(),
    "server.model.sampler": set(),
    "server.model.slices": set(),
    "server.model.threads": set(),
    "server.model.cgroups": set(),
    "server.model.cpus": {"server.model.cgroups"},
    "server.model.thermal": set(),
    "server.model.thermometer": set(),
    "server.model.pagecache": set(),
    "server.model.effort": {
        "server.model.cpus",
        "server.model.thermal",
        "server.model.thermometer",
        "server.model.threads",
    },
    "server.model.footprint": {"server.model.cgroups", "server.model.modelfile"},
    "server.model.modelfile": {"server.model.catalog", "server.model.errors"},
    "server.model.tokenizer": {
        "server.model.errors",
        "server.model.bytelevel",
        "server.model.catalog",
    },
    "server.model.tuning.adapter": set(),
    "server.model.tuning.dialogue": set(),
    "server.model.tuning.network": {"server.model.tuning.adapter"},
    "server.model.tuning.trainer": {"server.model.tuning.dialogue", "server.model.tuning.network"},
    "server.model.tuning.__main__": {
        "server.model.catalog",
        "server.model.persona",
        "server.model.tuning.trainer",
    },
    "server.model.gguf": {"server.model.bytelevel", "server.model.tuning.adapter"},
    "server.model.hub": {"server.model.errors"},
    "server.model.fetch": {"server.model.catalog", "server.model.gguf", "server.model.hub"},
    "server.model.conversation": set(),
    "server.model.stops": set(),
    "server.model.answer": {"server.model.stops"},
    "server.model.progress": set(),
    "server.model.context": {"server.model.sampler"},
    "server.model.dry": {"server.model.sampler"},
    "server.model.openings": {"server.model.conversation"},
    "server.model.persona": {"server.model.openings", "server.model.tokenizer"},
    "server.model.engine": {
        "server.model.answer",
        "server.model.catalog",
        "server.model.context",
        "server.model.dry",
        "server.model.effort",
        "server.model.modelfile",
        "server.model.pagecache",
        "server.model.persona",
        "server.model.progress",
        "server.model.sampler",
        "server.model.slices",
    },
    "server.model.worker": {"server.model.conversation", "server.model.engine"},
    "server.access": {"server.http.request", "server.http.response"},
    "server.chat": {"server.http.errors", "server.model.conversation", "server.model.sampler"},
    "server.asking": {"server.clients", "server.http.exchange", "server.model.worker"},
    "server.prompts": {"server.access", "server.asking", "server.chat"},
    "server.completions": {"server.access", "server.asking", "server.chat"},
    "server.metrics": {"server", "server.model.worker"},
    "server.status": {"server.asking", "server.metrics"},
    "server.routes": {
        "server.completions",
        "server.http.connection",
        "server.http.static",
        "server.prompts",
        "server.status",
    },
    "server.logs": {"server.http.exchange"},
    "server.lifecycle": {
        "server.logs",
        "server.options",
        "server.routes",
        "server.model.catalog",
        "server.model.footprint",
    },
    "server.__main__": {"server.lifecycle", "server.logs", "server.options"},
}
ASYNCIO = {
    "server.http.connection",
    "server.model.worker",
    "server.routes",
    "server.lifecycle",
    "server.__main__",
}


def name_of(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in (ROOT / "server").rglob("*.py")}
PACKAGES = {
    "server.http",
    "server.model",
    "server.model.tuning",
}  # their __init__ holds a docstring only


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


def allowed(name):
    direct = LAYERS[name]
    return direct.union(*(allowed(below) for below in direct))


def test_every_module_has_its_layer():
    assert set(MODULES) - PACKAGES == set(LAYERS)


@pytest.mark.parametrize("name", LAYERS)
def test_imports_go_one_way(name):
    ours = {found for found in imports_of(name) if found.split(".")[0] == "server"}
    assert ours <= allowed(name)


@pytest.mark.parametrize("name", LAYERS)
def test_special_imports_stay_where_they_belong(name):
    tops = {found.split(".")[0] for found in imports_of(name)}
    assert ("asyncio" not in tops) or name in ASYNCIO
    assert ("ctransformers" not in tops) or name == "server.model.engine"
    assert ("uvloop" not in tops) or name == "server.__main__"
    assert ("torch" not in tops) or name.startswith("server.model.tuning.")


def test_what_serves_and_fetches_needs_no_pytorch():
    served = allowed("server.__main__") | allowed("server.model.fetch") | {"server.model.fetch"}
    assert not any("torch" in {f.split(".")[0] for f in imports_of(name)} for name in served)


def test_the_rooms_do_not_know_each_other():
    for name in LAYERS:
        room = ".".join(name.split(".")[:2])
        other = {"server.http": "server.model", "server.model": "server.http"}.get(room)
        assert other is None or not any(found.startswith(other) for found in imports_of(name))


def test_every_module_says_what_it_owns():
    for name, path in MODULES.items():
        assert ast.get_docstring(ast.parse(path.read_text())), name
