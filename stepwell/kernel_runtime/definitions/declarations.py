"""Declarations: inputs and outputs (In, Out, GraphOut, AssetIn, AssetOut, Output), their types, and the options that limit reuse.

Types come from annotations and are checked when a value passes (SEMANTICS, section 2, Types).
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
from stepwell.kernel_runtime.records.bulk import quick
from stepwell.kernel_runtime.records.keys import AssetKey, CoercibleToAssetKey, as_asset_key, prefixed
from stepwell.kernel_runtime.text import SECONDS

Checker: TypeAlias = Callable[[Any], bool]


class Nothing:
    """The type of an input or output that carries no value: an order between two steps."""

    def __init__(self) -> None:
        raise TypeError("Nothing is a type for In and Out; it has no values")


def is_nothing(hint: object) -> bool:
    """Return True if an annotation says that no value passes."""
    return hint is Nothing or hint is None or hint is type(None)


def checker(hint: object) -> Checker | None:
    """Return a function that checks whether a value is of the type, or None if every value is.

    A bool passes as an int, an int does not pass as a float; members of lists, sets, tuples and mappings are checked. What
    cannot be checked (a type variable, a forward reference that does not resolve) lets everything pass.
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
    """Return a type as a reader knows it."""
    return hint.__qualname__ if isinstance(hint, type) else str(hint).replace("typing.", "")


def _isinstance(cls: type) -> Checker:
    if getattr(cls, "_is_protocol", False) and not getattr(cls, "_is_runtime_protocol", False):
        return lambda value: True  # noqa: ARG005 - a protocol that cannot be checked lets everything pass
    return lambda value: isinstance(value, cls)


PLAIN: dict[object, Checker] = {
    kind: _isinstance(kind) for kind in (bool, int, float, complex, str, bytes, list, dict, set, tuple)
}
"""Checkers of the most frequent annotations: thousands of steps share these."""


def _any_of(checkers: list[Checker | None]) -> Checker | None:
    if any(check is None for check in checkers):
        return None
    found = [check for check in checkers if check is not None]
    return lambda value: any(check(value) for check in found)


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
        return all(one is None or one(member) for one, member in zip(checks, value, strict=True))

    return check


T = TypeVar("T")


class _Unset:
    def __repr__(self) -> str:
        return "<not given>"


UNSET: Final = _Unset()
"""Stands for a parameter that was not given; None is a value."""


@quick
@dataclass(frozen=True, slots=True)
class In:
    """Declare an input of an op.

    Parameters
    ----------
    dagster_type
        The type that a value is checked against; `Nothing` for an input that only orders.
    description
        For a reader.
    default_value
        Used where the input is not connected.
    metadata
        For a reader.
    """

    dagster_type: Any = UNSET
    description: str | None = None
    default_value: Any = UNSET
    metadata: Mapping[str, Any] | None = None


@quick
@dataclass(frozen=True, slots=True)
class Out:
    """Declare an output of an op.

    Parameters
    ----------
    dagster_type
        The type that a value is checked against; `Nothing` where no value passes.
    description
        For a reader.
    is_required
        Whether the step must produce it; where not, what follows a missing one is skipped.
    metadata
        For a reader.
    """

    dagster_type: Any = UNSET
    description: str | None = None
    is_required: bool = True
    metadata: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class GraphOut:
    """Declare an output of a graph; its type is that of the op behind it."""

    description: str | None = None


@dataclass(frozen=True, slots=True)
class AssetIn:
    """Say which asset a parameter is.

    Parameters
    ----------
    key
        The upstream's key; by default the parameter's name.
    key_prefix
        A prefix for the parameter's name; not together with `key`.
    metadata
        For a reader.
    dagster_type
        The type that the loaded value is checked against; `Nothing` for an order without a parameter.
    """

    key: CoercibleToAssetKey | None = None
    key_prefix: str | Sequence[str] | None = None
    metadata: Mapping[str, Any] | None = None
    dagster_type: Any = UNSET

    def __post_init__(self) -> None:
        _check_key(self.key, self.key_prefix)

    def resolve(self, parameter: str) -> AssetKey:
        """Return the key of the upstream for a parameter."""
        return as_asset_key(self.key) if self.key is not None else prefixed(self.key_prefix, parameter)


@dataclass(frozen=True, slots=True)
class AssetOut:
    """Declare one asset of a multi-asset.

    Parameters
    ----------
    key_prefix
        A prefix for the output's name; not together with `key`.
    key
        The asset's key; by default the output's name.
    dagster_type
        The type that the value is checked against.
    description, group_name, metadata
        For a reader, and for selection.
    is_required
        Whether the step must produce it.
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
        """Return the key of the asset for an output."""
        return as_asset_key(self.key) if self.key is not None else prefixed(self.key_prefix, output)


def _check_key(key: CoercibleToAssetKey | None, key_prefix: str | Sequence[str] | None) -> None:
    if key is not None and key_prefix is not None:
        raise InvalidDefinitionError(
            f"asset {as_asset_key(key)}: key= is given together with key_prefix=",
            remedy="give the whole key, or its prefix alone",
        )


@dataclass(frozen=True, slots=True)
class Output(Generic[T]):
    """A value that a step returns or yields, with the name of its output and metadata.

    Parameters
    ----------
    value
        The value.
    output_name
        Which output it is; an op with one output calls it ``result``.
    metadata
        JSON values that are kept with the materialization.
    """

    value: T
    output_name: str = "result"
    metadata: Mapping[str, Any] = field(default_factory=dict)


MaxAge: TypeAlias = "str | float | timedelta | None"

_PART = re.compile(r"(\d+(?:\.\d+)?)\s*(s|min|m|h|d|w)")
_WHOLE = re.compile(rf"(?:{_PART.pattern}\s*)+")


def seconds_of(given: MaxAge, *, where: str = "") -> float | None:
    """Return an age in seconds; None for none.

    Parameters
    ----------
    given
        ``"30m"``, ``"1d"``, ``"1d12h"`` (s, m or min, h, d, w), a number of seconds, or a timedelta.

    Raises
    ------
    InvalidDefinitionError
        If it is none of these, or not above zero.
    """
    if given is None:
        return None
    found: float | None = None
    if isinstance(given, timedelta):
        found = given.total_seconds()
    elif isinstance(given, int | float) and not isinstance(given, bool):
        found = float(given)
    elif isinstance(given, str):
        text = given.strip().lower()
        if _WHOLE.fullmatch(text):
            found = sum(float(number) * SECONDS[unit] for number, unit in _PART.findall(text))
    if found is None or not math.isfinite(found) or found <= 0:
        raise InvalidDefinitionError(
            f"{given!r} is no age that a result could have",
            where=where,
            remedy="write a number and a unit: 30m, 12h, 1d, 2w; in Python also seconds or a timedelta",
        )
    return found


def ignored_names(given: Iterable[str] | str | None, *, where: str = "") -> tuple[str, ...]:
    """Return the names that a definition leaves out of its code version, in order.

    Parameters
    ----------
    given
        Names, or one text with commas between them. ``module.NAME`` is a variable of a module, ``client.cookies`` an attribute
        of an object.

    Raises
    ------
    InvalidDefinitionError
        If one is not a name.
    """
    if given is None:
        return ()
    names = given.split(",") if isinstance(given, str) else list(given)
    found: dict[str, None] = {}
    for name in names:
        if not isinstance(name, str):
            raise InvalidDefinitionError(
                f"ignore= is given a {type(name).__name__}, not a name",
                where=where,
                remedy='give names: ignore=["CONN"]; for one object, stepwell.opaque(obj, version="1")',
            )
        stripped = name.strip()
        if not stripped:
            continue
        if not all(part.isidentifier() for part in stripped.split(".")):
            raise InvalidDefinitionError(
                f"{stripped!r} is no name that could be ignored",
                where=where,
                remedy="give names of globals with commas between them: --ignore CONN,TOKEN",
            )
        found[stripped] = None
    return tuple(found)


def declared_reads(given: Iterable[str | os.PathLike[str]] | str | None, *, where: str = "") -> tuple[str, ...]:
    """Return the files and patterns that a definition says it reads, as they are written.

    Parameters
    ----------
    given
        Paths and patterns (``data/*.csv``, ``data/**``), relative to the working directory; or one of them.

    Raises
    ------
    InvalidDefinitionError
        If one is not a path, or is an address.
    """
    if given is None:
        return ()
    found: dict[str, None] = {}
    for each in (given,) if isinstance(given, str | os.PathLike) else given:
        path = os.fspath(each) if isinstance(each, str | os.PathLike) else None
        if not isinstance(path, str) or not path or "://" in path:
            raise InvalidDefinitionError(
                f"reads= is given {each!r}, which is no path of a file",
                where=where,
                remedy='give files and patterns: reads=["data/*.csv"]; what is elsewhere gets a greatest age: max_age="1d"',
            )
        found[path] = None
    return tuple(found)


def check_reuse(*, cache: bool | None, volatile: bool, max_age: float | None, name: str, where: str) -> None:
    """Raise `InvalidDefinitionError` if the options of a step contradict each other."""
    if volatile and (cache or max_age is not None):
        other = "cache=True" if cache else "a greatest age"
        raise InvalidDefinitionError(
            f"{name!r} is volatile and has {other}",
            where=where,
            remedy="volatile runs every time; --max-age 1d reuses a result until it is a day old",
        )
