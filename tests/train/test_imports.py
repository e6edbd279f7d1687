"""Tests of imported weights: the authors' checkpoints, and our ONNX files to continue training."""

import json
import os
import re
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from torch import Tensor

from tests.networks import ALL_NETWORKS, channels, roughened
from tests.training import TINY
from train.__main__ import main
from train.errors import TrainError
from train.fit.recipe import Recipe
from train.fit.trainer import Trainer
from train.measure.evaluate import evaluate
from train.measure.shipped import openvino_enlarge
from train.nets import NETS, Carn, CarnConfig, Net, build
from train.ship import export
from train.ship.export import Target, difference, export_scale
from train.ship.imports import (
    import_public,
    load_fitting_weights,
    load_into,
    load_missing_weights,
    read_weights,
)
from train.ship.provenance import read

pytestmark = pytest.mark.usefixtures("one_thread")
PCARNS = ["pcarn", "pcarn-l1", "pcarn-m", "pcarn-m-l1"]
Weights = dict[str, Tensor]


@cache
def _onnx(name: str, scale: int) -> tuple[Net, bytes]:
    """Return a random network and its ONNX file's content."""
    net = roughened(build(name, (scale,)))
    return net, export.to_onnx(net, scale).SerializeToString()


def _run(*words: object) -> Result:
    return CliRunner().invoke(main, ["import", *map(str, words)])


def _entries(engines: Path, name: str) -> dict[str, Any]:
    models = json.loads((engines / "manifest.json").read_text("utf-8"))["models"]
    return models[name]


# the authors' checkpoints


def test_official_carn_m_is_exported_and_reaches_its_psnr_on_set5(
    data: Path, tmp_path: Path
) -> None:
    path = data.parent / "reference/carn_m.pth"
    if not path.exists():
        pytest.skip(f"{path} is missing: no official weights to test on")
    result = _run(path, "--model", "carn-m", "--output", tmp_path)
    assert result.exit_code == 0, result.output
    for scale, published in ((4, 31.88), (3, 34.07), (2, 37.69))[: 3 if ALL_NETWORKS else 1]:
        file = tmp_path / f"carn-m/x{scale}.onnx"
        enlarge = openvino_enlarge(file.read_bytes())
        score = evaluate(enlarge, data / "images/test/set5", scale, "rgb")
        assert score["psnr"] == pytest.approx(published, abs=0.02)
        assert str(file) in result.stdout
    [(_, stage)] = read(tmp_path / "carn-m")["x4.onnx"].stages
    assert stage["imported"] == "carn_m.pth"
    assert "Weights of others" in (tmp_path / "README.md").read_text("utf-8")


def _public_pcarn(config: CarnConfig, seed: int = 5) -> Weights:
    """Return random PCARN weights with the names of the authors' classes and files."""
    torch.manual_seed(seed)
    n, found = config.channels, {}

    def conv(name: str, source: int, target: int, kernel: int, groups: int = 1) -> None:
        fan = source // groups * kernel**2
        found[f"{name}.weight"] = torch.randn(target, source // groups, kernel, kernel) / fan**0.5
        found[f"{name}.bias"] = 0.1 * torch.randn(target)

    for name, sign in (("sub_mean", -1), ("add_mean", 1)):
        found[f"{name}.shifter.weight"] = torch.eye(3).view(3, 3, 1, 1)
        found[f"{name}.shifter.bias"] = sign * torch.tensor([0.4488, 0.4371, 0.4040])
    conv("entry", 3, n, 3)
    for block in ("b1", "b2", "b3"):
        for k in (1, 2, 3):
            conv(f"{block}.b{k}.conv1", n, n, 3, config.groups)
            conv(f"{block}.b{k}.conv2", n, n, 3, config.groups)
            if config.efficient:
                conv(f"{block}.b{k}.pw", n, n, 1)
            if config.recursive and k > 1:  # one shared module with three names
                shared = {m for m in found if m.startswith(f"{block}.b1.")}
                found |= {m.replace(".b1.", f".b{k}."): found[m] for m in shared}
            conv(f"{block}.c{k}", (k + 1) * n, n, 1)
    for k in (1, 2, 3):
        conv(f"c{k}", (k + 1) * n, n, 1)
    for scale, steps in ((2, (2,)), (3, (3,)), (4, (2, 2))):
        for i, r in enumerate(steps):
            conv(f"upsample.up{scale}.body.{3 * i}", n, r * r * n, 3, config.groups)
    conv("exit", n, 3, 3)
    return found


def _direct(name: str, public: Weights) -> Net:
    """Build the network and copy the public weights to its layers one by one."""
    net = build(name)
    assert isinstance(net, Carn)
    layers = {"conv1": 0, "conv2": 2, "pw": 4}
    with torch.no_grad():
        for own, parameter in net.named_parameters():
            public_name = own.replace(".body.0.", ".") if re.search(r"\bc\d", own) else own
            for word, index in layers.items():
                public_name = re.sub(rf"(b\d\.b\d)\.body\.{index}\.", rf"\1.{word}.", public_name)
            parameter.copy_(public[public_name])
    return net.eval()


@pytest.mark.parametrize("name", PCARNS)
def test_pcarn_under_its_authors_names_computes_the_same_here(tmp_path: Path, name: str) -> None:
    config = NETS[name]
    assert isinstance(config, CarnConfig)
    public = _public_pcarn(config)
    torch.save(public, tmp_path / "public.pth")
    net = build(name)
    weights, history = read_weights(tmp_path / "public.pth", net)
    load_into(net, weights, tmp_path / "public.pth")
    assert history == [{"imported": "public.pth", "sha256": history[0]["sha256"]}]
    x, twin = torch.rand(1, 3, 7, 9), _direct(name, public)
    with torch.inference_mode():
        for scale in (2, 3, 4):
            assert torch.equal(net.eval()(x, scale), twin(x, scale))


def test_import_writes_every_scale_of_pcarn_and_whose_weights_they_are(tmp_path: Path) -> None:
    config = NETS["pcarn-m"]
    assert isinstance(config, CarnConfig)
    public = _public_pcarn(config)
    torch.save(public, tmp_path / "PCARN-M.pth")
    result = _run(tmp_path / "PCARN-M.pth", "--model", "pcarn-m", "--output", tmp_path / "out")
    assert result.exit_code == 0, result.output
    files = [tmp_path / f"out/pcarn-m/x{scale}.onnx" for scale in (2, 3, 4)]
    assert result.stdout.split() == [str(file) for file in files]
    for file, scale in zip(files, (2, 3, 4), strict=True):
        twin = _direct("pcarn-m", public)
        assert difference(twin, scale, openvino_enlarge(file.read_bytes()), 9, 7) < 1e-5
    for chain in read(tmp_path / "out/pcarn-m").values():
        assert [stage["imported"] for _, stage in chain.stages] == ["PCARN-M.pth"]
    for entry in _entries(tmp_path / "out", "pcarn-m").values():
        assert entry["licence"] != "Apache-2.0"
    page = (tmp_path / "out/README.md").read_text("utf-8")
    assert "the mobile form after its adversarial training. Weights of others" in page
    assert "| imported | - | weights of others: PCARN-M.pth |" in page


# our own ONNX


@pytest.mark.parametrize(
    ("name", "scale"),
    [("c-dcscn", 2), ("dcscn", 3), ("carn-m", 4)]
    + ([("carn-m", 2), ("carn-m", 3), ("pcarn-m", 4)] if ALL_NETWORKS else []),
)
def test_our_onnx_is_read_back_into_the_network_it_was_made_of(
    tmp_path: Path, name: str, scale: int
) -> None:
    path = tmp_path / "net.onnx"
    net, content = _onnx(name, scale)
    path.write_bytes(content)
    twin = build(name, (scale,)).eval()
    weights, _ = read_weights(path, twin)
    load_into(twin, weights, path)
    for own, value in net.state_dict().items():
        assert float((weights[own] - value).abs().max()) < 1e-6, own
    x = torch.rand(1, channels(net), 11, 8)
    with torch.inference_mode():
        assert float((twin(x, scale) - net(x, scale)).abs().max()) < 1e-5


def test_history_of_an_onnx_comes_from_the_provenance_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    history = [{"imported": "first.pth", "sha256": "0" * 64}]
    target = Target(engines=tmp_path, model="c-dcscn-stream")
    path = export_scale(roughened(build("c-dcscn")), 2, target, history)
    assert read_weights(path, build("c-dcscn"))[1] == history
    monkeypatch.chdir(path.parent)
    assert read_weights(Path(path.name), build("c-dcscn"))[1] == history
    elsewhere = tmp_path / "x2.onnx"
    elsewhere.write_bytes(path.read_bytes())
    assert [s["imported"] for s in read_weights(elsewhere, build("c-dcscn"))[1]] == ["x2.onnx"]


def test_history_of_our_checkpoint_ends_with_its_own_training(tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    trainer = Trainer.new("c-dcscn", Recipe(steps=9))
    trainer.step, trainer.history = 4, [{"imported": "first.pth", "sha256": ""}]
    roughened(trainer.average)
    trainer.save(path)
    net = build("c-dcscn")
    weights, history = read_weights(path, net)
    assert [s.get("imported") or s["step"] for s in history] == ["first.pth", 4]
    load_into(net, weights, path)
    for own, value in trainer.average.state_dict().items():
        assert torch.equal(net.state_dict()[own], value)


def test_a_body_for_one_scale_starts_a_network_of_another(tmp_path: Path) -> None:
    body, path = roughened(build("carn-m", (2,))), tmp_path / "x2.pth"
    torch.save(body.state_dict(), path)
    net = build("carn-m", (4,))
    left = load_fitting_weights(net, read_weights(path, net)[0], path)
    assert {name.split(".")[1] for name in left} == {"up4"}
    assert torch.equal(net.state_dict()["b2.b1.body.0.weight"], body.b2.b1.body[0].weight)  # type: ignore[union-attr,index]
    with pytest.raises(TrainError, match=r"of another network: 0 of \d+ weights fit"):
        load_fitting_weights(build("c-dcscn"), body.state_dict(), path)


# refused files


class _Code:
    """Makes a folder when unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.folder),)


def _refused(path: Path, name: str, tmp_path: Path) -> str:
    """Import a file as network `name`; return the one-line error, and assert no output."""
    output = tmp_path / "out"
    with pytest.raises(TrainError):
        import_public(path, Target(engines=output, model=name))
    result = _run(path, "--model", name, "--output", output)
    assert result.exit_code == 1
    [line] = result.stderr.splitlines()
    assert str(path) in line
    assert not output.exists()
    return line


def _file(tmp_path: Path, content: object, zipped: bool = True) -> Path:
    path = tmp_path / "net.pth"
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    return path


def _own(name: str) -> Weights:
    return roughened(build(name)).state_dict()


@pytest.mark.parametrize(
    ("name", "change", "reason"),
    [
        ("carn-m", lambda w: w | {"extra.weight": torch.zeros(2)}, "also has extra.weight"),
        ("carn-m", lambda w: {n: w[n] for n in w if n != "exit.bias"}, "lacks exit.bias"),
        ("carn", lambda w: w, r"lacks b1.b2"),  # CARN-M's weights for CARN
        ("csrcnn", lambda w: w, r"lacks entry.0.bias, .*, .* \.\.\."),
        ("carn-m", lambda w: w | {"exit.bias": torch.zeros(4)}, "exit.bias has another shape"),
        ("carn-m", lambda w: w | {"exit.bias": "abc"}, "exit.bias has another shape"),
        ("carn-m", lambda w: w | {"exit.bias": w["exit.bias"] / 0}, "exit.bias is not a dense"),
        ("carn-m", lambda w: w | {"exit.bias": w["exit.bias"].to_sparse()}, "exit.bias is not a"),
        ("pcarn-m", lambda w: w, "CARN and PCARN are not the same"),
        ("carn-m", list, "contains no named weights"),
        ("carn-m", lambda w: dict(enumerate(w.values())), "contains no named weights"),
        ("carn-m", lambda w: {"average": w}, "not a checkpoint of this program"),
    ],
)
def test_weights_of_another_network_are_refused_in_one_line(
    tmp_path: Path, name: str, change: Callable[[Weights], object], reason: str
) -> None:
    path = _file(tmp_path, change(_own("carn-m")))
    assert re.search(reason, _refused(path, name, tmp_path))


@pytest.mark.parametrize(
    ("own", "scale", "name"),
    [("c-dcscn", 2, "dcscn"), ("c-dcscn", 2, "carn-m"), ("carn-m", 2, "c-dcscn"),
     ("carn-m", 2, "carn-m"), ("dcscn", 3, "dcscn"), ("c-dcscn", 2, "csrcnn")],
)  # fmt: skip
def test_an_onnx_of_another_network_or_scales_is_refused_in_one_line(
    tmp_path: Path, own: str, scale: int, name: str
) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(_onnx(own, scale)[1])
    assert "is of another network" in _refused(path, name, tmp_path)


def test_recursive_blocks_that_are_not_shared_are_refused(tmp_path: Path) -> None:
    config = NETS["pcarn-m"]
    assert isinstance(config, CarnConfig)
    public = _public_pcarn(config)
    public["b2.b3.conv1.weight"] = public["b2.b3.conv1.weight"] + 1e-6
    path = _file(tmp_path, public)
    assert "b2.b3.body.0.weight is not shared" in _refused(path, "pcarn-m", tmp_path)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "older format"])
@pytest.mark.parametrize("keep", [0, 7, 300, 0.3, 0.8, -1])
def test_a_truncated_file_is_refused_in_one_line(tmp_path: Path, keep: float, zipped: bool) -> None:
    path = _file(tmp_path, _own("c-dcscn"), zipped)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(keep * len(whole)) if 0 < keep < 1 else int(keep)])
    assert re.search("damaged|not a file of weights", _refused(path, "c-dcscn", tmp_path))


def test_a_changed_bit_in_a_weight_is_noticed(tmp_path: Path) -> None:
    weights = _own("c-dcscn")
    path = _file(tmp_path, weights)
    content = bytearray(path.read_bytes())
    content[content.index(weights["b2.conv.weight"].numpy().tobytes()) + 9] ^= 1
    path.write_bytes(content)
    assert "wrong checksum of" in _refused(path, "c-dcscn", tmp_path)


def test_damage_anywhere_in_the_older_format_never_ends_in_a_traceback(tmp_path: Path) -> None:
    path = _file(tmp_path, _own("c-dcscn"), zipped=False)
    whole, rng, refused, net = path.read_bytes(), np.random.default_rng(2), 0, build("c-dcscn")
    for at in rng.integers(0, 4000, 60):  # the part with names and sizes
        content = bytearray(whole)
        content[at] ^= 1 << rng.integers(8)
        path.write_bytes(content)
        try:
            load_into(net, read_weights(path, net)[0], path)
        except TrainError as exc:
            refused += 1
            assert "\n" not in str(exc)
    assert refused > 30


@pytest.mark.parametrize("cut", [0, 100, 50_000])
def test_a_truncated_onnx_is_refused_in_one_line(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(_onnx("c-dcscn", 2)[1][:cut])
    assert "net.onnx is " in _refused(path, "c-dcscn", tmp_path)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "older format"])
def test_a_file_that_holds_code_is_refused_and_the_code_does_not_run(
    tmp_path: Path, zipped: bool
) -> None:
    made = tmp_path / "made"
    path = _file(tmp_path, _own("carn-m") | {"exit.bias": _Code(made)}, zipped)
    assert "contains more than weights" in _refused(path, "carn-m", tmp_path)
    assert not made.exists()
    torch.load(path, weights_only=False)
    assert made.exists()  # unpickling does run the code


def test_a_file_that_is_not_there_is_said_in_one_line(tmp_path: Path) -> None:
    for name in ("gone.pth", "gone.onnx"):
        path = tmp_path / name
        with pytest.raises(TrainError, match=f"{name}.*No such file") as caught:
            read_weights(path, build("c-dcscn"))
        assert "\n" not in str(caught.value)
    result = _run(tmp_path / "gone.pth", "--model", "carn-m", "--output", tmp_path)
    assert result.exit_code == 2
    assert "gone.pth' does not exist" in result.stderr


def test_further_files_give_what_the_first_lacks(tmp_path: Path) -> None:
    """CARN's scales share a body; each scale has a separate upsampling unit."""
    sources = {}
    for scale in (2, 3):
        trainer = Trainer.new("carn-m", replace(TINY, seed=scale), (scale,), channels=16)
        sources[scale] = trainer.average.state_dict()
        trainer.save(tmp_path / f"x{scale}.pt")
    net = build("carn-m", (2, 3, 4), channels=16)
    first = tmp_path / "x2.pt"
    left = load_fitting_weights(net, read_weights(first, net)[0], first)
    left = load_missing_weights(net, left, tmp_path / "x3.pt")
    for name, value in net.state_dict().items():
        if name not in left:
            assert torch.equal(value, sources[3 if ".up3." in name else 2][name])
    assert left and all(".up4." in name for name in left)
    with pytest.raises(TrainError, match="has no weights that"):
        load_missing_weights(net, left, first)


@pytest.mark.parametrize("load", [load_into, load_fitting_weights])
def test_an_rt_without_branches_goes_on_from_one_that_has_them(
    load: Callable[[Net, Weights, Path], object],
) -> None:
    whole = roughened(build("rt", (2,)))
    for name, parameter in whole.named_parameters():
        if name.endswith((".spread", ".same")):
            torch.nn.init.normal_(parameter, 0, 0.05)
    plain = build("rt", (2,), expand=0, identity=False)
    load(plain, whole.state_dict(), Path("rt.pt"))
    x = torch.rand(1, 1, 9, 12)
    with torch.no_grad():
        torch.testing.assert_close(plain(x, 2), whole(x, 2), rtol=0, atol=1e-4)
    back = build("rt", (2,))
    load(back, plain.state_dict(), Path("rt.pt"))
    with torch.no_grad():
        torch.testing.assert_close(back(x, 2), plain(x, 2), rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("width", "depth"), [(32, 8), (48, 8), (32, 12), (48, 12)], ids=["", "wider", "deeper", "both"]
)
def test_a_larger_rt_begins_as_the_smaller_one_and_all_of_it_learns(width: int, depth: int) -> None:
    small = roughened(build("rt", (2,)))
    large = build("rt", (2,), width=width, depth=depth, expand=0, identity=False)
    load_fitting_weights(large, small.state_dict(), Path("rt.pt"))
    x = torch.rand(1, 1, 9, 12)
    torch.testing.assert_close(large(x, 2), small(x, 2), rtol=0, atol=1e-5)
    before = {name: p.detach().clone() for name, p in large.named_parameters()}
    optimiser = torch.optim.SGD(large.parameters(), 0.1)
    for _ in range(2):  # the new filters get gradients from the second step on
        optimiser.zero_grad()
        large(x, 2).square().mean().backward()
        optimiser.step()
    for name, p in large.named_parameters():
        if name.endswith("weight"):
            moved = (p - before[name]).flatten(1).abs().sum(1)
            assert moved.count_nonzero() > 0.8 * len(p), name


def test_a_larger_rt_for_another_scale_takes_all_but_the_last_layer() -> None:
    small = roughened(build("rt", (2,)))
    large = build("rt", (3,), width=48)
    left = load_fitting_weights(large, small.state_dict(), Path("rt.pt"))
    assert left and all(name.startswith("last.") for name in left)


def test_an_rt_that_is_too_large_or_lacks_a_layer_is_refused() -> None:
    weights = build("rt", (2,), expand=0, identity=False).state_dict()
    lacking = {k: v for k, v in weights.items() if not k.startswith("layers.4.")}
    small, large = build("rt", (2,), depth=4), build("rt", (2,), depth=12)
    for net, given in ((small, weights), (build("rt", (2,), width=16), weights), (large, lacking)):
        with pytest.raises(TrainError, match=r"^rt\.pt is of another network: "):
            load_fitting_weights(net, given, Path("rt.pt"))


@pytest.mark.parametrize("name", ["layers.0.squeeze", "last.weight"])
def test_an_rt_of_other_branches_that_is_damaged_is_refused(name: str) -> None:
    weights: dict[str, Any] = build("rt", (2,)).state_dict() | {name: "abc"}
    plain = build("rt", (2,), expand=0, identity=False)
    for load in (load_into, load_fitting_weights):
        with pytest.raises(TrainError, match=r"^rt\.pt is of another network: "):
            load(plain, weights, Path("rt.pt"))
