"""Write files atomically, and read weight files without executing code in them."""

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
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """Open a temporary file beside `path` that replaces `path` at the end; any error deletes it.

    An existing file stays intact until the replacement. Raises OSError if writing fails.
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
    """Load a file written by `torch.save` onto the CPU; code in the file never runs.

    Raises TrainError if the file is missing, damaged, of another format or contains code.
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
            warnings.simplefilter("ignore")  # torch's on unusual pickles; real problems raise
            return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as exc:
        raise TrainError(
            f"{path} is damaged, not a file of weights, or contains more than weights"
        ) from exc
    except Exception as exc:  # for foreign files the libraries raise almost any type
        why = (str(exc).splitlines() or [""])[0]
        raise TrainError(f"{path} is damaged, or not a file of weights: {why}") from exc


def _check_archive(file: BinaryIO) -> None:
    """Raise BadZipFile for a wrong checksum; torch itself does not verify checksums."""
    with zipfile.ZipFile(file) as archive:
        if damaged := archive.testzip():
            raise zipfile.BadZipFile(f"wrong checksum of {damaged}")
