"""Measures networks on compressed video: Y-PSNR of the whole pipeline against the original.

The original is downscaled by 2 (bicubic), encoded as a stream would be (x264), upscaled by `vsr
run` and compared with the original, for every model:
`python bench/quality.py CLIP [--crf 18] [MODEL ...]`.
"""

import argparse
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt

import vsr
from vsr.inference import models


def luma_frames(path: Path) -> Iterator[npt.NDArray[np.float64]]:
    """Yield Y of every frame, [H, W] code values."""
    with av.open(str(path)) as container:
        for picture in container.decode(video=0):
            yield np.from_dlpack(picture.planes[0]).astype(np.float64)


def halve_and_compress(source: Path, target: Path, crf: int) -> None:
    """Scale down by two with swscale's bicubic and encode with x264 at `crf`."""
    with av.open(str(source)) as clip, av.open(str(target), "w") as out:
        stream = clip.streams.video[0]
        video = out.add_stream("libx264", rate=stream.average_rate, options={"crf": str(crf)})
        context, given = video.codec_context, stream.codec_context
        context.time_base = stream.time_base
        video.width, video.height = given.width // 2, given.height // 2
        context.colorspace, context.color_range = given.colorspace, given.color_range
        for picture in clip.decode(stream):
            small = picture.reformat(video.width, video.height, interpolation="BICUBIC")
            small.pict_type = 0
            out.mux(video.encode(small))
        out.mux(video.encode(None))


def y_psnr(ours: Path, truth: Path) -> float:
    """Return the mean over frames of the Y-PSNR, in dB."""
    scores = []
    for a, b in zip(luma_frames(ours), luma_frames(truth), strict=True):
        scores.append(10 * np.log10(255**2 / np.mean((a - b) ** 2)))
    return float(np.mean(scores))


def main() -> None:
    """Print one line per model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("clip", type=Path)
    parser.add_argument("model", nargs="*")
    parser.add_argument("--crf", type=int, default=18, help="crf of the low-resolution stream")
    arguments = parser.parse_args()
    known = [e["model"] for e in models.catalogue() if e["scale"] == 2]
    with tempfile.TemporaryDirectory() as folder:
        low = Path(folder) / "low.mp4"
        halve_and_compress(arguments.clip, low, arguments.crf)
        reference = None
        for model in ["bicubic", *(m for m in arguments.model or known if m != "bicubic")]:
            high = Path(folder) / "high.mp4"
            vsr.upscale(low, high, model=model, scale=2, crf=12, overwrite=True)
            score = y_psnr(high, arguments.clip)
            reference = score if reference is None else reference
            sys.stdout.write(f"{model:<12} {score:6.2f} dB  {score - reference:+.2f}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
