"""Upscales one file into another, with progress and report."""

import logging
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, nullcontext
from dataclasses import replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from vsr.errors import InterruptedRunError, UsageError
from vsr.files.assemble import Output
from vsr.files.input_output import (
    AnySink,
    AnySource,
    check_output,
    encoder_name_for,
    names_folder,
    open_sink,
    open_source,
    open_source_for_copying,
    output_folder,
)
from vsr.files.journal import Journal
from vsr.files.journal_lines import (
    check_no_kept_segments,
    delete_kept_segments,
    left_by_an_interrupted_run,
)
from vsr.files.memory_plan import MemoryPlan, plan_memory
from vsr.files.model_choice import with_model
from vsr.files.pipeline import Enlarge, Slice, run
from vsr.files.progress import Progress
from vsr.files.receipt import check_receipt_path, write_report_and_receipt
from vsr.files.run_report import add_note, conversion_note, new_report, no_frames_error, time_window
from vsr.files.segment_filter import with_flicker_filter
from vsr.files.segment_writer import encoder_threads
from vsr.files.segments import SegmentedSink, facts_of, frames_per_segment
from vsr.files.settings import RunSettings
from vsr.files.shared_job import SharedJob, is_shared
from vsr.inference import models
from vsr.inference.any_size import AnySizeUpscaler
from vsr.inference.backend import Backend, check_batch, load_backend
from vsr.inference.upscaler import Upscaler
from vsr.media.encoder import EncoderSettings
from vsr.media.frame import Frame, now
from vsr.media.location import is_stdin, is_url
from vsr.media.pictures.source import PictureSource
from vsr.media.pictures.stills import StillSink
from vsr.media.side_data import kinds_written_by
from vsr.media.sink import Sink
from vsr.media.source import Source
from vsr.media.target import pipe_of
from vsr.report.ledger import Row, check_report_path
from vsr.report.report import Report

log = logging.getLogger(__name__)


class Job:
    """One run, from checked settings to a finished file. Create one instance per run."""

    def __init__(
        self,
        input_: str,
        output: str | os.PathLike[str],
        settings: RunSettings,
        on_progress: Callable[[Progress], None] | None = None,
        stop: threading.Event | None = None,
    ) -> None:
        self._input, self._output, self._settings = input_, Path(output), settings
        self._into_folder = names_folder(output)
        self._may_discard = settings.overwrite or settings.restart
        self._on_progress = on_progress
        self._stop = stop or threading.Event()
        self._started = self._position = 0.0
        self._first_time: float | None = None

    def run(self) -> Report:
        """Upscale the file. Raises VsrError; then no file is left under the output's name.

        Exception: an error in writing the report or receipt is raised after the output is finished.
        """
        folder = output_folder(self._output, self._input) if self._into_folder else nullcontext()
        with folder:
            return self._run()

    def _run(self) -> Report:
        settings = self._settings
        if left_by_an_interrupted_run(self._output):
            settings = self._settings = replace(settings, overwrite=True)
        check_output(self._output, self._input, settings)
        if settings.report:
            check_report_path(settings.report)
        settings = self._settings = with_model(self._input, self._output, settings)
        receipt = check_receipt_path(settings, self._input, self._output)
        if is_shared(settings, self._output):
            shared = SharedJob(self._input, self._output, settings, self._on_progress, self._stop)
            report = shared.run()
        else:
            report = self._run_single(settings)
        write_report_and_receipt(receipt, self._input, self._output, settings, report)
        return report

    def _run_single(self, settings: RunSettings) -> Report:
        backend = load_backend(settings.backend, settings.device)
        check_batch(settings.batch, backend)
        assert settings.model is not None
        model = models.find(settings.model, settings.scale, backend, settings.precision)
        with ExitStack() as stack:
            settings = self._settings = self._after_first_pass(stack, settings, model, backend)
            source = stack.enter_context(closing(self._open_source()))
            upscaler = self._upscaler(source, model, backend)
            place = (backend.name, backend.device)
            report = new_report(self._settings, self._output, source, upscaler.outline, place)
            video = source.info.output_for(upscaler.out_size)
            encoder = encoder_name_for(self._output, self._settings, video)
            kinds = kinds_written_by(encoder, settings.encoder.options)
            add_note(report, source.info.conversion(kinds))
            enlarge: Enlarge = upscaler.process
            if isinstance(source, PictureSource) and source.any_size:
                enlarge = AnySizeUpscaler(model, backend, settings.batch).process
            self._process(source, upscaler, enlarge, report)
        return report

    def _after_first_pass(
        self, stack: ExitStack, settings: RunSettings, model: models.Model, backend: Backend
    ) -> RunSettings:
        """Return the settings of the last pass; if there are two passes, run the first one before.

        The statistics of the first pass are deleted with `stack`.
        """
        settings.encoder.check()
        if settings.encoder.passes == 1:
            return settings
        if not self._may_discard:
            check_no_kept_segments(self._output)
        if is_stdin(self._input):
            raise UsageError("--passes 2 reads the input twice, but stdin can be read only once")
        folder = stack.enter_context(TemporaryDirectory(prefix="vsr-"))
        stats = str(Path(folder, "analysis"))
        first = replace(settings.encoder, analysis=(1, stats))
        log.info("pass 1 of 2: analysing all frames")
        with closing(self._open_source()) as source:
            upscaler = self._upscaler(source, model, backend)
            selected = self._selected(source)
            video = source.info.output_for(upscaler.out_size)
            first_output = self._output
            if pipe_of(first_output) is not None:
                first_output = Path(folder, f"first.{settings.container or 'mkv'}")
            plan = self._plan_memory(source, upscaler, first)
            with Sink(first_output, video, plan.encoder, source.passthrough()) as sink:
                enlarge = with_flicker_filter(upscaler.process, settings.flicker_filter)
                run(selected, enlarge, sink, lambda frame: None, plan.max_waiting_bytes)
                if selected.interrupted:
                    raise InterruptedRunError("stopped in the first pass; nothing was written")
                if not sink.frames_in:
                    raise no_frames_error(source, selected)
        log.info("pass 2 of 2")
        return replace(settings, encoder=replace(settings.encoder, analysis=(2, stats)))

    def _open_source(self) -> AnySource:
        return open_source(self._input, self._output, self._settings, self._stop)

    def _upscaler(self, source: AnySource, model: models.Model, backend: Backend) -> Upscaler:
        info = source.info
        return Upscaler(
            model, backend, info.colour, (info.width, info.height), self._settings.batch,
            fall_back=True, planes=source.plane_format, reuse=True,
        )  # fmt: skip

    def _plan_memory(
        self, source: AnySource, upscaler: Upscaler, encoder: EncoderSettings
    ) -> MemoryPlan:
        """Fit the run into the available memory. Raises InputError if that is impossible."""
        video = source.info.output_for(upscaler.out_size)
        name, settings = encoder_name_for(self._output, self._settings, video), self._settings
        return plan_memory(
            source, upscaler, name, encoder, settings.memory, settings.flicker_filter
        )

    def _selected(self, source: AnySource, done: int = 0, lead: Fraction = Fraction(0)) -> Slice:
        settings = self._settings
        left = None if settings.max_frames is None else settings.max_frames - done
        return Slice(
            source, settings.start_frame + done, left, self._stop,
            is_url(self._input) or is_stdin(self._input), (lead, settings.start_frame),
        )  # fmt: skip

    def _process(
        self, source: AnySource, upscaler: Upscaler, enlarge: Enlarge, report: Report
    ) -> None:
        settings = self._settings
        total = source.info.frames - settings.start_frame
        self._total = max(0, min(total, settings.max_frames or total))

        def on_muxed(frame: Frame) -> None:
            report.ledger.add(Row.of(frame))
            self._report_progress(frame, source, len(report.ledger))

        plan = self._plan_memory(source, upscaler, settings.encoder)
        add_note(report, plan.note)
        with ExitStack() as stack:
            sink = self._sink(source, upscaler, replace(settings, encoder=plan.encoder))
            stack.enter_context(sink)
            add_note(report, conversion_note(sink))
            report.output["encoder"] = sink.encoder
            cuts_of, lead = None, Fraction(0)
            if isinstance(sink, SegmentedSink):
                cuts_of, lead = sink.cuts_of, sink.lead
                source = stack.enter_context(self._resumed_source(source, sink, report))
                sink.lost = lambda: source.losses.lost
                sink.interrupted = lambda: selected.interrupted
            selected = self._selected(source, report.taken_over, lead)
            enlarge = with_flicker_filter(enlarge, settings.flicker_filter, selected.start, cuts_of)
            self._started = now()
            run(selected, enlarge, sink, on_muxed, plan.max_waiting_bytes)
            if not sink.frames_in:
                raise no_frames_error(source, selected)
            if not isinstance(sink, StillSink):  # has already written its files
                check_output(self._output, self._input, self._settings)
            sink.close()
            if not isinstance(sink, SegmentedSink):
                delete_kept_segments(self._output)
            self._finish_report(source, sink, selected, report)

    def _sink(
        self, source: AnySource, upscaler: Upscaler, settings: RunSettings
    ) -> AnySink | SegmentedSink:
        """Open the output, in segments unless `frames_per_segment` is 0."""
        video = source.info.output_for(upscaler.out_size)
        window = time_window(self._settings, source)
        frames = frames_per_segment(self._input, self._output, settings, source, video)
        if not frames:
            if not self._may_discard:
                check_no_kept_segments(self._output)
            return open_sink(self._output, video, settings, source, upscaler.model.scale, window)
        facts = facts_of(self._input, settings, upscaler.outline, frames)
        threads = encoder_threads(encoder_name_for(self._output, settings, video))
        journal = Journal(self._output, facts, settings.restart, threads)
        output = Output(
            path=self._output, video=video, settings=settings, offset=window[0], end=window[1]
        )
        reopen = partial(open_source_for_copying, self._input, self._output, self._settings)
        return SegmentedSink(output, source, journal, frames, reopen)

    @contextmanager
    def _resumed_source(
        self, source: AnySource, sink: SegmentedSink, report: Report
    ) -> Iterator[AnySource]:
        """Yield the source, moved past an earlier run's work; reopened if it cannot be moved."""
        done, journal = sink.taken_over, sink.journal
        report.taken_over, report.resumable = done, True
        report.concealed = journal.concealed
        self._total = max(0, self._total - done)
        if not done:
            yield source
            return
        log.info("resuming after %d finished frames", done)
        last = self._settings.start_frame + done - 1
        last_pts = journal.segments[-1].last_pts
        if isinstance(source, Source) and source.skip_to(last, last_pts, sink.lead):
            source.losses.lost = journal.lost  # without losses in what was skipped
            yield source
            return
        with closing(self._open_source()) as reopened:
            yield reopened

    def _report_progress(self, frame: Frame, source: AnySource, done: int) -> None:
        if self._first_time is None:
            self._first_time = frame.time
        self._position = max(self._position, frame.time - self._first_time)
        if self._on_progress:
            self._on_progress(self._progress(done, source.losses.lost))

    def _progress(self, done: int, lost: int, finished: bool = False) -> Progress:
        return Progress(
            frames=done, total=self._total, position=self._position,
            elapsed=now() - self._started, lost=lost, finished=finished,
        )  # fmt: skip

    def _finish_report(
        self, source: AnySource, sink: AnySink | SegmentedSink, selected: Slice, report: Report
    ) -> None:
        report.seconds = now() - self._started
        report.frames_in, report.frames_out = selected.frames, sink.frames_out
        report.frames_in += report.taken_over
        report.lost, report.cut_off = source.losses.lost, source.losses.cut_off
        report.concealed += report.ledger.count_events("concealed")
        report.packets_refused = sink.packets_refused
        report.interrupted = selected.interrupted
        report.losses = list(source.losses.notes.values())
        if self._output.is_file():
            report.output["bytes"] = self._output.stat().st_size
        if self._on_progress:
            done = report.frames_out - report.taken_over
            self._on_progress(self._progress(done, source.losses.lost, finished=True))
