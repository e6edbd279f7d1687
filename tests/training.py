"""Tiny trainings for tests: synthetic images, a recipe of a few steps, the real training loop."""

import io
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
import torch
from lightning_fabric import Fabric
from PIL import Image

from train.data.patches import Patches
from train.data.pictures import Pictures
from train.fit.loop import fit
from train.fit.recipe import Recipe
from train.fit.reporter import Reporter
from train.fit.trainer import Trainer

Pixels = npt.NDArray[np.uint8]

TINY = Recipe(steps=6, batch=2, patch=8, warmup=2)


def noise(height: int, width: int, seed: int = 0) -> Pixels:
    """Return RGB noise, in which no two regions look alike."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def scene(height: int, width: int, seed: int) -> Pixels:
    """Return a synthetic photograph with soft waves, hard edges and a little grain."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    waves = np.sin(x / rng.uniform(2, 6, 3)[:, None, None] + y / rng.uniform(3, 9))
    edges = np.sign(np.sin((x + 2 * y) / rng.uniform(4, 8)))
    grain = rng.normal(0, 3, (3, height, width))
    rgb = 128 + 50 * waves + 40 * edges + grain
    return np.clip(rgb, 0, 255).astype(np.uint8).transpose(1, 2, 0)


def encoded(image: Image.Image, kind: str = "PNG") -> bytes:
    """Return the bytes of an image file."""
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def png(image: Pixels) -> bytes:
    """Return the bytes of a PNG."""
    return encoded(Image.fromarray(image))


def image_folder(folder: Path, size: tuple[int, int] = (48, 64)) -> Path:
    """Create a folder with two scenes."""
    folder.mkdir()
    for seed in range(2):
        (folder / f"{seed}.png").write_bytes(png(scene(*size, seed)))
    return folder


def rgb_clip(path: Path, frames: list[Pixels], full_range: bool = False) -> Path:
    """Encode RGB frames without loss, as 4:2:0 with BT.601's matrix."""
    with av.open(str(path), "w") as out:
        video = out.add_stream("libx264", rate=25, options={"qp": "0"})
        video.height, video.width = frames[0].shape[:2]
        video.pix_fmt = "yuvj420p" if full_range else "yuv420p"
        video.codec_context.color_range = 2 if full_range else 1
        video.codec_context.colorspace = 5
        for picture in frames:
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            frame = frame.reformat(
                format=video.pix_fmt,
                src_color_range=2,
                dst_color_range=2 if full_range else 1,
                dst_colorspace=5,
            )
            out.mux(video.encode(frame))
        out.mux(video.encode(None))
    return path


def panning_clip(path: Path, size: tuple[int, int], frames: int) -> Path:
    """Create a lossless grey clip of `size` (height, width) that pans over a synthetic scene."""
    height, width = size
    # grey, as chroma would be subsampled
    picture = np.repeat(scene(height, width + frames, 3)[..., :1], 3, axis=2)
    return rgb_clip(path, [picture[:, k : k + width] for k in range(frames)])


def patches_for(trainer: Trainer, folder: Path) -> Patches:
    """Return the patches of a folder for a trainer's recipe and network."""
    recipe, net = trainer.recipe, trainer.net
    pictures = Pictures.load([folder], net.scales, recipe)
    return Patches(pictures, recipe, net.colour, net.scales)


def train(
    trainer: Trainer, patches: Patches, checkpoint: Path, reporter: Reporter | None = None
) -> bool:
    """Run `fit` on the CPU, even if the machine has a GPU."""
    fabric = Fabric(accelerator="cpu", devices=1)
    return fit(trainer, patches, checkpoint, reporter or Reporter(every=2), fabric)


def assert_same(ours: Any, theirs: Any) -> None:
    """Assert that nested dictionaries of tensors and numbers are exactly equal."""
    if isinstance(ours, torch.Tensor):
        assert torch.equal(ours, theirs)
    elif isinstance(ours, dict):
        assert list(ours) == list(theirs)
        for key in ours:
            assert_same(ours[key], theirs[key])
    else:
        assert ours == theirs
