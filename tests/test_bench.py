"""The benchmark scripts start, describe themselves, and parse answers correctly."""

import json
import os
import subprocess
import sys

import pytest

from bench.kit import card
from bench.kit.client import chunked_text
from tests.support.process import ROOT

SCRIPTS = [
    path.stem
    for path in (ROOT / "bench").glob("*.py")
    if "def main()" in path.read_text() and path.stem not in ("__main__", "rivals")
]


@pytest.mark.parametrize("name", SCRIPTS)
def test_script_shows_its_options(name):
    command = [sys.executable, "-m", f"bench.{name}", "--help"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith(f"usage: {name}.py")


def test_every_script_is_listed():
    listed = (ROOT / "bench" / "README.md").read_text()
    assert {name for name in SCRIPTS if f"| `{name}" not in listed} == set()


def test_short_measurements_are_chosen_by_name():
    command = [sys.executable, "-m", "bench", "threads", "nonsense"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 2
    assert result.stderr.endswith("there is no short measurement nonsense\n")


# Small, but real: server, model and clients, all clients at one address.
@pytest.mark.model
@pytest.mark.parametrize(
    "command",
    [
        "tokens --pairs 1 --tokens 8 --words 20",
        "cancel --clients 6",
        "queue --rounds 1 --tokens 8",
    ],
    ids=lambda command: command.split()[0],
)
def test_measurement_ends_with_its_figures(socrates, command, tmp_path):
    name, *arguments = command.split()
    command = [sys.executable, "-m", f"bench.{name}", *arguments]
    result = subprocess.run(
        command,
        cwd=ROOT,
        env=os.environ | {"BENCH_RESULTS": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr
    figures = json.loads(result.stdout.splitlines()[-1])
    assert figures["bench"] == name
    assert figures["card"]["model"] == socrates.name
    assert json.loads((tmp_path / f"{name}.json").read_text()) == figures


def test_what_cannot_be_measured_is_one_sentence():
    command = [sys.executable, "-m", "bench.parser"]
    environment = os.environ | {"SOCRATES_MODEL": "nofile"}
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert result.returncode == 1
    assert result.stderr.startswith("error: There is no model")
    assert result.stderr.count("\n") == 1


def test_card_knows_a_pi_in_a_container(tmp_path):
    (tmp_path / "cpuinfo").write_text(
        "processor\t: 0\nCPU part\t: 0xd0b\n\nModel\t\t: Raspberry Pi 5 Model B Rev 1.0\n"
    )
    assert card._cpu_model(tmp_path) == "Raspberry Pi 5 Model B Rev 1.0"
    firmware = tmp_path / "soc" / "soc:firmware"
    firmware.mkdir(parents=True)
    (firmware / "get_throttled").write_text("50000\n")
    assert card._throttled(tmp_path) == "0x50000"


def test_text_is_taken_out_of_its_chunks():
    data = b"HTTP/1.1 200 OK\r\n\r\n3\r\na\r\n\r\n5\r\nb\r\n\xc3\xa9\r\n0\r\nA: b\r\n\r\n"
    assert chunked_text(data) == "a\r\nb\r\né"
