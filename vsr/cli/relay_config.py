"""Reads several relays from one TOML file, as values of the command line's options.

    [[relay]]
    name = "stage left"
    input = "rtmp://127.0.0.1/live/left"
    outputs = ["rtmp://a.example/live/KEY"]
    max-latency = 300

Types, ranges and defaults come from the command's options, so they are defined in one place only.
Stream keys in a file are not visible in `ps`.
"""

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click

from vsr.errors import UsageError, reason

TABLE: Final = "relay"
_FOR_ALL_RELAYS: Final = frozenset(
    {"config", "help", "i", "input", "log-format", "q", "quiet", "v", "verbose"}
)
"""Options that apply to all relays and belong on the command line."""


@dataclass(frozen=True, kw_only=True)
class RelayTable:
    """One relay of a file."""

    name: str
    urls: tuple[str, ...]
    """The input, then the outputs."""
    options: dict[str, Any]
    """Values by name of the command line's option, without leading dashes."""


def read_tables(path: Path) -> dict[str, Any]:
    """Return the content of a TOML file. Raises UsageError."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as exc:
        raise UsageError(f"cannot read {path}: {reason(exc)}") from exc
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        raise UsageError(f"{path} is not a valid TOML file: {exc}") from exc


def read_config(path: Path) -> list[RelayTable]:
    """Return the relays of a file, in order. Raises UsageError."""
    tables = read_tables(path)
    relays = tables.pop(TABLE, None)
    if tables:
        raise UsageError(
            f"{path}: unknown key '{next(iter(tables))}'; only [[{TABLE}]] tables are allowed"
        )
    if not isinstance(relays, list) or not relays or not all(isinstance(r, dict) for r in relays):
        raise UsageError(f"{path} contains no relay: begin each relay with a line [[{TABLE}]]")
    found = [_relay(f"{path}, relay {k}", k, table) for k, table in enumerate(relays, 1)]
    names = [relay.name for relay in found]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise UsageError(f"{path}: two relays have the name '{twice}'")
    return found


def _relay(where: str, number: int, table: dict[str, Any]) -> RelayTable:
    name = table.pop("name", "")
    urls = [table.pop("input", None), *_as_list(table.pop("outputs", None))]
    if not isinstance(name, str) or not all(isinstance(url, str) and url for url in urls):
        raise UsageError(f"{where}: 'input' must be a URL, 'outputs' one or several URLs")
    for key, value in table.items():
        if key in _FOR_ALL_RELAYS:
            raise UsageError(f"{where}: '{key}' applies to all relays: set it on the command line")
        if not all(isinstance(one, str | int | float) for one in _as_list(value)):
            raise UsageError(f"{where}: '{key}' must be text, a number, true or false")
    return RelayTable(name=name or f"relay {number}", urls=tuple(urls), options=table)


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def option_values(command: click.Command, given: dict[str, Any]) -> dict[str, Any]:
    """Return the values of all options of a command, by parameter; defaults for those not given.

    Raises click.ClickException for an unknown option or an invalid value.
    """
    values: dict[str, Any] = {}
    for key, value in given.items():
        option = option_named(command, key)
        assert option.name is not None
        values[option.name] = _as_click_value(option, value)
    with command.make_context(command.name, [], default_map=values) as context:
        return context.params


def option_named(command: click.Command, key: str) -> click.Option:
    """Return the option with this name, without dashes. Raises click.NoSuchOption."""
    for option in command.params:
        if isinstance(option, click.Option) and key in (name.lstrip("-") for name in option.opts):
            return option
    raise click.NoSuchOption(f"--{key}" if len(key) > 1 else f"-{key}")


def _as_click_value(option: click.Option, value: Any) -> Any:
    """Convert a TOML value to what click's parser would pass: str, tuple of str, or bool.

    Raises click.BadParameter.
    """
    if option.is_flag:
        if not isinstance(value, bool):
            raise click.BadParameter("it must be true or false", param=option)
        return value
    if any(isinstance(one, bool) for one in _as_list(value)):
        raise click.BadParameter("it must be text or a number", param=option)
    if option.multiple:
        return tuple(map(str, _as_list(value)))
    if isinstance(value, list):
        raise click.BadParameter("it must be one value, not several", param=option)
    return str(value)
