"""Opens FFmpeg outputs with muxer and protocol options, and formats their errors.

Imports nothing from `vsr`, so that `vsr.live.output.process` starts quickly.
"""

import io
import re
from collections.abc import Sequence
from fractions import Fraction
from typing import Any, Final

import av

_IGNORED_PREFIXES: Final = (
    "Slave ", "All tee outputs failed", "Cannot open connection", "missing picture", "no frame!",
    "Codec '",
)  # fmt: skip
"""Prefixes of log lines that only repeat that it failed, or that concern stream creation."""
_TEE_OPTIONS: Final = ("flush_packets", "max_interleave_delta")
"""Options that `tee` needs too: otherwise it delays frames until audio of their time arrives."""
_CODEC_LINE: Final = re.compile(r"[\w.-]+ \(\d+\)")
"""A line of the codec list that FFmpeg logs with some errors."""
_CLOCK: Final = Fraction(1, 90_000)
"""Time base of the template of a stream."""


def open_output(target: Any, plan: dict[str, Any]) -> "av.container.OutputContainer":
    """Open the output; pass protocol options, which PyAV does not support, by the muxer `tee`."""
    options = plan["options"]
    if not plan["protocol"]:
        return av.open(target, "w", format=plan["format"], container_options=options)
    options = {"f": plan["format"], "onfail": "abort", **options, **plan["protocol"]}
    tee_options = ":".join(f"{name}={_escaped(_escaped(value))}" for name, value in options.items())
    container_options = {name: value for name, value in options.items() if name in _TEE_OPTIONS}
    return av.open(
        f"[{tee_options}]{_escaped(target)}", "w", format="tee", container_options=container_options
    )


def _escaped(text: str) -> str:
    """Escape FFmpeg's separators."""
    return re.sub(r"([\\'\[\]:| ])", r"\\\1", text)


def add_stream(output: "av.container.OutputContainer", facts: dict[str, Any]) -> av.stream.Stream:
    """Add a stream for packets encoded elsewhere; `facts` are its parameters from the plan.

    PyAV accepts parameters such as extradata only through a codec context, and creates one without
    an encoder only from a demuxed stream: so a file with a dummy packet is written and read.
    """
    with av.logging.Capture(local=False):  # what FFmpeg logs here explains no error of the output
        template = _template(facts)
    with template:
        stream = output.add_stream_from_template(template.streams[0], opaque=True)
    context = stream.codec_context
    context.bit_rate = facts["bit_rate"]
    if facts["extradata"]:
        context.extradata = bytes.fromhex(facts["extradata"])
    if isinstance(context, av.AudioCodecContext):
        context.layout = facts["layout"]
    elif isinstance(context, av.VideoCodecContext):
        context.framerate = Fraction(facts["frame_rate"])
        context.sample_aspect_ratio = Fraction(facts["aspect"])
        for name, code in facts["colour"].items():
            setattr(context, name, code)
    return stream


def _template(facts: dict[str, Any]) -> "av.container.InputContainer":
    """Return a file with a stream that has an encoder's parameters, without header."""
    memory = io.BytesIO()
    with av.open(memory, "w", format="mp4") as muxer:
        codec, rate = facts["codec"], facts["sample_rate"]
        muxer.add_mux_stream(codec, rate, time_base=_CLOCK, **facts["size"])
        packet: av.Packet[Any] = av.Packet(b"\0")
        packet.pts = packet.dts = 0
        packet.stream = muxer.streams[0]
        muxer.mux_one(packet)
    memory.seek(0)
    return av.open(memory, "r", format="mp4")


def error_text(exc: Exception, log_lines: Sequence[tuple[int, str, str]] = ()) -> str:
    """Return FFmpeg's error message with the last log lines about it."""
    logged = getattr(exc, "log", None)
    message = getattr(exc, "strerror", None) or str(exc)
    lines = [line[2].strip() for line in log_lines] or ([logged[2].strip()] if logged else [])
    lines = [
        line for line in dict.fromkeys(lines) if line and not line.startswith(_IGNORED_PREFIXES)
    ]
    lines = [line for line in lines if not _CODEC_LINE.fullmatch(line)]
    lines = [line for line in lines if not line.endswith(f"failed: {message}")]
    return f"{message} ({'; '.join(lines[-3:])})" if lines else message
