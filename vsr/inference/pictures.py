"""Enlarges single pictures, RGB arrays or Frames, with a network compiled for one size."""

from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import Any, Final, Protocol, Self, cast, overload, runtime_checkable

import numpy as np
import numpy.typing as npt

from vsr.errors import UsageError
from vsr.inference import models
from vsr.inference.backend import Backend, check_batch, load_backend
from vsr.inference.default import DEFAULT
from vsr.inference.models import Model
from vsr.inference.upscaler import Upscaler
from vsr.media.colour import RGB, Colour
from vsr.media.frame import Frame
from vsr.media.plane_format import PlaneFormat
from vsr.media.validation import check_type

RgbArray = npt.NDArray[np.unsignedinteger[Any]]
"""R'G'B' [H, W, 3] or [N, H, W, 3]: uint8 in 0..255 or uint16 in 0..65535."""
_RGB_COLOUR: Final = Colour(matrix=RGB, full_range=True)
_TIME_BASE: Final = Fraction(1)


@runtime_checkable
class DlpackArray(Protocol):
    """Any array that supports DLPack, such as a torch tensor."""

    def __dlpack__(self, **_: Any) -> Any:
        """See https://dmlc.github.io/dlpack/latest/python_spec.html."""
        ...


class PictureEngine:
    """A network compiled for pictures of one size; created by `load_engine`.

    Call it with a picture, from one thread at a time:

    - R'G'B' as numpy uint8 or uint16 [H, W, 3], or [N, H, W, 3] for several: returns a new array of
      the same dtype, `scale` times as high and wide.
    - anything with `__dlpack__`, such as a torch tensor of that shape and dtype: returns a numpy
      array (`torch.from_numpy` takes it without a copy). GPU memory is copied to the host.
    - a `Frame`: returns a `Frame` with the same time and colour.

    Raises UsageError for another size, shape or dtype, BackendError if inference fails.
    """

    def __init__(self, model: Model, backend: Backend, size: tuple[int, int], batch: int) -> None:
        self.model, self.backend, self.size = model, backend, size
        self._batch = batch
        self._upscalers: dict[tuple[Colour, PlaneFormat], Upscaler] = {}
        self._is_open = True
        self._upscaler(_RGB_COLOUR, _rgb_planes(np.dtype(np.uint8)))

    @property
    def scale(self) -> int:
        """Enlargement factor of width and height."""
        return self.model.scale

    @property
    def out_size(self) -> tuple[int, int]:
        """(width, height) of an enlarged array."""
        return self.size[0] * self.scale, self.size[1] * self.scale

    @overload
    def __call__(self, picture: Frame) -> Frame: ...

    @overload
    def __call__(self, picture: RgbArray | DlpackArray) -> RgbArray: ...

    def __call__(self, picture: Frame | RgbArray | DlpackArray) -> Frame | RgbArray:
        """Return the enlarged picture, see the class."""
        if not self._is_open:
            raise UsageError("the engine is closed: call load_engine again")
        if isinstance(picture, Frame):
            self._check_size(picture.planes[0].shape)
            (result,) = self._upscaler(picture.colour, picture.format).process([picture])
            return result
        array = _as_array(picture)
        if array.ndim == 4:
            return np.stack(list(self._enlarge_rgb(array)))
        (enlarged,) = self._enlarge_rgb(array[None])
        return enlarged

    def close(self) -> None:
        """Free the engine's memory; safe to call twice."""
        self._upscalers.clear()
        self._is_open = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _enlarge_rgb(self, pictures: RgbArray) -> Iterator[RgbArray]:
        self._check_size(pictures.shape[1:3])
        plane_format = _rgb_planes(pictures.dtype)
        frames = (_frame(picture, plane_format, index) for index, picture in enumerate(pictures))
        width, height = self.out_size
        for enlarged in self._upscaler(_RGB_COLOUR, plane_format).process(frames):
            green, blue, red = enlarged.planes
            yield np.stack([red, green, blue], axis=-1)[:height, :width]

    def _upscaler(self, colour: Colour, plane_format: PlaneFormat) -> Upscaler:
        key = (colour, plane_format)
        if key not in self._upscalers:
            self._upscalers[key] = Upscaler(
                self.model,
                self.backend,
                colour,
                self.size,
                self._batch,
                fall_back=True,
                planes=plane_format,
            )
        return self._upscalers[key]

    def _check_size(self, shape: Sequence[int]) -> None:
        height, width = shape[0], shape[1]
        if (width, height) != self.size:
            expected = "x".join(map(str, self.size))
            raise UsageError(
                f"picture is {width}x{height}, engine expects {expected}: load one for that size"
            )


def load_engine(
    model: str = DEFAULT,
    *,
    scale: int | None = None,
    size: tuple[int, int],
    precision: str = "auto",
    backend: str = "auto",
    device: str | None = None,
    batch: int = 1,
) -> PictureEngine:
    """Compile a network for pictures of `size` (width, height), as a context manager.

    `with vsr.load_engine("dcscn", scale=2, size=(640, 360)) as engine: big = engine(rgb)`. `model`
    is a name listed by `vsr models` or an .onnx file; other options are those of `vsr run`. Loading
    takes a second with OpenVINO and may take minutes with TensorRT, once for each size. Raises
    UsageError, ModelError or BackendError.
    """
    check_type("size", size, tuple[int, int])
    if min(size) < 1:
        raise UsageError(f"size is {size[0]}x{size[1]}: both must be 1 or more")
    runner = load_backend(backend, device)
    check_batch(batch, runner)
    return PictureEngine(models.find(model, scale, runner, precision), runner, size, batch)


def _rgb_planes(dtype: np.dtype[Any]) -> PlaneFormat:
    return PlaneFormat(bits=8 * dtype.itemsize, chroma_x=1, chroma_y=1)


def _frame(picture: RgbArray, plane_format: PlaneFormat, index: int) -> Frame:
    red, green, blue = (np.ascontiguousarray(picture[..., k]) for k in range(3))
    return Frame(
        planes=(green, blue, red), index=index, pts=index, time_base=_TIME_BASE, duration=1,
        format=plane_format, colour=_RGB_COLOUR,
    )  # fmt: skip


def _as_array(picture: object) -> RgbArray:
    """Convert a picture to an `RgbArray`. Raises UsageError if that is impossible."""
    array: npt.NDArray[Any]
    if isinstance(picture, np.ndarray):
        array = picture
    elif isinstance(picture, DlpackArray):
        try:
            array = np.from_dlpack(picture, device="cpu")
        except (BufferError, RuntimeError, TypeError, ValueError) as exc:
            raise UsageError(f"cannot read the picture's memory: {exc}") from exc
    else:
        raise UsageError(f"a {type(picture).__name__} is not a picture: pass an array or a Frame")
    if array.ndim not in (3, 4) or array.shape[-1] != 3 or 0 in array.shape:
        raise UsageError(f"array has shape {array.shape}, expected [H, W, 3] or [N, H, W, 3]")
    if array.dtype not in (np.uint8, np.uint16):
        raise UsageError(
            f"array has dtype {array.dtype}, expected uint8 (0..255) or uint16 (0..65535)"
        )
    return cast(RgbArray, array)
