"""Tests of OpenVINO together with Python's signals, in separate processes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

BACKENDS = """
from vsr.errors import BackendError
from vsr.inference.backend import load_backend

kept = []
for _ in range(2):
    backend = load_backend("openvino")
    try:
        backend.run(b"no network", [])
    except BackendError as exc:
        kept.append(exc)  # its traceback holds the backend
del backend
while kept:
    kept.pop(0)
"""
ENLARGERS = """
from pathlib import Path

from train.measure.shipped import openvino_enlarge

model = Path("engines/c-dcscn/x2.onnx").read_bytes()
kept = [openvino_enlarge(model) for _ in range(2)]
while kept:
    kept.pop(0)
"""
INTERRUPT = """
import os, signal, time

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
try:
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(10)
except KeyboardInterrupt:
    print("interrupted")
"""


@pytest.mark.skipif(os.name != "posix", reason="SIGINT is sent otherwise elsewhere")
@pytest.mark.parametrize("work", [BACKENDS, ENLARGERS], ids=["vsr", "train"])
def test_ctrl_c_is_heard_after_openvino_was_given_up_in_the_order_of_its_use(work: str) -> None:
    """Two `ov.Core`s, freed in the order of creation, would leave an unmapped signal stack."""
    done = subprocess.run(
        [sys.executable, "-c", work + INTERRUPT],
        cwd=ROOT, timeout=300, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "interrupted\n"), done.stderr
