"""Builds the HTML page of a comparison: one file with pictures, figures and plots; no requests."""

import base64
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from markupsafe import Markup

from vsr.compare.moments import Moment
from vsr.compare.picture import encode_webp
from vsr.compare.result import MEASURES, Comparison, VideoFacts
from vsr.compare.summary import summary
from vsr.media.bitrate import format_bitrate
from vsr.report.html.charts import HEIGHT, Level, Scale, Tick, level, round_step
from vsr.report.html.templates import csp_hash, render, static
from vsr.report.html.text import clock, count
from vsr.report.html.timeline import time_scale, time_ticks

_PACKAGE: Final = "vsr.compare"
_SCRIPT: Final = static(_PACKAGE, "compare.js")
_POLICY: Final = (
    f"default-src 'none'; script-src {csp_hash(_SCRIPT)}; style-src 'unsafe-inline'; "
    "img-src data:; base-uri 'none'; form-action 'none'"
)
_COLOURS: Final = 6
_MAX_POINTS: Final = 700
"""Maximum number of points of a curve; each point is the worst frame of a time slot."""
_PLOT_TITLES: Final = {
    "psnr": ("PSNR over time", "dB, higher is closer to the reference"),
    "ssim": ("SSIM over time", "1: identical"),
    "vmaf": ("VMAF over time", "100: best"),
    "lpips": ("LPIPS over time", "0: identical, lower is closer to the reference"),
    "flicker": ("Flicker over time", "mean luma difference from the previous frame, 8-bit codes"),
}
_LOWER_IS_BETTER: Final = ("flicker", "lpips")
"""Measures whose worst frame is the one with the highest value."""
_IDENTICAL_DB: Final = 100.0
"""PSNR, in dB, at which equal pictures are drawn."""


@dataclass(frozen=True)
class Curve:
    """A line of a plot."""

    name: str
    colour: str
    path: str


@dataclass(frozen=True, kw_only=True)
class Plot:
    """A measure over time, for every video."""

    title: str
    unit: str
    levels: Sequence[Level]
    curves: Sequence[Curve]
    x_ticks: Sequence[Tick]
    width: int = _MAX_POINTS
    height: int = HEIGHT


def render_page(comparison: Comparison) -> str:
    """Return the page as HTML text."""
    videos = [comparison.reference, *comparison.videos]
    names = [video.name for video in videos]
    baseline = "against the original" if comparison.has_original else f"against {names[0]}"
    width, height = comparison.size
    return render(
        _PACKAGE,
        "compare.html",
        policy=_POLICY,
        script=_SCRIPT,
        title=", ".join(names),
        subtitle=f"{count(len(comparison.rows))} frames at {width}x{height}, measured {baseline}",
        sentences=[*summary(comparison), *comparison.notes],
        columns=_columns(comparison),
        rows=[_table_row(comparison, k) for k in range(len(videos))],
        charts=[_plot(comparison, name) for name in _PLOT_TITLES if name in comparison.measures()],
        moments=_moments(comparison, names),
    )


def _columns(comparison: Comparison) -> list[str]:
    figures = [f"{name.replace('_', ' ').upper()}" for name in comparison.measures()]
    return ["size", "codec", "bitrate", "ms/frame", *figures, "PSNR p5", "PSNR min"]


def _table_row(comparison: Comparison, k: int) -> dict[str, Any]:
    video = comparison.reference if k == 0 else comparison.videos[k - 1]
    texts = ["x".join(map(str, video.size)), video.codec, _bitrate(video), _ms_per_frame(video)]
    if k == 0:
        flicker = comparison.reference_flicker()
        texts += [
            f"{flicker:.3f}" if name == "flicker" and flicker is not None else "\u2013"
            for name in comparison.measures()
        ]
        texts += ["\u2013", "\u2013"]
    else:
        totals = comparison.totals(k - 1)
        texts += [_figure(totals[name]["mean"], name) for name in comparison.measures()]
        texts += [_figure(totals["psnr"][key], "psnr") for key in ("p5", "min")]
    return {"name": video.name, "colour": _colour(k), "texts": texts}


def _colour(k: int) -> str:
    return f"c{(k - 1) % _COLOURS}" if k else "cx"


def _bitrate(video: VideoFacts) -> str:
    if video.bytes is None or not video.seconds:
        return "\u2013"
    return format_bitrate(round(8 * video.bytes / video.seconds))


def _ms_per_frame(video: VideoFacts) -> str:
    return "\u2013" if video.ms_per_frame is None else f"{video.ms_per_frame:.1f}"


def _figure(value: float | None, name: str) -> str:
    return "identical" if value is None else f"{value:.{MEASURES[name]}f}"


def _plot(comparison: Comparison, name: str) -> Plot:
    times = np.array([row.time for row in comparison.rows])
    axis = time_scale(times)
    place = np.minimum((axis.at(times) * _MAX_POINTS).astype(np.int64), _MAX_POINTS - 1)
    series = {k + 1: comparison.series(k, name) for k in range(len(comparison.videos))}
    if name == "flicker":
        moved = [row.reference_flicker for row in comparison.rows]
        series[0] = np.array([math.nan if value is None else value for value in moved])
    series = {k: np.minimum(values, _IDENTICAL_DB) for k, values in series.items()}
    scale = _value_scale(np.concatenate(list(series.values())))
    title, unit = _PLOT_TITLES[name]
    ticks = time_ticks(axis)
    names = [comparison.reference.name, *(video.name for video in comparison.videos)]
    return Plot(
        title=title,
        unit=unit,
        levels=[level(scale, value, "grid", f"{value:,g}") for value in scale.ticks()],
        curves=[
            Curve(names[k], _colour(k), _path(place, values, scale, high=name in _LOWER_IS_BETTER))
            for k, values in sorted(series.items())
        ],
        x_ticks=[Tick(axis.percent(t), clock(t, ticks), bool(k % 2)) for k, t in enumerate(ticks)],
    )


def _value_scale(values: npt.NDArray[np.float64]) -> Scale:
    """Return a scale with a small margin; it need not begin at 0, as only differences matter."""
    values = values[np.isfinite(values)]
    if not len(values):
        return Scale(0.0, 1.0)
    low, high = float(values.min()), float(values.max())
    step = round_step(max(high - low, 0.02 * abs(high), 1e-4) / 4)
    return Scale(step * math.floor(low / step), step * math.ceil(high / step + 1e-9))


def _path(
    place: npt.NDArray[np.int64], values: npt.NDArray[np.float64], scale: Scale, high: bool
) -> str:
    """Return an SVG path through the lowest value of each time slot (the highest if `high`)."""
    points = []
    for slot in np.unique(place):
        inside = values[place == slot]
        inside = inside[np.isfinite(inside)]
        if len(inside):
            value = float(inside.max() if high else inside.min())
            points.append(f"{slot + 0.5:.1f} {(1 - float(scale.at(value))) * HEIGHT:.0f}")
    return "M" + "L".join(points) if points else ""


def _moments(comparison: Comparison, names: Sequence[str]) -> Markup:
    """Return the pictures as JSON for the script, with `<` escaped: it cannot end its element."""
    width, height = comparison.size
    moments = [
        {
            "label": f"{_moment_label(comparison, moment)} · {clock(moment.time)}",
            "text": f"frame {moment.index}, "
            + ", ".join(
                f"{name} {_psnr_text(scored.values['psnr'])}"
                for name, scored in zip(names[1:], moment.scored[1:], strict=True)
            ),
            "pictures": [
                "data:image/webp;base64,"
                + base64.b64encode(encode_webp(scored.picture, colour)).decode("ascii")
                for scored, colour in zip(moment.scored, comparison.colours, strict=True)
            ],
        }
        for moment in comparison.moments
    ]
    shape = {"names": names, "moments": moments, "width": width, "height": height}
    return Markup(json.dumps(shape).replace("<", "\\u003c"))


def _moment_label(comparison: Comparison, moment: Moment) -> str:
    """Return the moment's label; without an original, a distant frame is not called worse."""
    return moment.kind if comparison.has_original or moment.kind == "median" else "most different"


def _psnr_text(psnr: float) -> str:
    return f"{_figure(psnr, 'psnr')} dB" if math.isfinite(psnr) else "identical"
