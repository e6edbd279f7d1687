"""`vsr relay`: upscale and publish live streams, until stopped."""

import sys
from pathlib import Path
from typing import Any, Final

import click
from click.core import ParameterSource

from vsr.cli.numbers import Number, WholeNumber
from vsr.cli.rates import rate_options
from vsr.cli.terminal import (
    errors_shown,
    key_value,
    log_format,
    start_logging,
    stopping_on_signals,
    variant_named,
    verbosity,
)
from vsr.errors import UsageError
from vsr.network.precision import PRECISIONS

_SHARED: Final = frozenset({"config", "verbose", "quiet", "log_format"})
"""Parameters that apply to all relays of a process."""


@click.command("relay")
@click.argument("urls", nargs=-1, metavar="INPUT_URL OUTPUT_URL...")
@click.option("-i", "--input", "input_", metavar="URL", help="The same as the first argument.")
@click.option(
    "--config", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE.toml",
    help="Several relays in one process: [[relay]] tables of input, outputs and these options. "
    "One that fails is started again, unless it is its options that are wrong.",
)  # fmt: skip
@click.option(
    "--deinterlace", type=click.Choice(["auto", "off", "frame", "bob"]), default="auto",
    show_default=True, help="auto: pictures with combs; frame: all; bob: two frames of each.",
)  # fmt: skip
@click.option(
    "--variant", callback=variant_named, default="best", show_default=True, metavar="best|WxH|N",
    help="Which variant of an HLS playlist to read; best: the largest that is enlarged in time.",
)  # fmt: skip
@click.option("-m", "--model", help="A name of `vsr models`, or any super-resolution .onnx file.")
@click.option("-s", "--scale", type=WholeNumber(2), help="Enlargement. Default: 2.")
@click.option(
    "--precision", type=click.Choice(["auto", *PRECISIONS]), default="auto", show_default=True
)
@click.option(
    "--backend", default="auto", show_default=True, help="openvino, tensorrt or tensorrt-rtx."
)
@click.option("-d", "--device", help="OpenVINO's name (CPU, GPU ...), or the number of the GPU.")
@click.option("--ladder", metavar="NAME,NAME...", help="Lighter networks to fall back to.")
@click.option(
    "--max-latency", type=WholeNumber(50), default=500, show_default=True, metavar="MS",
    help="From a picture's arrival to its packet; a lighter network is used to keep it.",
)  # fmt: skip
@click.option(
    "--listen", is_flag=True,
    help="INPUT_URL is where to wait for a publisher (OBS, ffmpeg): rtmp://HOST:PORT/APP/KEY.",
)  # fmt: skip
@click.option(
    "--tls-cert", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE.pem",
    help="Certificate with which --listen answers at rtmps://.",
)  # fmt: skip
@click.option(
    "--tls-key", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE.pem",
    help="Its key, unless it is in the same file.",
)  # fmt: skip
@click.option(
    "--retry-delay", type=Number(0.1), default=0.5,
    help="Seconds before a retry; it grows.",
)  # fmt: skip
@click.option(
    "--retry-max", type=WholeNumber(0), default=0,
    help="Failed attempts in a row before it gives up; 0: no limit.",
)  # fmt: skip
@click.option(
    "--stream-timeout", type=Number(0.5), default=5.0, show_default=True,
    help="Seconds without data after which the source counts as lost.",
)  # fmt: skip
@click.option(
    "--slate-after", type=Number(0), default=5.0, show_default=True,
    help="Seconds without a source after which the slate is shown.",
)  # fmt: skip
@click.option(
    "--slate", type=click.Path(dir_okay=False, path_type=Path), metavar="IMAGE",
    help="What is shown then. Default: the last picture, darkened.",
)  # fmt: skip
@click.option(
    "--realtime", is_flag=True,
    help="Read a recording behind a URL at its own pace, as files always are.",
)  # fmt: skip
@click.option("--loop", is_flag=True, help="Read a file again from its start, for ever.")
@click.option("-c", "-c:v", "--codec", help="h264 (default), hevc, or an FFmpeg encoder.")
@click.option(
    "--pix-fmt", "pixel_format", metavar="NAME",
    help="Pixel format of the output. Default: yuv420p; yuv420p10le in hevc, av1 and vp9 if the "
    "source has more than 8 bits.",
)  # fmt: skip
@click.option("--crf", type=WholeNumber(0), help="Constant quality; lower is better.")
@rate_options
@click.option(
    "--stream-preset", type=click.Choice(["twitch", "youtube"]),
    help="The service's published bitrate for the size and rate, and its limit.",
)  # fmt: skip
@click.option("--preset", help="The encoder's speed preset.")
@click.option("-e", "options", callback=key_value, multiple=True, help="An encoder option.")
@click.option(
    "--report", type=click.Path(path_type=Path),
    help="Write latencies at the end (.json, .csv, .html), and parts of the report meanwhile.",
)  # fmt: skip
@click.option(
    "--report-every", type=Number(0.1), default=10.0, show_default=True, metavar="MIN",
    help="Minutes of pictures in each part of the report.",
)  # fmt: skip
@click.option(
    "--report-keep", type=WholeNumber(1), default=24, show_default=True,
    help="Parts of the report that are kept; older ones are deleted.",
)  # fmt: skip
@click.option(
    "-f", "--format", "container", help="Container of OUTPUT -: ts (default), flv, mkv, nut."
)
@click.option(
    "--enhanced-rtmp", is_flag=True,
    help="Send HEVC, AV1 and VP9 even to RTMP servers that do not say that they take it.",
)  # fmt: skip
@click.option(
    "--tls-no-verify", is_flag=True,
    help="Accept any certificate of rtmps:// servers.",
)  # fmt: skip
@click.option("--status", metavar="HOST:PORT", help="Serve a status page.")
@click.option(
    "--health-after", type=Number(0.5), default=5.0, show_default=True, metavar="S",
    help="Seconds without a picture or sound of the source after which /healthz fails.",
)  # fmt: skip
@log_format
@verbosity
def relay(
    urls: tuple[str, ...], input_: str | None, config: Path | None, verbose: bool, quiet: bool,
    log_format: str, **options: Any,
) -> None:  # fmt: skip
    """Upscale a live stream, publish it in time and keep the output running.

    Example: vsr relay rtmp://server/live/in rtmp://server/live/out --model carn-m
    """
    from vsr.live.memory import configure_malloc

    configure_malloc()  # before any thread starts
    from vsr.live.ladder.pool import Pool
    from vsr.live.supervisor import run_all, run_one

    start_logging(verbose, quiet, log_format)
    urls = (input_, *urls) if input_ else urls
    with errors_shown(verbose):
        pool = Pool()
        try:
            if config is None:
                one = _job("", urls, options).make(pool)
                code = stopping_on_signals(lambda stop: run_one(one, stop))
            else:
                _refuse_options_beside(config)
                jobs = _jobs(config)
                code = stopping_on_signals(lambda stop: run_all(jobs, stop, pool))
        finally:
            pool.close()
        sys.exit(code)


def _refuse_options_beside(config: Path) -> None:
    """Raise UsageError for command-line arguments that belong to each relay in the file."""
    context = click.get_current_context()
    for parameter in context.command.params:
        name = parameter.name or ""
        given = context.get_parameter_source(name) is ParameterSource.COMMANDLINE
        if given and name not in _SHARED:
            what = "URLs" if name == "urls" else max(parameter.opts, key=len)
            raise UsageError(f"with --config, {what} belong into {config}, to each relay")


def _jobs(config: Path) -> list[Any]:
    """Return the jobs of a file's relays, each with all options of the command line."""
    from vsr.cli.relay_config import option_values, read_config

    jobs, taken = [], set[str]()
    for table in read_config(config):
        try:
            options = option_values(relay, table.options)
        except click.ClickException as exc:
            jobs.append(_refused(table.name, exc.format_message()))
            continue
        options = {key: options[key] for key in options if key not in {*_SHARED, "urls", "input_"}}
        jobs.append(_job(table.name, table.urls, options))
        written = {*table.urls[1:], str(options["report"] or ""), options["status"] or ""}
        if taken & written - {""}:
            raise UsageError(
                f"{config}, {table.name}: another relay has this output, report or status"
            )
        taken |= written
    return jobs


def _refused(name: str, words: str) -> Any:
    """Return the job of a relay with invalid options, which does not affect the other relays."""
    from vsr.live.settings import RelaySettings
    from vsr.live.supervisor import RelayJob

    return RelayJob(input="", outputs=(), settings=RelaySettings(name=name), options_error=words)


def _job(name: str, urls: tuple[str, ...], options: dict[str, Any]) -> Any:
    from vsr.live.supervisor import RelayJob

    if len(urls) < 2:
        raise UsageError("give INPUT_URL and at least one OUTPUT_URL, or --config FILE.toml")
    return RelayJob(input=urls[0], outputs=urls[1:], settings=_settings(name=name, **options))


def _settings(
    *, model: str | None, ladder: str | None, max_latency: int, retry_delay: float,
    retry_max: int, stream_timeout: float, listen: bool, realtime: bool, loop: bool,
    codec: str | None, pixel_format: str | None, crf: int | None, preset: str | None,
    options: dict[str, str],
    bitrate: int | None, maxrate: int | None, bufsize: int | None,
    deinterlace: str, variant: str, tls_no_verify: bool,
    tls_cert: Path | None, tls_key: Path | None,
    container: str | None, enhanced_rtmp: bool,
    report: Path | None, report_every: float, report_keep: int, **others: Any,
) -> Any:  # fmt: skip
    from vsr.live.settings import IngestSettings, OutputSettings, RelaySettings
    from vsr.media.encoder import EncoderSettings
    from vsr.report.rolling import RollingSettings

    return RelaySettings(
        model=model,
        ladder=tuple(name.strip() for name in ladder.split(",")) if ladder else (),
        max_latency=max_latency / 1000,
        ingest=IngestSettings(
            stream_timeout=stream_timeout, retry_delay=retry_delay, retry_max=retry_max,
            listen=listen, realtime=realtime, loop=loop, tls_verify=not tls_no_verify,
            tls_cert=tls_cert, tls_key=tls_key, variant=variant,
            deinterlace=deinterlace,
        ),
        output=OutputSettings(
            tls_verify=not tls_no_verify, container=container, enhanced_rtmp=enhanced_rtmp
        ),
        encoder=EncoderSettings(
            codec=codec, pixel_format=pixel_format, crf=crf, preset=preset, options=options,
            bitrate=bitrate, maxrate=maxrate, bufsize=bufsize,
        ),
        rolling=RollingSettings(report=report, period=60 * report_every, keep=report_keep),
        **others,
    )  # fmt: skip
