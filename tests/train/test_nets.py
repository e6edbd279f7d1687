"""Tests of the networks against the papers (sizes, layers, scales), and of the deploy forms."""

from collections.abc import Mapping
from itertools import product

import pytest
import torch
from click.testing import CliRunner
from torch import Tensor, nn
from torch.nn.functional import conv2d, conv_transpose2d, interpolate, pixel_shuffle, prelu

from tests.networks import channels, own_part, roughened
from train.__main__ import main
from train.fit.initialise import initialise
from train.measure.counting import Size, multadds, parameters, receptive_field_radius, sizes
from train.nets import (
    NETS,
    Carn,
    CarnConfig,
    Csrcnn,
    CsrcnnConfig,
    Dcscn,
    Net,
    bicubic,
    build,
    from_config,
    settings,
)
from train.nets.common import bias_of
from train.ship.deploy import deploy

pytestmark = pytest.mark.usefixtures("one_thread")
CARNS = [name for name, config in NETS.items() if isinstance(config, CarnConfig)]
DCSCNS = ["dcscn", "c-dcscn"]


def _all_scales(name: str) -> list[tuple[Net, int]]:
    """Return a random network and the scale, for each scale of the network in the papers."""
    if name in DCSCNS:
        return [(roughened(build(name, (scale,))), scale) for scale in (2, 3, 4)]
    narrow = {"channels": 16} if name == "csrcnn" else {}  # the same layers in a tenth of the time
    net = roughened(build(name, **narrow))
    return [(net, scale) for scale in net.scales]


def _differ(ours: Tensor, theirs: Tensor) -> float:
    assert ours.shape == theirs.shape
    return float((ours - theirs).abs().max())


# sizes


@pytest.mark.parametrize(
    ("name", "count"),
    [("carn", 1_591_939), ("carn-m", 414_787), ("dcscn", 244_197), ("c-dcscn", 26_176)],
)
def test_a_network_has_the_papers_parameters(name: str, count: int) -> None:
    assert parameters(build(name)) == count


@pytest.mark.parametrize(
    ("name", "thousands"),
    [("carn", 1592), ("carn-nl", 1481), ("carn-ng", 1555), ("carn-baseline", 1444)],
)
def test_an_ablation_has_the_parameters_of_table_2(name: str, thousands: int) -> None:
    assert round(parameters(build(name)) / 1000) == thousands


@pytest.mark.parametrize("name", ["carn-m", "pcarn-m"])
def test_the_papers_412k_are_convolution_weights_with_the_mean_shifts(name: str) -> None:
    weights = [m.weight for m in build(name).modules() if isinstance(m, nn.Conv2d)]
    assert sum(w.numel() for w in weights) == 412_050
    assert sum(w.numel() for w in weights if w.requires_grad) == 412_050 - 2 * 9


@pytest.mark.parametrize(("name", "twin"), [("pcarn", "carn"), ("pcarn-m", "carn-m")])
def test_pcarn_has_not_a_parameter_more_than_carn(name: str, twin: str) -> None:
    counts = {parameters(build(n)) for n in (name, f"{name}-l1", twin)}
    assert len(counts) == 1


@pytest.mark.parametrize(
    ("thousands", "local", "everywhere"),
    [(963, False, False), (1000, False, True), (1074, True, False), (1111, True, True)],
)
def test_an_ablation_has_the_size_of_pcarns_table_1(
    thousands: int, local: bool, everywhere: bool
) -> None:
    """Count x4 only, in truncated thousands; ReLUs and the long skip have no parameters."""
    cascades = {"local_cascade": local, "global_cascade": everywhere}
    for point_relu, long_skip in product((True, False), repeat=2):
        net = build("carn", (4,), **cascades, point_relu=point_relu, long_skip=long_skip)
        assert parameters(net) // 1000 == thousands


@pytest.mark.parametrize(
    ("name", "scale", "published"),
    [
        ("carn", 2, 222.8),
        ("carn", 3, 118.8),
        ("carn", 4, 90.9),
        ("carn-m", 2, 91.2),
        ("carn-m", 3, 46.1),
        ("carn-m", 4, 32.5),
        ("pcarn", 4, 90.9),
        ("pcarn-m", 4, 32.5),
    ],
)
def test_a_network_has_the_papers_multadds(name: str, scale: int, published: float) -> None:
    assert multadds(build(name), scale) / 1e9 == pytest.approx(published, abs=0.05)


@pytest.mark.parametrize("output", [1280 * 720, 1920 * 1080])
def test_dcscns_multadds_are_its_weights_for_every_lr_pixel(output: int) -> None:
    net = build("c-dcscn", (3,))
    weights = sum(m.weight.numel() for m in net.modules() if isinstance(m, nn.Conv2d))
    assert multadds(net, 3, output) == weights * output // 9


def test_multadds_of_csrcnn_are_those_of_its_layers() -> None:
    config = CsrcnnConfig(channels=2, blocks=(1,), residuals=1, convolutions=3, scales=(2,))
    # F1 has 1/4 of the pixels, F2 1/16; a transposed convolution is counted at its input's size
    unit = 2 * 2 + 9 * 4 / 4 + 9 * 4 / 16 + 9 * 4 / 16 + 9 * 4 * 2 / 16 + 9 * 4 / 4
    lr = 9 * 3 * 2 + 9 * 4 + unit + 9 * 4 + 16 * 4  # entry, unit, closing layer, enlargement
    hr = 2 * 9 * 4 + 3 * 9 * 4 + 9 * 4 + 2 * 3  # residual block, three more, closing layer, exit
    assert multadds(Csrcnn(config), 2, 4000) == 1000 * (lr + 4 * hr)


@pytest.mark.parametrize(
    ("blocks", "scales", "thousands"),
    [
        ((4,), (2,), 1549),  # Table VI
        ((4, 4), (2, 4), 3059),  # Tables IV (U4TR1 U4TR1) and VI
        ((4, 4, 4), (2, 4, 8), 4568),  # Table VI
        ((3, 3), (2, 4), 2583),  # Table IV, U3TR1 U3TR1
    ],
)
@pytest.mark.parametrize("back_projection", [True, False])
def test_csrcnn_has_the_parameters_of_tables_iv_and_vi(
    blocks: tuple[int, ...], scales: tuple[int, ...], thousands: int, back_projection: bool
) -> None:
    config = CsrcnnConfig(blocks=blocks, scales=scales, back_projection=back_projection)
    assert round(parameters(Csrcnn(config)) / 1000) == thousands


@pytest.fixture(scope="module")
def counted() -> list[Size]:
    return list(sizes())


def test_info_lists_every_network_and_scale_once(counted: list[Size]) -> None:
    listed = [(size.name, size.scales, size.what) for size in counted]
    assert len(set(listed)) == len(listed)
    by_scale = {(name, scale) for name, scale, _ in listed}
    for name, config in NETS.items():
        scales = (2, 3, 4) if name in DCSCNS else config.scales
        one = name.removesuffix("-l1")  # the same network
        assert by_scale >= {(one, f"x{scale}") for scale in scales}, name


def test_info_prints_ours_beside_the_papers_figures() -> None:
    lines = CliRunner().invoke(main, ["info"], catch_exceptions=False).stdout.splitlines()
    words = [line.split() for line in lines]
    for row in (
        ["carn", "x2,", "x3,", "x4", "parameters,", "K", "1,591.9", "1,592.0"],
        ["carn", "x3", "MultAdds,", "G", "118.8", "118.8"],
        ["carn-m", "x4", "MultAdds,", "G", "32.5", "32.5"],
        ["carn-m", "x2,", "x3,", "x4", "parameters,", "K", "412.1", "412.0"],
        ["dcscn", "x2", "complexity,", "K", "244.2", "244.1"],
        ["table", "1", "baseline", "x4", "parameters,", "K", "963.7", "963.0"],
        ["table", "1", "no", "ReLU", "x4", "parameters,", "K"],
        ["table", "1", "global", "x4", "parameters,", "K", "1,000.7", "1,000.0"],
        ["table", "1", "local", "x4", "parameters,", "K", "1,074.8", "1,074.0"],
        ["table", "1", "both", "x4", "parameters,", "K", "1,111.9", "1,111.0"],
        ["csrcnn", "x2", "parameters,", "K", "1,548.7", "1,549.0"],
        ["csrcnn", "x4", "parameters,", "K", "3,058.6", "3,059.0"],
        ["csrcnn", "x8", "parameters,", "K", "4,568.4", "4,568.0"],
        ["csrcnn", "BP-U", "parameters,", "K", "238.0", "238.0"],
    ):
        assert any(line[: len(row)] == row for line in words), row


def test_figures_agree_with_the_papers_as_far_as_those_have_digits(counted: list[Size]) -> None:
    """Skip the parameters of PCARN's paper, in millions; a note of `info` explains them."""
    compared = 0
    for size in counted:
        name = size.name
        if size.paper is None:
            continue
        if name.startswith(("pcarn", "table 1")) and "MultAdds" not in size.what:
            assert size.note, name
        else:
            digit = 1.0 if name.startswith(("carn", "csrcnn")) and "K" in size.what else 0.1
            assert abs(size.ours - size.paper) < digit, (name, size.scales)
            compared += 1
    assert compared == 21


# layers


def _carn_by_hand(weights: Mapping[str, Tensor], x: Tensor, scale: int, c: CarnConfig) -> Tensor:
    """Compute CARN or PCARN from the papers' equations and figures with named weights."""

    def conv(x: Tensor, name: str, groups: int = 1) -> Tensor:
        weight, bias = weights[f"{name}.weight"], weights[f"{name}.bias"]
        return conv2d(x, weight, bias, padding=weight.shape[-1] // 2, groups=groups)

    def point(x: list[Tensor], name: str) -> Tensor:
        y = conv(torch.cat(x, 1), f"{name}.body.0")
        return y.relu() if c.point_relu else y

    def residual(x: Tensor, name: str) -> Tensor:
        if c.efficient:
            y = conv(x, f"{name}.body.0", c.groups).relu()
            y = conv(y, f"{name}.body.2", c.groups).relu()
            return (conv(y, f"{name}.body.4") + x).relu()
        return (conv(conv(x, f"{name}.body.0").relu(), f"{name}.body.2") + x).relu()

    def block(x: Tensor, name: str) -> Tensor:
        kept, o = [x], x
        for k in (1, 2, 3):
            kept.append(residual(o, f"{name}.b{1 if c.recursive else k}"))
            o = point(kept, f"{name}.c{k}") if c.local_cascade else kept[-1]
        return o

    mean = torch.tensor([0.4488, 0.4371, 0.4040]).view(3, 1, 1)
    h0 = o = conv(x - mean, "entry")
    kept = [h0]
    for k in (1, 2, 3):
        kept.append(block(o, f"b{k}"))
        o = point(kept, f"c{k}") if c.global_cascade else kept[-1]
    o = o + h0 if c.long_skip else o
    for layer in range({2: 1, 3: 1, 4: 2}[scale]):
        o = conv(o, f"upsample.up{scale}.body.{3 * layer}", c.groups).relu()
        o = pixel_shuffle(o, 3 if scale == 3 else 2)
    return conv(o, "exit") + mean


@pytest.mark.parametrize("name", CARNS)
def test_carn_computes_the_papers_equations(name: str) -> None:
    net = roughened(build(name))
    assert isinstance(net, Carn)
    x = torch.rand(2, 3, 7, 9)
    with torch.inference_mode():
        for scale in net.scales:
            by_hand = _carn_by_hand(net.state_dict(), x, scale, net.config)
            assert _differ(net(x, scale), by_hand) < 1e-5


@pytest.mark.parametrize(("point_relu", "long_skip"), [(True, True), (False, False)])
def test_pcarns_two_changes_can_be_made_apart(point_relu: bool, long_skip: bool) -> None:
    changes = {"channels": 16, "point_relu": point_relu, "long_skip": long_skip}
    net = roughened(build("carn", (2,), **changes))
    assert isinstance(net, Carn)
    assert not net.config.pcarn
    x = torch.rand(1, 3, 7, 9)
    with torch.inference_mode():
        by_hand = _carn_by_hand(net.state_dict(), x, 2, net.config)
        assert _differ(net(x, 2), by_hand) < 1e-5
        assert _differ(deploy(net, 2)(x), by_hand) < 1e-5


def test_pcarn_has_no_relu_after_1x1_convolutions_and_the_long_skip() -> None:
    for name, config in NETS.items():
        if isinstance(config, CarnConfig):
            changed = name.startswith("pcarn")
            assert (config.point_relu, config.long_skip) == (not changed, changed), name


@pytest.mark.parametrize("name", DCSCNS)
def test_dcscn_computes_the_papers_layers(name: str) -> None:
    net = roughened(build(name, (3,)))
    weights, x = net.state_dict(), torch.rand(2, 1, 7, 9)

    def layer(x: Tensor, unit: str) -> Tensor:
        weight, bias = weights[f"{unit}.conv.weight"], weights[f"{unit}.conv.bias"]
        return prelu(conv2d(x, weight, bias, padding="same"), weights[f"{unit}.act.weight"])

    with torch.inference_mode():
        kept, y = [], x
        for k in range(7):
            y = layer(y, f"features.{k}")
            kept.append(y)
        y = torch.cat(kept, 1)
        y = torch.cat((layer(y, "a1"), layer(layer(y, "b1"), "b2")), 1)
        y = pixel_shuffle(conv2d(y, weights["last.weight"], weights["last.bias"]), 3)
        assert _differ(net(x, 3), y + bicubic(x, 3)) < 1e-5


def _bp_u(weights: Mapping[str, Tensor], name: str, before: list[Tensor], sign: int) -> Tensor:
    """Compute equations 1 to 5 of CSRCNN's section III-A with named weights."""

    def conv(x: Tensor, part: str, stride: int = 1) -> Tensor:
        weight, bias = weights[f"{name}.{part}.weight"], weights[f"{name}.{part}.bias"]
        return conv2d(x, weight, bias, stride, padding=weight.shape[-1] // 2)

    def up(x: Tensor, part: str) -> Tensor:
        weight, bias = weights[f"{name}.{part}.weight"], weights[f"{name}.{part}.bias"]
        return conv_transpose2d(x, weight, bias, 2, padding=1, output_padding=1)

    f0 = conv(torch.cat(before, 1), "dense").relu()
    f1 = conv(f0, "down1", 2).relu()
    f2 = conv(f1, "down2", 2).relu()
    assert [f.shape[-1] for f in (f0, f1, f2)] == [8, 4, 2]  # down to a quarter of the size
    f3 = torch.cat((conv(f2, "low").relu(), f2), 1)
    f4 = up(f3, "up1").relu() + sign * f1
    return up(f4, "up2") + f0


@pytest.mark.parametrize(("back_projection", "sign"), [(True, -1), (False, 1)])
def test_csrcnn_computes_the_papers_blocks(back_projection: bool, sign: int) -> None:
    config = CsrcnnConfig(
        channels=8, blocks=(3,), residuals=2, convolutions=1, scales=(2,),
        back_projection=back_projection,
    )  # fmt: skip
    net = roughened(Csrcnn(config))
    weights, x = net.state_dict(), torch.rand(2, 3, 12, 8)

    def conv(x: Tensor, name: str) -> Tensor:
        weight, bias = weights[f"{name}.weight"], weights[f"{name}.bias"]
        return conv2d(x, weight, bias, padding=weight.shape[-1] // 2)

    with torch.inference_mode():
        mean = torch.tensor([0.4488, 0.4371, 0.4040]).view(3, 1, 1)
        outputs = [conv(conv(x - mean, "entry.0").relu(), "entry.2")]
        for k in range(3):
            outputs.append(_bp_u(weights, f"levels.0.units.{k}", outputs, sign))
        y = outputs[0] + conv(outputs[-1], "levels.0.close")  # residual connection around the group
        up = "levels.0.up"
        z = y = conv_transpose2d(y, weights[f"{up}.weight"], weights[f"{up}.bias"], 2, padding=1)
        for k in range(2):
            block = f"levels.0.refine.{k}"
            z = z + conv(conv(z, f"{block}.conv1").relu(), f"{block}.conv2")
        z = conv(z, "levels.0.refine.2").relu()
        y = y + conv(z, "levels.0.refined")  # and around the refined block, separately
        assert _differ(net(x, 2), conv(y, "exit") + mean) < 1e-5


def test_a_refined_block_is_four_residual_blocks_and_four_convolutions() -> None:
    net = build("csrcnn")
    assert isinstance(net, Csrcnn)
    for k in range(3):
        kinds = [type(module).__name__ for module in net.level(k).refine]
        assert kinds == ["Residual"] * 4 + ["Conv2d", "ReLU"] * 4
    assert net.config.blocks == (4, 4, 4)  # equal levels
    uneven = build("csrcnn", blocks=[6, 4, 2], residuals=3, convolutions=1)
    assert isinstance(uneven, Csrcnn)
    assert [len(uneven.level(k).units) for k in range(3)] == [6, 4, 2]
    kinds = [type(module).__name__ for module in uneven.level(0).refine]
    assert kinds == ["Residual"] * 3 + ["Conv2d", "ReLU"]


def test_a_new_level_is_blended_with_the_picture_of_the_level_before() -> None:
    net = roughened(build("csrcnn", channels=8))
    assert isinstance(net, Csrcnn)
    x = torch.rand(1, 3, 5, 6)
    with torch.inference_mode():
        old, new = bicubic(net(x, 2), 2), net(x, 4)
        assert _differ(net(x, 4, 0.25), 0.25 * new + 0.75 * old) < 1e-5
        assert torch.equal(net(x, 4, 1.0), new)
        assert torch.equal(net(x, 2, 0.5), net(x, 2))  # no level comes before the first


@pytest.mark.parametrize("name", DCSCNS)
def test_a_network_with_a_skip_starts_as_almost_bicubic(name: str) -> None:
    net = build(name)
    assert isinstance(net, Dcscn)
    x = torch.rand(1, 1, 6, 5)
    with torch.inference_mode():
        nn.init.zeros_(bias_of(net.last))
        net.start_small()
        assert 0 < float(own_part(net.eval(), x, 2).abs().max()) < 0.02


@pytest.mark.parametrize("scale", [2, 4, 8])
def test_csrcnn_starts_as_bilinear_enlargement_inside_the_picture(scale: int) -> None:
    net = build("csrcnn", channels=8)
    assert isinstance(net, Csrcnn)
    initialise(net, "he")
    net.start_small()
    x, inside = torch.rand(1, 3, 9, 10), (..., slice(scale, -scale), slice(scale, -scale))
    y = x
    for _ in range({2: 1, 4: 2, 8: 3}[scale]):
        y = interpolate(y, scale_factor=2, mode="bilinear")
    with torch.inference_mode():
        assert _differ(net(x, scale)[inside], y[inside]) < 1e-5
    with pytest.raises(ValueError, match="at least 6 channels"):
        Csrcnn(CsrcnnConfig(channels=4)).start_small()


def test_dropout_falls_on_training_only() -> None:
    net = roughened(build("c-dcscn", keep=0.8))
    x = torch.rand(1, 1, 6, 5)
    with torch.inference_mode():
        assert torch.equal(net(x, 2), net(x, 2))
        net.train()
        assert not torch.equal(net(x, 2), net(x, 2))


@pytest.mark.parametrize(
    ("scale", "parts"),
    [
        (2, {"levels.0", "exit"}),
        (4, {"levels.0", "levels.1", "exit"}),
        (8, {"levels.0", "levels.1", "levels.2", "exit"}),
    ],
)
def test_a_scale_of_csrcnn_is_made_of_the_levels_up_to_its_own(scale: int, parts: set[str]) -> None:
    net = roughened(build("csrcnn", channels=8))
    net(torch.rand(1, 3, 5, 7), scale).sum().backward()
    felt = {n for n, p in net.named_parameters() if p.grad is not None and p.grad.any()}
    found = {".".join(n.split(".")[:2]) if "levels" in n else n.split(".")[0] for n in felt}
    assert found - {"entry"} == parts


def test_every_bp_u_block_reads_all_blocks_before_it() -> None:
    net = build("csrcnn", channels=8)
    assert isinstance(net, Csrcnn)
    inputs = [[unit.dense.in_channels for unit in level.units] for level in net.levels]  # type: ignore[union-attr]
    assert inputs == [[8, 16, 24, 32]] * 3


def test_csrcnn_takes_pictures_of_any_size() -> None:
    net = roughened(build("csrcnn", channels=8))
    with torch.inference_mode():
        for height, width in product((1, 2, 5), (1, 4, 7)):
            x = torch.rand(1, 3, height, width)
            for scale in (2, 4, 8):
                assert net(x, scale).shape == (1, 3, scale * height, scale * width)


# options and scales


def test_scales_and_colours_are_the_papers() -> None:
    found = {name: (net.scales, net.colour) for name in NETS for net in [build(name)]}
    assert found == {
        **dict.fromkeys(CARNS, ((2, 3, 4), "rgb")),
        **dict.fromkeys(DCSCNS, ((2,), "y")),
        "csrcnn": ((2, 4, 8), "rgb"),
        "rt": ((2,), "y"),
    }


@pytest.mark.parametrize("recursive", [False, True])
@pytest.mark.parametrize("groups", [1, 2, 4, 8, 16, 32, 64])
def test_carn_with_residual_e_blocks_has_fig_5s_groups(groups: int, recursive: bool) -> None:
    net = roughened(build("carn", (4,), efficient=True, groups=groups, recursive=recursive))
    whole = build("carn", (4,), efficient=True, groups=1, recursive=recursive)
    grouped = (3 if recursive else 9) * 2 * 9 * 64 * 64 + 2 * 9 * 64 * 256
    assert parameters(whole) - parameters(net) == grouped - grouped // groups
    x = torch.rand(1, 3, 5, 4)
    with torch.inference_mode():
        assert net(x, 4).shape == (1, 3, 20, 16)
        assert _differ(net(x, 4), deploy(net, 4)(x)) < 1e-5
    assert receptive_field_radius(net, 4) == 21


def test_groups_need_residual_e_blocks_but_for_the_upsampling() -> None:
    counts = [parameters(build("carn", (2,), groups=g)) for g in (1, 4)]
    assert counts[0] - counts[1] == 9 * 64 * 256 * 3 // 4


@pytest.mark.parametrize(
    ("name", "scales"),
    [("carn", (5,)), ("carn-m", (2, 8)), ("pcarn", ()), ("dcscn", (2, 3)), ("csrcnn", (2, 3, 4))],
)
def test_scales_that_a_network_cannot_have_are_refused(name: str, scales: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="scale"):
        build(name, scales)


def test_a_scale_left_out_is_not_there() -> None:
    net = build("carn-m", (2, 4))
    x = torch.rand(1, 3, 4, 4)
    assert net(x, 4).shape == (1, 3, 16, 16)
    with pytest.raises(KeyError, match="up3"):
        net(x, 3)
    assert parameters(net) == 414_787 - (9 * 64 * 576 // 4 + 576)


def test_an_unknown_network_or_setting_is_an_error() -> None:
    with pytest.raises(KeyError, match="edsr"):
        build("edsr")
    with pytest.raises(TypeError, match="depth"):
        build("carn", depth=3)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_every_scale_has_an_upsampling_unit_of_its_own(scale: int) -> None:
    net = roughened(build("carn-m"))
    assert isinstance(net, Carn)
    net(torch.rand(1, 3, 5, 6), scale).sum().backward()
    trained = {n for n, p in net.named_parameters() if p.grad is not None and p.grad.any()}
    units = {n.split(".")[1] for n in trained if n.startswith("upsample.")}
    assert units == {f"up{scale}"}
    own = {n for n, p in net.named_parameters() if p.requires_grad and "upsample" not in n}
    assert trained - own == {n for n in trained if n.startswith("upsample.")}
    assert own <= trained  # the body and the exit are shared


def test_a_network_is_rebuilt_from_its_settings() -> None:
    net = build("dcscn", (3,), keep=0.8, features=(8, 6))
    twin = build("dcscn", **settings(net))
    assert twin.config == net.config == from_config(net.config).config
    twin.load_state_dict(net.state_dict())


# deploy forms


@pytest.mark.parametrize("name", NETS)
def test_deploy_form_equals_training_form_up_to_the_borders(name: str) -> None:
    for net, scale in _all_scales(name):
        cheap = deploy(net, scale)
        for height, width in ((17, 11), (1, 3), (2, 1)):
            x = torch.rand(2, channels(net), height, width)
            with torch.inference_mode():
                paper, own = net(x, scale), own_part(net, x, scale)
                assert paper.shape == (2, channels(net), height * scale, width * scale)
                assert _differ(cheap(x), paper) < 1e-5
            # the part beside bicubic is not negligible, so the comparison is meaningful
            assert float(own.std()) > (0.05 if height > 9 else 0.005), (scale, height, width)


@pytest.mark.parametrize("name", ["c-dcscn", "carn-m", "pcarn", "csrcnn"])
def test_deploy_form_shares_nothing_with_the_training_form(name: str) -> None:
    net, scale = _all_scales(name)[0]
    cheap, x = deploy(net, scale), torch.rand(1, channels(net), 9, 7)
    with torch.no_grad():
        before = cheap(x)
        for parameter in net.parameters():
            parameter.fill_(0.25)
        assert torch.equal(cheap(x), before)


def test_deploy_form_of_a_net_in_training_drops_nothing_out() -> None:
    net = roughened(build("c-dcscn", keep=0.5))
    x = torch.rand(1, 1, 9, 7)
    with torch.inference_mode():
        expected = net(x, 2)
        assert _differ(deploy(net.train(), 2)(x), expected) < 1e-5


@pytest.mark.parametrize(("name", "scale"), [("carn", 2), ("carn", 4), ("dcscn", 2)])
def test_deploy_form_shuffles_three_channels_at_most(name: str, scale: int) -> None:
    """The deploy form is cheaper because its last layer runs before the pixel shuffle."""
    net, widths = build(name), []
    cheap = deploy(net, scale)
    shuffles = [m for m in cheap.modules() if isinstance(m, nn.PixelShuffle)]
    shuffles[-1].register_forward_hook(lambda _m, _x, y: widths.append(y.shape[1]))
    with torch.inference_mode():
        cheap(torch.rand(1, channels(net), 4, 4))
    assert widths == [channels(net)]


def test_deploy_form_of_csrcnn_ends_in_three_filters() -> None:
    net = build("csrcnn")
    assert isinstance(net, Csrcnn)
    full = [c.out_channels for c in net.modules() if isinstance(c, nn.Conv2d)]
    cheap = [c.out_channels for c in deploy(net, 8).modules() if isinstance(c, nn.Conv2d)]
    # 3: two mean shifts and the exit; 64: entry (2), three levels of 4 * 4 + 1 + 12 + 1 layers
    assert sorted(full) == [3] * 3 + [64] * (2 + 3 * 30)
    assert sorted(cheap) == [3] * 3 + [64] * (2 + 3 * 30 - 1)


# receptive field


def _wide(net: Net) -> Net:
    """Return a random float64 network in which even the farthest pixels have an effect."""
    rim = torch.full((3, 3), 5.0)
    rim[1, 1] = 1.0
    with torch.no_grad():
        for module in roughened(net).modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d) and module.kernel_size == (3, 3):
                module.weight.mul_(rim)
    return net.double()


@pytest.mark.parametrize(
    ("name", "scale"),
    [("c-dcscn", 2), ("c-dcscn", 3), ("dcscn", 4), ("carn-m", 2), ("carn-m", 4)],
)
def test_receptive_field_radius_is_how_far_a_pixel_is_felt(name: str, scale: int) -> None:
    net = _wide(build(name, (scale,)))
    radius = receptive_field_radius(net, scale)
    centre = radius + 2
    x = torch.rand(1, channels(net), 2 * centre + 1, 2 * centre + 1, dtype=torch.float64)
    block = slice(centre * scale, (centre + 1) * scale)

    def felt(dy: int, dx: int) -> float:
        """Return the change of the centre block if the pixel at (dy, dx) from it changes."""
        disturbed = x.clone()
        disturbed[..., centre + dy, centre + dx] += 10.0
        with torch.inference_mode():
            both = net(torch.cat((x, disturbed)), scale)[..., block, block]
        return float((both[1] - both[0]).abs().max())

    assert min(felt(0, radius), felt(-radius, 0)) > 1e-10
    assert max(felt(0, radius + 1), felt(-radius - 1, 0)) == 0.0


def test_receptive_field_radius_of_strided_layers_is_that_of_the_widest_pixel() -> None:
    net = _wide(build("csrcnn", channels=4))
    radius = receptive_field_radius(net, 2)
    first = radius + 5  # four columns: one per phase of the strided layers' grid
    x = torch.rand(1, 3, 6, 2 * first + 4, dtype=torch.float64)
    distances = set()
    with torch.inference_mode():
        before = net(x, 2)
        for pixel in range(first, first + 4):
            disturbed = x.clone()
            disturbed[..., pixel] += 10.0
            columns = (net(disturbed, 2) - before).abs().amax((0, 1, 2)).view(-1, 2).amax(1)
            there = (columns > 0).nonzero().flatten()
            distances |= {pixel - int(there.min()), int(there.max()) - pixel}
    assert max(distances) == radius
