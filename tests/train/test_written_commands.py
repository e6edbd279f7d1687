"""Tests that every `python -m train ...` in the docs is valid: command, options, recipe."""

import re
import shlex
from itertools import pairwise
from pathlib import Path

import click
import pytest

from train.__main__ import main
from train.fit.recipe import find_recipe
from train.nets import NETS

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", ROOT / "engines/README.md", *(ROOT / "docs").glob("*.md")])


def _blocks(text: str) -> list[str]:
    """Return the `python -m train` commands in a page's shell blocks, continued lines joined."""
    found = []
    for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL):
        lines = block.replace("\\\n", " ").splitlines()
        found += [line for line in lines if line.startswith("python -m train ")]
    return found


def _words(command: str) -> list[str]:
    return shlex.split(command, comments=True)[3:]


def _known(words: list[str]) -> click.Command:
    """Return the click command; assert that it has all options in `words`."""
    command = main.commands[words[0]]
    options = {name for p in command.params for name in (*p.opts, *p.secondary_opts)}
    typed = {word.partition("=")[0] for word in words[1:] if word.startswith("--")}
    assert typed <= options | {"--help"}, words
    return command


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_commands_on_a_page_exist_with_their_options(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for command in [*_blocks(text), *re.findall(r"`(python -m train [^`<]+)`", text)]:
        if words := _words(command):
            _known(words)


COMMANDS = _blocks((ROOT / "docs/training.md").read_text(encoding="utf-8"))


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_page_on_training_lacks_nothing(command: str) -> None:
    words = _words(command)
    for parameter in _known(words).params:
        if parameter.required and isinstance(parameter, click.Option):
            assert set(parameter.opts) & set(words), parameter.name
    if words[0] != "fit":
        return
    assert {"--data", "--packed"} & set(words)
    assert words[1] in NETS
    told = dict(pairwise(words))
    recipe = find_recipe(words[1], told.get("--recipe", "ours"))
    if recipe.expected_start():
        assert "--from" in words
    if recipe.uses_gan_loss() or recipe.uses_sharp_loss():
        assert "--vgg" in words
    if recipe.sharp.get("lpips"):
        assert "--lpips" in words


def test_the_page_on_training_shows_every_command() -> None:
    """Expect all commands except `former` and `pack`, which `reproduce` prints."""
    text = (ROOT / "docs/training.md").read_text(encoding="utf-8")
    shown = {_words(command)[0] for command in COMMANDS} | set(re.findall(r"train\s(info)\b", text))
    assert set(main.commands) - shown == {"former", "pack"}
