"""Links in the documents lead to files that exist, and the README stays short."""

import re
import subprocess

import pytest

from tests.support.process import ROOT

FILES = subprocess.run(
    ["git", "ls-files", "*.md"], cwd=ROOT, capture_output=True, text=True, check=True
).stdout.split()
_LINK = re.compile(r'\]\(([^)#\s]+)[^)]*\)|(?:src|href)="([^"#]+)')


@pytest.mark.parametrize("name", FILES)
def test_links_lead_to_files(name):
    path = ROOT / name
    links = [a or b for a, b in _LINK.findall(path.read_text())]
    local = [link for link in links if "://" not in link]
    assert [link for link in local if not (path.parent / link).exists()] == []


def test_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150
