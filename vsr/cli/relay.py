"""`vsr relay`: upscale and publish live streams, until stopped."""

import sys
from pathlib import Path
from typing import Any, Final

import click

from vsr.cli.encoder_options import preset_options, rate_options
from vsr.cli.given import is_given, option_name
from vsr.cli.network_options import flicker_option, look_option, network_options
from vsr.cli.numbers import Number, WholeNumber
from vsr.cli.terminal import (
    exit_on_error,
    log_format,
    run_stoppable,
    start_logging,
    variant_named,
    verbosity,
)
from vsr.errors import UsageError

_SHARED: Final = frozenset({"config", "verbose", "quiet", "log_format"})
"""Parameters that apply to all relays of a process."""


@click.command("relay")
@click.argument("urls", nargs=-1, metavar="INPUT_URL OUTPUT_URL...")
@click.option("-i", "--input", "input_", metavar="URL", help="The same as the first argument.")
@click.option(
    "--config", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE.toml",
    help="Run several relays in one process: [[relay]] tables with input, outputs and these "
    "options. A relay that fails is restarted, unless its options are invalid.",
)  # fmt: skip
@click.option(
    "--deinterlace", type=click.Choice(["auto", "off", "frame", "bob"]), default="auto",
    show_default=True,
    help="auto: interlaced frames only; frame: all frames; bob: all, with two output frames each.",
)  # fmt: skip
@click.option(
    "--variant", callback=variant_named, default="best", show_default=True, metavar="best|WxH|N",
    help="Variant of an HLS playlist to read; best: the largest that can be upscaled in real time.",
)  # fmt: skip
@click.option("-m", "--model", help="Name from `vsr models`, or a super-resolution .onnx file.")
@click.option("-s", "--scale", type=WholeNumber(2), help="Scale factor. Default: 2.")
@look_option("faithful")
@network_options
@flicker_option
@click.option(
    "--ladder",
    metavar="NAME,NAME...",
    help="Lighter networks to switch to if necessary, best first.",
)
@click.option(
    "--max-latency", type=WholeNumber(50), default=500, show_default=True, metavar="MS",
    help="Maximum time from a frame's arrival to its encoded packet; if it is exceeded, a lighter "
    "network is used.",
)  # fmt: skip
@click.option(
    "--listen", is_flag=True,
    help="Accept a publisher (OBS, ffmpeg) at INPUT_URL: rtmp://HOST:PORT/APP/KEY.",
)  # fmt: skip
@click.option(
    "--tls-cert", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE.pem",
    help="Certificate for --listen at rtmps://.",
)  # fmt: skip
@click.option(
    "--tls-key", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE.pem",
    help="Private key of the certificate, unless it is in the same file.",
)  # fmt: skip
@click.option(
    "--retry-delay", type=Number(0.1), default=0.5,
    help="Initial delay before INPUT_URL is retried, in seconds; it increases with each failure.",
)  # fmt: skip
@click.option(
    "--retry-max", type=WholeNumber(0), default=0,
    help="Maximum number of consecutive failed attempts to read INPUT_URL, after which the relay "
    "ends; 0: no limit. Outputs are always retried.",
)  # fmt: skip
@click.option(
    "--stream-timeout", type=Number(0.5), default=5.0, show_default=True,
    help="Time without data after which the source counts as disconnected, in seconds.",
)  # fmt: skip
@click.option(
    "--slate-after", type=Number(0), default=5.0, show_default=True,
    help="Time without a source after which the slate is shown, in seconds.",
)  # fmt: skip
@click.option(
    "--slate", type=click.Path(dir_okay=False, path_type=Path), metavar="IMAGE",
    help="Image shown while the source is away. Default: the last frame, darkened.",
)  # fmt: skip
@click.option(
    "--realtime", is_flag=True,
    help="Read a recording at a URL in real time, by its timestamps, as files always are.",
)  # fmt: skip
@click.option("--loop", is_flag=True, help="Repeat an input file endlessly.")
@click.option("-c", "-c:v", "--codec", help="h264 (default), hevc or another FFmpeg encoder.")
@click.option(
    "--pix-fmt", "pixel_format", metavar="NAME",
    help="Pixel format of the output. Default: yuv420p; yuv420p10le in hevc, av1 and vp9 if the "
    "source has more than 8 bits.",
)  # fmt: skip
@click.option("--crf", type=WholeNumber(0), help="Constant quality; lower is better.")
@rate_options
@click.option(
    "--stream-preset", type=click.Choice(["twitch", "youtube"]),
    help="Use the bitrate and the limits that the service recommends for the frame size and rate.",
)  # fmt: skip
@preset_options
@click.option(
    "--report", type=click.Path(path_type=Path),
    help="Write the latency of every frame (.json, .csv, .html) at the end, and partial reports "
    "before that.",
)  # fmt: skip
@click.option(
    "--report-every", type=Number(0.1), default=10.0, show_default=True, metavar="MIN",
    help="Duration covered by each partial report, in minutes.",
)  # fmt: skip
@click.option(
    "--report-keep", type=WholeNumber(1), default=24, show_default=True,
    help="Number of partial reports to keep; older ones are deleted.",
)  # fmt: skip
@click.option(
    "-f", "--format", "container", help="Container of OUTPUT -: ts (default), flv, mkv, nut."
)
@click.option(
    "--enhanced-rtmp", is_flag=True,
    help="Send HEVC, AV1 and VP9 also to RTMP servers that do not announce support for them.",
)  # fmt: skip
@click.option(
    "--tls-no-verify", is_flag=True,
    help="Do not verify the certificates of rtmps:// servers.",
)  # fmt: skip
@click.option("--status", metavar="HOST:PORT", help="Serve a status page at this address.")
@click.option(
    "--health-after", type=Number(0.5), default=5.0, show_default=True, metavar="S",
    help="Time without video or audio from the source after which /healthz fails, in seconds.",
)  # fmt: skip
@log_format
@verbosity
def relay(
    urls: tuple[str, ...], input_: str | None, config: Path | None, verbose: bool, quiet: bool,
    log_format: str, **options: Any,
) -> None:  # fmt: skip
    """Upscale a live stream in real time, publish it and keep the output running.

    Example: vsr relay rtmp://server/live/in rtmp://server/live/out --model carn-m
    """
    from vsr.live.memory import configure_malloc

    configure_malloc()  # before any thread starts
    from vsr.live.ladder.pool import Pool
    from vsr.live.supervisor import run_all, run_one

    start_logging(verbose, quiet, log_format)
    urls = (input_, *urls) if input_ else urls
    with exit_on_error(verbose):
        pool = Pool()
        try:
            if config is None:
                one = _job("", urls, options).make(pool)
                code = run_stoppable(lambda stop: run_one(one, stop))
            else:
                _check_no_other_options(config)
                jobs = _jobs(config)
                code = run_stoppable(lambda stop: run_all(jobs, stop, pool))
        finally:
            pool.close()
        sys.exit(code)


def _check_no_other_options(config: Path) -> None:
    """Raise UsageError for command-line arguments that belong to each relay in the file."""
    for parameter in click.get_current_context().command.params:
        name = parameter.name or ""
        if name not in _SHARED and is_given(name):
            what = "URLs" if name == "urls" else option_name(parameter)
            raise UsageError(f"with --config, set {what} in {config}, for each relay")


def _jobs(config: Path) -> list[Any]:
    """Return the jobs of a file's relays, each with all options of the command line."""
    from vsr.cli.relay_config import option_values, read_config

    jobs, written_paths = [], set[str]()
    for table in read_config(config):
        try:
            options = option_values(relay, table.options)
        except click.ClickException as exc:
            jobs.append(_invalid_job(table.name, exc.format_message()))
            continue
        options = {key: options[key] for key in options if key not in {*_SHARED, "urls", "input_"}}
        jobs.append(_job(table.name, table.urls, options))
        written = {*table.urls[1:], str(options["report"] or ""), options["status"] or ""}
        if written_paths & written - {""}:
            raise UsageError(
                f"{config}, {table.name}: another relay has the same output, report or status"
            )
        written_paths |= written
    return jobs


def _invalid_job(name: str, words: str) -> Any:
    """Return the job of a relay with invalid options, which does not affect the other relays."""
    from vsr.live.settings import RelaySettings
    from vsr.live.supervisor import RelayJob

    return RelayJob(input="", outputs=(), settings=RelaySettings(name=name), options_error=words)


def _job(name: str, urls: tuple[str, ...], options: dict[str, Any]) -> Any:
    from vsr.live.supervisor import RelayJob

    if len(urls) < 2:
        raise UsageError(
            "INPUT_URL and at least one OUTPUT_URL, or --config FILE.toml, are required"
        )
    _check_effects(urls[1:], options)
    return RelayJob(input=urls[0], outputs=urls[1:], settings=_settings(name=name, **options))


def _check_effects(outputs: tuple[str, ...], options: dict[str, Any]) -> None:
    """Raise UsageError for an option, also of a file, that has no effect without another one."""
    defaults = {one.name: one.default for one in relay.params}
    is_rtmp = any(url.lower().startswith("rtmp") for url in outputs)
    needed = {
        "report_every": ("--report-every", options["report"], "--report"),
        "report_keep": ("--report-keep", options["report"], "--report"),
        "health_after": ("--health-after", options["status"], "--status"),
        "enhanced_rtmp": ("--enhanced-rtmp", is_rtmp, "an output at rtmp://"),
    }
    for name, (option, other, what) in needed.items():
        if options[name] not in (False, defaults[name]) and not other:
            raise UsageError(f"{option} has no effect without {what}")


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
