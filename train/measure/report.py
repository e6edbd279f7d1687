"""Writes evaluations as tables, with the papers' figures beside ours, and as picture sheets."""

import json
import logging
import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from train.errors import TrainError
from train.measure.compressed import Row as VideoRow
from train.measure.compressed import VideoSettings, score_clip
from train.measure.evaluate import (
    Method,
    Pair,
    Score,
    Scoring,
    benchmark_pairs,
    bicubic_method,
    mean_score,
    picture,
    score_pair,
)
from train.measure.papers import DATA_SETS, Figure, published
from train.measure.pyiqa_metrics import NAMES
from train.measure.sheet import SheetRow, write_sheet

log = logging.getLogger(__name__)

SHEET_ROWS = 6
"""Number of images shown per data set."""
FETCH_FOLDER = Path("data")
"""Default folder into which `train fetch` puts data sets."""


@dataclass(frozen=True, kw_only=True)
class ImageRow:
    """One method on one data set."""

    data: str
    scale: int
    method: str
    n: int
    score: Score
    paper: Figure


def find_folders(names: Sequence[str]) -> list[Path]:
    """Return the folders of the named data sets; warn of a missing benchmark and leave it out.

    Raises TrainError for a name that is neither a folder nor a data set, or if no folder is left.
    """
    found: list[Path] = []
    missing: list[_MissingSetError] = []
    for name in names:
        try:
            found.append(find_folder(name))
        except _MissingSetError as exc:
            missing.append(exc)
    if missing and not found:
        raise missing[0]
    for reason in missing:
        log.warning("skipped: %s", reason)
    return found


class _MissingSetError(TrainError):
    """Raised for a benchmark of the papers whose data is missing."""


def find_folder(name: str) -> Path:
    """Find a folder by its path, or a benchmark by its name in $VSR_DATA or in `FETCH_FOLDER`."""
    if Path(name).is_dir():
        return Path(name)
    if Path(name).exists():
        raise TrainError(f"{name} is a file: --data needs a folder of images or a data set's name")
    base = os.environ.get("VSR_DATA")
    places = [FETCH_FOLDER, *([Path(base) / "images/test"] if base else [])]
    for place in places:
        if (place / name).is_dir():
            return place / name
    if name in DATA_SETS:
        raise _MissingSetError(
            f"{name} is neither in $VSR_DATA/images/test nor in {FETCH_FOLDER}/: set VSR_DATA, or "
            f"run `python -m train fetch {name}`"
        )
    known = sorted({p.name for place in places for p in place.glob("*") if p.is_dir()})
    available = ", ".join(known) or "none"
    raise TrainError(f"no data set or folder '{name}'; available data sets: {available}")


def group_by_scale(methods: Iterable[Method]) -> list[tuple[int, list[Method]]]:
    """Return the methods grouped by scale, in ascending order."""
    ordered = sorted(methods, key=lambda m: m.scale)
    return [(scale, list(group)) for scale, group in groupby(ordered, key=lambda m: m.scale)]


def score_images(
    methods: Sequence[Method], folders: Sequence[Path], scoring: Scoring, output: Path | None
) -> list[ImageRow]:
    """Return the rows of every data set and scale, bicubic first; write sheets to `output`."""
    rows = []
    for folder in folders:
        for scale, group in group_by_scale(methods):
            compared = [bicubic_method(scale), *group]
            scores, sheet = _score_folder(compared, folder, scoring, SHEET_ROWS if output else 0)
            for method, of_images in zip(compared, scores, strict=True):
                row = ImageRow(
                    data=folder.name,
                    scale=scale,
                    method=method.label,
                    n=len(of_images),
                    score=mean_score(of_images),
                    paper=published(method.network, folder.name, scale),
                )
                log.info("%s x%d %s: %.3f dB", row.data, scale, row.method, row.score.psnr)
                rows.append(row)
            if output:
                write_sheet(sheet, output / f"{folder.name}_x{scale}.png")
    return rows


def _score_folder(
    methods: Sequence[Method], folder: Path, scoring: Scoring, sheet_rows: int
) -> tuple[list[list[Score]], list[SheetRow]]:
    """Return every method's scores in the images' order, and the first images for a sheet."""
    scores: list[list[Score]] = [[] for _ in methods]
    sheet = []
    for index, pair in enumerate(benchmark_pairs(folder, methods[0].scale)):
        pictures = {}
        for method, column in zip(methods, scores, strict=True):
            score, out = score_pair(method, pair, scoring)
            column.append(score)
            if index < sheet_rows:
                pictures[method.label] = picture(out, pair.low, method.colour)
        if pictures:
            sheet.append(_sheet_row(pair, pictures))
    return scores, sheet


def _sheet_row(pair: Pair, pictures: dict[str, Any]) -> SheetRow:
    return SheetRow(pair.name, pair.high, pictures)


def score_videos(
    methods: Sequence[Method], clips: Sequence[Path], settings: VideoSettings
) -> list[VideoRow]:
    """Return the rows of every clip, scale and crf."""
    rows = []
    for clip in clips:
        for scale, group in group_by_scale(methods):
            for row in score_clip(clip, group, replace(settings, scale=scale)):
                log.info("%s crf %d %s: %.3f dB", row.clip, row.crf, row.method, row.psnr)
                rows.append(row)
    return rows


# text


def _number(value: float | None, digits: int) -> str:
    return "" if value is None or math.isnan(value) else f"{value:.{digits}f}"


def _markdown(head: Sequence[str], body: Iterable[Sequence[str]]) -> str:
    rows = [head, ["---"] * len(head), *body]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows) + "\n"


def image_table(rows: Sequence[ImageRow]) -> str:
    """Return a Markdown table; columns without any value are left out."""
    head = ["data", "scale", "method", "PSNR", "SSIM", "LPIPS", "NIQE", *NAMES]
    head += ["paper PSNR", "paper SSIM", "paper LPIPS", "published in"]
    body = []
    for row in rows:
        score, paper = row.score, row.paper
        numbers = [(score.psnr, 3), (score.ssim, 4), (score.lpips, 4), (score.niqe, 2)]
        numbers += [(score.others.get(name), 2) for name in NAMES]
        numbers += [(paper.psnr, 2), (paper.ssim, 4), (paper.lpips, 4)]
        cells = [row.data, f"x{row.scale}", row.method]
        body.append([*cells, *(_number(*number) for number in numbers), paper.source])
    kept = [k for k in range(len(head)) if any(line[k] for line in body)]
    return _markdown([head[k] for k in kept], [[line[k] for k in kept] for line in body])


def video_table(rows: Sequence[VideoRow]) -> str:
    """Return a Markdown table per scale: a line per clip and crf, a column per method, means."""
    parts = []
    for scale in sorted({row.scale for row in rows}):
        ours = [row for row in rows if row.scale == scale]
        names = list(dict.fromkeys(row.method for row in ours))
        found = {(row.clip, row.crf, row.method): row for row in ours}
        body = []
        for clip, crf in dict.fromkeys((row.clip, row.crf) for row in ours):
            line = [found[clip, crf, name] for name in names]
            body.append([clip, str(crf), f"{line[0].kbps:.0f}", *map(_video_cell, line)])
        means = [_mean_cell([row for row in ours if row.method == name]) for name in names]
        head = [f"clip, x{scale}", "crf", "kbit/s", *names]
        parts.append(_markdown(head, [*body, ["mean", "", "", *means]]))
    return "\n".join(parts)


def _video_cell(row: VideoRow) -> str:
    known = [_number(row.psnr, 3), _number(row.ssim, 4), _number(row.lpips, 4)]
    return " / ".join(filter(None, known))


def _mean_cell(rows: Sequence[VideoRow]) -> str:
    distances = [row.lpips for row in rows if row.lpips is not None]
    lpips = _number(float(np.mean(distances)) if distances else None, 4)
    db = f"{np.mean([row.psnr for row in rows]):.3f}"
    return f"{db} / {lpips}" if lpips else db


def footnotes(scoring: Scoring, settings: VideoSettings, images: bool, video: bool) -> list[str]:
    """Return the notes below the tables: the conditions of the measurements."""
    lines = []
    if images:
        grey = "scored as Y directly" if scoring.grey_as_y else "expanded to RGB (Set14 +0.09 dB)"
        lines.append(
            "PSNR (dB) and SSIM on Y of BT.601, `scale` pixels shaved, LR by MATLAB's bicubic; "
            f"grey files are {grey}."
        )
        if scoring.perceptual.note:
            lines.append(
                f"LPIPS (RGB), NIQE (Y) and others, shaved too, with {scoring.perceptual.note}."
            )
    if video:
        lines.append(
            f"Clips: downscaled by bicubic, x264 {settings.preset} at each crf, "
            f"{settings.frames} frames of the first {settings.window}; PSNR / SSIM on Y code "
            "values rounded to 8 bit, `scale` pixels shaved; bicubic is Keys -0.5, Lanczos has "
            "three lobes." + (" The third figure is LPIPS of Y as grey." if settings.lpips else "")
        )
    return lines


def create_folder(output: Path) -> None:
    """Make the folder before a measurement of hours, which must not fail at its end."""
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise TrainError(f"cannot create folder {output}: {exc.strerror}") from exc


def write_report(
    output: Path, text: str, images: Sequence[ImageRow], video: Sequence[VideoRow]
) -> None:
    """Write table.md and table.json into the folder."""
    content = {
        "images": [_as_json(row) for row in images],
        "video": [_as_json(row) for row in video],
    }
    whole = json.dumps(content, indent=1, allow_nan=False) + "\n"
    try:
        (output / "table.md").write_text(text, encoding="utf-8")
        (output / "table.json").write_text(whole, encoding="utf-8")
    except OSError as exc:
        raise TrainError(f"cannot write {exc.filename}: {exc.strerror}") from exc


def _as_json(row: ImageRow | VideoRow) -> Any:
    def known(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: known(item) for key, item in value.items()}
        return None if isinstance(value, float) and not math.isfinite(value) else value

    content = asdict(row)
    if isinstance(row, ImageRow):
        content["paper"] = row.paper._asdict()
    return known(content)
