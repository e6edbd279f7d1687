"""`vsr relay`: a live stream in, upscaled and published, until it is stopped."""

import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import click

from vsr.precision import PRECISIONS
from vsr.terminal import (
    errors_shown,
    key_value,
    log_format,
    start_logging,
    stopping_on_signals,
    verbosity,
)


@click.command("relay")
@click.argument("input_", metavar="INPUT_URL")
@click.argument("outputs", nargs=-1, required=True, metavar="OUTPUT_URL...")
@click.option("-m", "--model", help="A name of `vsr models`, or any super-resolution .onnx file.")
@click.option("-s", "--scale", type=click.IntRange(2), help="Enlargement. Default: 2.")
@click.option(
    "--precision", type=click.Choice(["auto", *PRECISIONS]), default="auto", show_default=True
)
@click.option(
    "--backend", default="auto", show_default=True, help="openvino, tensorrt or tensorrt-rtx."
)
@click.option("-d", "--device", help="OpenVINO's name (CPU, GPU ...), or the number of the GPU.")
@click.option("--ladder", metavar="NAME,NAME...", help="Lighter networks to go down to in need.")
@click.option(
    "--max-latency", type=click.IntRange(50), default=500, show_default=True, metavar="MS",
    help="From a picture's arrival to its packet; quality gives way before this does.",
)  # fmt: skip
@click.option("--retry-delay", type=click.FloatRange(0.1), default=0.5, help="Seconds; it grows.")
@click.option("--retry-max", type=click.IntRange(0), default=0, help="0: for ever.")
@click.option(
    "--stream-timeout", type=click.FloatRange(0.5), default=5.0, show_default=True,
    help="Seconds of silence after which the source counts as lost.",
)  # fmt: skip
@click.option(
    "--slate-after", type=click.FloatRange(0), default=5.0, show_default=True,
    help="Seconds without a source after which the last picture is darkened.",
)  # fmt: skip
@click.option(
    "--realtime", is_flag=True,
    help="Read a recording behind a URL at its own pace, as files always are.",
)  # fmt: skip
@click.option("--loop", is_flag=True, help="Read a file again from its start, for ever.")
@click.option("-c", "--codec", help="h264 (default), hevc, or an FFmpeg encoder.")
@click.option("--crf", type=click.IntRange(0), help="Constant quality; lower is better.")
@click.option("--preset", help="The encoder's speed preset.")
@click.option("-e", "options", callback=key_value, multiple=True, help="An encoder option.")
@click.option("--report", type=click.Path(path_type=Path), help="Write the ledger when it ends.")
@click.option("--status", metavar="HOST:PORT", help="Show how it fares on a web page.")
@log_format
@verbosity
def relay(
    input_: str, outputs: tuple[str, ...], report: Path | None, verbose: bool, quiet: bool,
    status: str | None, log_format: str,
    **options: Any,
) -> None:  # fmt: skip
    """Take a live stream, upscale it and publish it, in time and without going dark.

    Example: vsr relay rtmp://server/live/in rtmp://server/live/out --model carn-m
    """
    from vsr.ledger import check_report_path, write_report
    from vsr.live.relay import Relay
    from vsr.live.status import StatusServer

    start_logging(verbose, quiet, log_format)
    with errors_shown(verbose):
        if report:
            check_report_path(report)
        one = Relay(input_, outputs, _settings(**options))
        try:
            with StatusServer(status, one.board) if status else nullcontext():
                stopping_on_signals(one.run, None)
        finally:
            if report:
                write_report(report, one.report.facts(), one.report.ledger)
        sys.exit(one.report.exit_code)


def _settings(
    *, model: str | None, ladder: str | None, max_latency: int, retry_delay: float,
    retry_max: int, stream_timeout: float, realtime: bool, loop: bool, codec: str | None,
    crf: int | None, preset: str | None, options: dict[str, str], **others: Any,
) -> Any:  # fmt: skip
    from vsr.encoder import EncoderSettings
    from vsr.live.ingest import IngestSettings
    from vsr.live.relay import RelaySettings
    from vsr.models import DEFAULT

    return RelaySettings(
        model=model or DEFAULT,
        ladder=tuple(name.strip() for name in ladder.split(",")) if ladder else (),
        max_latency=max_latency / 1000,
        ingest=IngestSettings(
            stream_timeout=stream_timeout, retry_delay=retry_delay, retry_max=retry_max,
            realtime=realtime, loop=loop,
        ),
        encoder=EncoderSettings(codec=codec, crf=crf, preset=preset, options=options),
        **others,
    )  # fmt: skip
