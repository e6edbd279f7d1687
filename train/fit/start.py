"""Set up the start of a training: initial weights from other files, and a teacher."""

import hashlib
import logging
from pathlib import Path
from typing import Any

from train.fit.teacher import load_teacher
from train.fit.trainer import Trainer
from train.nets import settings
from train.ship.imports import load_fitting_weights, load_missing_weights, read_weights

log = logging.getLogger(__name__)


def load_initial_weights(trainer: Trainer, files: tuple[Path, ...]) -> None:
    """Load the first file's weights, then missing weights from the other files."""
    weights, trainer.history = read_weights(files[0], trainer.net)
    missing = load_fitting_weights(trainer.net, weights, files[0])
    for path in files[1:]:
        missing = load_missing_weights(trainer.net, missing, path)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        trainer.extra_weight_files.append({"file": path.name, "sha256": digest})
    trainer.adopt_initial_weights()
    log.info("%d weights are newly initialised: %s", len(missing), ", ".join(missing[:4]))


def attach_teacher(trainer: Trainer, given: Path | None, validation: Path | None) -> None:
    """Load the teacher named by the command or the recipe, if any."""
    if given is None and not trainer.recipe.teacher:
        return
    teacher = load_teacher(given or Path(trainer.recipe.teacher))
    trainer.set_teacher(teacher)
    if validation is not None and "psnr" not in trainer.teacher_record:
        teacher.measure(validation, trainer.net.scales)
    log.info(
        "teacher: %s, PSNR: %s",
        teacher.record["file"],
        trainer.teacher_record.get("psnr", "not measured"),
    )


def warn_ignored_settings(trainer: Trainer, recipe: str, given: dict[str, Any]) -> None:
    """Log the settings that a resumed training ignores, as its checkpoint has other values.

    `given` holds fields of the recipe or of the network; None means not given.
    """
    own = {**settings(trainer.net), **vars(trainer.recipe)}
    if recipe in {"ours", trainer.recipe.name} or ".toml" in recipe:  # "ours" is also the default
        recipe = ""
    for key, value in {"recipe": recipe or None, **given}.items():
        known = trainer.recipe.name if key == "recipe" else own.get(key)
        known = list(known) if isinstance(known, tuple) else known
        if value is not None and value != known:
            log.warning("ignoring %s %s: the checkpoint uses %s", key, value, known)
