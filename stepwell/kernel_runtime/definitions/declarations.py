"""Declarations of inputs and outputs (In, Out, GraphOut, AssetIn, AssetOut, Output), their types, and the options that limit reuse.

Types are declared, or taken from annotations. A step checks each value that it receives or returns.
"""

from __future__ import annotations

import math
import os
import re
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final, Generic, TypeAlias, TypeVar

from stepwell.kernel_runtime.errors import InvalidDefinitionError
from stepwell.kernel_runtime.records.bulk import quick_init
from stepwell.kernel_runtime.records.keys import AssetKey, CoercibleToAssetKey, as_asset_key, prefixed
from stepwell.kernel_runtime.text import SECONDS

Checker: TypeAlias = Callable[[Any], bool]


class Nothing:
    """The type of an input or output that carries no value and only orders two steps."""

    def __init__(self) -> None:
        raise TypeError("Nothing is a type for In and Out; it has no values")


def is_nothing(hint: object) -> bool:
    """Return True if a type is `Nothing`, so that no value is passed."""
    return hint is Nothing or hint is None or hint is type(None)


def checker(hint: object) -> Checker | None:
    """Return a function that checks whether a value has a type, or None if every value passes.

    A bool passes as an int; an int does not pass as a float. Members of lists, sets, tuples and mappings are checked. A type that cannot
    be checked (a type variable, an unresolved forward reference) accepts every value.
    """
    if type(hint) is type and hint in PLAIN:
        return PLAIN[hint]
    if hint is None or hint is type(None):
        return lambda value: value is None
    if hint is Any or hint is object or isinstance(hint, str | typing.TypeVar | typing.ForwardRef):
        return None
    origin = typing.get_origin(hint)
    arguments = typing.get_args(hint)
    if origin is None:
        return _isinstance(hint) if isinstance(hint, type) else None
    if origin is typing.Annotated:
        return checker(arguments[0])
    if origin in (typing.Union, types.UnionType):
        return _any_of([checker(argument) for argument in arguments])
    if origin is typing.Literal:
        return lambda value: any(value is a or (type(value) is type(a) and value == a) for a in arguments)
    if origin is tuple:
        return _tuple(arguments)
    if isinstance(origin, type):
        if issubclass(origin, Mapping) and len(arguments) == 2:
            return _mapping(origin, checker(arguments[0]), checker(arguments[1]))
        if issubclass(origin, Sequence | AbstractSet) and len(arguments) == 1:
            return _members(origin, checker(arguments[0]))
        return _isinstance(origin)
    return None


def type_name(hint: object) -> str:
    """Return the name of a type for messages."""
    return hint.__qualname__ if isinstance(hint, type) else str(hint).replace("typing.", "")


def _isinstance(cls: type) -> Checker:
    if getattr(cls, "_is_protocol", False) and not getattr(cls, "_is_runtime_protocol", False):
        return lambda value: True  # noqa: ARG005 - a protocol that cannot be checked accepts every value
    return lambda value: isinstance(value, cls)


PLAIN: dict[object, Checker] = {
    kind: _isinstance(kind) for kind in (bool, int, float, complex, str, bytes, list, dict, set, tuple)
}
"""Checkers of the most frequent types; thousands of steps share them."""


def _any_of(checkers: list[Checker | None]) -> Checker | None:
    checks = [check for check in checkers if check is not None]
    if len(checks) < len(checkers):
        return None
    return lambda value: any(check(value) for check in checks)


def _members(cls: type, check: Checker | None) -> Checker:
    if check is None:
        return _isinstance(cls)
    return lambda value: isinstance(value, cls) and all(check(member) for member in value)  # type: ignore[attr-defined]


def _mapping(cls: type, keys: Checker | None, values: Checker | None) -> Checker:
    def check(value: Any) -> bool:
        if not isinstance(value, cls):
            return False
        return all((keys is None or keys(k)) and (values is None or values(v)) for k, v in value.items())  # type: ignore[attr-defined]

    return check


def _tuple(arguments: tuple[Any, ...]) -> Checker:
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        return _members(tuple, checker(arguments[0]))
    checks = [checker(argument) for argument in arguments]

    def check(value: Any) -> bool:
        if not isinstance(value, tuple) or len(value) != len(checks):
            return False
        return all(check is None or check(member) for check, member in zip(checks, value, strict=True))

    return check


T = TypeVar("T")


class _Unset:
    def __repr__(self) -> str:
        return "<not given>"


UNSET: Final = _Unset()
"""Marks an omitted argument where None is a valid value."""


@quick_init
@dataclass(frozen=True, slots=True)
class In:
    """Declare an input of an op.

    Parameters
    ----------
    dagster_type
        The type that the value must have; `Nothing` for an input that only orders.
    description
        The description of the input.
    default_value
        The value of an input that is not connected.
    metadata
        Further values by name, not used by Stepwell.
    """

    dagster_type: Any = UNSET
    description: str | None = None
    default_value: Any = UNSET
    metadata: Mapping[str, Any] | None = None


@quick_init
@dataclass(frozen=True, slots=True)
class Out:
    """Declare an output of an op.

    Parameters
    ----------
    dagster_type
        The type that the value must have; `Nothing` for an output without a value.
    description
        The description of the output.
    is_required
        False if the step may end without producing the output; steps that need it are skipped then.
    metadata
        Further values by name, not used by Stepwell.
    """

    dagster_type: Any = UNSET
    description: str | None = None
    is_required: bool = True
    metadata: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class GraphOut:
    """Declare an output of a graph; the op that produces it determines its type.

    Parameters
    ----------
    description
        The description of the output.
    """

    description: str | None = None


@dataclass(frozen=True, slots=True)
class AssetIn:
    """Declare the upstream asset of a parameter.

    Parameters
    ----------
    key
        The key of the upstream asset; by default the parameter's name.
    key_prefix
        A prefix for the parameter's name; cannot be combined with `key`.
    metadata
        Further values by name, not used by Stepwell.
    dagster_type
        The type that the loaded value must have; `Nothing` for an upstream asset that only orders the steps and has no parameter.

    Raises
    ------
    InvalidDefinitionError
        If both `key` and `key_prefix` are given.
    """

    key: CoercibleToAssetKey | None = None
    key_prefix: str | Sequence[str] | None = None
    metadata: Mapping[str, Any] | None = None
    dagster_type: Any = UNSET

    def __post_init__(self) -> None:
        _check_key(self.key, self.key_prefix)

    def resolve(self, parameter: str) -> AssetKey:
        """Return the key of the upstream asset of a parameter."""
        return as_asset_key(self.key) if self.key is not None else prefixed(self.key_prefix, parameter)


@dataclass(frozen=True, slots=True)
class AssetOut:
    """Declare one asset of a multi-asset.

    Parameters
    ----------
    key_prefix
        A prefix for the output's name; cannot be combined with `key`.
    key
        The asset's key; by default the output's name.
    dagster_type
        The type that the value must have.
    description
        The description of the asset.
    is_required
        False if the step may end without producing the asset.
    group_name
        The group of the asset, for selections.
    metadata
        Further values by name, not used by Stepwell.

    Raises
    ------
    InvalidDefinitionError
        If both `key` and `key_prefix` are given.
    """

    key_prefix: str | Sequence[str] | None = None
    key: CoercibleToAssetKey | None = None
    dagster_type: Any = UNSET
    description: str | None = None
    is_required: bool = True
    group_name: str | None = None
    metadata: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        _check_key(self.key, self.key_prefix)

    def resolve(self, output: str) -> AssetKey:
        """Return the key of the asset of an output."""
        return as_asset_key(self.key) if self.key is not None else prefixed(self.key_prefix, output)


def _check_key(key: CoercibleToAssetKey | None, key_prefix: str | Sequence[str] | None) -> None:
    if key is not None and key_prefix is not None:
        raise InvalidDefinitionError(
            f"asset {as_asset_key(key)}: key= cannot be combined with key_prefix=",
            remedy="give either the whole key, or a prefix",
        )


@dataclass(frozen=True, slots=True)
class Output(Generic[T]):
    """A value that a step returns or yields, with the name of its output and metadata.

    Parameters
    ----------
    value
        The value.
    output_name
        The name of the output; ``result`` for an op with one output.
    metadata
        JSON values that are stored with the materialization.
    """

    value: T
    output_name: str = "result"
    metadata: Mapping[str, Any] = field(default_factory=dict)


MaxAge: TypeAlias = "str | float | timedelta | None"

_PART = re.compile(r"(\d+(?:\.\d+)?)\s*(s|min|m|h|d|w)")
_WHOLE = re.compile(rf"(?:{_PART.pattern}\s*)+")


def seconds_of(age: MaxAge, *, where: str = "") -> float | None:
    """Return an age in seconds; None for None.

    Parameters
    ----------
    age
        ``"30m"``, ``"1d"``, ``"1d12h"`` (s, m or min, h, d, w), a number of seconds, a timedelta, or None.

    Raises
    ------
    InvalidDefinitionError
        If the age has another form or is not positive.
    """
    if age is None:
        return None
    seconds: float | None = None
    if isinstance(age, timedelta):
        seconds = age.total_seconds()
    elif isinstance(age, int | float) and not isinstance(age, bool):
        seconds = float(age)
    elif isinstance(age, str):
        text = age.strip().lower()
        if _WHOLE.fullmatch(text):
            seconds = sum(float(number) * SECONDS[unit] for number, unit in _PART.findall(text))
    if seconds is None or not math.isfinite(seconds) or seconds <= 0:
        raise InvalidDefinitionError(
            f"invalid age {age!r}",
            where=where,
            remedy="give a number and a unit, such as 30m, 12h, 1d or 2w; in Python also seconds or a timedelta",
        )
    return seconds


def ignored_names(names: Iterable[str] | str | None, *, where: str = "") -> tuple[str, ...]:
    """Return the names that a definition excludes from its code version, in order.

    Parameters
    ----------
    names
        Names, or one string of names separated by commas. ``module.NAME`` is a variable of a module, ``client.cookies`` an attribute
        of an object.

    Raises
    ------
    InvalidDefinitionError
        If an item is not a name.
    """
    if names is None:
        return ()
    unique: dict[str, None] = {}
    for name in names.split(",") if isinstance(names, str) else names:
        if not isinstance(name, str):
            raise InvalidDefinitionError(
                f"ignore= contains a {type(name).__name__}, not a name",
                where=where,
                remedy='give names: ignore=["CONN"]; to ignore one object, use stepwell.opaque(obj, version="1")',
            )
        stripped = name.strip()
        if not stripped:
            continue
        if not all(part.isidentifier() for part in stripped.split(".")):
            raise InvalidDefinitionError(
                f"{stripped!r} is not a name that can be ignored",
                where=where,
                remedy="give names of globals, separated by commas: --ignore CONN,TOKEN",
            )
        unique[stripped] = None
    return tuple(unique)


def declared_reads(paths: Iterable[str | os.PathLike[str]] | str | None, *, where: str = "") -> tuple[str, ...]:
    """Return the paths and patterns that a definition declares as read, unchanged and without duplicates.

    Parameters
    ----------
    paths
        One or more paths and patterns (``data/*.csv``, ``data/**``), relative to the working directory.

    Raises
    ------
    InvalidDefinitionError
        If an item is not a path, or is a URL.
    """
    if paths is None:
        return ()
    unique: dict[str, None] = {}
    for item in (paths,) if isinstance(paths, str | os.PathLike) else paths:
        path = os.fspath(item) if isinstance(item, str | os.PathLike) else None
        if not isinstance(path, str) or not path or "://" in path:
            raise InvalidDefinitionError(
                f"reads= contains {item!r}, which is not a file path",
                where=where,
                remedy='give paths and patterns: reads=["data/*.csv"]; for data elsewhere, set max_age="1d"',
            )
        unique[path] = None
    return tuple(unique)


def check_reuse(*, cache: bool | None, volatile: bool, max_age: float | None, name: str, where: str) -> None:
    """Raise `InvalidDefinitionError` if the options of a step contradict each other."""
    if volatile and (cache or max_age is not None):
        other = "cache=True" if cache else "max_age"
        raise InvalidDefinitionError(
            f"{name!r} is volatile and runs every time, which cannot be combined with {other}",
            where=where,
            remedy=f"remove volatile or {other}; with --max-age 1d, a result is reused until it is a day old",
        )
