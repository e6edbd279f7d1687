"""Fixtures shared by all tests: real data where it is at hand, and the GPU promise."""

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from vsr.inference import models
from vsr.inference.backend import Backend, load_backend


@pytest.fixture
def data() -> Path:
    """The folder of real images and clips; the test skips aloud without it."""
    folder = os.environ.get("VSR_DATA")
    if not folder:
        pytest.skip("VSR_DATA is not set: no real data to test on")
    return Path(folder)


@pytest.fixture(scope="session")
def backend() -> Backend:
    """OpenVINO on the CPU."""
    return load_backend("openvino")


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Small networks are faster and repeatable on one thread, above all on a busy machine."""
    torch = pytest.importorskip("torch")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def _ordinary_priority() -> Iterator[None]:
    """A test that leaves a real-time process, as SVT-AV1 makes it for root, starves all others."""
    yield
    if hasattr(os, "sched_getscheduler"):
        assert os.sched_getscheduler(0) == os.SCHED_OTHER


@pytest.fixture(autouse=True)
def _float_precision_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Foreign networks run in fp32, whatever is fastest here, or results would differ by machine;
    tests/inference/test_fastest.py measures."""
    monkeypatch.setattr(models, "_fastest", lambda *_: None)


@pytest.fixture(autouse=True)
def _fresh_logging() -> Iterator[None]:
    """Commands install a handler on the current stderr, which is closed after the test, and a level
    that would hide what the next test listens for."""
    yield
    logging.getLogger("vsr").handlers.clear()
    for name in ("vsr", "train"):
        logging.getLogger(name).setLevel(logging.NOTSET)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Tests of live streams and pages skip aloud without their programs (tests/programs.py), and
    fail where these are promised."""
    for marker in item.iter_markers("needs"):
        found, what = marker.args
        if not found:
            promised = os.environ.get("VSR_REQUIRE_LIVE") == "1"
            (pytest.fail if promised else pytest.skip)(f"needs {what}")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """GPU tests skip aloud without a GPU, and fail where one is promised."""
    if os.environ.get("VSR_REQUIRE_GPU") == "1" or Path("/dev/nvidia0").exists():
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="needs an NVIDIA GPU"))
