"""Fixtures and hooks shared by all tests, such as the skipping of tests that need a GPU."""

import contextlib
import importlib
import logging
import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from vsr.inference import models, openvino
from vsr.inference.backend import Backend, load_backend
from vsr.inference.openvino import OpenVinoBackend


@pytest.fixture
def data() -> Path:
    """Return the folder of real images and clips. Skips the test if VSR_DATA is not set."""
    folder = os.environ.get("VSR_DATA")
    if not folder:
        pytest.skip("VSR_DATA is not set: no real data to test on")
    return Path(folder)


@pytest.fixture(scope="session")
def backend() -> Backend:
    """Return the OpenVINO backend on the CPU."""
    return load_backend("openvino")


KEPT = 24
"""Number of compiled networks to cache. Most tests upscale small frames with one of a few."""
Compile = Callable[[OpenVinoBackend, bytes, dict[str, Any]], Any]


@pytest.fixture(scope="session", autouse=True)
def _compiled_once() -> Iterator[dict[str, Compile]]:
    """Cache compiled OpenVINO networks across tests: in most tests, compiling takes longer than
    inference. Yields the original methods by name."""
    names = ("_load_or_compile", "_compile")
    ways: dict[str, Compile] = {name: getattr(OpenVinoBackend, name) for name in names}
    kept: dict[object, Any] = {}

    def once(way: str, backend: OpenVinoBackend, model: bytes, config: dict[str, Any]) -> Any:
        key = (way, backend._device, model, openvino.cpu_limit(), *sorted(config.items()))
        found = kept.pop(key, None) or ways[way](backend, model, config)
        kept[key] = found  # least recently used first
        if len(kept) > KEPT:
            del kept[next(iter(kept))]
        return found

    with pytest.MonkeyPatch.context() as patch:
        for way in ways:
            patch.setattr(OpenVinoBackend, way, lambda *given, way=way: once(way, *given))
        yield ways


@pytest.fixture
def compiled_anew(_compiled_once: dict[str, Compile], monkeypatch: pytest.MonkeyPatch) -> None:
    """Restore the uncached methods, for tests of compiling itself."""
    for way, compile_ in _compiled_once.items():
        monkeypatch.setattr(OpenVinoBackend, way, compile_)


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Run torch on one thread: small networks are faster and repeatable, even on a busy machine."""
    torch = pytest.importorskip("torch")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def _ordinary_priority() -> Iterator[None]:
    """Check that a test leaves no real-time policy, as SVT-AV1 sets for root: it starves others."""
    yield
    if hasattr(os, "sched_getscheduler"):
        assert os.sched_getscheduler(0) == os.SCHED_OTHER


@pytest.fixture(autouse=True)
def _float_precision_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run third-party networks in fp32, not in the precision that is fastest on this machine, so
    that results do not depend on it. tests/inference/test_fastest.py tests the measurement."""
    monkeypatch.setattr(models, "_fastest_precision", lambda *_: None)


@pytest.fixture(autouse=True)
def _rungs_are_kept(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the networks of a ladder that seem slower than a better one: on the small pictures of
    tests, on a busy machine, any can. Tests of that rule ask for `slower_rungs_are_lost`."""
    if "slower_rungs_are_lost" not in request.fixturenames:
        monkeypatch.setattr("vsr.live.ladder.rung._MIN_RATIO", math.inf)


@pytest.fixture
def slower_rungs_are_lost() -> None:
    """Let a ladder lose its slower networks, as it does outside of tests."""


@pytest.fixture(autouse=True)
def _fresh_logging() -> Iterator[None]:
    """Reset logging: commands install a handler on the current stderr, which is closed after the
    test, and a level that would suppress messages that the next test expects."""
    yield
    logging.getLogger("vsr").handlers.clear()
    for name in ("vsr", "train"):
        logging.getLogger(name).setLevel(logging.NOTSET)


@pytest.hookimpl(tryfirst=True)
def pytest_collection(session: pytest.Session) -> None:
    """Import a different share of the test files in each pytest-xdist worker first.

    Workers start together, and in a fresh clone each would rewrite the asserts of all files. This
    way each finds most files already rewritten by the others. Import errors are ignored here:
    pytest reports them at collection.
    """
    worker = getattr(session.config, "workerinput", None)
    if worker is None or session.config.args_source is not pytest.Config.ArgsSource.TESTPATHS:
        return
    files = sorted(Path(__file__).parent.rglob("test_*.py"))
    for path in files[int(worker["workerid"].removeprefix("gw")) :: worker["workercount"]]:
        name = ".".join(path.relative_to(session.config.rootpath).with_suffix("").parts)
        with contextlib.suppress(Exception, pytest.skip.Exception):
            importlib.import_module(name)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip tests of live streams and pages if their programs (tests/programs.py) are missing.

    With VSR_REQUIRE_LIVE=1 they fail instead.
    """
    for marker in item.iter_markers("needs"):
        found, what = marker.args
        if not found:
            promised = os.environ.get("VSR_REQUIRE_LIVE") == "1"
            (pytest.fail if promised else pytest.skip)(f"needs {what}")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip GPU tests if there is no GPU. With VSR_REQUIRE_GPU=1 they run, and so fail."""
    if hasattr(config, "workerinput"):
        _spread(items)
    if os.environ.get("VSR_REQUIRE_GPU") == "1" or Path("/dev/nvidia0").exists():
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="needs an NVIDIA GPU"))


def _spread(items: list[pytest.Item]) -> None:
    """Spread the files of live tests, which mostly wait, evenly among the first 80% of the others,
    so that workers wait at different times and not at the end of the run."""
    files: dict[Path, list[pytest.Item]] = {}
    for item in items:
        files.setdefault(item.path, []).append(item)
    live = [path for path in files if path.parent.name == "live"]
    others = [path for path in files if path.parent.name != "live"]
    places = {path: 0.8 * k / len(live) for k, path in enumerate(live)}
    places |= {path: k / len(others) for k, path in enumerate(others)}
    items[:] = [item for path in sorted(files, key=places.__getitem__) for item in files[path]]
