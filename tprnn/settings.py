"""Settings of members and of the program: dataclass fields with their checks, and the reading of a group by them."""

from __future__ import annotations

import dataclasses
import functools
import math
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import Any

from tprnn.errors import UserError, nearest


def setting(
    *,
    choices: Sequence[str] | None = None,
    low: float | None = None,
    high: float | None = None,
    above: float | None = None,
    per_run: bool = False,
    searched: bool = False,
    before: Any = "???",
) -> Any:
    """A dataclass field without a default (its YAML is the default's one home) and with its checks.

    `low <= value <= high`, `value > above`; `per_run` settings may differ between the runs of one stack; `tprnn search`
    looks for those that are `searched`. `before` is the value in configs that were stored before there was such a
    setting: a member's setting that came later is no part of the signature where it has this value, so that runs made
    before it are not made again.
    """
    checks = {"choices": choices, "low": low, "high": high, "above": above}
    return field(metadata=checks | {"per_run": per_run, "searched": searched, "before": before})


def rate() -> Any:
    """A learning rate: positive, finite, one per run of a stack."""
    return setting(above=0.0, per_run=True, searched=True)


def _type_name(kind: Any) -> str:
    if isinstance(kind, type) and not typing.get_args(kind):
        return {"str": "text", "int": "a whole number", "float": "a number", "bool": "true or false"}.get(
            kind.__name__, kind.__name__
        )
    if isinstance(kind, types.UnionType):
        return " or ".join(_type_name(part) for part in typing.get_args(kind) if part is not type(None)) + " or null"
    origin = typing.get_origin(kind)
    if origin in (list, tuple):
        return "a list"
    return "a mapping of names to numbers" if origin is dict else str(kind)


def convert(key: str, value: Any, kind: Any) -> Any:
    """`value` as `kind`, by the few conversions that lose nothing (1 -> 1.0, '1e-3' -> 0.001)."""
    if kind is Any:
        return value
    if isinstance(kind, types.UnionType):
        if value is None:
            return None
        (kind,) = [part for part in typing.get_args(kind) if part is not type(None)]
    if value is None or value == "???":
        raise UserError(f"{key}: missing; expected {_type_name(kind)}")
    origin = typing.get_origin(kind)
    if origin in (list, tuple) and isinstance(value, (list, tuple)):
        (part,) = typing.get_args(kind)[:1]
        return [convert(key, entry, part) for entry in value]
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return kind(**check_settings(key, value, kind))
    if origin is dict and isinstance(value, Mapping):
        part = typing.get_args(kind)[1]
        return {str(name): convert(f"{key}.{name}", entry, part) for name, entry in value.items()}
    if kind is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    if kind is float and isinstance(value, str):  # YAML 1.1 reads 1e-3 as text
        try:
            return float(value)
        except ValueError:
            pass
    if kind is int and isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(kind, type) and isinstance(value, kind) and not (kind is int and isinstance(value, bool)):
        return value
    raise UserError(f"{key}: expected {_type_name(kind)}, got {value!r}")


def check(key: str, value: Any, meta: Mapping[str, Any]) -> None:
    """Raise UserError where a value breaks what `setting` was told of it. Lists, mappings and null pass."""
    if value is None or isinstance(value, (list, dict)):
        return
    if isinstance(value, float) and math.isnan(value):
        raise UserError(f"{key}: expected a number, got nan")
    if isinstance(value, float) and math.isinf(value):
        raise UserError(f"{key}: expected a finite number, got {value}")
    if meta.get("choices") and value not in meta["choices"]:
        raise UserError(f"{key}: '{value}' is not a choice; {nearest(str(value), meta['choices'])}")
    if meta.get("above") is not None and not value > meta["above"]:
        raise UserError(f"{key}: expected a number above {meta['above']:g}, got {value:g}")
    if meta.get("low") is not None and not value >= meta["low"]:
        raise UserError(f"{key}: expected at least {meta['low']:g}, got {value:g}")
    if meta.get("high") is not None and not value <= meta["high"]:
        raise UserError(f"{key}: expected at most {meta['high']:g}, got {value:g}")


@functools.cache
def _hints(schema: type) -> dict[str, Any]:
    """Types of its fields; working them out costs more than all checks of a config."""
    return typing.get_type_hints(schema)


def check_settings(prefix: str, values: Any, schema: type, ignore: Sequence[str] = ()) -> dict[str, Any]:
    """`values` converted to the types of the dataclass `schema` and checked; keys in its order.

    Fields may be dataclasses themselves, also in lists; one that has a default there, or a value `before` it was made,
    may be left out. Raises UserError for an unknown or missing key, a wrong type, or a value out of range.
    """
    if not isinstance(values, Mapping):
        raise UserError(f"{prefix}: expected a group of settings, got {values!r}")
    dot = f"{prefix}." if prefix else ""
    hints = _hints(schema)
    fields = {entry.name: entry for entry in dataclasses.fields(schema)}
    for key in values:
        if key not in fields and key not in ignore:
            raise UserError(f"unknown key '{dot}{key}'; {nearest(f'{dot}{key}', [dot + name for name in fields])}")
    checked = {}
    for name, entry in fields.items():
        missing = entry.default is dataclasses.MISSING
        default = entry.metadata.get("before", "???") if missing else entry.default
        value = convert(f"{dot}{name}", values.get(name, default), hints[name])
        check(f"{dot}{name}", value, entry.metadata)
        checked[name] = value
    return checked


def as_before(schema: type, settings: Mapping[str, Any]) -> list[str]:
    """Settings that came later and have the value that says what was done before there were any."""
    fields = dataclasses.fields(schema)
    return [entry.name for entry in fields if entry.metadata.get("before", "???") == settings[entry.name]]
