"""Selects the networks of a ladder: the configured one, lighter ones, then bicubic."""

from collections.abc import Collection
from itertools import pairwise

from vsr.errors import UsageError
from vsr.inference import models
from vsr.inference.backend import Runner
from vsr.inference.default import DEFAULT, default_scale
from vsr.inference.look import look_of, model_name_for
from vsr.live.settings import RelaySettings
from vsr.plan.choice import candidates, faithful


def find_models(settings: RelaySettings, runner: Runner) -> list[models.Model]:
    """Return the models of a ladder's rungs, best first, bicubic last.

    Without a scale, all use the default scale of the first model. Raises UsageError or ModelError.
    """
    found: list[models.Model] = []
    scale = settings.scale
    for name in dict.fromkeys([*rung_names(settings), models.BICUBIC]):
        is_plain = name == models.BICUBIC and settings.precision == "int8"
        precision = "fp32" if is_plain else settings.precision
        found.append(models.find(name, scale, runner, precision))
        scale = found[0].scale
    return found


def rung_names(settings: RelaySettings) -> tuple[str, ...]:
    """Return the names of the networks, best first, possibly without bicubic.

    Raises UsageError for a look or scale that they lack, and for a ladder that gets heavier.
    """
    first = _first_networks(settings)
    if settings.ladder:
        _check_gets_lighter(first[-1], settings)
    lighter = settings.ladder or default_ladder(first[-1], settings.scale)[1:]
    return (*first, *lighter)


def optional_count(settings: RelaySettings) -> int:
    """Return the number of leading networks that are used only if measured fast enough."""
    return len(_first_networks(settings)) - 1


def _first_networks(settings: RelaySettings) -> list[str]:
    """Return the configured network, or those to consider if none is configured, best first."""
    look = settings.look
    if settings.model is not None or settings.ladder:
        return [model_name_for(settings.model, look)]
    scale = settings.scale or default_scale(models.scales(model_name_for(None, look)))
    found = faithful(scale) if look in (None, "faithful") else candidates(False, scale, look)
    if not found and look is not None:
        raise UsageError(f"no network with a {look} look for compressed video has scale {scale}")
    return [each.name for each in found] or [DEFAULT]


def _check_gets_lighter(first: str, settings: RelaySettings) -> None:
    """Raise UsageError if a network of the configured ladder does more work than the one above it.

    The work of a user's ONNX file is unknown; nothing is lighter than bicubic.
    """
    entries = models.manifest()
    key = f"x{settings.scale or default_scale(models.scales(first) if first in entries else [2])}"
    for above, below in pairwise((first, *settings.ladder)):
        known = all(key in entries.get(name, {}) for name in (above, below))
        is_heavier = known and _work(below, key) > _work(above, key)
        if is_heavier or (above == models.BICUBIC and below != above):
            default = " (the default: --model names another)" if settings.model is None else ""
            raise UsageError(
                f"--ladder names lighter networks, best first, but {below} does more work than "
                f"{above}{default if above == first else ''}"
            )


def _work(name: str, key: str) -> float:
    """Return a built-in network's multiply-adds at a scale such as `x2`."""
    return float(models.manifest()[name][key]["multadds_720p"])


def default_ladder(model: str, scale: int | None) -> list[str]:
    """Return the given model, then every lighter built-in one of its scale and look, by MultAdds.

    Below the last sharp network, faithful ones follow, as in `vsr.plan.choice.candidates`. A
    faithful network is listed once, with `-stream` weights if it has them, and so are networks of
    equal MultAdds. Raises UsageError if the model lacks the scale.
    """
    entries = models.manifest()
    if model not in entries:
        return [model]
    key = f"x{scale or default_scale(models.scales(model))}"
    if key not in entries[model]:
        have = ", ".join(each.removeprefix("x") for each in entries[model])
        raise UsageError(f"model '{model}' has no scale {key.removeprefix('x')}; it has: {have}")
    work = {name: _work(name, key) for name, entry in entries.items() if key in entry}
    ladder = [model]
    for look in ("sharp", "faithful") if look_of(model) == "sharp" else ("faithful",):
        of_look = [name for name in work if look_of(name) == look]
        for name in sorted(of_look, key=work.__getitem__, reverse=True):
            if work[name] < work[ladder[-1]] and not _has_stream_weights(name, work):
                ladder.append(name)
    return ladder


def _has_stream_weights(name: str, known: Collection[str]) -> bool:
    """Return whether a network for clean pictures also has weights for compressed video."""
    return f"{name}-{models.LOOKS['faithful']}" in known
