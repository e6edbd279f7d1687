"""Writes a comparison as .html, .json or .png, or as a table of text."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from vsr.compare.page import render_page
from vsr.compare.picture import encode_png, to_rgb
from vsr.compare.result import MEASURES, Comparison
from vsr.errors import OutputError, UsageError, reason
from vsr.media.references import is_part_of
from vsr.media.whole_file import write_atomically

SUFFIXES: Final = (".html", ".json", ".png")
_CROP_SIZE: Final = 320
"""Maximum width and height of each crop in the .png, in pixels."""


def check_output_path(path: Path, overwrite: bool, inputs: Sequence[str] = ()) -> None:
    """Raise UsageError or OutputError if `path` cannot or must not be written.

    Call it before the comparison. `inputs` are the names of the files that are read.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(
            f"unsupported output format '{path.name}': use a name with {', '.join(SUFFIXES)}"
        )
    if path.is_dir():
        raise UsageError(f"{path} is a folder: give a file name")
    if any(is_part_of(path, name) for name in inputs):
        raise UsageError(f"input and output are the same file: {path}")
    if path.exists() and not overwrite:
        raise UsageError(f"{path} already exists: use -y to overwrite it")
    if not path.parent.is_dir():
        raise OutputError(f"cannot write {path}: folder {path.parent} does not exist")


def write_comparison(comparison: Comparison, path: Path) -> None:
    """Write the comparison in the format of the file name's suffix. Raises OutputError."""
    content = {
        ".html": lambda: render_page(comparison).encode("utf-8"),
        ".json": lambda: (json.dumps(comparison.as_json(), indent=1) + "\n").encode("utf-8"),
        ".png": lambda: encode_png(_crops(comparison)),
    }[path.suffix.lower()]()
    try:
        with write_atomically(path) as part:
            part.write_bytes(content)
    except OSError as exc:
        raise OutputError(f"cannot write {path}: {reason(exc)}") from exc


def _crops(comparison: Comparison) -> list[npt.NDArray[np.uint8]]:
    """Return every video's crop of the worst frame, where they differ most from the reference."""
    moment = comparison.moments[0]
    pictures = [
        to_rgb(scored.picture, colour)
        for scored, colour in zip(moment.scored, comparison.colours, strict=True)
    ]
    row, column = _find_largest_difference(pictures)
    return [picture[row : row + _CROP_SIZE, column : column + _CROP_SIZE] for picture in pictures]


def _find_largest_difference(pictures: list[npt.NDArray[np.uint8]]) -> tuple[int, int]:
    """Return (row, column) of the crop with the largest sum of absolute differences."""
    first = pictures[0].astype(np.int16)
    off = np.sum([np.abs(other - first).sum(-1) for other in pictures[1:]], 0, dtype=np.int64)
    height, width = off.shape
    sums = np.pad(off.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    tall, wide = min(_CROP_SIZE, height), min(_CROP_SIZE, width)
    parts = sums[tall:, wide:] - sums[:-tall, wide:] - sums[tall:, :-wide] + sums[:-tall, :-wide]
    row, column = np.unravel_index(int(parts.argmax()), parts.shape)
    return int(row), int(column)


def text_table(comparison: Comparison) -> str:
    """Return a line per video: the mean of each measure, 5th percentile and minimum of the PSNR."""
    names = comparison.measures()
    titles = ["video", *names, "psnr p5", "psnr min"]
    rows = []
    for k, video in enumerate(comparison.videos):
        totals = comparison.totals(k)
        cells = [_cell(totals[name]["mean"], name) for name in names]
        cells += [_cell(totals["psnr"][key], "psnr") for key in ("p5", "min")]
        rows.append([video.name, *cells])
    widths = [max(len(row[k]) for row in (titles, *rows)) for k in range(len(titles))]
    lines = [
        "  ".join(
            text.ljust(width) if k == 0 else text.rjust(width)
            for k, (text, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in (titles, *rows)
    ]
    width, height = comparison.size
    head = f"{len(comparison.rows)} frames at {width}x{height} against {comparison.reference.name}"
    return "\n".join([head, *lines])


def _cell(value: float | None, name: str) -> str:
    return "identical" if value is None else f"{value:.{MEASURES[name]}f}"
