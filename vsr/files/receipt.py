"""Writes receipts, which record a run's input, output and settings, and checks outputs by them."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import av

from vsr.errors import InputError, OutputError, UsageError, VsrError, reason
from vsr.files.settings import RunSettings
from vsr.media.location import absolute_path, is_stdin, is_url, url_for_messages
from vsr.media.pictures.names import find_pictures, is_folder, is_picture
from vsr.media.references import is_part_of
from vsr.media.target import pipe_of
from vsr.media.whole_file import is_same_file, write_atomically
from vsr.report.ledger import write_report
from vsr.report.report import Report, machine, versions

SCHEMA: Final = "vsr-receipt/1"
_ART: Final = av.stream.Disposition.attached_pic
_CHECKED: Final = {
    "frames": "number of frames",
    "first_pts_s": "time of the first frame (s)",
    "last_pts_s": "time of the last frame (s)",
    "audio_start_s": "start of the audio (s)",
    "bytes": "size in bytes",
}
"""Facts of an output that are compared, in this order -> their description in messages."""


def receipt_path(settings: RunSettings, output: Path) -> Path | None:
    """Return the path of a run's receipt: by default next to the report; None: no receipt."""
    if settings.receipt is not None:
        return settings.receipt
    if settings.report is None or not _is_video_file(output):
        return None
    return settings.report.with_suffix(".receipt.json")


def check_receipt_path(settings: RunSettings, input_: str, output: Path) -> Path | None:
    """Return `receipt_path`, which may be written without harm.

    Raises UsageError if a receipt is requested for an output that is not a video file, or if it
    would replace the input, the output or the report; OutputError if its folder does not exist.
    """
    if settings.receipt is not None and not _is_video_file(output):
        raise UsageError("--receipt requires one video file as OUTPUT")
    path = receipt_path(settings, output)
    if path is None:
        return None
    if path.is_dir():
        raise OutputError(f"the receipt {path} is a folder: name a file with --receipt")
    if not path.parent.is_dir():
        raise OutputError(f"the receipt's folder does not exist: {path.parent}")
    same = {"input": is_part_of(path, input_), "output": is_same_file(path, output)}
    same["report"] = settings.report is not None and is_same_file(path, settings.report)
    for what, is_it in same.items():
        if is_it:
            raise UsageError(
                f"the receipt {path} would replace the {what}: name another file with --receipt"
            )
    return path


def _is_video_file(output: Path) -> bool:
    return pipe_of(output) is None and not is_picture(output) and not is_folder(output)


def write_report_and_receipt(
    receipt: Path | None, input_: str, output: Path, settings: RunSettings, report: Report
) -> None:
    """Write the report and the receipt of a finished run, if requested.

    Raises OutputError, whose message says that the output is finished.
    """
    try:
        if settings.report:
            write_report(settings.report, report.facts(), report.ledger)
        if receipt and output.is_file():
            write_receipt(receipt, input_, output, settings, report)
    except VsrError as exc:
        raise OutputError(f"{output} is finished, but {exc}") from exc


def write_receipt(
    path: Path, input_: str, output: Path, settings: RunSettings, report: Report
) -> None:
    """Write the receipt of a finished run. Raises InputError and OutputError."""
    source: dict[str, Any] = {"name": url_for_messages(input_)}
    if not (is_url(input_) or is_stdin(input_) or find_pictures(input_, output) is not None):
        source |= file_facts(Path(absolute_path(input_)))
    result = {"name": output.name, **file_facts(output)}
    facts = {
        "schema": SCHEMA,
        "input": source,
        "output": result,
        "frames": {
            "in": report.frames_in, "out": report.frames_out, "lost": report.lost,
            "concealed": report.concealed,
        },
        "audio_shift_ms": audio_shift_ms(source, result),
        "interrupted": report.interrupted,
        **{
            key: report.output.get(key)
            for key in (
                "model", "model_sha256", "scale", "precision", "flicker_filter", "backend", "device"
            )
        },
        "encoder": {"name": report.output.get("encoder"), **asdict(settings.encoder)},
        "versions": versions(),
        "machine": machine(),
    }  # fmt: skip
    try:
        with write_atomically(path) as part:
            part.write_text(json.dumps(facts, indent=1, default=str) + "\n", "utf-8")
    except OSError as exc:
        raise OutputError(f"cannot write the receipt {path}: {reason(exc)}") from exc


def audio_shift_ms(source: Mapping[str, Any], result: Mapping[str, Any]) -> float | None:
    """Return the shift of audio against video at the start, in ms; None if a file lacks a time."""
    starts = [
        facts["audio_start_s"] - facts["first_pts_s"]
        for facts in (source, result)
        if facts.get("audio_start_s") is not None and facts.get("first_pts_s") is not None
    ]
    return round(1000 * (starts[1] - starts[0]), 3) if len(starts) == 2 else None


def file_facts(path: Path) -> dict[str, Any]:
    """Return a video file's size, hash, number of frames and times. Raises InputError."""
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        return {"bytes": path.stat().st_size, "sha256": digest, **_video_facts(path)}
    except (av.error.FFmpegError, OSError) as exc:
        raise InputError(f"cannot read {path}: {reason(exc)}") from exc


def _video_facts(path: Path) -> dict[str, Any]:
    """Return number of frames, times (s) and packet hash of the first video; start of the audio."""
    digest, frames = hashlib.sha256(), 0
    times: list[Fraction] = []
    audio: Fraction | None = None
    with av.open(absolute_path(str(path)), metadata_errors="replace") as container:
        videos = [s for s in container.streams.video if not s.disposition & _ART]
        if not videos:
            raise InputError(f"{path} has no video")
        sounds = container.streams.audio[:1]
        for packet in container.demux(videos[0], *sounds):
            if not packet.size:
                continue
            time = None if packet.pts is None else packet.pts * packet.time_base
            if packet.stream is videos[0]:
                frames += 1
                digest.update(bytes(packet))
                if time is not None and not packet.is_discard:
                    times = [min(time, *times), max(time, *times)] if times else [time, time]
            elif audio is None and not packet.is_discard:
                audio = time if time is None else max(time, Fraction(0))  # encoder delay: hidden
    return {
        "frames": frames,
        "video_sha256": digest.hexdigest(),
        "first_pts_s": round(float(times[0]), 6) if times else None,
        "last_pts_s": round(float(times[1]), 6) if times else None,
        "audio_start_s": None if audio is None else round(float(audio), 6),
    }


def difference(output: Path, receipt: Path) -> str | None:
    """Return a one-line message on how an output differs from its receipt; None if it does not.

    Raises InputError if one of them cannot be read.
    """
    try:
        facts = json.loads(receipt.read_text("utf-8"))
    except OSError as exc:
        raise InputError(f"cannot read the receipt {receipt}: {reason(exc)}") from exc
    except (ValueError, RecursionError) as exc:  # not UTF-8, or not JSON
        raise InputError(
            f"{receipt} is not a receipt: name the file that `vsr run --receipt` wrote"
        ) from exc
    then: Any = facts.get("output") if isinstance(facts, dict) else None
    known = isinstance(then, dict) and facts.get("schema") == SCHEMA
    if not known or not {*_CHECKED, "sha256", "video_sha256"} <= then.keys():
        raise InputError(f"{receipt} is not a receipt of this version ({SCHEMA})")
    now = file_facts(output)
    if then["sha256"] == now["sha256"]:
        return None
    for name, description in _CHECKED.items():
        if then[name] != now[name]:
            same = then["video_sha256"] == now["video_sha256"]
            tail = "; the video packets are identical" if same else ""
            return (
                f"{output}: the {description} is {now[name]}, but the receipt records {then[name]}"
                f"{tail}"
            )
    what = "video packets" if then["video_sha256"] != now["video_sha256"] else "bytes"
    return f"{output}: the {what} differ from those of the receipt (SHA-256 {now['sha256']})"
