"""Upscales one file with several workers: processes, devices or computers."""

import logging
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path

from vsr.errors import InputError, InterruptedRunError, UsageError
from vsr.files.assemble import Output, join
from vsr.files.cluster import Cluster
from vsr.files.dispatch import Dispatch
from vsr.files.input_output import AnySource, encoder_name_for, open_source, open_source_for_copying
from vsr.files.journal import Journal
from vsr.files.journal_lines import Segment, has_gaps
from vsr.files.memory_plan import plan_memory
from vsr.files.progress import Progress
from vsr.files.run_report import add_note, conversion_note, new_report, time_window
from vsr.files.segment_writer import encoder_threads, with_threads
from vsr.files.segments import facts_of, frames_per_segment
from vsr.files.settings import RunSettings
from vsr.files.worker import ModelRequest, Place, WorkerSettings
from vsr.files.workers import check_places_match, devices_of, jobs_that_fit, places_of, start_crew
from vsr.inference.look import model_name_for
from vsr.inference.upscaler import Outline
from vsr.media.clips import ClipCutter, Cuts, cannot_be_cut
from vsr.media.frame import Frame, now
from vsr.media.missing_frames import Losses
from vsr.media.reading import Reading
from vsr.media.side_data import kinds_written_by
from vsr.media.source import Source
from vsr.report.ledger import Ledger
from vsr.report.report import Report

log = logging.getLogger(__name__)


def is_shared(settings: RunSettings, output: Path) -> bool:
    """Return whether a run has several workers, or resumes a run of several that left gaps."""
    several = settings.jobs != 1 or settings.cluster or len(devices_of(settings.device)) > 1
    return bool(several) or (not settings.restart and has_gaps(output))


@dataclass
class SharedJob:
    """One run with several workers. Call `run` once."""

    input_: str
    output: Path
    settings: RunSettings
    on_progress: Callable[[Progress], None] | None = None
    stop: threading.Event = field(default_factory=threading.Event)
    _started: float = 0.0
    _total: int = 0
    _step: Fraction = Fraction(0)
    _rate_factor: Fraction = Fraction(1)
    """Number of frames that the filters make of one decoded picture."""

    def run(self) -> Report:
        """Upscale the file. Raises VsrError; then no file is left under the output's name."""
        settings = self.settings
        several = len(devices_of(settings.device)) > 1
        if settings.cluster and settings.device is not None:
            raise UsageError(
                "--device and --cluster cannot be combined: each node uses its own devices"
            )
        if settings.jobs is None and several:
            raise UsageError("--jobs auto requires a single device: set a number of jobs")
        settings.encoder.check()
        with ExitStack() as stack:
            source = stack.enter_context(closing(self._open_source()))
            if isinstance(source, Source) and (why := self._cannot_be_shared(source)):
                raise UsageError(f"{self._requesting_option}: {why}")
            request = ModelRequest(
                model=settings.model or model_name_for(None, settings.look),
                scale=settings.scale, precision=settings.precision, backend=settings.backend,
            )  # fmt: skip
            cluster = None
            if settings.cluster:
                cluster = stack.enter_context(closing(Cluster(settings.cluster)))
            place = check_places_match(places_of(settings, request, source, cluster))
            return self._run(source, request, place, cluster)

    def _run(
        self, source: AnySource, request: ModelRequest, place: Place, cluster: Cluster | None
    ) -> Report:
        settings, info = self.settings, source.info
        outline = Outline(
            name=place.model, sha256=place.model_sha256, precision=place.precision,
            scale=place.scale, size=(info.width, info.height), out_size=place.out_size,
            tiles=place.tiles,
        )  # fmt: skip
        report = new_report(settings, self.output, source, outline, (place.backend, place.device))
        if cluster is not None or len(devices_of(settings.device)) > 1:
            report.ledger = Ledger(places=True)
        video = info.output_for(place.out_size)
        encoder = encoder_name_for(self.output, settings, video)
        add_note(report, info.conversion(kinds_written_by(encoder, settings.encoder.options)))
        frames = frames_per_segment(
            self.input_, self.output, settings, source, video, self._requesting_option
        )
        assert isinstance(source, Source)
        facts = facts_of(self.input_, settings, outline, frames)
        threads = encoder_threads(encoder)
        journal = Journal(self.output, facts, settings.restart, threads, gaps=True)
        try:
            begin, end = time_window(settings, source)
            found = Output(path=self.output, video=video, settings=settings, offset=begin, end=end)
            worker_settings, jobs = self._make_worker_settings(
                source, found, request, outline, journal, report
            )
            cuts = Cuts.of(self._first_time(source), frames, info.rate)
            done = {segment.number for segment in journal.segments}
            report.taken_over, report.resumable = journal.frames, True
            if report.taken_over:
                log.info("resuming after %d finished frames", report.taken_over)
            cutter = ClipCutter(source.url, Reading(), cuts, settings.max_frames)
            clips = cutter.clips(journal.folder, lambda number: number not in done)
            self._started, self._step = now(), 1 / info.rate
            self._rate_factor = source.timeline.filtering.rate_factor
            total = info.frames - settings.start_frame
            self._total = max(0, min(total, settings.max_frames or total) - report.taken_over)
            crew, auto = start_crew(settings, worker_settings, jobs, cluster)
            dispatch = Dispatch(crew, clips, journal, self.stop, self._on_frames, auto)
            with closing(clips):
                dispatch.run()
            self._finish(dispatch, found, cutter.losses, report)
        except BaseException:
            journal.close_after_run(True)
            raise
        journal.close()
        return report

    def _make_worker_settings(
        self,
        source: Source,
        output: Output,
        request: ModelRequest,
        outline: Outline,
        journal: Journal,
        report: Report,
    ) -> tuple[WorkerSettings, int]:
        """Return the order for all workers, and the maximum number of workers per device."""
        with output.open_sink(source) as trial:  # raises errors before the work starts
            add_note(report, conversion_note(trial))
            report.output["encoder"] = trial.encoder
            codec, in_band = trial.encoder, trial.headers_in_band
        jobs, memory = jobs_that_fit(self.settings, source, outline, codec)
        filtered = bool(self.settings.flicker_filter)
        plan = plan_memory(source, outline, codec, self.settings.encoder, memory, filtered)
        add_note(report, plan.note)
        timeline = source.timeline
        worker_settings = WorkerSettings(
            name=source.name,
            model=replace(request, scale=outline.scale, precision=outline.precision),
            model_sha256=outline.sha256, batch=self.settings.batch,
            flicker_filter=filtered, info=timeline.frame_info,
            filtering=replace(timeline.filtering, quiet=True), fields=timeline.fields,
            sdr=self.settings.sdr, memory=memory, max_waiting_bytes=plan.max_waiting_bytes,
            video=output.video, in_band=in_band,
            encoder=with_threads(replace(plan.encoder, codec=codec), journal.threads),
        )  # fmt: skip
        return worker_settings, jobs

    def _finish(self, dispatch: Dispatch, output: Output, losses: Losses, report: Report) -> None:
        """Join the finished segments, and fill the report."""
        journal = dispatch.journal
        segments: list[Segment] = list(journal.before_first_gap)
        last = segments[-1].number if segments else None
        segments += [each for each in dispatch.truncated.values() if each.follows == last]
        report.interrupted = dispatch.stopped
        if not any(segment.frames for segment in segments):
            if report.interrupted:
                kept = (
                    f"; {journal.frames} finished frames are saved: run the same command to resume"
                )
                raise InterruptedRunError(
                    f"stopped before the first segment was finished; nothing was written"
                    f"{kept if journal.frames else ''}"
                )
            raise InputError(
                f"{self.input_} has no frames in the selected range; nothing was written"
            )
        with closing(open_source_for_copying(self.input_, self.output, self.settings)) as source:
            sink = join(output, source, journal, segments, report.interrupted)
            assert isinstance(source, Source)
            self._add_losses(source, losses, segments, report)
        report.packets_refused = sink.packets_refused
        report.seconds = now() - self._started
        report.frames_in = report.frames_out = sum(segment.frames for segment in segments)
        report.concealed = sum(segment.concealed for segment in segments)
        report.output["bytes"] = self.output.stat().st_size
        self._add_rows(dispatch, segments, report)
        if self.on_progress:
            done = report.frames_out - report.taken_over
            self.on_progress(self._progress(max(0, done), finished=True))

    def _add_losses(
        self, copied: Source, losses: Losses, segments: Sequence[Segment], report: Report
    ) -> None:
        """Add what is missing in the output to the report, with the reasons, as one worker does.

        `copied`: the source whose other streams were copied, and which was read to its end.
        """
        frames = sum(segment.frames for segment in segments)
        losses.lost = max(losses.lost, sum(segment.lost for segment in segments))
        complete = self.settings.max_frames is None or frames < self.settings.max_frames
        if complete and not report.interrupted:
            copied.count_missing(round((self.settings.start_frame + frames) / self._rate_factor))
        losses.add(copied.losses)
        if losses.lost and not losses.notes:
            losses.add_note("undecodable", "some packets cannot be decoded")
        report.lost, report.cut_off = losses.lost, losses.cut_off
        report.losses = list(losses.notes.values())

    def _add_rows(self, dispatch: Dispatch, segments: Sequence[Segment], report: Report) -> None:
        """Add the rows of all frames made in this run to the report's ledger."""
        assert isinstance(report.ledger, Ledger)
        index = self.settings.start_frame
        for segment in segments:
            if segment.number in dispatch.results:
                ledger, place = dispatch.results[segment.number]
                report.ledger.extend(ledger, index, place.host, place.device)
            index += segment.frames

    @property
    def _requesting_option(self) -> str:
        """The option that requested several workers."""
        if self.settings.cluster:
            return "--cluster"
        return "--jobs" if self.settings.jobs != 1 else "--device"

    def _cannot_be_shared(self, source: Source) -> str | None:
        filtering = source.timeline.filtering
        if not filtering.can_begin_anywhere:
            return "filters (--vf, --detelecine) require all earlier frames"
        if self.settings.max_frames is not None and filtering.rate_factor != 1:
            return "--max-frames cannot be combined with --deinterlace bob"
        if source.video.metadata.get("alpha_mode") == "1":
            return "video with separately coded transparency cannot be divided"
        if cannot_be_cut(source.video):
            return f"{source.info.codec} packets cannot be decoded separately"
        return None

    def _first_time(self, source: Source) -> Fraction:
        """Return the time (s) of the first frame to process."""
        start = self.settings.start_frame
        if not start:
            return source.first_time
        for item in source:
            if self.stop.is_set():
                raise InterruptedRunError("stopped before the first frame; nothing was written")
            if isinstance(item, Frame) and item.index == start:
                return item.pts * item.time_base
        raise InputError(f"{source.name} has only {source.frames_read} frames; nothing was written")

    def _open_source(self) -> AnySource:
        return open_source(self.input_, self.output, self.settings, self.stop)

    def _on_frames(self, done: int) -> None:
        if self.on_progress:
            self.on_progress(self._progress(done))

    def _progress(self, done: int, finished: bool = False) -> Progress:
        return Progress(
            frames=done, total=self._total, position=float(done * self._step),
            elapsed=now() - self._started, finished=finished,
        )  # fmt: skip
