"""Files written whole or not at all, and files of weights read without running what they hold."""

import io
import os
import pickle
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import torch

from train.errors import TrainError


@contextmanager
def written_whole(path: Path) -> Iterator[BinaryIO]:
    """A file beside `path` to write to, which takes its place at the end; any error removes it.

    What was there before is there until then. Raises OSError where it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with temporary.open("wb") as file:
            yield file
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def load_torch(path: Path) -> Any:
    """What `torch.save` wrote, on the CPU; code in the file never runs.

    Raises TrainError for a file that is missing, damaged, something else, or holds code.
    """
    try:
        file = io.BytesIO(path.read_bytes())
    except OSError as exc:
        raise TrainError(f"cannot read {path}: {exc.strerror}") from exc
    try:
        if zipfile.is_zipfile(file):  # the older format has no checksums
            _check_archive(file)
        file.seek(0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's about odd pickles: what matters raises
            return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as exc:
        raise TrainError(
            f"{path} is refused: damaged, not a file of weights, or it holds more than weights"
        ) from exc
    except Exception as exc:  # bytes that are no such file raise nearly anything in the libraries
        why = (str(exc).splitlines() or [""])[0]
        raise TrainError(f"{path} is damaged, or not a file of weights: {why}") from exc


def _check_archive(file: BinaryIO) -> None:
    """Raise BadZipFile for a wrong checksum: torch itself does not look at them."""
    with zipfile.ZipFile(file) as archive:
        if damaged := archive.testzip():
            raise zipfile.BadZipFile(f"wrong checksum of {damaged}")
