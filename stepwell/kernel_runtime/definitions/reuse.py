"""What a definition says of the reuse of its results: ages, volatility, names that do not count."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable
from datetime import timedelta
from typing import TypeAlias

from stepwell.kernel_runtime.errors import InvalidDefinitionError

MaxAge: TypeAlias = "str | float | timedelta | None"

_UNITS = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86_400, "w": 604_800}
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
            found = sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(text))
    if found is None or not math.isfinite(found) or found <= 0:
        raise InvalidDefinitionError(
            f"{given!r} is no age that a result could have",
            where=where,
            remedy="write a number and a unit: 30m, 12h, 1d, 2w; in Python also seconds or a timedelta",
        )
    return found


def age_text(seconds: float) -> str:
    """Return an age as it is written: ``1d``, ``1d12h``, ``30m``."""
    rest, found = seconds, ""
    for unit in ("d", "h", "m"):
        count, rest = divmod(rest, _UNITS[unit])
        found += f"{count:.0f}{unit}" if count else ""
    return found + (f"{rest:g}s" if rest or not found else "")


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
        If one is no name.
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
        If one is no path, or an address.
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
    """Raise `InvalidDefinitionError` if a step is told to be reused and not to be."""
    if volatile and (cache or max_age is not None):
        other = "cache=True" if cache else "a greatest age"
        raise InvalidDefinitionError(
            f"{name!r} is volatile and has {other}",
            where=where,
            remedy="volatile runs every time; --max-age 1d reuses a result until it is a day old",
        )
