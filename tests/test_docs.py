"""Tests that the documentation is current: its generated parts, links, and named files."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from vsr.cli.main import main

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
LINK = re.compile(r"\]\((?!https?:)([^)#\s]+)")


def test_generated_parts_are_current() -> None:
    """`python -m cogapp -r docs/*.md` regenerates them."""
    pages = [str(page) for page in PAGES]
    done = subprocess.run(
        [sys.executable, "-m", "cogapp", "--check", "--diff", *pages],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_lead_to_files(page: Path) -> None:
    links = LINK.findall(page.read_text(encoding="utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_named_files_of_the_project_exist(page: Path) -> None:
    named = re.findall(r"`((?:vsr|train|bench|engines|examples)/[\w/.]+)`", page.read_text("utf-8"))
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_the_reference_has_every_command_and_option() -> None:
    reference = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    for name, command in main.commands.items():
        assert f"## vsr {name}\n" in reference
        options = {opt for p in command.params for opt in p.opts if opt.startswith("--")}
        assert [opt for opt in options if opt not in reference] == []


def test_readme_links_every_page() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [p.name for p in (ROOT / "docs").glob("*.md") if f"docs/{p.name}" not in readme] == []
