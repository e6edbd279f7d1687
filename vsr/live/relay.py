"""Relays one live stream: waits for the source, runs the playout, completes the report.

Three threads do the work: `Ingest` reads and decodes, the caller's thread chooses a rung and
upscales (`Playout`), `LiveEncoder` encodes once and queues every packet for every output. This file
has what comes before and after: it waits for the source, whose size and colour decide everything
else, and writes the report.
"""

import logging
import math
import threading
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Final

from vsr.errors import InputError, InterruptedRunError, UsageError
from vsr.live.common import POLL, RelayLog
from vsr.live.input.fit import Carried
from vsr.live.input.ingest import Ingest, check_input
from vsr.live.input.mailbox import Connected, Lost, Mailbox
from vsr.live.ladder.pool import Pool
from vsr.live.output.encode import check_encoder
from vsr.live.output.encoding import live_bits, live_side_data
from vsr.live.output.plan import check_outputs, output_name
from vsr.live.output.rates import live_settings, service_of
from vsr.live.output.spares import Spares
from vsr.live.settings import RelaySettings
from vsr.live.slate import Slate
from vsr.live.status.board import StatusBoard
from vsr.live.status.snapshot import StreamFacts
from vsr.media.frame import now
from vsr.media.location import is_stdin, is_url, shown
from vsr.report.ledger import check_report_path
from vsr.report.report import Report
from vsr.report.rolling import RollingLedger

if TYPE_CHECKING:  # they load networks' libraries, while the source is being opened
    from vsr.live.ladder.rungs import Rungs
    from vsr.live.playout import Playout

log = logging.getLogger(__name__)

_SAY_AFTER: Final = 2.0
"""Seconds without a source after which it is said that it is waited for."""
_SHARE: Final = 0.7
"""Of the time from a picture to the next, what enlarging may take: the rest needs time too."""
_USUAL_S: Final = 1 / 30
_SLOWEST, _FASTEST = 5, 120
"""Rates that a playlist may mean; else pictures are taken to come as often as usual."""


class Relay:
    """One run of a relay, from checked settings to the end of its source."""

    def __init__(
        self,
        input_: str,
        outputs: Sequence[str],
        settings: RelaySettings,
        pool: Pool | None = None,
    ) -> None:
        """`pool` is what relays of one process share.

        Raises UsageError, InputError or OutputError for what can be seen to be wrong before
        anything is opened.
        """
        _check(input_, outputs, settings)
        self._outputs, self.settings = list(outputs), settings
        self._log = RelayLog(log, settings.name)
        self._pool = pool or Pool()
        self._slate = Slate(settings.slate_after, settings.slate)
        self._mailbox = Mailbox(frames=64)
        carried = Carried(
            bits=live_bits(settings.encoder), side_data=live_side_data(settings.encoder)
        )
        self._ingest = Ingest(input_, settings.ingest, self._mailbox, self._fits, carried)
        self.report = Report(
            input={"name": shown(input_)},
            output={"name": ", ".join(map(output_name, outputs))},
            deadline=settings.max_latency,
        )
        self._ledger = RollingLedger(
            settings.rolling, 1000 * settings.max_latency, self.report.facts_of
        )
        self.report.ledger = self._ledger
        self.board = StatusBoard(
            shown(input_), settings.max_latency, health_after=settings.health_after
        )
        self._spares = Spares()
        self.begun = False
        """Whether there is anything to report."""

    def run(self, stop: threading.Event) -> Report:
        """Relay until the source is given up or `stop` is set. Raises VsrError.

        `report` holds what was done however it ends.
        """
        self._ingest.start()  # first of all: connecting takes as long as loading libraries
        try:
            self._spares = Spares(len(self._outputs))
            self._pool.find(self.settings)
            import vsr.live.playout  # noqa: F401 - at hand when the source is there

            first = self._first_session(stop)
            size, colour = (first.info.width, first.info.height), first.info.colour
            early = is_url(self._ingest.url)  # nobody waits for a file, and quality may not differ
            interval = _interval(self._ingest.rate or first.info.rate)
            form = first.info.planes
            rungs = self._pool.rungs(
                self.settings, size, colour, stop.is_set, early, interval, form
            )
            try:
                self._slate.fit(rungs.out_size, colour, form)
                if stop.is_set():
                    raise InterruptedRunError("stopped before anything was published")
                self._go_live(first, rungs, stop)
            finally:
                self._pool.leave(rungs)
        except InterruptedRunError as exc:
            self._log.info("%s", exc)
            self.report.interrupted = self.begun = True
        finally:
            self._ingest.close()
            self._spares.close()
        return self.report

    def _first_session(self, stop: threading.Event) -> Connected:
        """Wait for the source, whose size and colour the engines and outputs depend on."""
        waits_until = math.inf if self.settings.ingest.listen else now() + _SAY_AFTER
        while not stop.is_set():
            if now() > waits_until:
                waits_until = math.inf
                self._log.info("waiting for %s: nothing came yet", self.report.input["name"])
            item = self._mailbox.take(POLL)
            if isinstance(item, Connected):
                return item
            if isinstance(item, Lost):
                if item.final:
                    raise InputError(item.reason)
                self._log.warn_rarely(f"{item.reason}; {self.settings.ingest.next}")
        raise InterruptedRunError("stopped before the source was there; nothing was published")

    def _fits(self, size: tuple[int, int], rate: Fraction | None) -> bool:
        """Whether the first network is likely to enlarge a variant's pictures in time."""
        cost = self._pool.estimate(self.settings, size)
        return cost <= _SHARE * _interval(rate)

    def _go_live(self, first: Connected, rungs: "Rungs", stop: threading.Event) -> None:
        """Play out from the first picture to the last. Raises VsrError."""
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
            words=self._log, stop=stop, spares=self._spares,
        )  # fmt: skip
        self._announce(first, rungs, playout)
        self.begun = True
        try:
            playout.run(self._ingest.go)
        finally:
            self._ingest.close()
            playout.close()
            self._conclude(playout, stop)
        if not stop.is_set():
            playout.check_published()

    def _announce(self, first: Connected, rungs: "Rungs", playout: "Playout") -> None:
        """Describe the stream in the log, the report and the status page."""
        info, report = first.info, self.report
        size = [info.width, info.height]
        report.input |= {"size": size, "rate": str(info.rate), "codec": first.codec}
        report.output |= {"size": list(rungs.out_size), "rungs": rungs.names}
        costs = [
            (name, cost)
            for k, (name, cost) in enumerate(zip(rungs.names, rungs.costs, strict=True))
            if not rungs.is_lost(k)
        ]
        self._log.info(
            "live: %s, %dx%d at %.5g fps, by %s; rungs: %s",
            report.input["name"], *size, info.rate, playout.rung,
            ", ".join(
                f"{name} {1000 * cost:.1f} ms" if math.isfinite(cost) else f"{name} is being loaded"
                for name, cost in costs
            ),
        )  # fmt: skip
        stage = StreamFacts(
            source=report.input, output=report.output, rungs=rungs.names, colour=info.colour
        )
        self.board.go_live(stage, lambda: self._figures(playout))

    def _figures(self, playout: "Playout") -> dict[str, Any]:
        """Return the figures of the report's `live` entry."""
        found = playout.figures()
        return found | {"jumps": found["jumps"] + self._ingest.jumps}

    def _conclude(self, playout: "Playout", stop: threading.Event) -> None:
        report = self.report
        report.concealed = self._ledger.count_events("concealed")
        report.interrupted = stop.is_set()
        report.live = self._figures(playout)
        for output in report.live["outputs"]:
            output["av_offset_ms"] = output["av_offset_last_ms"]
        measured = [output["av_offset_ms"] for output in report.live["outputs"]]
        report.live["av_offset_ms"] = next((ms for ms in measured if ms is not None), None)
        if report.degraded:
            self._log.warning(
                "%d pictures did not go out, %d were damaged",
                max(report.lost, report.frames_in - report.frames_out), report.concealed,
            )  # fmt: skip
            for output in report.live["outputs"]:
                if output["pictures_dropped"]:
                    self._log.warning(
                        "%s: %d pictures were not sent, %d were", output["name"],
                        output["pictures_dropped"], output["pictures"],
                    )  # fmt: skip
        self._ledger.close()


def _check(input_: str, outputs: Sequence[str], settings: RelaySettings) -> None:
    """Raises UsageError or OutputError for what can be seen to be wrong at once."""
    if not outputs:
        raise UsageError("give at least one OUTPUT_URL")
    source = "stdin" if is_stdin(input_) else input_
    if len({source, *outputs}) <= len(outputs):
        raise UsageError("input and outputs must all differ: a relay would feed on itself")
    check_outputs(outputs, settings.output, settings.encoder)
    check_input(input_, settings.ingest)
    check_encoder(settings.encoder)
    service_of(settings.stream_preset)
    if settings.rolling.report is not None:
        check_report_path(settings.rolling.report)


def _interval(rate: Fraction | None) -> float:
    """Seconds between two pictures; the usual where the rate is unknown or unlikely."""
    return float(1 / rate) if rate and _SLOWEST <= rate <= _FASTEST else _USUAL_S
