"""Define `python -m train cards`, which regenerates the model cards from the existing files."""

from collections.abc import Iterator
from pathlib import Path

import click

from train.errors import TrainError
from train.measure.shipped import openvino_enlarge
from train.ship.about import good_for
from train.ship.export import write_crops
from train.ship.manifest import read_manifest, write_manifest


def regenerate_cards(engines: Path) -> Iterator[Path]:
    """Redraw every network's crops, update its purpose, and rewrite manifest and page.

    Yields the written paths. Raises TrainError for an unreadable network file, and for a damaged or
    foreign manifest.
    """
    content = read_manifest(engines)
    for model, scales in content["models"].items():
        for key, entry in scales.items():
            path, scale = engines / entry["file"], int(key.removeprefix("x"))
            try:
                enlarge = openvino_enlarge(path.read_bytes())
                entry["crops"] = write_crops(path, enlarge, model, scale, entry["colour"])
            except OSError as exc:
                raise TrainError(f"cannot draw crops of {path}: {exc.strerror}") from exc
            entry["good_for"] = good_for(model)
            yield engines / entry["crops"]["file"]
    write_manifest(engines, content)
    yield engines / "README.md"


@click.command()
@click.option(
    "--engines",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=Path("engines"),
    show_default=True,
)
def cards(engines: Path) -> None:
    """Regenerate the model cards of ENGINES and their pictures."""
    for path in regenerate_cards(engines):
        click.echo(path)
