"""Tests of fetching data sets from a local HTTP server that simulates faults."""

import gzip
import hashlib
import io
import logging
import re
import shutil
import socket
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest

from train.data import download as download_module
from train.data import fetch as fetch_module
from train.data.download import Settings, download, format_size
from train.data.fetch import DATA_SETS, DataSet, fetch
from train.errors import TrainError

ROOT = Path(__file__).parents[2]
QUICK = Settings(attempts=3, pause=0.001, longest_pause=0.01, timeout=5)
IMAGES = {f"HR/{n}.png": bytes([n]) * 3000 + n.to_bytes(2) * 2000 for n in range(4)}


class Site(ThreadingHTTPServer):
    """HTTP server with one file at every path and configurable faults."""

    daemon_threads = False  # closing waits for the threads, so no socket stays open

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.body = b""
        self.headers: dict[str, str] = {"ETag": '"one"'}
        self.ranges = True
        self.rude = False  # ignore If-Range and send the range
        self.range_form = "bytes {begin}-{last}/{whole}"
        self.length: int | None = None  # Content-Length if not the true one; -1: none
        self.statuses: list[int] = []  # HTTP statuses of the next responses
        self.cuts: list[int] = []  # bytes after which the next responses break off
        self.moved = False
        self.stall = threading.Event()
        self.stalls = 0  # number of next requests that get no response until `stall`
        self.hang: int | None = None  # bytes after which the next response waits for `stall`
        self.asked: list[dict[str, str]] = []
        self.sent = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/"


class _Handler(BaseHTTPRequestHandler):
    server: Site

    def do_GET(self) -> None:
        site = self.server
        site.asked.append(dict(self.headers.items()))
        if site.stalls:
            site.stalls -= 1
            site.stall.wait(5)
            return
        if site.statuses:
            self._reply(site.statuses.pop(0), {"Content-Length": "0"}, b"")
        elif site.moved and not self.path.startswith("/new/"):
            self._reply(302, {"Location": f"/new{self.path}", "Content-Length": "0"}, b"")
        else:
            self._send(site)

    def _send(self, site: Site) -> None:
        asked, body, headers = self.headers.get("Range"), site.body, dict(site.headers)
        own = {site.headers.get("ETag"), site.headers.get("Last-Modified")}
        status = 200
        if asked and site.ranges and (site.rude or self.headers.get("If-Range") in own):
            begin, status = int(asked.removeprefix("bytes=").removesuffix("-")), 206
            places = {"begin": begin, "last": len(body) - 1, "whole": len(body)}
            headers["Content-Range"] = site.range_form.format(**places)
            if begin >= len(body):
                return self._reply(416, {"Content-Range": f"bytes */{len(body)}"}, b"")
            body = body[begin:]
        if site.length != -1:
            headers["Content-Length"] = str(site.length or len(body))
        return self._reply(status, headers, body[: site.cuts.pop(0)] if site.cuts else body)

    def _reply(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        hang, self.server.hang = self.server.hang, None
        body = body[:hang] if hang else body
        self.server.sent += len(body)  # before the client receives the last byte
        self.wfile.write(body)
        if hang:
            self.server.stall.wait(10)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setenv("no_proxy", "*")
    with Site() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.005,))
        thread.start()
        yield server
        server.stall.set()
        server.shutdown()
        thread.join()


def _zip(files: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    with io.BytesIO() as buffer:
        with zipfile.ZipFile(buffer, "w", method) as packed:
            for name, data in files.items():
                packed.writestr(name, data)
        return buffer.getvalue()


def _tgz(files: dict[str, bytes], links: dict[str, str] | None = None) -> bytes:
    with io.BytesIO() as buffer:
        with tarfile.open(fileobj=buffer, mode="w:gz") as tape:
            for name, data in files.items():
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tape.addfile(info, io.BytesIO(data))
            for name, target in (links or {}).items():
                info = tarfile.TarInfo(name)
                info.type, info.linkname = tarfile.SYMTYPE, target
                tape.addfile(info)
        return buffer.getvalue()


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _offer(site: Site, body: bytes, name: str = "set.zip", **other: object) -> DataSet:
    """Serve `body` from the site and return the data set that describes it."""
    site.body = body
    whole = DataSet(
        "set", site.url + name, len(body), len(IMAGES), ("HR",), f"sha256:{_sha256(body)}"
    )
    return replace(whole, **other)  # type: ignore[arg-type]


def _files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


WHOLE = {f"set/{Path(name).name}": data for name, data in IMAGES.items()}
"""Files after a fetch, path -> content: the images and nothing else."""


# fetched files


def test_a_zip_becomes_a_folder_of_its_images(site: Site, tmp_path: Path) -> None:
    extra = {"HR/._0.png": b"mac", "HR/Thumbs.db": b"win", "LR/0.png": b"small", "HR/": b""}
    offer = _offer(site, _zip({**IMAGES, **extra}))
    assert fetch(offer, tmp_path / "new", settings=QUICK) == tmp_path / "new/set"
    assert _files(tmp_path / "new") == WHOLE


def test_a_tar_with_parts_becomes_a_folder_of_folders(
    site: Site, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    parts = {"./B/images/train/a.jpg": b"a", "./B/images/val/a.jpg": b"b", "B/truth/a.jpg": b"c"}
    folders = ("images/train", "images/val")
    offer = _offer(site, _tgz(parts), "s.tgz", images=2, folders=folders, note="mind the gap")
    fetch(offer, tmp_path, settings=QUICK)
    assert _files(tmp_path) == {"set/train/a.jpg": b"a", "set/val/a.jpg": b"b"}
    assert caplog.messages[-1] == "set: mind the gap"


def test_parts_that_are_one_set_become_one_folder(site: Site, tmp_path: Path) -> None:
    parts = {"B/images/train/a.jpg": b"a", "B/images/val/b.jpg": b"b", "B/images/test/c.jpg": b"c"}
    folders = ("images/train", "images/test")
    offer = _offer(site, _tgz(parts), "s.tgz", images=2, folders=folders, merge_folders=True)
    fetch(offer, tmp_path, settings=QUICK)
    assert _files(tmp_path) == {"set/a.jpg": b"a", "set/c.jpg": b"c"}


def test_bsds400_is_bsds500_without_what_bsd100_is_cut_from() -> None:
    """Check Berkeley's split: 200 images for training, 100 for validation, 200 for tests."""
    whole, part = DATA_SETS["bsds500"], DATA_SETS["bsds400"]
    assert [Path(folder).name for folder in part.folders] == ["train", "test"]
    assert (whole.images, part.images, part.merge_folders) == (500, 400, True)
    assert whole.url == part.url


def test_a_kept_archive_serves_a_second_set(site: Site, tmp_path: Path) -> None:
    one = _offer(site, _zip({**IMAGES, "test/five/x.bmp": b"x"}))
    two = replace(one, name="five", folders=("test/five",), images=1)
    fetch(one, tmp_path, keep_archive=True, settings=QUICK)
    fetch(two, tmp_path, settings=QUICK)
    assert len(site.asked) == 1
    assert _files(tmp_path) == {**WHOLE, "five/x.bmp": b"x"}


def test_what_is_there_is_kept_without_asking(site: Site, tmp_path: Path) -> None:
    offer = _offer(site, _zip(IMAGES))
    for _ in range(2):
        fetch(offer, tmp_path, settings=QUICK)
    assert len(site.asked) == 1


def test_a_folder_that_somebody_else_began_is_refused(site: Site, tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set/own.png").write_bytes(b"mine")
    with pytest.raises(TrainError, match="1 images found, set has 4: move the folder away"):
        fetch(_offer(site, _zip(IMAGES)), tmp_path, settings=QUICK)
    assert _files(tmp_path) == {"set/own.png": b"mine"}


# broken transfers


def test_a_dropped_transfer_goes_on_where_it_broke(site: Site, tmp_path: Path) -> None:
    offer, site.cuts = _offer(site, _zip(IMAGES)), [5000, 10]
    fetch(offer, tmp_path, settings=QUICK)
    assert _files(tmp_path) == WHOLE
    assert [asked.get("Range") for asked in site.asked] == [None, "bytes=5000-", "bytes=5010-"]
    assert [asked.get("If-Range") for asked in site.asked] == [None, '"one"', '"one"']
    assert site.sent == len(site.body)


def test_a_later_run_goes_on_where_the_first_gave_up(site: Site, tmp_path: Path) -> None:
    offer, site.cuts = _offer(site, _zip(IMAGES)), [5000]
    with pytest.raises(TrainError, match=r"closed at 5 kB of .*: run the same command to resume"):
        fetch(offer, tmp_path, settings=replace(QUICK, attempts=1))
    assert (tmp_path / "set.zip.part").stat().st_size == 5000
    assert not (tmp_path / "set").exists()
    fetch(offer, tmp_path, settings=QUICK)
    assert _files(tmp_path) == WHOLE
    assert site.sent == len(site.body)


def test_a_killed_download_goes_on(site: Site, tmp_path: Path) -> None:
    offer, site.hang = _offer(site, _zip({**IMAGES, "more": bytes(1_000_000)})), 600_000
    code = "import sys, pathlib, train.data.fetch as f\n"
    code += f"f.fetch(f.{offer!r}, pathlib.Path(sys.argv[1]))"
    part = tmp_path / "set.zip.part"
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT) as run:
        until = time.monotonic() + 20
        while not (part.exists() and part.stat().st_size) and time.monotonic() < until:
            time.sleep(0.01)
        run.kill()
    site.stall.set()
    have = part.stat().st_size
    fetch(offer, tmp_path, settings=QUICK)
    assert site.asked[1]["Range"] == f"bytes={have}-"
    assert _files(tmp_path) == WHOLE


def test_more_drops_than_attempts_are_fine_while_it_gets_on(site: Site, tmp_path: Path) -> None:
    offer, site.cuts = _offer(site, _zip(IMAGES)), [1000] * 12
    fetch(offer, tmp_path, settings=QUICK)
    assert _files(tmp_path) == WHOLE
    assert len(site.asked) == 13


def test_a_server_without_ranges_sends_it_whole_again(site: Site, tmp_path: Path) -> None:
    offer, site.cuts, site.ranges = _offer(site, _zip(IMAGES)), [5000, 9000], False
    fetch(offer, tmp_path, settings=QUICK)
    assert _files(tmp_path) == WHOLE
    assert site.sent == 14000 + len(site.body)


@pytest.mark.parametrize("cuts", [[5000] * 99, [9000, 5000] * 50])
def test_starting_over_for_ever_is_given_up(site: Site, tmp_path: Path, cuts: list[int]) -> None:
    offer, site.cuts, site.ranges = _offer(site, _zip(IMAGES)), cuts, False
    with pytest.raises(TrainError, match=", 3 attempts without new data: "):
        fetch(offer, tmp_path, settings=QUICK)
    assert len(site.asked) == 3  # the first made progress, two retries did not


def test_a_range_that_does_not_fit_is_not_used(site: Site, tmp_path: Path) -> None:
    offer, site.cuts, site.range_form = _offer(site, _zip(IMAGES)), [5000], "bytes 7-{last}/{whole}"
    fetch(offer, tmp_path, settings=QUICK)
    assert [asked.get("Range") for asked in site.asked] == [None, "bytes=5000-", None]
    assert _files(tmp_path) == WHOLE


def test_a_range_of_a_file_of_untold_length(site: Site, tmp_path: Path) -> None:
    offer, site.cuts, site.range_form = _offer(site, _zip(IMAGES)), [5000, 10], "bytes {begin}-9/*"
    fetch(offer, tmp_path, settings=QUICK)
    assert len(site.asked) == 3
    assert _files(tmp_path) == WHOLE


@pytest.mark.parametrize("rude", [False, True])
def test_a_file_that_changed_meanwhile_is_not_mixed(site: Site, tmp_path: Path, rude: bool) -> None:
    old, site.cuts = _offer(site, _zip(dict.fromkeys(IMAGES, b"old" * 3000))), [5000]
    with pytest.raises(TrainError, match="run the same command to resume"):
        fetch(old, tmp_path, settings=replace(QUICK, attempts=1))
    offer, site.headers, site.rude = _offer(site, _zip(IMAGES)), {"ETag": '"two"'}, rude
    fetch(replace(offer, digest=None), tmp_path, settings=QUICK)
    assert site.asked[1]["If-Range"] == '"one"'
    assert _files(tmp_path) == {
        **WHOLE,
        "set.zip.sha256": f"{_sha256(site.body)}  set.zip\n".encode(),
    }


@pytest.mark.parametrize(
    ("headers", "validator"),
    [
        ({"ETag": 'W/"one"', "Last-Modified": "Mon, 01 Jan 2024 00:00:00 GMT"}, "Mon, 01 Jan"),
        ({"ETag": 'W/"one"'}, None),
        ({}, None),
    ],
)
def test_only_what_names_the_bytes_is_resumed(
    site: Site, tmp_path: Path, headers: dict[str, str], validator: str | None
) -> None:
    offer, site.headers, site.cuts = _offer(site, _zip(IMAGES)), headers, [5000]
    fetch(offer, tmp_path, settings=QUICK)
    assert _files(tmp_path) == WHOLE
    assert ("Range" in site.asked[1]) == bool(validator)
    assert site.asked[1].get("If-Range", "").startswith(validator or "")


@pytest.mark.parametrize("extra", [b"", b"too much"])
def test_a_part_that_is_complete_or_too_long(site: Site, tmp_path: Path, extra: bytes) -> None:
    offer = _offer(site, _zip(IMAGES))
    (tmp_path / "set.zip.part").write_bytes(site.body + extra)
    (tmp_path / "set.zip.part.version").write_text('"one"')
    fetch(offer, tmp_path, settings=QUICK)
    assert _files(tmp_path) == WHOLE
    assert site.sent == (len(site.body) if extra else 0)


def test_a_part_of_unknown_version_is_not_used(site: Site, tmp_path: Path) -> None:
    offer = _offer(site, _zip(IMAGES))
    (tmp_path / "set.zip.part").write_bytes(b"whatever")
    fetch(offer, tmp_path, settings=QUICK)
    assert "Range" not in site.asked[0]
    assert _files(tmp_path) == WHOLE


def test_a_redirection_is_resumed_too(site: Site, tmp_path: Path) -> None:
    offer, site.moved, site.cuts = _offer(site, _zip(IMAGES)), True, [5000]
    fetch(offer, tmp_path, settings=QUICK)
    assert site.asked[3]["Range"] == "bytes=5000-"
    assert site.sent == len(site.body)


def test_a_silent_server_is_left_and_tried_again(site: Site, tmp_path: Path) -> None:
    offer, site.stalls, site.hang, began = _offer(site, _zip(IMAGES)), 1, 5000, time.monotonic()
    fetch(offer, tmp_path, settings=replace(QUICK, timeout=0.05))
    assert time.monotonic() - began < 9  # the server would continue after 10 s
    assert [asked.get("Range") for asked in site.asked] == [None, None, "bytes=5000-"]
    assert _files(tmp_path) == WHOLE


def test_a_busy_server_is_tried_again(
    site: Site, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    offer, site.statuses = _offer(site, _zip(IMAGES)), [503, 429]
    fetch(offer, tmp_path, settings=QUICK)
    assert _files(tmp_path) == WHOLE
    assert "set.zip: HTTP 503 Service Unavailable, retrying in 0 s" in caplog.messages


def test_an_address_that_is_gone_is_told_at_once(site: Site, tmp_path: Path) -> None:
    offer, site.statuses = _offer(site, b""), [404]
    with pytest.raises(TrainError) as caught:
        fetch(offer, tmp_path, settings=QUICK)
    assert str(caught.value) == (
        f"{offer.url}: HTTP 404 Not Found: download set.zip elsewhere and move it to {tmp_path}"
    )
    assert len(site.asked) == 1


def test_no_server_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")
    with socket.socket() as taken:  # bound but not listening: every connection is refused
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/x"
        with pytest.raises(TrainError, match=r"no connection \(Connection refused\), 3 attempts"):
            download(url, tmp_path / "x", QUICK)


def test_a_server_that_tells_no_length(site: Site, tmp_path: Path) -> None:
    offer, site.length = _offer(site, _zip(IMAGES)), -1
    fetch(offer, tmp_path, settings=QUICK)
    assert _files(tmp_path) == WHOLE


def test_progress_is_told(site: Site, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    offer = _offer(site, _zip({**IMAGES, "more": bytes(2_000_000)}))
    fetch(offer, tmp_path, settings=replace(QUICK, report_every=0))
    told = [text for text in caplog.messages if text.endswith("/s")]
    line = r"set\.zip: \S+ [kM]B of 2\.03 MB \(\d+%\), 0:00:0\d left, \S+ [kMG]B/s"
    assert [text for text in told if not re.fullmatch(line, text)] == []
    assert "(100%), 0:00:00 left" in told[-1]
    assert caplog.messages[-1] == f"set: 4 images in {tmp_path / 'set'}"


def test_the_time_left_is_from_the_speed_of_this_run(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO)
    clock = iter([0, 4, 10, 20])
    monkeypatch.setattr(download_module, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    chunks = iter([bytes(50), bytes(50), bytes(100)])
    assert sum(map(len, download_module._log_progress(chunks, "x", 5000, 6000, every=10))) == 200
    assert caplog.messages == [
        "x: 5.1 kB of 6 kB (85%), 0:01:30 left, 10 B/s",
        "x: 5.2 kB of 6 kB (87%), 0:01:20 left, 10 B/s",
    ]


@pytest.mark.parametrize(
    ("count", "words"),
    [(0, "0 B"), (999, "999 B"), (999.7, "1 kB"), (3_530_603_713, "3.53 GB"), (2e12, "2000.00 GB")],
)
def test_sizes_in_words(count: float, words: str) -> None:
    assert format_size(count) == words


# checksums


def test_a_wrong_checksum_names_both_and_deletes(site: Site, tmp_path: Path) -> None:
    offer = _offer(site, _zip(IMAGES), digest="md5:" + 32 * "0")
    found = hashlib.md5(site.body).hexdigest()
    with pytest.raises(
        TrainError, match=rf": md5 is {found}, expected 0{{32}} \(pub.*: archive del"
    ):
        fetch(offer, tmp_path, settings=QUICK)
    assert _files(tmp_path) == {}


def test_a_server_that_claims_too_little_is_found_out(site: Site, tmp_path: Path) -> None:
    offer, site.length = _offer(site, _zip(IMAGES)), 5000
    with pytest.raises(TrainError, match="deleted, fetch again"):
        fetch(offer, tmp_path, settings=QUICK)
    with pytest.raises(TrainError, match="archive is damaged or incomplete"):
        fetch(replace(offer, digest=None), tmp_path, settings=QUICK)
    assert _files(tmp_path) == {}


def test_without_a_published_checksum_the_first_download_counts(
    site: Site, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    offer = _offer(site, _zip(IMAGES), digest=None)
    fetch(offer, tmp_path, keep_archive=True, settings=QUICK)
    assert caplog.messages == [
        "set.zip: no published checksum, recording that of this download",
    ]
    record = tmp_path / "set.zip.sha256"
    assert record.read_text() == f"{_sha256(site.body)}  set.zip\n"
    subprocess.run(["sha256sum", "-c", record.name], cwd=tmp_path, check=True, capture_output=True)
    shutil.rmtree(tmp_path / "set")
    (tmp_path / "set.zip").unlink()
    fetch(offer, tmp_path, settings=QUICK)
    assert _files(tmp_path / "set") == {Path(name).name: data for name, data in IMAGES.items()}
    shutil.rmtree(tmp_path / "set")
    site.body = _zip(dict.fromkeys(IMAGES, b"other"))
    with pytest.raises(TrainError, match=r"\(recorded in set\.zip\.sha256\): archive deleted"):
        fetch(offer, tmp_path, settings=QUICK)
    assert set(_files(tmp_path)) == {"set.zip.sha256"}


@pytest.mark.parametrize("name", ["set.zip", "set.tar.gz"])
@pytest.mark.parametrize("body", [b"<html>log in first</html>", b"\x1f\x8b\x08broken", b""])
def test_what_is_no_archive_is_not_recorded(
    site: Site, tmp_path: Path, name: str, body: bytes
) -> None:
    with pytest.raises(TrainError, match="archive is damaged or incomplete"):
        fetch(_offer(site, body, name, digest=None), tmp_path, settings=QUICK)
    assert _files(tmp_path) == {}


def _broken_zip(method: int) -> bytes:
    body = bytearray(_zip(IMAGES, method))
    with zipfile.ZipFile(io.BytesIO(body)) as packed:
        last = packed.infolist()[-1]
    body[last.header_offset + 50] ^= 0xFF
    return bytes(body)


def _broken_gzip() -> bytes:
    """Return a tar without its end-of-archive blocks, in a gzip with a wrong checksum."""
    tape = gzip.decompress(_tgz(IMAGES)).rstrip(b"\0") + bytes(512)
    return gzip.compress(tape[: len(tape) // 512 * 512])[:-8] + bytes(8)


@pytest.mark.parametrize(
    ("body", "name"),
    [
        (_broken_zip(zipfile.ZIP_STORED), "a.zip"),
        (_broken_zip(zipfile.ZIP_DEFLATED), "a.zip"),
        (_broken_gzip(), "a.tgz"),
        (_tgz(IMAGES)[:-100], "a.tgz"),
    ],
    ids=["stored", "deflated", "checksum", "cut"],
)
def test_a_damaged_archive_leaves_nothing(
    site: Site, tmp_path: Path, body: bytes, name: str
) -> None:
    with pytest.raises(TrainError, match="archive is damaged or incomplete"):
        fetch(_offer(site, body, name, digest=None), tmp_path, settings=QUICK)
    assert list(tmp_path.iterdir()) == []


# the disk


def test_a_disk_too_small_is_told_before_anything_is_asked(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer = _offer(site, _zip(IMAGES), size=3_000_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=5_500_000_000))
    with pytest.raises(TrainError, match=r"set needs 6\.00 GB, only 5\.50 GB are free: free disk"):
        fetch(offer, tmp_path, settings=QUICK)
    assert site.asked == []


def test_room_for_what_is_here_already_is_not_asked_for(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "set.zip.part").write_bytes(bytes(6000))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1))
    with pytest.raises(TrainError, match="set needs 14 kB, only 1 B"):
        fetch(_offer(site, b"", size=10_000), tmp_path, settings=QUICK)


def test_a_disk_too_small_for_the_images_is_told_before_unpacking(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer = _offer(site, _zip(IMAGES), size=1)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=20_000))
    with pytest.raises(TrainError, match=r"set needs 28 kB, only 20 kB are free"):
        fetch(offer, tmp_path, settings=QUICK)
    assert set(_files(tmp_path)) == {"set.zip"}


def test_a_folder_that_cannot_be_written(site: Site, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(TrainError, match=r"file/sub: Not a directory: choose another folder"):
        fetch(_offer(site, _zip(IMAGES)), tmp_path / "file/sub", settings=QUICK)


def test_a_run_killed_while_unpacking_leaves_no_set(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer = _offer(site, _zip(IMAGES))

    def stop(*_: object) -> None:
        (tmp_path / "set.unpacking").mkdir()
        (tmp_path / "set.unpacking/half.png").write_bytes(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(fetch_module, "_write", stop)
        patch.setattr(shutil, "rmtree", lambda *_, **__: None)  # as if killed at this point
        with pytest.raises(KeyboardInterrupt):
            fetch(offer, tmp_path, settings=QUICK)
    assert not (tmp_path / "set").exists()
    fetch(offer, tmp_path, settings=QUICK)
    assert _files(tmp_path) == WHOLE
    assert len(site.asked) == 1


# malicious or unexpected archives


@pytest.mark.parametrize("name", ["../../HR/x.png", "/tmp/HR/x.png", "HR/../../x.png", "..\\x.png"])
@pytest.mark.parametrize("pack", [_zip, _tgz])
def test_an_archive_that_leads_out_is_refused(
    site: Site, tmp_path: Path, name: str, pack: object
) -> None:
    assert callable(pack)
    offer = _offer(site, pack({**IMAGES, name: b"evil"}), "a.zip" if pack is _zip else "a.tgz")
    with pytest.raises(TrainError, match=r"unsafe path .* in the archive"):
        fetch(offer, tmp_path / "to", settings=QUICK)
    assert set(_files(tmp_path)) == {"to/a.zip" if pack is _zip else "to/a.tgz"}


def test_links_are_not_unpacked(site: Site, tmp_path: Path) -> None:
    links = {"HR/passwd.png": "/etc/passwd", "HR/out": "../.."}
    offer = _offer(site, _tgz(IMAGES, links), "set.tgz")
    fetch(offer, tmp_path, settings=QUICK)
    assert _files(tmp_path) == WHOLE


def test_an_archive_with_other_images_is_not_unpacked(site: Site, tmp_path: Path) -> None:
    offer = _offer(site, _zip({"HR/0.png": b"", "elsewhere/1.png": b""}))
    with pytest.raises(TrainError, match=r"set\.zip: 1 images of set found, expected 4: unpack it"):
        fetch(offer, tmp_path, settings=QUICK)
    assert set(_files(tmp_path)) == {"set.zip"}


# the catalogue


@pytest.mark.parametrize("data_set", DATA_SETS.values(), ids=DATA_SETS)
def test_the_catalogue_is_well_formed(data_set: DataSet) -> None:
    assert data_set.url.startswith("https://")
    assert data_set.file.endswith((".zip", ".tgz", ".tar.gz"))
    assert re.fullmatch("sha256:[0-9a-f]{64}|md5:[0-9a-f]{32}", data_set.digest or "")
    assert data_set.images > 0
    assert data_set.size > 100_000


def test_sets_of_one_archive_agree_on_it() -> None:
    facts = {(one.url, one.size, one.digest) for one in DATA_SETS.values()}
    assert len(facts) == len({one.url for one in DATA_SETS.values()})
