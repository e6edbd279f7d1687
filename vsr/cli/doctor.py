"""`vsr doctor`: report devices, libraries and encoders, and how to install what is missing."""

from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import Any, Final

import av

from vsr.errors import BackendError, VsrError, reason
from vsr.inference import models
from vsr.inference.backend import load_backend
from vsr.inference.cuda import load_cuda
from vsr.inference.tensorrt.library import RUNTIMES, load_library
from vsr.media.encoder import CODECS, EncoderSettings, VideoFormat, open_encoder
from vsr.report.report import machine, versions

HARDWARE_ENCODERS: Final = ("h264_nvenc", "hevc_nvenc", "av1_nvenc", "h264_qsv", "hevc_qsv")
_WITHOUT_CAUSE: Final = ("Unknown error", "Generic error")
"""Prefixes of FFmpeg's error messages that name no cause."""


@dataclass(frozen=True)
class Finding:
    """The result of one check."""

    what: str
    works: bool
    detail: str
    remedy: str = ""
    """Command or step that fixes the problem; empty if there is none."""
    needed: bool = True
    """Whether `vsr run` needs it on this machine."""


def _inference() -> Finding:
    try:
        backend = load_backend()
    except VsrError as exc:
        return Finding("inference", False, str(exc), "pip install openvino")
    return Finding("inference", True, f"{backend.name} on {backend.device}")


def _library(name: str) -> Finding:
    """Check one of the two libraries that build and run engines on NVIDIA GPUs."""
    try:
        library = load_library(name)
    except BackendError as exc:
        problem, _, command = str(exc).partition(": ")
        return Finding(name, False, problem, command, needed=False)
    return Finding(name, True, f"{library.title} builds engines here", needed=False)


def _gpu() -> Finding:
    try:
        cuda = load_cuda()
    except VsrError as exc:
        return Finding("NVIDIA GPU", False, str(exc), needed=False)
    memory = f"{cuda.total_memory / 2**30:.0f} GiB, CUDA {cuda.driver}"
    return Finding("NVIDIA GPU", True, f"{cuda.name} ({cuda.target}), {memory}", needed=False)


def _networks() -> Finding:
    try:
        found = [f"{name} x{scale}" for name in models.names() for scale in models.scales(name)]
    except VsrError as exc:
        return Finding("networks", False, str(exc), "reinstall vsr")
    return Finding("networks", True, ", ".join(found))


def encoder_starts(name: str) -> str | None:
    """Return the reason why an encoder cannot be opened here; None if it can."""
    video = VideoFormat(size=(640, 360), rate=Fraction(25), time_base=Fraction(1, 25))
    try:
        context = av.CodecContext.create(name, "w")
        assert isinstance(context, av.VideoCodecContext)
        open_encoder(context, EncoderSettings(), video)
    except (av.error.FFmpegError, ValueError, VsrError) as exc:
        return reason(exc.__cause__ or exc)
    return None


def _encoder(name: str, label: str, needed: bool) -> Finding:
    problem = encoder_starts(name)
    if problem and not needed:
        cause = "" if problem.startswith(_WITHOUT_CAUSE) else f" ({problem})"
        problem = f"hardware or driver not available{cause}"
    return Finding(f"encoder {label}", problem is None, problem or name, needed=needed)


def examine() -> list[Finding]:
    """Run every check; takes a second or two."""
    software = [_encoder(name, label, needed=True) for label, name in CODECS.items()]
    hardware = [_encoder(name, name, needed=False) for name in HARDWARE_ENCODERS]
    nvidia = [_gpu(), *(_library(name) for name in RUNTIMES)]
    return [_inference(), *nvidia, _networks(), *software, *hardware]


def as_json(findings: list[Finding]) -> dict[str, Any]:
    """Return the findings with versions and machine, for `--json`."""
    return {
        "versions": versions(),
        "machine": machine(),
        "findings": [asdict(finding) for finding in findings],
    }


def as_text(findings: list[Finding]) -> str:
    """Return versions and machine, then the findings, as text with one line each."""
    facts = {**machine(), **versions()}
    lines = [", ".join(f"{key} {value}" for key, value in facts.items())]
    for f in findings:
        mark = "ok     " if f.works else ("MISSING" if f.needed else "-      ")
        remedy = f" -> {f.remedy}" if f.remedy and not f.works else ""
        lines.append(f"{mark} {f.what}: {f.detail}{remedy}")
    return "\n".join(lines)
