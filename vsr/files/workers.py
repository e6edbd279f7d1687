"""Chooses the workers of a run: number and devices; checks that their output would be the same."""

import logging
from collections.abc import Sequence

from vsr.errors import InputError, UsageError
from vsr.files.auto_jobs import AutoJobs
from vsr.files.cluster import SAME_VERSIONS, Cluster
from vsr.files.crew import Crew, LocalCrew
from vsr.files.input_output import AnySource
from vsr.files.memory_plan import plan_memory
from vsr.files.ray_crew import RayCrew
from vsr.files.settings import RunSettings
from vsr.files.worker import ModelRequest, Place, WorkerSettings, place_of
from vsr.inference.upscaler import Outline
from vsr.media.limits import cpu_limit, free_memory, processor_count
from vsr.report.report import versions

log = logging.getLogger(__name__)


def devices_of(device: str | None) -> list[str | None]:
    """Return the devices in a comma-separated list; OpenVINO's AUTO:A,B is one device."""
    if device is None or ":" in device:
        return [device]
    return [name.strip() for name in device.split(",")]


def places_of(
    settings: RunSettings, request: ModelRequest, source: AnySource, cluster: Cluster | None
) -> list[Place]:
    """Return the place of a worker on each device or node. Raises VsrError."""
    if cluster is not None:
        return cluster.places(request, source.info)
    return [place_of(request, source.info, each) for each in devices_of(settings.device)]


def check_places_match(places: Sequence[Place]) -> Place:
    """Return the first of several places. Raises UsageError if their output would differ."""
    first, here = places[0], versions()
    for place in places:
        ours, theirs = ((p.model_sha256, p.precision, p.backend) for p in (first, place))
        if ours != theirs:
            raise UsageError(
                f"{first.device} ({first.host}) would use {first.precision} ({first.backend}), "
                f"and {place.device} ({place.host}) {place.precision} ({place.backend}), so that "
                "their output would differ: set --precision and --backend, or install the same "
                "version of vsr on both"
            )
        for name in SAME_VERSIONS:
            if place.versions[name] != here[name]:
                raise UsageError(
                    f"{place.host} has {name} {place.versions[name]} and this computer "
                    f"{here[name]}, so that their output would differ: install the same version"
                )
    return first


def jobs_that_fit(
    settings: RunSettings, source: AnySource, outline: Outline, encoder: str
) -> tuple[int, int | None]:
    """Return the number of workers per device that fit into memory, and the bytes for each."""
    if settings.cluster:
        return settings.jobs or 1, settings.memory  # each node has its own memory
    limit = free_memory() if settings.memory is None else settings.memory
    asked = settings.jobs or processor_count()
    if limit is None:
        return asked, None
    device_count = len(devices_of(settings.device))
    filtered = bool(settings.flicker_filter)
    single = plan_memory(
        source, outline, encoder, settings.encoder, limit // device_count, filtered
    )
    for jobs in range(asked, 1, -1):
        try:
            plan = plan_memory(
                source, outline, encoder, settings.encoder, limit // device_count // jobs, filtered
            )
        except InputError:
            continue
        if plan.encoder == single.encoder:
            break
    else:
        jobs = 1
    if settings.jobs is not None and jobs < settings.jobs:
        log.warning("memory is sufficient for only %d of %d jobs", jobs, settings.jobs)
    return jobs, limit // device_count // jobs


def start_crew(
    settings: RunSettings, worker_settings: WorkerSettings, jobs: int, cluster: Cluster | None
) -> tuple[Crew, AutoJobs | None]:
    """Start the workers, at most `jobs` per device. Raises BackendError.

    Return the crew, and an `AutoJobs` if the number of workers is to be found.
    """
    if cluster is not None:
        return RayCrew(cluster, worker_settings, jobs), None
    devices = devices_of(settings.device)
    if settings.jobs is None:
        return LocalCrew(worker_settings, devices, None), AutoJobs(max_jobs=jobs)
    share = None
    if jobs > 1:
        share = max(1, (cpu_limit() or processor_count()) // jobs)
    return LocalCrew(worker_settings, [each for each in devices for _ in range(jobs)], share), None
