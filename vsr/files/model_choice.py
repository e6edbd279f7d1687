"""Chooses the network of a run without `model`: the best that is fast enough for its file here."""

import logging
from dataclasses import replace
from pathlib import Path
from typing import Final

from vsr.errors import UsageError, VsrError
from vsr.files.journal_lines import model_of_unfinished_run
from vsr.files.settings import RunSettings
from vsr.files.workers import devices_of
from vsr.inference import models
from vsr.inference.backend import Backend, load_backend
from vsr.inference.default import DEFAULT_SCALE
from vsr.inference.flicker import filters_flicker
from vsr.inference.look import model_name_for
from vsr.media.location import is_stdin, is_url
from vsr.media.pictures.names import is_picture
from vsr.media.target import CONTAINERS
from vsr.plan.choice import SPEEDS, candidates
from vsr.plan.plan import Planner, task_of, task_without_input

log = logging.getLogger(__name__)
_MEASURE_SECONDS: Final = 0.3
"""Measuring time of decoder, network and encoder, in seconds; short, so that a run starts soon."""
_MAX_UNMEASURED_WORK: Final = 2e12
"""Number of multiplications below which a run is not measured: it takes seconds on any machine."""
_HD: Final = 1280 * 720
"""Number of output pixels for which `Candidate.work` is given."""


def default_model(settings: RunSettings) -> str:
    """Return the requested model, else the default, without reading the file.

    If the default does not have the look or the scale, return the lightest network that has them.
    Raises UsageError for an unknown look, and for a scale that no network has.
    """
    scale, look = settings.scale or DEFAULT_SCALE, settings.look
    default = model_name_for(settings.model, look)
    if settings.model or scale in models.scales(default):
        return default
    if found := candidates(False, scale, look):
        return found[-1].name
    what = "network" if look is None else f"network with a {look} look for compressed video"
    raise UsageError(f"no {what} has the scale {scale}: see vsr models")


def with_model(input_: str, output: Path, settings: RunSettings) -> RunSettings:
    """Return the settings with the name of the run's model, and whether its flicker is filtered.

    Raises UsageError as `model_name` does.
    """
    name = model_name(input_, output, settings)
    return replace(
        settings, model=name, flicker_filter=filters_flicker(name, settings.flicker_filter)
    )


def model_name(input_: str, output: Path, settings: RunSettings) -> str:
    """Return the model of a run: the requested one, else one for the file, machine and `speed`.

    Inputs that cannot be read in advance (URLs, pipes, pictures) get `default_model`. Raises
    UsageError as `default_model` does.
    """
    scale, look, default = settings.scale or DEFAULT_SCALE, settings.look, default_model(settings)
    if settings.model:
        return default
    if is_url(input_) or is_stdin(input_) or not Path(input_).is_file() or is_picture(Path(input_)):
        return default
    unfinished = None if settings.restart else model_of_unfinished_run(output)
    if unfinished is not None and _can_resume(unfinished, look):
        return unfinished  # a new measurement might choose another one
    try:
        backend = load_backend(settings.backend, devices_of(settings.device)[0])
        return _choose_measured(input_, output, settings, backend, scale)
    except VsrError as exc:  # the run raises it again, with a better message
        log.debug("no network could be chosen: %s", exc)
        return default


def _can_resume(unfinished: str, look: str | None) -> bool:
    purpose = models.network_and_purpose(unfinished)[1]
    return unfinished in models.names() and (look is None or purpose == models.LOOKS[look])


def _choose_measured(
    input_: str, output: Path, settings: RunSettings, backend: Backend, scale: int
) -> str:
    task = task_of(
        input_,
        task_without_input(
            scale=scale, precision=settings.precision, encoder=settings.encoder,
            look=settings.look,
            container=CONTAINERS.get(output.suffix.lower().removeprefix("."), "matroska"),
        ),
        _MEASURE_SECONDS,
    )  # fmt: skip
    what = "clean video" if task.clean else "compressed video"
    kind = what if settings.look is None else f"a {settings.look} look"
    found, (width, height) = candidates(task.clean, scale, settings.look), task.out.size
    best = found[0]
    if len(found) == 1:
        of_look = "" if settings.look is None else f" with {kind}"
        log.info("model %s: the only network%s at scale %d", best.name, of_look, scale)
        return best.name
    work = best.work * width * height / _HD * min(task.frames, settings.max_frames or task.frames)
    # on a GPU, engines take minutes to build, and speed is sufficient
    if backend.name != "openvino" or 0 < work < _MAX_UNMEASURED_WORK:
        log.info("model %s: the best for %s (--model selects another)", best.name, kind)
        return best.name
    name, speed = Planner(task, backend, seconds=_MEASURE_SECONDS).choose(settings.speed)
    why = f"the best for {kind} at {SPEEDS[settings.speed]:g} times real time or more"
    if speed < SPEEDS[settings.speed]:
        why = f"the lightest for {kind}"
    log.info(
        "model %s: %s; expected speed %.2g times real time (--speed or --model selects another)",
        name,
        why,
        speed,
    )
    return name
