"""Calibrate int8 quantisation: measure activation ranges on training images, choose ranges."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle, product
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper

from train.data.images import Pixels, images, to_input
from train.data.resize import crop_to_multiple, downscale
from train.measure.shipped import openvino_core
from train.ship.qdq import Floats, Quantiser

Counts = npt.NDArray[np.int64]
_CROP: Final = 192
"""Side of the HR crops for the patches of every scale, in pixels."""
_SIDE: Final = 48
"""Maximum side of the LR patches, in pixels."""
_BATCH: Final = 8
_BINS: Final = 512
_RANGE_FRACTIONS: Final = np.linspace(0.4, 1, 25)
"""Candidate fractions of the full range."""
_CODES: Final = 255
_PURE_COLOURS: Final = np.array(list(product((0, 255), repeat=3)), np.uint8)
"""The eight colours with every channel 0 or 255, black first, white last."""
_COLOUR_PAIRS: Final = [
    (first, (first + step) % 8) for step in (3, 7, 5, 1, 6, 2, 4) for first in range(8)
]
"""All ordered pairs of different indices into `_PURE_COLOURS`; consecutive pairs cover many
colours."""


def random_crops(folders: Sequence[Path], count: int, seed: int) -> list[Pixels]:
    """Return one 192x192 crop (HR) from each of `count` images or fewer, in random order.

    Skips smaller images. Raises TrainError if no image in the folders can be read.
    """
    rng = np.random.default_rng(seed)
    crops = []
    for _, image in images(folders):
        if min(image.shape[:2]) >= _CROP:
            y, x = (int(rng.integers(n - _CROP + 1)) for n in image.shape[:2])
            crops.append(image[y : y + _CROP, x : x + _CROP].copy())
    return [crops[i] for i in rng.permutation(len(crops))[:count]]


def black_and_white(crop: Pixels) -> Pixels:
    """Convert a crop to pure black and white, like text: photographs lack such extreme values."""
    return _two_tone(crop, _PURE_COLOURS[0], _PURE_COLOURS[-1])


def two_colours(crops: Sequence[Pixels]) -> list[Pixels]:
    """Convert each crop to two pure colours, like titles, flags and games, unlike photographs.

    With eight or more crops, every pure colour occurs.
    """
    pairs = zip(crops, cycle(_COLOUR_PAIRS), strict=False)
    return [
        _two_tone(crop, _PURE_COLOURS[dark], _PURE_COLOURS[light]) for crop, (dark, light) in pairs
    ]


def _two_tone(crop: Pixels, dark: Pixels, light: Pixels) -> Pixels:
    """Convert a crop to one colour [3] for its darker and one for its lighter half."""
    grey = crop.mean(axis=2, keepdims=True)
    return np.where(grey > np.median(grey), light, dark)


def patches(crops: Sequence[Pixels], scale: int, colour: str) -> Floats:
    """Return network input [N, C, h, w] in 0..1, at most 48 pixels wide and high."""
    low = [downscale(crop_to_multiple(crop, scale), scale)[:_SIDE, :_SIDE] for crop in crops]
    return np.stack([to_input(picture, colour).transpose(2, 0, 1) for picture in low])


@dataclass(frozen=True)
class Spread:
    """Value range and histogram of each channel of a tensor."""

    low: Floats
    """Minimum per channel, [C], at most 0."""
    high: Floats
    """Maximum per channel, [C], at least 0."""
    counts: Counts
    """Histogram from `low` to `high`, [C, bins]."""

    @property
    def magnitude(self) -> Floats:
        """Return the maximum absolute value per channel, [C]."""
        return np.maximum(self.high, -self.low)

    def times(self, factors: Floats) -> "Spread":
        """Return the spread of the tensor with its channels multiplied by positive `factors`."""
        return Spread(self.low * factors, self.high * factors, self.counts)

    def values(self) -> Floats:
        """Return the centre of every bin, [C, bins]."""
        part = (np.arange(_BINS, dtype="f4") + 0.5) / _BINS
        return (self.low[:, None] + (self.high - self.low)[:, None] * part).astype("f4")


def measure_spreads(
    model: onnx.ModelProto, tensors: Sequence[str], pictures: Floats
) -> dict[str, Spread]:
    """Run a network on `pictures` [N, C, h, w] (OpenVINO, float32); return its tensors' spreads."""
    run = _runner_with_outputs(model, tensors)
    low = {name: np.zeros(1, "f4") for name in tensors}
    high = dict(low)
    for batch in _batches(pictures):
        for name, values in run(batch):
            low[name] = np.minimum(low[name], values.min((0, 2, 3)))
            high[name] = np.maximum(high[name], values.max((0, 2, 3)))
    counts = {name: np.zeros((len(low[name]), _BINS), np.int64) for name in tensors}
    for batch in _batches(pictures):
        for name, values in run(batch):
            counts[name] += _histogram(values, low[name], high[name])
    return {name: Spread(low[name], high[name], counts[name]) for name in tensors}


def _batches(pictures: Floats) -> Iterator[Floats]:
    for first in range(0, len(pictures), _BATCH):
        yield pictures[first : first + _BATCH]


def _runner_with_outputs(
    model: onnx.ModelProto, tensors: Sequence[str]
) -> Callable[[Floats], Iterator[tuple[str, Floats]]]:
    open_model = onnx.ModelProto()
    open_model.CopyFrom(model)
    open_model.graph.output.extend(
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in tensors
    )
    core = openvino_core()
    config = {"INFERENCE_PRECISION_HINT": "f32"}
    read = core.read_model(open_model.SerializeToString())
    request = core.compile_model(read, "CPU", config).create_infer_request()

    def run(batch: Floats) -> Iterator[tuple[str, Floats]]:
        request.infer([batch])
        for i, name in enumerate(tensors, start=1):
            yield name, request.get_output_tensor(i).data

    return run


def _histogram(values: Floats, low: Floats, high: Floats) -> Counts:
    """Return the histogram [C, bins] of values [N, C, h, w]."""
    channels = len(low)
    shape = (1, channels, 1, 1)
    width = np.maximum(high - low, np.finfo("f4").tiny) / _BINS
    bins = ((values - low.reshape(shape)) / width.reshape(shape)).astype(np.int32)
    bins = np.clip(bins, 0, _BINS - 1) + _BINS * np.arange(channels, dtype=np.int32).reshape(shape)
    return np.bincount(bins.ravel(), minlength=channels * _BINS).reshape(channels, _BINS)


def choose_quantiser(group: Sequence[Spread], power: int) -> Quantiser:
    """Return the quantiser with the least rounding plus clipping error for a group of tensors.

    Errors are raised to `power`: 2 is the squared error, more protects the few large values better.
    """
    values = np.concatenate([spread.values().ravel() for spread in group])
    counts = np.concatenate([spread.counts.ravel() for spread in group])
    values, counts = values[counts > 0], counts[counts > 0]
    low = min(float(spread.low.min()) for spread in group)
    high = max(float(spread.high.max()) for spread in group)
    if low == high:  # a tensor that is always 0
        return Quantiser(1.0, 0)
    tried = []
    for shrink in _RANGE_FRACTIONS:
        step = shrink * (high - low) / _CODES
        cut = np.maximum(np.maximum(values - shrink * high, shrink * low - values), 0)
        rounding = (step / 2) ** power / (power + 1)  # mean of |error|^power, if uniform
        rounded = counts[np.abs(values) > step / 2].sum()  # values near 0, as after ReLU, are exact
        tried.append((float((counts * cut**power).sum() + rounded * rounding), step, shrink))
    _, step, shrink = min(tried)
    return Quantiser(step, round(-low * shrink / step))
