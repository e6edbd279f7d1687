"""Draw the pictures of the model cards: the same crops from bicubic, a network, and the truth.

The scenes are frames of openly licensed film, halved in size to remove coding noise, and stored in
`scenes/`. Benchmark images may be used for measurements, but not redistributed.
"""

import io
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

import av
import numpy as np
from PIL import Image

from train.data.degrade import StreamSettings, encoded_pairs
from train.data.images import Pixels, to_input
from train.data.resize import downscale
from train.errors import TrainError
from train.measure.evaluate import Enlarge, bicubic_method, picture
from train.measure.sheet import SheetRow, draw_sheet

FOLDER: Final = Path(__file__).parent / "scenes"
SIDE: Final = 264
"""Side of a scene in pixels, a multiple of all scales."""
CREDIT: Final = "Big Buck Bunny, (c) Blender Foundation, www.bigbuckbunny.org, CC BY 3.0"
_CROP_SIDE: Final = 96
"""Side of a crop in pixels; every pixel is shown as 2x2."""
_JPEG_QUALITY: Final = 85
_CRF: Final = 28


@dataclass(frozen=True, kw_only=True)
class Scene:
    """Square of SIDE pixels in a frame that was halved in size."""

    name: str
    second: float
    left: int
    top: int


SCENES: Final = (
    Scene(name="leaves", second=12.0, left=250, top=96),
    Scene(name="bird", second=20.0, left=160, top=30),
)


def cut_scene(clip: Path, scene: Scene) -> Pixels:
    """Cut a scene out of the film's clip: uint8 RGB [SIDE, SIDE, 3]."""
    with av.open(str(clip)) as container:
        for frame in container.decode(video=0):
            if frame.time is not None and frame.time >= scene.second:
                small = downscale(frame.to_ndarray(format="rgb24").astype(np.uint8), 2)
                return small[scene.top :, scene.left :][:SIDE, :SIDE]
    raise TrainError(f"{clip} ends before {scene.second:g} s")


@cache
def load_scene(scene: Scene) -> Pixels:
    """Read a scene from `scenes/`."""
    with Image.open(FOLDER / f"{scene.name}.png") as image:
        return np.asarray(image.convert("RGB"))


def scene_pair(scene: Scene, scale: int, compressed: bool) -> tuple[Pixels, Pixels]:
    """Return (LR, HR) of a scene; if `compressed`, of a moving clip encoded by x264 at crf 28."""
    hr = load_scene(scene)
    if not compressed:
        return downscale(hr, scale), hr
    side = SIDE // scale - 6  # room to move
    settings = StreamSettings(
        largest_window=side - side % 2, smallest_window=16, kept_frames=1,
        still_share=0, max_speed=2, soft_share=0, blurred_share=0, noisy_share=0,
        hevc_share=0, low_latency_share=0, crf=(_CRF, _CRF), presets=(("veryfast", 1.0),),
    )  # fmt: skip
    return encoded_pairs(hr, scale, np.random.default_rng(1), settings)[0]


def draw_crops(enlarge: Enlarge, model: str, scale: int, colour: str, compressed: bool) -> bytes:
    """Draw a network's sheet as JPEG: a row per scene, columns bicubic, network, truth."""
    rows = []
    for scene in SCENES:
        lr, hr = scene_pair(scene, scale, compressed)
        bicubic = bicubic_method(scale)
        made = {
            "bicubic": _enlarged(bicubic.enlarge, lr, bicubic.colour),
            f"{model} x{scale}": _enlarged(enlarge, lr, colour),
        }
        rows.append(SheetRow(name=scene.name, truth=hr, pictures=made))
    buffer = io.BytesIO()
    sheet = draw_sheet(rows, crop=_CROP_SIDE)
    # every pixel is shown as 2x2, so chroma subsampling loses nothing
    sheet.save(buffer, "JPEG", quality=_JPEG_QUALITY, subsampling=2, optimize=True)
    return buffer.getvalue()


def _enlarged(enlarge: Enlarge, lr: Pixels, colour: str) -> Pixels:
    out = enlarge(np.moveaxis(to_input(lr, colour), -1, 0)[None])
    return picture(out[0], lr, colour)
