"""JSON data as typed dataclasses, and back.

Written here because a library for it takes longer to import than a small tree takes to build.
"""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from enum import StrEnum
from functools import cache
from typing import Any, get_args, get_origin, get_type_hints


def decode(kind: Any, data: object, where: str = "") -> Any:
    """Make a value of the type `kind` from JSON data.

    `kind` is a dataclass, a StrEnum, str, int (not negative), bool, `X | None`, `tuple[X, ...]` or
    `Mapping[K, X]`. Keys that a dataclass lacks are ignored. Raises `ValueError` that names the
    place, as `files[3].bytes`, and what was expected there.
    """
    arguments = get_args(kind)
    match get_origin(kind):
        case types.UnionType:
            return None if data is None else decode(arguments[0], data, where)
        case origin if origin is tuple:
            items = _expect(list, data, where)
            return tuple(
                decode(arguments[0], item, f"{where}[{number}]")
                for number, item in enumerate(items)
            )
        case origin if origin is Mapping:
            return {
                decode(arguments[0], key, where): decode(arguments[1], value, f"{where}.{key}")
                for key, value in _expect(dict, data, where).items()
            }
    if is_dataclass(kind):
        return _decode_record(kind, _expect(dict, data, where), where)
    if issubclass(kind, StrEnum):
        try:
            return kind(_expect(str, data, where))
        except ValueError:
            raise ValueError(f"{where}: {data!r} is not one of {', '.join(kind)}") from None
    found = _expect(kind, data, where)
    if kind is int and (isinstance(data, bool) or found < 0):
        raise ValueError(f"{where}: {data!r} is not a number of 0 or more")
    return found


def encode(value: Any) -> Any:
    """Return a value that `decode` makes as JSON data; what is as by default is left out."""
    if is_dataclass(value) and not isinstance(value, type):
        return {
            field.name: encode(getattr(value, field.name))
            for field in fields(value)
            if field.default is MISSING or getattr(value, field.name) != field.default
        }
    if isinstance(value, Mapping):
        return {str(key): encode(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return [encode(item) for item in value]
    return str(value) if isinstance(value, StrEnum) else value


@cache
def _hints(kind: type) -> Mapping[str, Any]:
    return get_type_hints(kind)


def _decode_record(kind: Any, data: Mapping[str, object], where: str) -> Any:
    values = {}
    for field in fields(kind):
        place = f"{where}.{field.name}" if where else field.name
        if field.name in data:
            values[field.name] = decode(_hints(kind)[field.name], data[field.name], place)
        elif field.default is MISSING:
            raise ValueError(f"{place}: is missing")
    return kind(**values)


def _expect(kind: type, data: object, where: str) -> Any:
    if not isinstance(data, kind):
        raise ValueError(f"{where}: {data!r:.40} is not a {kind.__name__}")
    return data
