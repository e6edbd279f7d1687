"""Relays one live stream: waits for the source, runs the playout, completes the report.

Three threads do the work: `Ingest` reads and decodes, the caller's thread chooses a rung and
upscales (`Playout`), `LiveEncoder` encodes once and queues every packet for every output. This file
does the work before and after: it waits for the source, whose size and colour determine everything
else, and completes the report.
"""

import logging
import math
import threading
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Final

from vsr.errors import InputError, InterruptedRunError, UsageError
from vsr.live.common import POLL_S, RelayLog
from vsr.live.input.fit import OutputCapabilities
from vsr.live.input.ingest import Ingest, check_input
from vsr.live.input.mailbox import Connected, Lost, Mailbox
from vsr.live.ladder.pool import Pool
from vsr.live.output.encode import check_encoder
from vsr.live.output.encoding import live_bit_depth, live_side_data
from vsr.live.output.plan import check_outputs, output_name
from vsr.live.output.rates import check_rate, live_settings
from vsr.live.output.spares import Spares
from vsr.live.settings import RelaySettings
from vsr.live.slate import Slate
from vsr.live.status.board import StatusBoard
from vsr.live.status.snapshot import StreamFacts
from vsr.media.frame import now
from vsr.media.location import is_stdin, is_url, normal_url, url_for_messages
from vsr.report.ledger import check_report_path
from vsr.report.report import Report
from vsr.report.rolling import RollingLedger

if TYPE_CHECKING:  # these load the networks' libraries, later, while the source is opened
    from vsr.live.ladder.rungs import Rungs
    from vsr.live.playout import Playout

log = logging.getLogger(__name__)

_LOG_WAIT_AFTER_S: Final = 2.0
"""Time without a source after which the wait is logged, in seconds."""
_MAX_INTERVAL_SHARE: Final = 0.7
"""Largest fraction of the frame interval for upscaling: the other steps need the rest."""
_DEFAULT_INTERVAL_S: Final = 1 / 30
_MIN_RATE, _MAX_RATE = 5, 120
"""Plausible frame rates of a source, in Hz; for others the interval is `_DEFAULT_INTERVAL_S`."""


class Relay:
    """One run of a relay, from checked settings to the end of its source."""

    def __init__(
        self,
        input_: str,
        outputs: Sequence[str],
        settings: RelaySettings,
        pool: Pool | None = None,
    ) -> None:
        """`pool` is shared by all relays of a process.

        Raises UsageError, InputError or OutputError for errors that are detected before anything
        is opened.
        """
        input_, outputs = normal_url(input_), [normal_url(url) for url in outputs]
        _check(input_, outputs, settings)
        self._outputs, self.settings = list(outputs), settings
        self._log = RelayLog(log, settings.name)
        self._pool = pool or Pool()
        self._slate = Slate(settings.slate_after, settings.slate)
        self._mailbox = Mailbox(frames=64)
        capabilities = OutputCapabilities(
            bits=live_bit_depth(settings.encoder), side_data=live_side_data(settings.encoder)
        )
        self._ingest = Ingest(
            input_, settings.ingest, self._mailbox, self._is_fast_enough, capabilities
        )
        self.report = Report(
            input={"name": url_for_messages(input_)},
            output={"name": ", ".join(map(output_name, outputs))},
            deadline=settings.max_latency,
        )
        self._ledger = RollingLedger(
            settings.rolling, 1000 * settings.max_latency, self.report.facts_of
        )
        self.report.ledger = self._ledger
        self.board = StatusBoard(
            url_for_messages(input_), settings.max_latency, health_after=settings.health_after
        )
        self._spares = Spares()
        self.has_report = False
        """Whether the report has content."""
        self.is_hopeless = False
        """Whether no output can ever work."""

    def run(self, stop: threading.Event) -> Report:
        """Relay until the source has ended for good or `stop` is set. Raises VsrError.

        `report` describes the work done, even if an error is raised.
        """
        self._ingest.start()  # first: connecting takes as long as loading libraries
        try:
            self._spares = Spares(len(self._outputs))
            self._pool.find(self.settings)
            import vsr.live.playout  # noqa: F401 - loaded before the source connects

            first = self._first_session(stop)
            size, colour = (first.info.width, first.info.height), first.info.colour
            bicubic_first = is_url(
                self._ingest.url
            )  # a file can wait, and its quality must not vary
            interval = _interval(self._ingest.rate or first.info.rate)
            plane_format = first.info.planes
            rungs = self._pool.rungs(
                self.settings, size, colour, stop.is_set, bicubic_first, interval, plane_format
            )
            try:
                self._slate.fit(rungs.out_size, colour, plane_format)
                if stop.is_set():
                    raise InterruptedRunError("stopped before anything was published")
                self._go_live(first, rungs, stop)
            finally:
                self._pool.release(rungs)
        except InterruptedRunError as exc:
            self._log.info("%s", exc)
            self.report.interrupted = self.has_report = True
        finally:
            self._ingest.close()
            self._spares.close()
        return self.report

    def _first_session(self, stop: threading.Event) -> Connected:
        """Wait for the first session; engines and outputs depend on its size and colour."""
        log_at = math.inf if self.settings.ingest.listen else now() + _LOG_WAIT_AFTER_S
        while not stop.is_set():
            if now() > log_at:
                log_at = math.inf
                self._log.info("waiting for %s: no data yet", self.report.input["name"])
            item = self._mailbox.take(POLL_S)
            if isinstance(item, Connected):
                return item
            if isinstance(item, Lost):
                if item.final:
                    raise InputError(item.reason)
                self._log.warn_rarely(f"{item.reason}; {self.settings.ingest.after_loss}")
        raise InterruptedRunError("stopped before the source connected; nothing was published")

    def _is_fast_enough(self, size: tuple[int, int], rate: Fraction | None) -> bool:
        """Return whether the first network is likely to upscale a variant's frames in time."""
        cost = self._pool.estimate(self.settings, size)
        return cost <= _MAX_INTERVAL_SHARE * _interval(rate)

    def _go_live(self, first: Connected, rungs: "Rungs", stop: threading.Event) -> None:
        """Run the playout from the first frame to the last. Raises VsrError."""
        from vsr.live.playout import Playout

        rate = self._ingest.rate or first.info.rate  # measured while the engines were prepared
        first = replace(first, info=replace(first.info, rate=rate))
        settings = self.settings
        encoder = live_settings(
            settings.encoder, self._outputs, rungs.out_size, first.info.rate, settings.stream_preset
        )
        playout = Playout(
            self._outputs, replace(settings, encoder=encoder), first, rungs=rungs,
            mailbox=self._mailbox, slate=self._slate, report=self.report, board=self.board,
            log=self._log, stop=stop, spares=self._spares,
        )  # fmt: skip
        self._announce(first, rungs, playout)
        self.has_report = True
        try:
            playout.run(self._ingest.start_playback)
            self.is_hopeless = playout.is_hopeless
        finally:
            self._ingest.close()
            playout.close()
            self._complete_report(playout, stop)
        if not stop.is_set():
            playout.check_published()

    def _announce(self, first: Connected, rungs: "Rungs", playout: "Playout") -> None:
        """Describe the stream in the log, the report and the status page."""
        from vsr.inference.flicker import can_filter, filters_flicker
        from vsr.live.ladder.rung_models import optional_count

        info, report = first.info, self.report
        size = [info.width, info.height]
        report.input |= {"size": size, "rate": str(info.rate), "codec": first.codec}
        filtered = can_filter(info.colour) and any(
            filters_flicker(name, self.settings.flicker_filter) for name in rungs.names
        )
        report.output |= {
            "size": list(rungs.out_size), "rungs": rungs.names, "flicker_filter": filtered
        }  # fmt: skip
        costs = [
            (name, cost)
            for k, (name, cost) in enumerate(zip(rungs.names, rungs.costs, strict=True))
            if not rungs.is_disabled(k)
        ]
        self._log.info(
            "live: %s, %dx%d at %.5g fps, network %s; rungs: %s",
            report.input["name"], *size, info.rate, playout.rung,
            ", ".join(
                f"{name} {1000 * cost:.1f} ms" if math.isfinite(cost) else f"{name} loading"
                for name, cost in costs
            ),
        )  # fmt: skip
        facts = StreamFacts(
            source=report.input, output=report.output, rungs=rungs.names, colour=info.colour,
            optional_rungs=optional_count(self.settings),
        )  # fmt: skip
        self.board.go_live(facts, lambda: self._figures(playout))

    def _figures(self, playout: "Playout") -> dict[str, Any]:
        """Return the statistics of the report's `live` entry."""
        found = playout.figures()
        return found | {"jumps": found["jumps"] + self._ingest.jumps}

    def _complete_report(self, playout: "Playout", stop: threading.Event) -> None:
        report = self.report
        report.concealed = self._ledger.count_events("concealed")
        report.interrupted = stop.is_set()
        report.totals = self.board.snapshot(0.0).totals
        report.live = self._figures(playout)
        for output in report.live["outputs"]:
            output["av_offset_ms"] = output["av_offset_last_ms"]
        measured = [output["av_offset_ms"] for output in report.live["outputs"]]
        report.live["av_offset_ms"] = next((ms for ms in measured if ms is not None), None)
        if report.degraded:
            missing = max(report.lost, report.frames_in - report.frames_out)
            if missing or report.concealed:
                self._log.warning(
                    "%d frames were not sent, %d were damaged", missing, report.concealed
                )
            for number, output in enumerate(report.live["outputs"], 1):
                if output["pictures_dropped"]:
                    self._log.warning(
                        "output %d, %s: %d frames were not sent, %d were sent", number,
                        output["name"], report.frames_in - output["pictures"], output["pictures"],
                    )  # fmt: skip
        self._ledger.close()


def _check(input_: str, outputs: Sequence[str], settings: RelaySettings) -> None:
    """Raise UsageError or OutputError for errors that can be detected at once."""
    if not outputs:
        raise UsageError("give at least one OUTPUT_URL")
    source = "stdin" if is_stdin(input_) else input_
    if source in outputs:
        raise UsageError("input and output are the same: the relay would read its own output")
    if twice := next((url for url in outputs if outputs.count(url) > 1), None):
        raise UsageError(f"{output_name(twice)} is given twice as an output: leave one out")
    check_encoder(settings.encoder)  # first: outputs are advised for an encoder that can be used
    check_outputs(outputs, settings.output, settings.encoder)
    check_input(input_, settings.ingest)
    check_rate(settings.encoder, settings.stream_preset)
    if settings.rolling.report is not None:
        check_report_path(settings.rolling.report)


def _interval(rate: Fraction | None) -> float:
    """Return the frame interval in seconds; the usual one if the rate is unknown or implausible."""
    return float(1 / rate) if rate and _MIN_RATE <= rate <= _MAX_RATE else _DEFAULT_INTERVAL_S
