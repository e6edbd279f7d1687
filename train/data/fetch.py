"""Download the papers' data sets by name, verify and unpack them.

A set is one folder of images in the target folder. It is renamed into place when all images are
unpacked, so it is never incomplete. Until then only the archive or a part of it exists; the next
run resumes from that.
"""

import gzip
import hashlib
import logging
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO

from train.data.download import Settings, download, format_size, received_bytes
from train.errors import TrainError

log = logging.getLogger(__name__)

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp"}
_ARCHIVE_ERRORS = (tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, EOFError)


@dataclass(frozen=True)
class DataSet:
    """Source of a set of images, and the data to verify that it is complete."""

    name: str
    url: str
    size: int
    """Size of the archive in bytes, maybe rounded; used for the disk space check only."""
    images: int
    folders: tuple[str, ...]
    """Ends of the archive paths of the folders to unpack; if several, each keeps its last name."""
    digest: str | None
    """Published `sha256:...` or `md5:...` of the archive; None: that of the first download."""
    note: str = ""
    merge_folders: bool = False
    """Whether several folders are unpacked into one."""

    @property
    def file(self) -> str:
        """Return the archive's file name."""
        return self.url.rsplit("/", 1)[-1]


_DIV2K = "https://data.vision.ee.ethz.ch/cvl/DIV2K/"
_HUB = "https://huggingface.co/datasets/"
# The SRCNN authors' package holds their training and test images as BMP. Two unrelated projects
# that fetched it in 2026 state the same SHA-256 and size.
_SRCNN = "https://mmlab.ie.cuhk.edu.hk/projects/SRCNN/SRCNN_train.zip"
_SRCNN_SIZE = 19_619_221
_SRCNN_DIGEST = "sha256:001146419f7acfb12a3e7929c8acd5de88a08d687d6881085f81321ad6982b1a"

# size: tensorpack; digest: at least three unrelated projects; Berkeley publishes none
_BERKELEY = "https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/BSR/"
_BSDS_SIZE = 70_763_455
_BSDS_DIGEST = "sha256:97e49d31764f3912f0c4122707d53062ac9e783ba0f095e447a4d53c1a41af8e"

_ALL = (
    DataSet(  # size and digest: TensorFlow Datasets, div2k/checksums.tsv
        "div2k", _DIV2K + "DIV2K_train_HR.zip", 3_530_603_713, 800, ("DIV2K_train_HR",),
        "sha256:9d0b9c463f6e35b6c62cc6a930ee2224f670b34c1df841a57670f9acf0f6c335",
    ),
    DataSet(  # size and digest: as div2k
        "div2k-valid", _DIV2K + "DIV2K_valid_HR.zip", 448_993_893, 100, ("DIV2K_valid_HR",),
        "sha256:20dd31fd84d777bc1cf5d6b7654a3f569c0aec74458ae094122ad1d0489900fc",
    ),
    # A mirror with the HR images only: the authors' archive (cv.snu.ac.kr) also has low-resolution
    # copies of all of them. Digest: the hub's page of the file
    DataSet(
        "flickr2k", _HUB + "goodfellowliu/Flickr2K/resolve/main/Flickr2K.zip", 11_600_000_000,
        2650, ("Flickr2K",),
        "sha256:401a5b1d247d18d1114b77b069e3c7bf235c80f06b8b9caaef0086d07f1d42a3",
    ),
    DataSet(
        "bsds500", _BERKELEY + "BSR_bsds500.tgz", _BSDS_SIZE, 500,
        tuple(f"BSDS500/data/images/{part}" for part in ("train", "val", "test")), _BSDS_DIGEST,
        "train on its train and test folders only: the BSD100 benchmark is cut from val",
    ),
    DataSet(  # what the shipped networks were trained on
        "bsds400", _BERKELEY + "BSR_bsds500.tgz", _BSDS_SIZE, 400,
        tuple(f"BSDS500/data/images/{part}" for part in ("train", "test")), _BSDS_DIGEST,
        merge_folders=True,
    ),
    DataSet("yang91", _SRCNN, _SRCNN_SIZE, 91, ("Train",), _SRCNN_DIGEST),
    DataSet("set5", _SRCNN, _SRCNN_SIZE, 5, ("Test/Set5",), _SRCNN_DIGEST),
    DataSet("set14", _SRCNN, _SRCNN_SIZE, 14, ("Test/Set14",), _SRCNN_DIGEST),
    DataSet(  # digest: the hub's page of the file
        "bsd100", _HUB + "eugenesiow/BSD100/resolve/main/data/BSD100_HR.tar.gz", 27_200_000, 100,
        ("BSD100_HR",), "sha256:333495ccded04a0db52b33361140821ea7e0d8af8dfb54b58df79a00010858d6",
    ),
    DataSet(  # digest: deepinv's examples; MD5 detects damage, not tampering
        "urban100", _HUB + "eugenesiow/Urban100/resolve/main/data/Urban100_HR.tar.gz", 135_000_000,
        100, ("Urban100_HR",), "md5:65d9d84a34b72c6f7ca1e26a12df1e4c",
    ),
)  # fmt: skip
DATA_SETS = {data_set.name: data_set for data_set in _ALL}


def fetch(
    data_set: DataSet, to: Path, *, keep_archive: bool = False, settings: Settings | None = None
) -> Path:
    """Download `data_set` into a folder of its name in `to`, unless it exists; return that folder.

    Raises TrainError; after an error or a kill, the same call resumes where it stopped.
    """
    folder, archive = to / data_set.name, to / data_set.file
    if folder.exists():
        _check_images(data_set, folder)
        log.info("%s: already in %s", data_set.name, folder)
        return folder
    try:
        to.mkdir(parents=True, exist_ok=True)
        if not archive.exists():
            # images hardly compress: unpacked they need about the archive's size again
            _check_disk_space(to, data_set.name, 2 * data_set.size - received_bytes(archive))
            log.info("%s: downloading %s", data_set.name, data_set.url)
            download(data_set.url, archive, settings or Settings())
        _check_digest(data_set, archive)
        _unpack(data_set, archive, folder)
        if not keep_archive:
            archive.unlink()
    except OSError as exc:
        raise TrainError(
            f"{exc.filename or to}: {exc.strerror or exc}: choose another folder with --to"
        ) from exc
    log.info("%s: %d images in %s", data_set.name, data_set.images, folder)
    if data_set.note:
        log.info("%s: %s", data_set.name, data_set.note)
    return folder


def _check_images(data_set: DataSet, folder: Path) -> None:
    """Raise TrainError if the folder has another number of images: then it was not made here."""
    count = sum(path.suffix.lower() in SUFFIXES for path in folder.rglob("*"))
    if count != data_set.images:
        raise TrainError(
            f"{folder}: {count} images found, {data_set.name} has {data_set.images}: "
            "move the folder away and fetch again"
        )


def _check_disk_space(to: Path, name: str, needed: int) -> None:
    free = shutil.disk_usage(to).free
    if free < needed:
        raise TrainError(
            f"{to}: {name} needs {format_size(needed)}, only {format_size(free)} are free: "
            "free disk space or choose another folder with --to"
        )


# Checking


def _digest_file(archive: Path) -> Path:
    """Return the path of the file with the first download's digest, readable by `sha256sum -c`."""
    return archive.with_name(archive.name + ".sha256")


def _check_digest(data_set: DataSet, archive: Path) -> None:
    """Compare with the published or else the first download's digest; delete a wrong archive."""
    record = _digest_file(archive)
    if data_set.digest:
        (kind, expected), origin = data_set.digest.split(":"), "published"
    elif record.exists():
        kind, expected = "sha256", record.read_text(encoding="utf-8").split()[0]
        origin = f"recorded in {record.name}"
    else:
        log.warning("%s: no published checksum, recording that of this download", archive.name)
        return
    log.info("%s: verifying %s", archive.name, kind)
    found = _digest(archive, kind)
    if found != expected:
        archive.unlink()
        raise TrainError(
            f"{archive.name}: {kind} is {found}, expected {expected} ({origin}): "
            "archive deleted, fetch again"
        )


def _digest(path: Path, kind: str) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, kind).hexdigest()


# Unpacking


@dataclass(frozen=True)
class _Member:
    """A regular file in an archive."""

    name: str
    size: int
    open: Callable[[], IO[bytes] | None]


def _unpack(data_set: DataSet, archive: Path, folder: Path) -> None:
    """Unpack the archive's images to a scratch folder and rename it to `folder` at the end."""
    scratch = folder.with_name(folder.name + ".unpacking")
    shutil.rmtree(scratch, ignore_errors=True)  # left by a killed run
    try:
        with _members(archive) as members:
            selected = _select_images(data_set, archive, members)
            _check_disk_space(
                folder.parent, folder.name, sum(member.size for member, _ in selected)
            )
            log.info("%s: unpacking %d images", folder.name, len(selected))
            for member, place in selected:
                _write(member, scratch / place)
        if not data_set.digest:  # only now is it known to be a valid archive
            line = f"{_digest(archive, 'sha256')}  {archive.name}\n"
            _digest_file(archive).write_text(line, encoding="utf-8")
        scratch.replace(folder)
    except _ARCHIVE_ERRORS as exc:
        archive.unlink()
        raise TrainError(
            f"{archive}: archive is damaged or incomplete ({exc}): deleted, fetch again"
        ) from exc
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


@contextmanager
def _members(archive: Path) -> Iterator[list[_Member]]:
    """List the regular files of an open zip or tar; links, devices and folders are left out."""
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive) as packed:
            infos = [info for info in packed.infolist() if not info.is_dir()]
            yield [_Member(i.filename, i.file_size, partial(packed.open, i)) for i in infos]
    else:
        with tarfile.open(archive) as tape:
            files = [info for info in tape if info.isfile()]
            yield [_Member(i.name, i.size, partial(tape.extractfile, i)) for i in files]


def _select_images(
    data_set: DataSet, archive: Path, members: list[_Member]
) -> list[tuple[_Member, PurePosixPath]]:
    """Return the set's images and their target paths; raise TrainError for an unexpected archive.

    Only the last name of a path in the archive is used, so nothing is written outside the folder.
    """
    found = []
    for member in members:
        path = PurePosixPath(member.name.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts:
            raise TrainError(
                f"{archive}: unsafe path {member.name!r} in the archive: delete the archive"
            )
        if path.suffix.lower() not in SUFFIXES or path.name.startswith("."):
            continue  # "._x.png" holds macOS metadata of x.png
        for inside in map(PurePosixPath, data_set.folders):
            if path.parent.parts[-len(inside.parts) :] == inside.parts:
                apart = len(data_set.folders) > 1 and not data_set.merge_folders
                own = inside.name if apart else ""
                found.append((member, PurePosixPath(own, path.name)))
    if len(found) != data_set.images:
        raise TrainError(
            f"{archive}: {len(found)} images of {data_set.name} found, expected {data_set.images}: "
            "unpack it manually"
        )
    return found


def _write(member: _Member, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    source = member.open()
    assert source is not None  # only a tar's links and folders have none
    with source, path.open("xb") as file:
        shutil.copyfileobj(source, file, 1 << 20)
