"""Set up the start of a training: initial weights, the loss's features, and a teacher."""

import hashlib
import logging
from pathlib import Path
from typing import Any

from train.fit.gan import AdversarialSettings
from train.fit.sharp import Sharpness
from train.fit.teacher import load_teacher
from train.fit.trainer import Trainer
from train.fit.vgg import VggFeatures, VggLayers
from train.measure.perceptual import Lpips
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


def attach_features(trainer: Trainer, vgg: Path | None, lpips: Path | None) -> None:
    """Load the VGG layers and the LPIPS weights that the recipe's loss uses.

    Logs a warning for a file that the loss does not use.
    """
    recipe = trainer.recipe
    sharp, perceptual = recipe.uses_sharp_loss(), recipe.uses_sharp_loss() or recipe.uses_gan_loss()
    if vgg is not None and sharp:
        layers = Sharpness.from_table(recipe.sharp).layer_names
        trainer.use_features(VggLayers.load(vgg, layers))
    elif vgg is not None and perceptual:
        trainer.use_features(VggFeatures.load(vgg, AdversarialSettings(**recipe.adversary)))
    if lpips is not None and sharp:
        trainer.lpips = Lpips.load(lpips)
    for option, file, used in (("--vgg", vgg, perceptual), ("--lpips", lpips, sharp)):
        if file is not None and not used:
            log.warning("ignoring %s: no loss of recipe '%s' uses it", option, recipe.name)


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


def warn_ignored_settings(
    trainer: Trainer, recipe: str, start: tuple[Path, ...], given: dict[str, Any]
) -> None:
    """Log the settings that a resumed training ignores, as its checkpoint has other values.

    `given` holds fields of the recipe or of the network; None means not given. `start` has the
    files of `--from`, which the command of the run before named too if they are the same.
    """
    for path in start:
        if trainer.command and path.name not in trainer.command.split():
            log.warning("ignoring --from %s: the checkpoint has weights of its own", path)
    own = {**settings(trainer.net), **vars(trainer.recipe), "scale": trainer.net.scales}
    if recipe in {"ours", trainer.recipe.name} or ".toml" in recipe:  # "ours" is also the default
        recipe = ""
    for key, value in {"recipe": recipe or None, **given}.items():
        known = trainer.recipe.name if key == "recipe" else own.get(key)
        asked, used = (list(v) if isinstance(v, tuple) else v for v in (value, known))
        if asked is not None and asked != used:
            log.warning("ignoring %s %s: the checkpoint uses %s", key, asked, used)
