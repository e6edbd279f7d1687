"""Checkpoint -> `engines/<model>/x<scale>.onnx` and its entry in `engines/manifest.json`.

The file is written only after OpenVINO has run it and agreed with torch.
"""

import contextlib
import hashlib
import io
import json
import logging
import math
import os
import warnings
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx
import openvino as ov
import torch
from torch import nn

from train.cards import cards
from train.deploy import deploy
from train.evaluate import Enlarge, evaluate
from train.loop import load_checkpoint
from train.nets import Net, build

log = logging.getLogger(__name__)

OPSET: Final = 18
TOLERANCE: Final = 1e-5
"""Largest difference between torch and the exported file, for values in 0..1."""
LICENCE: Final = "Apache-2.0"
SCHEMA: Final = "vsr-engines/1"


def averaged_net(checkpoint: Path) -> tuple[dict[str, Any], Net]:
    """The checkpoint and its averaged weights in training form, ready for inference."""
    saved = load_checkpoint(checkpoint)
    net = build(saved["name"], saved["scale"], keep=1.0)
    net.load_state_dict(saved["average"])
    return saved, net.eval()


def channels(net: Net) -> int:
    """1 for luma networks, 3 for RGB."""
    return 1 if net.colour == "y" else 3


def to_onnx(net: Net) -> onnx.ModelProto:
    """The deploy form as ONNX: `lr` [N, C, H, W] -> `sr` [N, C, s*H, s*W], free N, H, W."""
    n, h, w = (torch.export.Dim(name) for name in ("N", "H", "W"))
    example = torch.rand(2, channels(net), 24, 32)
    buffer = io.BytesIO()
    # the exporter talks on stdout and warns about its own internals
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            deploy(net),
            (example,),
            buffer,  # type: ignore[arg-type]  # its stub knows paths only
            input_names=["lr"],
            output_names=["sr"],
            opset_version=OPSET,
            dynamic_shapes={"x": {0: n, 2: h, 3: w}},
            dynamo=True,
        )
    return _stripped(onnx.load_model_from_string(buffer.getvalue()))


def _stripped(model: onnx.ModelProto) -> onnx.ModelProto:
    """Without the exporter's notes (stack traces, paths of the machine) and guessed shapes."""
    del model.graph.value_info[:]
    del model.metadata_props[:]
    del model.functions[:]
    for part in (model.graph, *model.graph.node, *model.graph.input, *model.graph.output):
        part.doc_string = ""
        if hasattr(part, "metadata_props"):
            del part.metadata_props[:]
    onnx.checker.check_model(model)
    return model


def openvino_enlarge(model: bytes) -> Enlarge:
    """Run an ONNX network on OpenVINO in float32: what is shipped, as it will run."""
    core = ov.Core()
    config = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = core.compile_model(core.read_model(model), "CPU", config)

    def run(x: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        return np.array(compiled([x])[0])

    return run


def difference(net: Net, enlarge: Enlarge, height: int = 37, width: int = 45) -> float:
    """Largest difference between the training form in torch and another way to run it."""
    rng = np.random.default_rng(7)
    x = rng.random((1, channels(net), height, width), np.float32)
    with torch.inference_mode():
        ours = net(torch.from_numpy(x)).numpy()
    return float(np.abs(ours - enlarge(x)).max())


def receptive_field_radius(net: Net) -> int:
    """How many LR pixels around a pixel can change it, found by following gradients."""
    twin = build_like(net)
    size = 65
    for parameter in twin.parameters():
        nn.init.constant_(parameter, 1e-3 if parameter.dim() > 1 else 0.5)
    x = torch.ones(1, channels(net), size, size, dtype=torch.float64, requires_grad=True)
    centre = size // 2 * net.scale
    block = twin(x)[..., centre : centre + net.scale, centre : centre + net.scale]
    block.sum().backward()
    assert x.grad is not None
    rows = x.grad.abs().sum((0, 1, 3)).nonzero().flatten()
    return int(max(size // 2 - rows.min(), rows.max() - size // 2))


def build_like(net: Net) -> Net:
    """A fresh network of the same settings in double precision."""
    return type(net)(net.config, net.scale).double().eval()  # type: ignore[arg-type]


def multadds(net: Net, width: int = 1280, height: int = 720) -> int:
    """Multiplications of all convolutions for a `width` x `height` output, as CARN counts."""
    total = 0

    def count(module: nn.Module, _inputs: Any, output: torch.Tensor) -> None:
        nonlocal total
        assert isinstance(module, nn.Conv2d)
        kernel = math.prod(module.kernel_size) * module.in_channels // module.groups
        total += output[0].numel() * kernel

    convolutions = [m for m in net.modules() if isinstance(m, nn.Conv2d) and m.weight.requires_grad]
    hooks = [m.register_forward_hook(count) for m in convolutions]
    with torch.inference_mode():
        net(torch.zeros(1, channels(net), height // net.scale, width // net.scale))
    for hook in hooks:
        hook.remove()
    return total


def export(checkpoint: Path, engines: Path, data_sets: list[Path], data: str) -> Path:
    """Write the ONNX and its manifest entry with measured figures; returns the ONNX path."""
    saved, net = averaged_net(checkpoint)
    name, scale = saved["name"], saved["scale"]
    model = to_onnx(net).SerializeToString()
    enlarge = openvino_enlarge(model)
    worst = difference(net, enlarge)
    if worst > TOLERANCE:
        raise RuntimeError(f"ONNX and torch differ by {worst:.2g}")
    path = engines / name / f"x{scale}.onnx"
    entry = {
        "file": path.relative_to(engines).as_posix(),
        "sha256": hashlib.sha256(model).hexdigest(),
        "precision": "fp32",
        "colour": net.colour,
        "range": [0.0, 1.0],
        "receptive_field_radius": receptive_field_radius(net),
        "parameters": sum(p.numel() for p in net.parameters() if p.requires_grad),
        "multadds_720p": multadds(net),
        "recipe": saved["recipe"],
        "step": saved["step"],
        "data": data,
        "psnr": {d.name: evaluate(enlarge, d, scale, net.colour) for d in data_sets},
        "licence": LICENCE,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    _write(path, model)  # only now: until its entry is there, vsr would call it damaged
    _enter(engines / "manifest.json", name, f"x{scale}", entry)
    log.info("%s: difference to torch %.2g, %s", path, worst, entry["psnr"])
    return path


def _enter(manifest: Path, name: str, key: str, entry: dict[str, Any]) -> None:
    content: dict[str, Any] = {"schema": SCHEMA, "models": {}}
    if manifest.exists():
        content = json.loads(manifest.read_text(encoding="utf-8"))
    content["models"].setdefault(name, {})[key] = entry
    _write(manifest, (json.dumps(content, indent=1, sort_keys=True) + "\n").encode())
    _write(manifest.with_name("README.md"), cards(content["models"]).encode())


def _write(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    temporary.write_bytes(data)
    temporary.replace(path)
