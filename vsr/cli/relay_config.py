"""Several relays in one file: TOML -> the arguments that each would have on the command line.

    [[relay]]
    name = "stage left"
    input = "rtmp://127.0.0.1/live/left"
    outputs = ["rtmp://a.example/live/KEY"]
    max-latency = 300

So there is one place that knows the options, and stream keys need not stand where `ps` shows them.
"""

import tomllib
from pathlib import Path
from typing import Any, Final

from vsr.errors import UsageError, reason

TABLE: Final = "relay"
_NOT_HERE: Final = frozenset({"config", "help", "log-format", "q", "quiet", "v", "verbose"})
"""What is one for all relays, and belongs on the command line."""


def read_config(path: Path) -> list[tuple[str, list[str]]]:
    """(name, arguments) of every relay in the file. Raises UsageError."""
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as exc:
        raise UsageError(f"cannot read {path}: {reason(exc)}") from exc
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        raise UsageError(f"{path} is no TOML file: {exc}") from exc
    relays = tables.pop(TABLE, None)
    if tables:
        raise UsageError(
            f"{path}: unknown '{next(iter(tables))}'; there are only [[{TABLE}]] tables"
        )
    if not isinstance(relays, list) or not relays or not all(isinstance(r, dict) for r in relays):
        raise UsageError(f"{path} names no relay: begin each with a line [[{TABLE}]]")
    found = [_relay(f"{path}, relay {k}", table) for k, table in enumerate(relays, 1)]
    names = [name for name, _ in found]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise UsageError(f"{path}: two relays have the name '{twice}'")
    return [(name or f"relay {k}", arguments) for k, (name, arguments) in enumerate(found, 1)]


def _relay(where: str, table: dict[str, Any]) -> tuple[str, list[str]]:
    name = table.pop("name", "")
    urls = [table.pop("input", None), *_listed(table.pop("outputs", None))]
    if not isinstance(name, str) or not all(isinstance(url, str) and url for url in urls):
        raise UsageError(f"{where}: 'input' is a URL, 'outputs' are one or several")
    arguments = []
    for key, value in table.items():
        if key in _NOT_HERE:
            raise UsageError(f"{where}: '{key}' is for all relays: give it on the command line")
        option = f"--{key}" if len(key) > 1 else f"-{key}"
        for one in _listed(value):
            arguments += _argument(where, option, one)
    return name, [*arguments, "--", *urls]


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _argument(where: str, option: str, value: Any) -> list[str]:
    if value is True:
        return [option]
    if value is False:
        return []
    if not isinstance(value, str | int | float):
        raise UsageError(f"{where}: '{option.lstrip('-')}' is text, a number, true or false")
    return [f"{option}={value}"] if option.startswith("--") else [option, str(value)]
