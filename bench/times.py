"""Times every shipped network on this machine, for the table of the model cards.

`python -m bench.times [--size WxH] [--rounds N]`, from the repository's root, times the networks as
`vsr` runs them on a CPU (OpenVINO, float32 and int8, one request at a time) by turns, and enters
the shortest of the rounds in `engines/manifest.json`: on a busy machine it is the least disturbed.
"""

import argparse
import sys
from pathlib import Path
from typing import Any, Final

from bench.engines import Form, OpenVino, Setup, alternate, parse_size
from bench.forms import deployed_onnx
from train.ship.manifest import read_manifest, write_manifest
from train.ship.naming import network_and_purpose
from vsr.inference.models import ENGINES

ROUNDS: Final = 15
SIZE: Final = (320, 180)


def measure(engines: Path, setup: Setup) -> dict[str, Any]:
    """Time every form of every network; write `ms` to the folder's manifest, and return that."""
    content, device = read_manifest(engines), OpenVino(setup)
    forms: dict[tuple[object, ...], Form] = {}
    timed: list[tuple[dict[str, Any], Form]] = []
    for model, scales in content["models"].items():
        for key, entry in scales.items():
            layers = (network_and_purpose(model)[0], key, entry["parameters"])
            if layers not in forms:  # the same network with other weights takes as long
                network = deployed_onnx(engines / entry["file"])
                forms[layers] = device.form("deploy", "fp32", 0, network)
            timed.append((entry, forms[layers]))
            if int8 := entry.get("int8"):
                network = (engines / int8["file"]).read_bytes()
                forms[model, key] = device.form("deploy", "int8", 0, network)
                timed.append((int8, forms[model, key]))
    alternate(list(forms.values()), setup.rounds)
    size, machine = f"{setup.width}x{setup.height}", device.machine(load=False)
    for entry, form in timed:
        shortest = round(1e3 * min(form.seconds), 1)
        entry["ms"] = {"ms": shortest, "size": size, "machine": machine}
    write_manifest(engines, content)
    return content


def main(words: list[str] | None = None) -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(prog="python -m bench.times", description=__doc__)
    parser.add_argument("--size", type=parse_size, default=SIZE, metavar="WxH")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--engines", type=Path, default=ENGINES)
    arguments = parser.parse_args(words)
    width, height = arguments.size
    setup = Setup(width=width, height=height, rounds=arguments.rounds, threads=0)
    for name, scales in measure(arguments.engines, setup)["models"].items():
        for key, entry in scales.items():
            int8 = f", int8 {entry['int8']['ms']['ms']:g}" if "int8" in entry else ""
            sys.stdout.write(f"{name} {key}: {entry['ms']['ms']:g} ms{int8}\n")


if __name__ == "__main__":
    main()
