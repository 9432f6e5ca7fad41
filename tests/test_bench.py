"""The measuring scripts start, say what they are for, and read answers rightly."""

import subprocess
import sys

import pytest

from bench.client import _text
from tests.support import ROOT

SCRIPTS = ["builds", "cancel", "compare", "footprint", "load", "memory", "parser", "persona", "plot", "queue", "random_model", "soak", "start", "static", "threads", "tokens"]  # fmt: skip


@pytest.mark.parametrize("name", SCRIPTS)
def test_script_tells_its_options(name):
    command = [sys.executable, "-m", f"bench.{name}", "--help"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith(f"usage: {name}.py") or "usage:" in result.stdout


def test_every_script_is_listed():
    listed = (ROOT / "bench" / "README.md").read_text()
    modules = {path.stem for path in (ROOT / "bench").glob("*.py")} - {"__init__"}
    helpers = {"__main__", "card", "client", "report", "subject"}
    assert {name for name in modules if f"`{name}" not in listed} == helpers


def test_short_measurements_are_chosen_by_name():
    command = [sys.executable, "-m", "bench", "threads", "nonsense"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 2
    assert result.stderr.endswith("there is no short measurement nonsense\n")


def test_text_is_taken_out_of_its_chunks():
    data = b"HTTP/1.1 200 OK\r\n\r\n3\r\na\r\n\r\n5\r\nb\r\n\xc3\xa9\r\n0\r\nA: b\r\n\r\n"
    assert _text(data) == "a\r\nb\r\né"
