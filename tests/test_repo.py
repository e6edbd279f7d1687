"""Tests of rules for the repository's code: imports, length of files, fast start-up, packaging.

import-linter checks the layers of `vsr`, by contracts in pyproject.toml.
"""

import ast
import re
import statistics
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import vsr
from tests.conftest import pytest_runtest_setup
from tests.programs import find, needs

ROOT = Path(__file__).parents[1]
PRODUCT = sorted([*(ROOT / "vsr").rglob("*.py"), *(ROOT / "train").rglob("*.py")])
FOLDERS = ("vsr", "train", "tests", "bench", "examples")
SOURCES = sorted(p for d in FOLDERS for p in (ROOT / d).rglob("*.py"))


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def _modules(package: str) -> dict[str, Path]:
    """Return {dotted name: file} of every module in a package."""
    found = {}
    for path in sorted((ROOT / package).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def _imports(path: Path) -> set[str]:
    """Return the dotted names that a file imports, `from a import b` as `a.b` if it is a module."""
    known, found = _modules("vsr"), set()
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}:{node.lineno}: relative import"
            whole = {f"{node.module}.{alias.name}" for alias in node.names}
            modules = whole & set(known)
            found |= modules
            if modules != whole:  # some are names in the module itself
                found.add(str(node.module))
    return found


def test_vsr_imports_neither_torch_nor_train() -> None:
    roots = {n.split(".")[0] for path in _modules("vsr").values() for n in _imports(path)}
    assert "numpy" in roots
    assert not roots & {"torch", "train", "onnxscript", "onnxruntime"}


def test_train_does_not_import_vsr() -> None:
    roots = {n.split(".")[0] for path in _modules("train").values() for n in _imports(path)}
    assert "torch" in roots
    assert "vsr" not in roots


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_module_has_a_docstring(path: Path) -> None:
    assert ast.get_docstring(_tree(path))


def test_ffmpeg_is_given_no_path_that_may_look_like_a_url() -> None:
    """FFmpeg takes `12:30.mp4` for a protocol; `absolute_path` makes it a file for FFmpeg too."""
    calls = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in PRODUCT
        if path.is_relative_to(ROOT / "vsr")
        for node in ast.walk(_tree(path))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "av.open"
        if node.args and ast.unparse(node.args[0]).startswith("str(")
    ]
    assert calls == []


def test_nothing_is_printed_past_click_and_logging() -> None:
    calls = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in PRODUCT
        for node in ast.walk(_tree(path))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        if node.func.id == "print"
    ]
    assert calls == []


def test_importing_the_command_line_loads_no_heavy_library() -> None:
    code = "import vsr.cli.main, sys; heavy = {'torch', 'openvino', 'train'}"
    code += "; print(*sorted(heavy & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == ""


def test_help_works_without_heavy_libraries() -> None:
    command = [sys.executable, "-X", "importtime", "-m", "vsr", "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    imported = {line.split("|")[-1].strip() for line in done.stderr.splitlines()}
    assert "Usage" in done.stdout
    assert "click" in imported
    assert not {name.split(".")[0] for name in imported} & {"torch", "openvino", "train"}


def test_changelog_starts_with_this_version() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.findall(r"^## (\S+)", text, re.MULTILINE)[0] == vsr.__version__


def _length(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Return the number of lines from `def` to the end, without the docstring."""
    last = function.end_lineno or function.lineno
    lines = last - function.lineno + 1
    if ast.get_docstring(function) is not None:
        doc = function.body[0]
        lines -= (doc.end_lineno or doc.lineno) - doc.lineno + 1
    return lines


def test_files_and_functions_are_short() -> None:
    lines = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in PRODUCT}
    assert {path.relative_to(ROOT): n for path, n in lines.items() if n > 300} == {}
    lengths = {
        f"{path.relative_to(ROOT)}:{node.name}": _length(node)
        for path in PRODUCT
        for node in ast.walk(_tree(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    assert {name: length for name, length in lengths.items() if length > 80} == {}
    assert statistics.median(lengths.values()) <= 10
    assert statistics.quantiles(lengths.values(), n=10)[-1] <= 35


@pytest.mark.parametrize(("promised", "outcome"), [("1", pytest.fail), ("", pytest.skip)])
def test_a_promised_program_that_is_missing_fails_its_tests(
    promised: str, outcome: Any, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VSR_REQUIRE_LIVE", promised)
    request.node.add_marker(needs(find("no-such-program"), "what is missing"))
    with pytest.raises(outcome.Exception, match="needs what is missing"):
        pytest_runtest_setup(request.node)


def test_ci_promises_the_programs() -> None:
    lines = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    promise = next(
        i for i, line in enumerate(lines) if line.startswith("export VSR_REQUIRE_LIVE=1")
    )
    assert promise < lines.index("make")


def test_a_wheel_holds_every_file_of_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """pyproject.toml lists packages and package data explicitly, so an entry may be missing."""
    from setuptools import Distribution

    monkeypatch.chdir(ROOT)
    distribution = Distribution({"script_name": "setup.py"})
    distribution.parse_config_files()
    build = distribution.get_command_obj("build_py")
    build.ensure_finalized()
    packed = {Path(f).relative_to(build.build_lib) for f in build.get_outputs(False)}
    files = (p for p in (ROOT / "vsr").rglob("*") if p.is_file() and "__pycache__" not in p.parts)
    assert {p.relative_to(ROOT) for p in files} - packed == set()
