"""Renders README's picture: the sample clip upscaled by bicubic and by a network, side by side.

`python examples/make_picture.py [MODEL]` writes `examples/bicubic_beside_ours.png`.
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
FRAME = 40
CROP = (slice(16, 316), slice(16, 416))
"""Rows and columns of the crop of the upscaled 640x360 picture: lettering, cables and balloon."""
ZOOM = 2
"""Factor of pixel repetition, so that browsers do not smooth single pixels away."""


def upscaled_crop(model: str) -> NDArray[np.uint8]:
    """Return frame `FRAME`, upscaled by `vsr` with `model`, cropped and zoomed: RGB [H, W, 3]."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "out.mp4"
        vsr.upscale(HERE / "sample.mp4", target, model=model, crf=4, max_frames=FRAME + 20)
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


def main(model: str = "dcscn") -> None:
    """Render the picture."""
    halves = [add_label(upscaled_crop(name), name) for name in ("bicubic", model)]
    save_png(HERE / "bicubic_beside_ours.png", np.hstack(halves))


if __name__ == "__main__":
    main(*sys.argv[1:2])
