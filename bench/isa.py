"""Times int8 networks by the processor's instruction set, with the share of each kind of layer.

`python -m bench.isa [MODEL...] [--size WxH] [--rounds N] [--isas A,B]`, from the repository's root.
Each pair of network and instruction set has its own process, in which `ONEDNN_MAX_CPU_ISA` limits
oneDNN to the set; they take turns. Shares are of OpenVINO's own counters, per kind of
layer and kernel, the largest first. A set that the processor lacks is measured as the best it has.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections import Counter
from typing import Any, Final

from bench.engines import parse_size
from bench.output import print_line

ISAS: Final = "AVX2,AVX512_CORE_VNNI,AVX512_CORE_AMX"
_MIN_SHARE: Final = 0.03
"""Minimum share of the time at which a kind of layer is listed."""


class Process:
    """A child process that measures one network on one instruction set, on request."""

    def __init__(self, model: str, isa: str, size: tuple[int, int], precision: str) -> None:
        self.model, self.isa = model, isa
        order = json.dumps([model, list(size), precision])
        self._child = subprocess.Popen(
            [sys.executable, "-m", "bench.isa", "--child", order], text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            env={**os.environ, "ONEDNN_MAX_CPU_ISA": isa},
        )  # fmt: skip
        self._request("warm")
        self.ms: list[float] = []

    def measure(self) -> None:
        """Append the time of the fastest picture of a round."""
        self.ms.append(float(self._request("time")))

    def shares(self) -> dict[str, float]:
        """Return kind of layer and kernel -> share of the time."""
        return dict(self._request("profile"))

    def close(self) -> None:
        """End the process."""
        self._child.communicate()

    def _request(self, what: str) -> Any:
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        self._child.stdin.write(what + "\n")
        self._child.stdin.flush()
        answer = self._child.stdout.readline()
        if not answer:
            raise SystemExit(f"{self.model} does not run with {self.isa}")
        return json.loads(answer)


def child(model: str, size: tuple[int, int], precision: str) -> None:
    """Answer the requests on stdin until it ends; runs in the child process."""
    import numpy as np

    from vsr.inference import models
    from vsr.inference.backend import load_backend
    from vsr.inference.openvino import CORE, PRECISION_HINTS
    from vsr.media.colour import Colour

    graph = models.find(model, 2, load_backend("openvino"), precision).graph(Colour())
    hint = {"INFERENCE_PRECISION_HINT": PRECISION_HINTS.get(graph.precision, "f32")}
    network = CORE.read_model(graph.onnx(size))
    plain, counted = (
        CORE.compile_model(
            network, "CPU", {**hint, "PERFORMANCE_HINT": "LATENCY", "PERF_COUNT": counts}
        )
        for counts in (False, True)
    )
    rng = np.random.default_rng(1)
    planes = [rng.integers(16, 235, tuple(port.shape), np.uint8) for port in plain.inputs]
    for line in sys.stdin:
        if line.strip() != "profile":
            print_line(json.dumps(min(_ms(plain, planes) for _ in range(8))))
            continue
        spent: Counter[str] = Counter()
        request = counted.create_infer_request()
        for _ in range(8):
            request.infer(planes)
            for layer in request.profiling_info:
                kind = f"{layer.node_type} {layer.exec_type}".removesuffix("_I8")
                spent[kind] += layer.real_time.total_seconds()
        whole = sum(spent.values())
        print_line(json.dumps({kind: seconds / whole for kind, seconds in spent.most_common()}))


def _ms(network: Any, planes: list[Any]) -> float:
    began = time.perf_counter()
    network(planes)
    return 1000 * (time.perf_counter() - began)


def main(words: list[str] | None = None) -> None:
    """Print a row for each network and instruction set."""
    parser = argparse.ArgumentParser(prog="python -m bench.isa", description=__doc__)
    parser.add_argument("models", nargs="*", default=["c-dcscn", "dcscn", "carn-m"])
    parser.add_argument("--size", type=parse_size, default=(320, 180), metavar="WxH")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--isas", default=ISAS)
    parser.add_argument("--precision", default="int8")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    given = parser.parse_args(words)
    if given.child:
        model, size, precision = json.loads(given.child)
        child(model, tuple(size), precision)
        return
    print_line("| network | instructions | ms (min, median) | ratio to first | time by layer |")
    print_line("| --- | --- | --- | --- | --- |")
    for model in given.models:
        found = [Process(model, isa, given.size, given.precision) for isa in given.isas.split(",")]
        for _ in range(given.rounds):
            for process in found:
                process.measure()
        for process in found:
            print_line(row(process, found[0]))
            process.close()


def row(process: Process, first: Process) -> str:
    """Return a row: minimum and median over rounds, minimum by that of `first`, largest shares."""
    least, median = min(process.ms), statistics.median(process.ms)
    shares = process.shares()
    shown = [f"{kind} {share:.0%}" for kind, share in shares.items() if share >= _MIN_SHARE]
    ratio = f"{least / min(first.ms):.2f}"
    cells = [process.model, process.isa, f"{least:.1f}, {median:.1f}", ratio, ", ".join(shown)]
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
