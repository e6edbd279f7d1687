"""Draws picture sheets: the same crop by every method beside the truth, as figures can mislead."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from train.data.images import Pixels
from train.measure.metrics import luma, psnr

GAP, LINE = 6, 20
"""Gap between cells, and height of the line of text under each, in pixels."""


@dataclass(frozen=True)
class SheetRow:
    """One image: its name, its truth and every method's picture of it, uint8 RGB."""

    name: str
    truth: Pixels
    pictures: dict[str, Pixels]


def detailed_window(image: Pixels, size: int) -> tuple[slice, slice]:
    """Return the square of `size` (or the whole side) with the most edges, on a grid of 8."""
    y = luma(image)
    edges = np.zeros_like(y)
    edges[:, 1:] += np.abs(np.diff(y, axis=1))
    edges[1:] += np.abs(np.diff(y, axis=0))
    total = np.pad(edges.cumsum(axis=0).cumsum(axis=1), ((1, 0), (1, 0)))
    height, width = (min(size, n) for n in y.shape)
    inside = (
        total[height:, width:] - total[:-height, width:]
        - total[height:, :-width] + total[:-height, :-width]
    )[::8, ::8]  # fmt: skip
    top, left = (8 * int(n) for n in np.unravel_index(np.argmax(inside), inside.shape))
    return slice(top, top + height), slice(left, left + width)


def draw_sheet(rows: list[SheetRow], crop: int = 96, zoom: int = 2) -> Image.Image:
    """Draw one line per image, one column per method, then the truth; PSNR is that of the crop."""
    columns = max(len(row.pictures) for row in rows) + 1
    cell = crop * zoom
    size = (GAP + columns * (cell + GAP), GAP + len(rows) * (cell + LINE + GAP))
    sheet = Image.new("RGB", size, "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default()
    for index, row in enumerate(rows):
        window = detailed_window(row.truth, crop)
        top = GAP + index * (cell + LINE + GAP)
        for column, (label, picture) in enumerate([*row.pictures.items(), (row.name, row.truth)]):
            left = GAP + column * (cell + GAP)
            view = Image.fromarray(np.ascontiguousarray(picture[window]))
            # square pixels, as smoothing by the viewer would hide the differences
            large = view.resize((view.width * zoom, view.height * zoom), Image.Resampling.NEAREST)
            sheet.paste(large, (left, top))
            text = _caption(label, picture[window], row.truth[window], column < len(row.pictures))
            draw.text((left, top + cell + 3), text, fill="black", font=font)
    return sheet


def _caption(label: str, ours: Pixels, truth: Pixels, measured: bool) -> str:
    return f"{label}  {psnr(luma(ours), luma(truth)):.2f} dB" if measured else f"{label}  truth"


def write_sheet(rows: list[SheetRow], path: Path) -> None:
    """Draw the rows and save them as PNG."""
    draw_sheet(rows).save(path)
