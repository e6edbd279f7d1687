"""Validates settings and arguments from Python users: their types and minimum values."""

from collections.abc import Mapping
from dataclasses import fields
from fractions import Fraction
from numbers import Integral, Rational, Real
from pathlib import Path
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, Final, get_args, get_origin

from vsr.errors import UsageError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

_NUMBERS: Final[dict[object, type]] = {int: Integral, float: Real, Fraction: Rational}
"""Declared type -> accepted type: includes numpy's numbers, but not booleans."""
_TYPE_NAMES: Final[dict[object, str]] = {
    int: "a whole number",
    float: "a number",
    Fraction: "a whole number or a Fraction",
    str: "text",
    bool: "True or False",
    Path: "a Path",
    NoneType: "None",
}


def check_settings(
    settings: "DataclassInstance", minimum: Mapping[str, float] | None = None
) -> None:
    """Raise UsageError if a field's value is not of its declared type or is below its `minimum`."""
    for field in fields(settings):
        value = getattr(settings, field.name)
        check_type(field.name, value, field.type, (minimum or {}).get(field.name))


def check_type(name: str, value: object, expected: Any, minimum: float | None = None) -> None:
    """Raise UsageError if a value is not of a type, such as `int | None`, or is below `minimum`."""
    if not _is(value, expected):
        raise UsageError(f"{name} is {value!r}: it must be {_type_name(expected)}")
    if minimum is not None and isinstance(value, Real) and not float(value) >= minimum:
        raise UsageError(f"{name} is {value}: it must be {minimum} or more")


def _is(value: object, expected: Any) -> bool:
    inner = get_args(expected)
    if isinstance(expected, UnionType):
        return any(_is(value, each) for each in inner)
    if get_origin(expected) is tuple:
        kinds = (inner[0],) * len(value) if isinstance(value, tuple) and ... in inner else inner
        return (
            isinstance(value, tuple)
            and len(value) == len(kinds)
            and all(_is(one, kind) for one, kind in zip(value, kinds, strict=True))
        )
    if inner:  # a mapping
        if not isinstance(value, Mapping):
            return False
        return all(_is(k, inner[0]) and _is(v, inner[1]) for k, v in value.items())
    if expected in _NUMBERS:
        return isinstance(value, _NUMBERS[expected]) and not isinstance(value, bool)
    return isinstance(value, expected)


def _type_name(expected: Any) -> str:
    """Return the name of a type for messages."""
    inner = get_args(expected)
    if isinstance(expected, UnionType):
        return " or ".join(map(_type_name, inner))
    if get_origin(expected) is tuple:
        if ... in inner:
            return f"a tuple of {_type_name(inner[0])}"
        return f"a tuple of ({', '.join(map(_type_name, inner))})"
    if inner:
        return f"a mapping of {_type_name(inner[0])} to {_type_name(inner[1])}"
    return _TYPE_NAMES.get(expected, f"vsr.{getattr(expected, '__name__', expected)}")
