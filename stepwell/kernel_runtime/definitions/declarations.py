"""Declarations of inputs and outputs (In, Out, GraphOut, AssetIn, AssetOut, Output), checks of types, and the options that limit the reuse of results.

The type of an input or output is declared, or taken from an annotation. A step checks the type of each value that it receives or returns.
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
    """The type of an input or output without a value. A connection of this type only makes one step run after another."""

    def __init__(self) -> None:
        raise TypeError("Nothing has no instances: pass the class itself, as in In(Nothing)")


def is_nothing(hint: object) -> bool:
    """Return True if `hint` is `Nothing` or None, so that an input or output of this type carries no value."""
    return hint is Nothing or hint is None or hint is type(None)


def checker(hint: object) -> Checker | None:
    """Return a function that returns True if its argument has the type `hint`; return None if every value has the type.

    A bool is accepted for int; an int is not accepted for float. The members of lists, sets, tuples and mappings are checked, too. Every value
    is accepted for a type that cannot be checked, such as a type variable or an unresolved forward reference.
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
    """Return the name of the type `hint` for messages."""
    return hint.__qualname__ if isinstance(hint, type) else str(hint).replace("typing.", "")


def _isinstance(cls: type) -> Checker:
    if getattr(cls, "_is_protocol", False) and not getattr(cls, "_is_runtime_protocol", False):
        return lambda value: True  # noqa: ARG005 - a protocol that cannot be checked accepts every value
    return lambda value: isinstance(value, cls)


PLAIN: dict[object, Checker] = {
    kind: _isinstance(kind) for kind in (bool, int, float, complex, str, bytes, list, dict, set, tuple)
}
"""Maps each of the most frequent types to its checker. All steps share these functions, to save time and memory."""


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
"""The default of arguments for which None is a valid value. It means that the argument was omitted."""


@quick_init
@dataclass(frozen=True, slots=True)
class In:
    """Declare an input of an op.

    Parameters
    ----------
    dagster_type
        The type that the value of the input must have; `Nothing` for an input without a value, which only makes the op run after the step that is
        connected to the input.
    description
        The description of the input.
    default_value
        The value that the op gets if the input is not connected.
    metadata
        Arbitrary values by name. Stepwell keeps them as an attribute and does not use them.
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
        The type that the value of the output must have; `Nothing` for an output without a value.
    description
        The description of the output.
    is_required
        False if the step may end without producing the output. In such a run, the steps that need the output are skipped.
    metadata
        Arbitrary values by name. Stepwell keeps them as an attribute and does not use them.
    """

    dagster_type: Any = UNSET
    description: str | None = None
    is_required: bool = True
    metadata: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class GraphOut:
    """Declare an output of a graph. The type of the output is that of the op output that supplies it.

    Parameters
    ----------
    description
        The description of the output.
    """

    description: str | None = None


@dataclass(frozen=True, slots=True)
class AssetIn:
    """Declare which upstream asset supplies the value of one parameter of an asset's function.

    Parameters
    ----------
    key
        The key of the upstream asset. By default, the key is `key_prefix`, if it is given, followed by the name of the parameter.
    key_prefix
        The parts of the key before the name of the parameter. Cannot be combined with `key`.
    metadata
        Arbitrary values by name. Stepwell keeps them as an attribute and does not use them.
    dagster_type
        The type that the value of the upstream asset must have. `Nothing` means that the asset must be computed first, but that its value is not
        passed. The function then has no parameter for this asset.

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
        """Return the key of the upstream asset, given the name of the parameter."""
        return as_asset_key(self.key) if self.key is not None else prefixed(self.key_prefix, parameter)


@dataclass(frozen=True, slots=True)
class AssetOut:
    """Declare one asset of a multi-asset.

    Parameters
    ----------
    key_prefix
        The parts of the key before the name of the output. Cannot be combined with `key`.
    key
        The key of the asset. By default, the key is `key_prefix`, if it is given, followed by the name of the output.
    dagster_type
        The type that the value of the asset must have.
    description
        The description of the asset.
    is_required
        False if the step may end without producing the asset. In such a run, the steps that need the asset are skipped.
    group_name
        The group of the asset, by which selections can name it.
    metadata
        Arbitrary values by name. Stepwell keeps them as an attribute and does not use them.

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
        """Return the key of the asset, given the name of the output."""
        return as_asset_key(self.key) if self.key is not None else prefixed(self.key_prefix, output)


def _check_key(key: CoercibleToAssetKey | None, key_prefix: str | Sequence[str] | None) -> None:
    if key is not None and key_prefix is not None:
        raise InvalidDefinitionError(
            f"asset {as_asset_key(key)}: key= cannot be combined with key_prefix=",
            remedy="pass either key= with the whole key, or only key_prefix=",
        )


@dataclass(frozen=True, slots=True)
class Output(Generic[T]):
    """The value of one output, which a step returns or yields together with metadata.

    Parameters
    ----------
    value
        The value of the output.
    output_name
        The name of the output. The default is ``result``: an op or asset has one output with this name, unless its definition declares other outputs.
    metadata
        JSON values by name that are stored with the materialization of the output.
    """

    value: T
    output_name: str = "result"
    metadata: Mapping[str, Any] = field(default_factory=dict)


MaxAge: TypeAlias = "str | float | timedelta | None"

_PART = re.compile(r"(\d+(?:\.\d+)?)\s*(s|min|m|h|d|w)")
_WHOLE = re.compile(rf"(?:{_PART.pattern}\s*)+")


def seconds_of(age: MaxAge, *, where: str = "") -> float | None:
    """Return `age` in seconds; return None for None.

    Parameters
    ----------
    age
        A string such as ``"30m"``, ``"1d"`` or ``"1d12h"`` (units: s, m or min, h, d, w), a number of seconds, a timedelta, or None.

    Raises
    ------
    InvalidDefinitionError
        If `age` is none of these, or is not positive.
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
            f"invalid age {age!r}: an age is a positive number with a unit",
            where=where,
            remedy="write the age as 30m, 12h, 1d or 2w; in Python, you can also pass a number of seconds or a timedelta",
        )
    return seconds


def ignored_names(names: Iterable[str] | str | None, *, where: str = "") -> tuple[str, ...]:
    """Return the names in the argument ``ignore=`` of a definition, in order and without duplicates.

    The code version of the step does not cover the variables and attributes with these names.

    Parameters
    ----------
    names
        The names, or one string of names separated by commas. ``module.NAME`` is a variable of a module, and ``client.cookies`` is an attribute
        of an object. None for no names.

    Raises
    ------
    InvalidDefinitionError
        If an item of `names` is not a string, or does not have one of these forms.
    """
    if names is None:
        return ()
    unique: dict[str, None] = {}
    for name in names.split(",") if isinstance(names, str) else names:
        if not isinstance(name, str):
            raise InvalidDefinitionError(
                f"ignore= contains an object of type {type(name).__name__} instead of a name",
                where=where,
                remedy='pass the name of a variable as a string: ignore=["CONN"]; to ignore one object, use stepwell.opaque(obj, version="1")',
            )
        stripped = name.strip()
        if not stripped:
            continue
        if not all(part.isidentifier() for part in stripped.split(".")):
            raise InvalidDefinitionError(
                f"{stripped!r} cannot be ignored: it is not the name of a variable or an attribute",
                where=where,
                remedy="write names of global variables, separated by commas: --ignore CONN,TOKEN",
            )
        unique[stripped] = None
    return tuple(unique)


def declared_reads(paths: Iterable[str | os.PathLike[str]] | str | None, *, where: str = "") -> tuple[str, ...]:
    """Return the paths and patterns of files in the argument ``reads=`` of a definition as strings, in order and without duplicates.

    Parameters
    ----------
    paths
        One or more paths or patterns (``data/*.csv``, ``data/**``); they are returned as written. None for no files.

    Raises
    ------
    InvalidDefinitionError
        If an item of `paths` is not a path, is empty, or is a URL.
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
                remedy='pass paths and patterns of files: reads=["data/*.csv"]; for data that is not in files, set max_age="1d"',
            )
        unique[path] = None
    return tuple(unique)


def check_reuse(*, cache: bool | None, volatile: bool, max_age: float | None, name: str, where: str) -> None:
    """Raise `InvalidDefinitionError` if `volatile` is combined with ``cache=True`` or with a `max_age`.

    `name` is the name of the step, for the message.
    """
    if volatile and (cache or max_age is not None):
        other = "cache=True" if cache else "max_age"
        raise InvalidDefinitionError(
            f"{name!r} is volatile and therefore runs every time, which contradicts {other}",
            where=where,
            remedy=f"remove one of the two options: volatile, or {other}",
        )
