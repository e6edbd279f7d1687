"""Test of `python -m train` without the libraries for training."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
WITHOUT = "import runpy, sys; sys.modules['torch'] = None; runpy.run_module('train.__main__')"


def test_a_missing_library_is_told_in_one_line_with_the_install_step() -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("python -m train needs torch") and "pip install -e '.[dev]'" in line
    page = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
    assert "pip install -e '.[dev]'" in page
