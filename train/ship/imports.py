"""Load weights into a network: from public checkpoints, our own, or our exported ONNX files.

No code in a file is executed. Public CARN checkpoints have our names; those of PCARN
(nmhkahn/PCARN-pytorch) have conv1, conv2, pw and c1 instead of CARN's body.0, body.2, body.4 and
c1.body.0, and repeat shared blocks under three names. Our ONNX files have the deploy form; its
rewrites are undone here, exactly except for float rounding, so that training can continue from
`engines/`.
"""

import hashlib
import re
from pathlib import Path
from typing import Any

import onnx
import torch
from onnx import numpy_helper
from torch import Tensor

from train.errors import TrainError
from train.files import load_torch
from train.fit.checkpoint import parse_checkpoint, stage_record
from train.fit.grow import grow_weights
from train.fit.grow_carn import grow_carn_weights
from train.fit.prune import fits_into, narrow_weights, widen_weights, widths
from train.nets import Carn, Csrcnn, Dcscn, Net, Rt, build
from train.nets.common import bias_of
from train.ship import provenance
from train.ship.export import Target, export_scale

Weights = dict[str, Tensor]


def read_weights(path: Path, net: Net) -> tuple[Weights, list[dict[str, Any]]]:
    """Read weights for `net` from our checkpoint (averaged), a public one or our ONNX.

    The second value is the history of trainings, or for a file without one, its name and SHA-256.
    Raises TrainError for a file that is damaged, contains code, or is of another network.
    """
    if path.suffix == ".onnx":
        return _from_onnx(path, net), _shipped_history(path) or [_origin(path)]
    saved = _load(path)
    if "average" in saved:
        saved = parse_checkpoint(saved, path)
        return saved["average"], [*saved["history"], stage_record(saved)]
    weights = translate_names(saved)
    # the two differ only in names; the shapes are equal, so loading would not fail
    if isinstance(net, Carn) and net.config.pcarn != (weights.keys() != saved.keys()):
        raise TrainError(f"{path} is of another network: CARN and PCARN are not the same")
    return weights, [_origin(path)]


def _origin(path: Path) -> dict[str, Any]:
    return {"imported": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


def _shipped_history(path: Path) -> list[dict[str, Any]]:
    """Return the trainings of a file of `engines/` from the `provenance.toml` beside it."""
    chain = provenance.read(path.absolute().parent).get(path.name)
    if chain is None or chain.sha256 != hashlib.sha256(path.read_bytes()).hexdigest():
        return []
    return [stage for _, stage in chain.stages]


def import_public(path: Path, target: Target) -> list[Path]:
    """Export the weights of a public checkpoint or our own; return the ONNX paths of all scales.

    Raises TrainError for a file that is damaged, contains code, or is of another network.
    """
    net = build(target.model)
    weights, history = read_weights(path, net)
    load_into(net, weights, path)
    return [export_scale(net.eval(), scale, target, history) for scale in net.scales]


def _load(path: Path) -> dict[str, Any]:
    saved = load_torch(path)
    if not isinstance(saved, dict) or not all(isinstance(name, str) for name in saved):
        raise TrainError(f"{path} contains no named weights")
    return saved


def translate_names(public: Weights) -> Weights:
    """Translate PCARN's weight names to ours; CARN's stay unchanged."""
    layers = {"conv1": "body.0", "conv2": "body.2", "pw": "body.4"}
    found: Weights = {}
    for name, value in public.items():
        ours = re.sub(r"\.(conv1|conv2|pw)\.", lambda m: f".{layers[m[1]]}.", name)
        ours = re.sub(r"(^|\.)(c[123])\.(weight|bias)$", r"\1\2.body.0.\3", ours)
        found[ours] = value
    return found


def load_into(net: Net, weights: Weights, path: Path) -> None:
    """Load every weight; raise TrainError if one is missing, unknown, not finite or of wrong shape.

    A recursive network accepts its shared block under three names if their weights are equal.
    DCSCN accepts fewer filters than its own; the others are dead then.
    """
    weights = dict(weights)
    if isinstance(net, Carn) and net.config.recursive:
        _drop_repeated(weights, path)
    own = net.state_dict()
    for what, names in (("lacks", set(own) - set(weights)), ("also has", set(weights) - set(own))):
        if names:
            shown = ", ".join(sorted(names)[:3]) + (" ..." if len(names) > 3 else "")
            raise TrainError(f"{path} is of another network: it {what} {shown}")
    weights = _adapt_weights(net, weights, path)
    for name, value in weights.items():
        if not isinstance(value, Tensor) or value.shape != own[name].shape:
            raise TrainError(f"{path} is of another network: {name} has another shape")
        if value.layout is not torch.strided or not value.isfinite().all():
            raise TrainError(f"{path} is damaged: {name} is not a dense array of finite numbers")
    net.load_state_dict(weights)


def _drop_repeated(weights: Weights, path: Path) -> None:
    for name in [n for n in weights if re.match(r"b[123]\.b[23]\.", n)]:
        first = re.sub(r"^(b[123])\.b[23]\.", r"\1.b1.", name)
        if first not in weights or not torch.equal(weights[first], weights[name]):
            raise TrainError(f"{path} is of another network: {name} is not shared")
        del weights[name]


def load_fitting_weights(net: Net, weights: Weights, path: Path) -> list[str]:
    """Load weights that fit by name and shape (of another scale, for example).

    A narrower DCSCN takes the most useful filters; a wider one keeps its initial weights for the
    additional ones. Returns the names of the weights not loaded. Raises TrainError if less than
    half fit.
    """
    own = net.state_dict()
    weights = _adapt_weights(net, weights, path, own)
    fitting = {
        name: value
        for name, value in weights.items()
        if name in own and isinstance(value, Tensor) and own[name].shape == value.shape
    }
    if 2 * len(fitting) < len(own):
        raise TrainError(f"{path} is of another network: {len(fitting)} of {len(own)} weights fit")
    net.load_state_dict(fitting, strict=False)
    return sorted(set(own) - set(fitting))


def load_missing_weights(net: Net, missing: list[str], path: Path) -> list[str]:
    """Load those of the weights `missing` that another file has; return the names still missing.

    Raises TrainError for a file that is damaged, of another network, or has none of them.
    """
    weights = _adapt_weights(net, read_weights(path, net)[0], path)
    given = {name: value for name, value in weights.items() if name in missing}
    if not given:
        raise TrainError(f"--from {path} has no weights that the previous files lack")
    net.load_state_dict(given, strict=False)
    return [name for name in missing if name not in given]


def _adapt_weights(net: Net, weights: Weights, path: Path, start: Weights | None = None) -> Weights:
    """Convert weights to fit `net`: a DCSCN's width, an rt's structure, CARN-M's to CARN."""
    try:
        if isinstance(net, Dcscn):
            return _adapt_width(net, weights, start)
        if isinstance(net, Rt):
            return grow_weights(net, weights)
        if isinstance(net, Carn):
            return grow_carn_weights(net, weights)
    except (ValueError, RuntimeError, KeyError, IndexError, TypeError, AttributeError) as exc:
        raise TrainError(f"{path} is of another network: {exc}") from exc
    return weights


def _adapt_width(net: Dcscn, weights: Weights, start: Weights | None) -> Weights:
    """Convert weights to the number of feature filters of `net`, if the number of layers agrees.

    With `start`, the initial weights of a training, `net` may also have fewer filters (it gets the
    most useful ones), and additional filters take their weights from `start`.
    """
    features = net.config.features
    given = widths(weights)
    if given == features or len(given) != len(features):
        return weights
    if start is not None and fits_into(features, given):
        return narrow_weights(weights, features)
    return widen_weights(weights, features, start)


def _from_onnx(path: Path, net: Net) -> Weights:
    try:
        model = onnx.load(str(path))
    except Exception as exc:  # protobuf's errors have no common class
        raise TrainError(f"{path} is not an ONNX network: {exc}") from exc
    values = {
        value.name: torch.from_numpy(numpy_helper.to_array(value).copy())
        for value in model.graph.initializer
    }
    try:
        slopes = [values[n.input[1]].flatten() for n in model.graph.node if n.op_type == "PRelu"]
        if isinstance(net, Carn):
            return _undeployed_carn(values, net)
        if isinstance(net, Dcscn):
            return _undeployed_dcscn(values, slopes, net)
        if isinstance(net, Rt):
            return _undeployed_rt(values)
        return _undeployed_csrcnn(values, net)
    except (KeyError, IndexError, RuntimeError) as exc:
        raise TrainError(f"{path} is of another network: {exc}") from exc


def _undeployed_dcscn(values: Weights, slopes: list[Tensor], net: Dcscn) -> Weights:
    """Undo `DeployedDcscn`: split the merged A1 and B1; drop the skip, which is constant."""
    found: Weights = {}

    def take(unit: str, weight: Tensor, bias: Tensor, slope: Tensor) -> None:
        found[f"{unit}.conv.weight"], found[f"{unit}.conv.bias"] = weight, bias
        found[f"{unit}.act.weight"] = slope

    count = len(net.units)
    for i in range(count):
        layer = f"features.{i}.0"
        take(f"features.{i}", values[f"{layer}.weight"], values[f"{layer}.bias"], slopes[i])
    weight, bias, slope = values["a1b1.0.weight"], values["a1b1.0.bias"], slopes[count]
    n = len(weight) - values["b2.0.weight"].shape[1]  # b2 reads the rest
    take("a1", weight[:n], bias[:n], slope[:n])
    take("b1", weight[n:], bias[n:], slope[n:])
    take("b2", values["b2.0.weight"], values["b2.0.bias"], slopes[count + 1])
    return found | {f"last.{part}": values[f"last.{part}"] for part in ("weight", "bias")}


def _undeployed_rt(values: Weights) -> Weights:
    """Undo `DeployedRt`: a layer's merged kernel becomes its only branch, the 3x3 one."""
    found: Weights = {}
    count = sum(name.endswith(".bias") for name in values)
    for k in range(count):
        name = f"layers.{k}" if k < count - 1 else "last"
        kernel = found[f"{name}.weight"] = values[f"layers.{2 * k}.weight"]
        found[f"{name}.bias"] = values[f"layers.{2 * k}.bias"]
        found[f"{name}.squeeze"] = kernel.new_zeros(0, kernel.shape[1])
        found[f"{name}.spread"] = kernel.new_zeros(len(kernel), 0, 3, 3)
        found[f"{name}.same"] = kernel.new_zeros(0)
    return found


def _undeployed_csrcnn(values: Weights, net: Csrcnn) -> Weights:
    """Undo `DeployedCsrcnn`: use the minimum-norm last layer that gives the same picture."""
    depth = len({name.split(".")[1] for name in values if name.startswith("levels.")})
    found = {re.sub(r"^last\.", f"levels.{depth}.", name): value for name, value in values.items()}
    back = torch.linalg.pinv(values["exit.weight"][:, :, 0, 0])  # [64, 3]
    last = f"levels.{depth}.refined"
    found[f"{last}.weight"] = torch.einsum("co,oihw->cihw", back, values["last.refined.weight"])
    found[f"{last}.bias"] = back @ values["last.refined.bias"]
    found["exit.bias"] = values["exit.bias"] - bias_of(net.add_mean.shifter)
    shift = {f"add_mean.{k}": v for k, v in net.add_mean.state_dict().items()}
    return {name: value for name, value in (found | shift).items() if name in net.state_dict()}


def _undeployed_carn(values: Weights, net: Carn) -> Weights:
    """Undo `DeployedCarn`: names, exit convolution before the shuffle, mean in its bias."""
    outputs = values["exit.bias"].numel()
    r = round((outputs / 3) ** 0.5)  # the last shuffle's factor
    scale = 4 if r == 2 and "upsample.3.weight" in values else r
    found, own = Weights(), net.state_dict()
    for name, value in values.items():
        ours = re.sub(r"^blocks\.(\d)", lambda m: f"b{int(m[1]) + 1}", name)
        ours = re.sub(r"^points\.(\d)", lambda m: f"c{int(m[1]) + 1}", ours)
        ours = re.sub(r"^upsample\.", f"upsample.up{scale}.body.", ours)
        if (ours in own or ".body.4." in ours) and not ours.startswith("exit"):
            found[ours] = value
    n = net.config.channels
    fused, exit_ = values["exit.weight"].reshape(3, r, r, n, r, r, 3, 3), torch.zeros(3, n, 3, 3)
    for ky in range(3):
        ly, py = divmod(ky - 1, r)  # phase (0, 0) reads every tap once
        for kx in range(3):
            lx, px = divmod(kx - 1, r)
            exit_[:, :, ky, kx] = fused[:, 0, 0, :, py, px, ly + 1, lx + 1]
    mean = bias_of(net.add_mean.shifter)
    shift = {f"add_mean.{k}": v for k, v in net.add_mean.state_dict().items()}
    return found | shift | {"exit.weight": exit_, "exit.bias": values["exit.bias"][:: r * r] - mean}
