"""Renders README's picture: a compressed clip upscaled by bicubic and by a network, side by side.

`python examples/make_picture.py CLIP [MODEL]` writes `examples/bicubic_beside_ours.png`. The clip's
first frames are halved and encoded by x264 first. README's picture is made of
`crystal_480p30_h264_aac.mp4`, a clip in the public domain (CC0) of mdn/learning-area.
"""

import sys
import tempfile
from itertools import islice
from pathlib import Path

import av
import numpy as np
from make_sample import write
from numpy.typing import NDArray

import vsr

HERE = Path(__file__).parent
FRAME = 30
CROP = (slice(70, 370), slice(220, 620))
"""Rows and columns of the crop of the upscaled 720x480 picture: glass and wood."""
ZOOM = 2
"""Factor of pixel repetition, so that browsers do not smooth single pixels away."""
CRF = "26"
"""Quality of the compressed clip, as of many streams."""


def write_half(clip: Path, target: Path) -> None:
    """Write the clip's first frames at half its width and height, compressed."""
    with av.open(str(clip)) as source, av.open(str(target), "w") as out:
        stream = source.streams.video[0]
        video = out.add_stream("libx264", rate=stream.average_rate, options={"crf": CRF})
        video.width, video.height = stream.width // 4 * 2, stream.height // 4 * 2
        video.pix_fmt = "yuv420p"
        for frame in islice(source.decode(stream), FRAME + 10):
            half = frame.reformat(video.width, video.height, interpolation="BICUBIC")
            out.mux(video.encode(half))
        out.mux(video.encode(None))


def upscaled_crop(source: Path, model: str) -> NDArray[np.uint8]:
    """Return frame `FRAME`, upscaled by `vsr` with `model`, cropped and zoomed: RGB [H, W, 3]."""
    target = source.with_name(f"{model}.mp4")
    vsr.upscale(source, target, model=model, crf=4)
    with av.open(str(target)) as container:
        picture = next(islice(container.decode(video=0), FRAME, None))
    pixels = picture.to_ndarray(format="rgb24")[CROP]
    return np.repeat(np.repeat(pixels, ZOOM, 0), ZOOM, 1)


def add_label(pixels: NDArray[np.uint8], text: str) -> NDArray[np.uint8]:
    """Return the picture with a dark strip below that has `text` in the sample's stroke font."""
    strip = np.zeros((44, pixels.shape[1], 3))
    write(strip, text, (16.0, 8.0), 3.0)
    return np.vstack([pixels, np.clip(strip * (255 if strip.max() <= 1 else 1), 0, 255)]).astype(
        np.uint8
    )


def save_png(path: Path, pixels: NDArray[np.uint8]) -> None:
    """Write RGB [H, W, 3] as PNG with FFmpeg's encoder."""
    context = av.CodecContext.create("png", "w")
    assert isinstance(context, av.VideoCodecContext)
    context.height, context.width = pixels.shape[:2]
    context.pix_fmt = "rgb24"
    context.time_base = 1
    packets = [*context.encode(av.VideoFrame.from_ndarray(pixels)), *context.encode(None)]
    path.write_bytes(b"".join(bytes(packet) for packet in packets))


def main(clip: str, model: str = "rt-sharp") -> None:
    """Render the picture."""
    with tempfile.TemporaryDirectory() as folder:
        half = Path(folder) / "half.mp4"
        write_half(Path(clip), half)
        halves = [add_label(upscaled_crop(half, name), name) for name in ("bicubic", model)]
    save_png(HERE / "bicubic_beside_ours.png", np.hstack(halves))


if __name__ == "__main__":
    main(*sys.argv[1:3])
