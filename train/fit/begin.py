"""Set up the start of a training: initial weights from other files, and a teacher."""

import hashlib
import logging
from pathlib import Path
from typing import Any

from train.fit.teacher import load_teacher
from train.fit.trainer import Trainer
from train.nets import settings
from train.ship.imports import add_from, start_from, weights_from

log = logging.getLogger(__name__)


def begin_from(trainer: Trainer, files: tuple[Path, ...]) -> None:
    """Load the first file's weights, then missing weights from the other files."""
    weights, trainer.history = weights_from(files[0], trainer.net)
    left = start_from(trainer.net, weights, files[0])
    for path in files[1:]:
        left = add_from(trainer.net, left, path)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        trainer.joined.append({"file": path.name, "sha256": digest})
    trainer.begin_as_started()
    log.info("%d weights are new: %s", len(left), ", ".join(left[:4]))


def find_teacher(trainer: Trainer, given: Path | None, validation: Path | None) -> None:
    """Load the teacher named by the command or the recipe, if any."""
    if given is None and not trainer.recipe.teacher:
        return
    teacher = load_teacher(given or Path(trainer.recipe.teacher))
    trainer.learn_from(teacher)
    if validation is not None and "psnr" not in trainer.taught:
        teacher.measure(validation, trainer.net.scales)
    log.info("taught by %s: %s", teacher.record["file"], trainer.taught.get("psnr", ""))


def warn_ignored(trainer: Trainer, recipe: str, told: dict[str, Any]) -> None:
    """Log the settings that a resumed training ignores, as its checkpoint has other values.

    `told` holds fields of the recipe or of the network; None means not given.
    """
    own = {**settings(trainer.net), **vars(trainer.recipe)}
    if recipe in {"ours", trainer.recipe.name} or ".toml" in recipe:  # "ours" is also the default
        recipe = ""
    for key, value in {"recipe": recipe or None, **told}.items():
        known = trainer.recipe.name if key == "recipe" else own.get(key)
        known = list(known) if isinstance(known, tuple) else known
        if value is not None and value != known:
            log.warning("%s %s is not taken: the checkpoint goes on with %s", key, value, known)
