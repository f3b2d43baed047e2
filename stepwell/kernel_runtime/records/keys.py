"""Keys of assets, steps and stored values, and identifiers of runs and materializations.

An asset key is a path of parts, written ``raw/flights``. The step of a single-op asset has the key of the asset. A step inside a
graph-backed asset has the key of that asset, a dot and the path of nodes: ``raw/report.transform``, ``raw/report.inner.transform``. Step
keys are plain strings. A part never contains ``/`` or ``.``, so both forms can be parsed. Identifiers sort by time of creation.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import count
from typing import TypeAlias

from stepwell.kernel_runtime.errors import InvalidDefinitionError

NAME = re.compile(r"[A-Za-z0-9_]+")
RESERVED_NAMES = frozenset(
    {
        "context",
        "conf",
        "config",
        "meta",
        "arg_dict",
        "dict",
        "input_arg_dict",
        "output_arg_dict",
        "int",
        "str",
        "float",
        "bool",
        "input",
        "output",
        "type",
    }
)
"""Names that an op, graph, job, input or output cannot have."""


@dataclass(frozen=True, slots=True, order=True)
class AssetKey:
    """The key of an asset: a path of one or more parts.

    Parameters
    ----------
    path
        The parts, or one part as a string. ``AssetKey("a/b")`` is an error; use :meth:`from_user_string` to parse
        a key in written form.

    Raises
    ------
    InvalidDefinitionError
        If there are no parts, or a part is empty or contains ``/`` or ``.``.
    """

    path: tuple[str, ...]

    def __init__(self, path: str | Sequence[str]) -> None:
        if type(path) is str:
            parts: tuple[str, ...] = (path,)
        elif isinstance(path, str | list | tuple):
            parts = (path,) if isinstance(path, str) else tuple(path)
        else:
            raise InvalidDefinitionError(f"an asset key is a string or a list of strings, not {path!r}")
        if not parts:
            raise InvalidDefinitionError(
                "an asset key needs at least one part", remedy="for example: AssetKey(['raw', 'flights'])"
            )
        for part in parts:
            if not isinstance(part, str) or not part:
                raise InvalidDefinitionError(f"a part of an asset key must be a non-empty string, not {part!r}")
            if "/" in part or "." in part:
                raise InvalidDefinitionError(
                    f"the part {part!r} of an asset key contains '/' or '.'",
                    remedy=f"for a key with a prefix, use AssetKey.from_user_string({part!r}) or AssetKey({part.replace('.', '/').split('/')!r})",
                )
        object.__setattr__(self, "path", parts)

    @property
    def name(self) -> str:
        """The last part, which is the name that a cell binds and reads."""
        return self.path[-1]

    def to_user_string(self) -> str:
        """Return the key in its written form: ``raw/flights``."""
        return "/".join(self.path)

    @staticmethod
    def from_user_string(text: str) -> AssetKey:
        """Parse a key in its written form: ``raw/flights`` has two parts."""
        return AssetKey(text.split("/"))

    def with_prefix(self, prefix: str | Sequence[str]) -> AssetKey:
        """Return this key with a prefix before its parts."""
        return AssetKey((*_prefix(prefix), *self.path))

    def __str__(self) -> str:
        return "/".join(self.path)


CoercibleToAssetKey: TypeAlias = "AssetKey | str | Sequence[str]"


def as_asset_key(value: CoercibleToAssetKey) -> AssetKey:
    """Return ``value`` as a key; a string is parsed as a written key (``raw/flights``)."""
    if isinstance(value, AssetKey):
        return value
    if isinstance(value, str):
        return AssetKey.from_user_string(value)
    return AssetKey(value)


def _prefix(prefix: str | Sequence[str]) -> tuple[str, ...]:
    return tuple(prefix.split("/")) if isinstance(prefix, str) else tuple(prefix)


def prefixed(prefix: str | Sequence[str] | None, name: str) -> AssetKey:
    """Return the key that consists of an optional prefix and ``name``."""
    return AssetKey((*(_prefix(prefix) if prefix else ()), name))


def check_name(kind: str, name: str, *, where: str = "") -> str:
    """Return ``name`` if it is valid for an op, graph, job, input or output.

    Raises
    ------
    InvalidDefinitionError
        If the name contains characters other than letters, digits and ``_``, or is reserved.
    """
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise InvalidDefinitionError(
            f"{name!r} cannot be the name of {kind}", where=where, remedy="use letters, digits and _ only"
        )
    if name in RESERVED_NAMES:
        raise InvalidDefinitionError(
            f"{name!r} is reserved and cannot be the name of {kind}",
            where=where,
            remedy=f"choose another name, such as my_{name}",
        )
    return name


def join_step(parent: str, node: str) -> str:
    """Return the key of ``node`` inside ``parent``; an empty ``parent`` is the top level of a job."""
    return f"{parent}.{node}" if parent else node


_LISTED = 6


def keys_text(keys: Iterable[object]) -> str:
    """Return the first keys, separated by commas, and the number of other keys."""
    names = [str(key) for key in keys]
    return ", ".join(names[:_LISTED]) + (f" and {len(names) - _LISTED} more" if len(names) > _LISTED else "")


_counter = count()
_latest = 0
_process = ""
_process_id = 0


def new_id() -> str:
    """Return a new identifier of 26 hexadecimal digits: time in microseconds, process-wide counter, random part.

    Identifiers that one process creates sort in the order of creation, even if its clock is set back. Identifiers from different processes
    have no reliable order.
    """
    global _process, _process_id, _latest  # noqa: PLW0603 - a forked child must not repeat its parent's random part
    if _process_id != os.getpid():
        _process_id = os.getpid()
        _process = os.urandom(4).hex()
    _latest = max(_latest, time.time_ns() // 1000)
    return f"{_latest:014x}{next(_counter) & 0xFFFF:04x}{_process}"
