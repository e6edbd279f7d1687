"""Times every model by deploy form, precision and device: one table, with ratios within one run.

`python -m bench.engines [MODEL ...] [--scale N] [--size WxH] [--rounds N] [--threads N]`, from the
repository's root, times the plain networks (`lr` -> `sr`), one request at a time. Rounds alternate
between all forms of a model and a dense convolution, so that a noisy machine disturbs all alike;
every ratio is the median of the rounds' own.
"""

import argparse
import os
import statistics
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from bench.forms import deployed_onnx, peak_network, trained, training_onnx
from bench.gpu import PRECISIONS, measure
from train.fit.prune import without_dead_filters
from train.measure.counting import OUTPUT_PIXELS, multadds
from vsr.errors import VsrError
from vsr.inference import models
from vsr.inference.openvino import ov
from vsr.media.plane_format import YUV420

DEFAULT: Final = ("c-dcscn", "dcscn", "carn-m")
COLUMNS: Final = (
    "model", "scale", "precision", "form", "backend", "p50 ms", "p99 ms", "frames/s", "MB moved",
    "GFLOP/s", "of peak", "times faster",
)  # fmt: skip
GPU_COLUMNS: Final = ("model", "precision", "p50 ms", "p99 ms", "frames/s", "GFLOP/s", "of peak")


@dataclass(frozen=True, kw_only=True)
class Setup:
    """Settings shared by all rows of a table."""

    width: int
    height: int
    rounds: int
    threads: int
    """Number of threads; 0: OpenVINO's default."""

    def bytes_moved(self, scale: int) -> int:
        """Return the bytes of 8-bit 4:2:0 planes, input plus output."""
        planes = YUV420
        total = 0
        for w, h in ((self.width, self.height), planes.output(self.width, self.height, scale)):
            chroma_w, chroma_h = planes.chroma(w, h)
            total += w * h + 2 * chroma_w * chroma_h
        return total


@dataclass
class Form:
    """One network that is timed, and its time in every round, in seconds."""

    name: str
    precision: str
    operations: float
    """Floating-point operations per picture: two per MultAdd, counted as in the papers, without
    dead filters. It is the same for the training form, so that GFLOP/s are comparable."""
    request: Any
    seconds: list[float] = field(default_factory=list)

    def infer(self) -> None:
        """Run one picture, the content of the input tensor, and record the time."""
        began = time.perf_counter()
        self.request.infer()
        self.seconds.append(time.perf_counter() - began)


class OpenVino:
    """Compiles networks for single requests; `vsr` itself runs several at once to hide latency."""

    name = "openvino"

    def __init__(self, setup: Setup) -> None:
        self._core, self._setup = ov.Core(), setup

    def form(self, name: str, precision: str, operations: float, network: bytes) -> Form:
        """Compile a network for the size and run it once, on noise."""
        model = self._core.read_model(network)
        depth = model.input().partial_shape[1].get_length()
        shape = [1, depth, self._setup.height, self._setup.width]
        model.reshape(shape)
        config = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
        if self._setup.threads:
            config["INFERENCE_NUM_THREADS"] = str(self._setup.threads)
        self._compiled = self._core.compile_model(model, "CPU", config)
        request = self._compiled.create_infer_request()
        picture = np.random.default_rng(1).random(shape, np.float32)
        request.infer([picture])
        return Form(name=name, precision=precision, operations=operations, request=request)

    def machine(self, load: bool = True) -> str:
        """Return machine, load, library and threads in one line; call it after `form`."""
        cpu = str(self._core.get_property("CPU", "FULL_DEVICE_NAME")).strip()
        threads = self._compiled.get_property("INFERENCE_NUM_THREADS")
        busy = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
        version = ov.__version__.split("-")[0]
        load_text = f" (load {busy:.1f})" if load else ""
        return (
            f"{cpu}, {os.cpu_count()} CPUs{load_text}, OpenVINO {version}, "
            f"{threads} thread{'s' * (threads != 1)}"
        )


def forms_of(name: str, scale: int, setup: Setup, device: OpenVino) -> list[Form]:
    """Compile the training form, the deploy form and, if there is one, the int8 form."""
    entry = models.manifest()[name][f"x{scale}"]
    path = models.ENGINES / entry["file"]
    net = trained(name, scale, path)
    work = multadds(without_dead_filters(net), scale)
    operations = 2.0 * work * setup.width * setup.height * scale**2 / OUTPUT_PIXELS
    training = training_onnx(net, scale, setup.width, setup.height)
    forms = [
        device.form("training", "fp32", operations, training),
        device.form("deploy", "fp32", operations, deployed_onnx(path)),
    ]
    if "int8" in entry:
        network = (models.ENGINES / entry["int8"]["file"]).read_bytes()
        forms.append(device.form("deploy", "int8", operations, network))
    return forms


def alternate(forms: list[Form], rounds: int) -> None:
    """Time every form once per round."""
    for _ in range(rounds):
        for form in forms:
            form.infer()


def ratio(slow: Form, fast: Form) -> float:
    """Return how many times faster `fast` is: the median over rounds."""
    pairs = zip(slow.seconds, fast.seconds, strict=True)
    return statistics.median(a / b for a, b in pairs)


def row(form: Form, peak: Form, rivals: Iterable[Form], label: tuple[str, int, str]) -> list[str]:
    """Return the figures of one form; `rivals` are the forms it is compared with."""
    name, scale, moved = label
    half, last = (float(np.percentile(form.seconds, p)) for p in (50, 99))
    rate = form.operations / half / 1e9
    shares = (
        (form.operations / a) / (peak.operations / b)
        for a, b in zip(form.seconds, peak.seconds, strict=True)
    )
    faster = (f"{ratio(r, form):.2f} than {r.precision} {r.name}" for r in rivals)
    return [
        name, f"x{scale}", form.precision, form.name, OpenVino.name, f"{half * 1e3:.1f}",
        f"{last * 1e3:.1f}", f"{1 / half:.1f}", moved, f"{rate:.0f}",
        f"{statistics.median(shares):.0%}", ", ".join(faster),
    ]  # fmt: skip


def rows_of(name: str, scale: int, setup: Setup, device: OpenVino) -> list[list[str]]:
    """Time one model; return a row for each of its forms and one for the peak."""
    network, operations = peak_network(setup.width, setup.height)
    peak = device.form("peak", "fp32", operations, network)
    forms = forms_of(name, scale, setup, device)
    alternate([peak, *forms], setup.rounds)
    label = (name, scale, f"{setup.bytes_moved(scale) / 1e6:.2f}")
    rows = [row(forms[k], peak, [forms[k - 1]] if k else [], label) for k in range(len(forms))]
    half = float(np.percentile(peak.seconds, 50))
    rate = f"{operations / half / 1e9:.0f}"
    beside = f"peak beside {name}"
    figures = [f"{half * 1e3:.1f}", f"{np.percentile(peak.seconds, 99) * 1e3:.1f}"]
    return [*rows, [beside, "", "fp32", "", OpenVino.name, *figures, "", "", rate, "100%", ""]]


def markdown(rows: list[list[str]], columns: tuple[str, ...] = COLUMNS) -> str:
    """Return a Markdown table with these columns."""
    lines = [columns, tuple("---" for _ in columns), *map(tuple, rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def report(names: list[str], scale: int, setup: Setup) -> list[str]:
    """Return the machine, the table and the missing forms, as lines."""
    device = OpenVino(setup)
    rows: list[list[str]] = []
    missing: list[str] = []
    for name in names:
        rows += rows_of(name, scale, setup, device)
        if "int8" not in models.manifest()[name][f"x{scale}"]:
            missing.append(f"{name} x{scale}")
    size = f"{setup.width}x{setup.height}"
    lines = [f"{size}, {setup.rounds} rounds, {device.machine()}", "", markdown(rows)]
    if missing:
        lines += ["", f"No int8 form: {', '.join(missing)}"]
    return lines


def parse_size(text: str) -> tuple[int, int]:
    """Parse `320x180` as (320, 180)."""
    width, height = map(int, text.split("x"))
    return width, height


def main(words: list[str] | None = None) -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(prog="python -m bench.engines", description=__doc__)
    parser.add_argument("models", nargs="*", default=list(DEFAULT), metavar="MODEL")
    parser.add_argument("--scale", type=int, default=2)
    parser.add_argument("--size", type=parse_size, default=(320, 180), metavar="WxH")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--backend", choices=("openvino", *PRECISIONS), default="openvino")
    arguments = parser.parse_args(words)
    for name in arguments.models:
        if f"x{arguments.scale}" not in models.manifest().get(name, {}):
            parser.error(f"no model {name} x{arguments.scale} in {models.ENGINES}")
    if arguments.backend != "openvino":
        try:
            lines, machine = measure(
                arguments.backend, arguments.models, arguments.scale, arguments.size,
                arguments.rounds,
            )  # fmt: skip
        except VsrError as exc:
            parser.error(f"--backend {arguments.backend} cannot be measured here: {exc}")
        sys.stdout.write(f"{machine}\n\n{markdown(lines, GPU_COLUMNS)}\n")
        return
    width, height = arguments.size
    setup = Setup(width=width, height=height, rounds=arguments.rounds, threads=arguments.threads)
    for line in report(arguments.models, arguments.scale, setup):
        sys.stdout.write(line + "\n")


if __name__ == "__main__":
    main()
