"""Changes settings by flat keywords, including the fields of nested settings."""

from collections.abc import Iterable, Mapping
from dataclasses import fields, replace
from difflib import get_close_matches
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypedDict, TypeVar, get_args

from vsr.errors import UsageError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T", bound="DataclassInstance")


class EncoderOptions(TypedDict, total=False):
    """Fields of `EncoderSettings` as flat keywords."""

    codec: str | None
    crf: int | None
    preset: str | None
    pixel_format: str | None
    bitrate: int | None
    maxrate: int | None
    bufsize: int | None
    encoder_options: Mapping[str, str]


ENCODER: Final[Mapping[str, str]] = {
    **{name: name for name in EncoderOptions.__annotations__},
    "encoder_options": "options",
}
"""Keyword -> field of `EncoderSettings`."""


def with_keywords(
    settings: T, options: Mapping[str, object], nested: Mapping[str, Mapping[str, str]]
) -> T:
    """Return a copy of the settings with some fields changed; a path may be a string.

    `nested`: field with nested settings -> (keyword -> field of these settings). Raises UsageError
    for an unknown keyword, and whatever the settings raise for their values.
    """
    flat = {name for names in nested.values() for name in names}
    _check_names(options, {*flat, *(field.name for field in fields(settings))})
    changes = {name: value for name, value in options.items() if name not in flat}
    for field, names in nested.items():
        own = {there: options[name] for name, there in names.items() if name in options}
        if own:
            before = changes.get(field, getattr(settings, field))
            changes[field] = _changed(before, own)
    return _changed(settings, changes)


def _changed(settings: Any, changes: Mapping[str, object]) -> Any:
    kinds = {field.name: field.type for field in fields(settings)}
    return replace(
        settings, **{name: _as_path(value, kinds.get(name)) for name, value in changes.items()}
    )


def _as_path(value: object, wanted: object) -> object:
    """Convert a string to a path if the field takes a path."""
    return Path(value) if Path in get_args(wanted) and isinstance(value, str | PathLike) else value


def _check_names(options: Iterable[str], known: Iterable[str]) -> None:
    """Raise UsageError for the first unknown option, with a list of similar ones."""
    known = sorted(known)
    for name in options:
        if name not in known:
            near = get_close_matches(name, known)
            words = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(known)}"
            raise UsageError(f"unknown option '{name}'; {words}")
