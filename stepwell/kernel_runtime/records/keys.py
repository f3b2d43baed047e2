"""Keys of assets, steps and stored values, and identifiers of runs and materializations.

An asset key is a sequence of parts, written ``raw/flights``. A step key is a plain string. If one op computes an asset, the key of this op's
step is the asset key. A graph-backed asset has several steps. The key of each consists of the asset key, the names of the graphs that contain
the step's op, and the name of the op, separated by dots: ``raw/report.transform``, ``raw/report.inner.transform``. No part and no name
contains ``/`` or ``.``, so a step key shows where the asset key ends. The identifiers that one process creates sort by time of creation.
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
"""Names that an op, graph, job, input or output must not have, because Dagster reserves them."""


@dataclass(frozen=True, slots=True, order=True)
class AssetKey:
    """The key of an asset: a sequence of one or more parts.

    Parameters
    ----------
    path
        The parts, or a string that is the only part. ``AssetKey("a/b")`` raises an error; use :meth:`from_user_string` to parse a key that is
        written as ``a/b``.

    Raises
    ------
    InvalidDefinitionError
        If there are no parts, or a part is empty or contains ``/`` or ``.``.
    """

    path: tuple[str, ...]

    def __init__(self, path: str | Sequence[str]) -> None:
        if type(path) is str:
            parts: tuple[str, ...] = (path,)
        elif type(path) is tuple:
            parts = path
        elif isinstance(path, str | list | tuple):
            parts = (path,) if isinstance(path, str) else tuple(path)
        else:
            raise InvalidDefinitionError(f"an asset key must be a string or a list of strings, not {path!r}")
        if not parts:
            raise InvalidDefinitionError(
                "an asset key must have at least one part",
                remedy="give its parts, for example AssetKey(['raw', 'flights'])",
            )
        for part in parts:
            if not isinstance(part, str) or not part:
                raise InvalidDefinitionError(f"a part of an asset key must be a non-empty string, not {part!r}")
            if "/" in part or "." in part:
                raise InvalidDefinitionError(
                    f"the part {part!r} of an asset key contains '/' or '.'",
                    remedy=f"for a key with a prefix, use AssetKey({part.replace('.', '/').split('/')!r})",
                )
        object.__setattr__(self, "path", parts)

    @property
    def name(self) -> str:
        """The last part. It is the name of the variable that a cell assigns or reads for this asset."""
        return self.path[-1]

    def to_user_string(self) -> str:
        """Return the parts joined by ``/``: ``raw/flights``."""
        return "/".join(self.path)

    @staticmethod
    def from_user_string(text: str) -> AssetKey:
        """Return the key whose parts ``text`` contains, separated by ``/``: ``raw/flights`` has two parts."""
        return AssetKey(text.split("/"))

    def with_prefix(self, prefix: str | Sequence[str]) -> AssetKey:
        """Return the key that consists of ``prefix`` and the parts of this key.

        A string as ``prefix`` may contain several parts, separated by ``/``.
        """
        return AssetKey((*_prefix(prefix), *self.path))

    def __str__(self) -> str:
        return "/".join(self.path)


CoercibleToAssetKey: TypeAlias = "AssetKey | str | Sequence[str]"


def as_asset_key(value: CoercibleToAssetKey) -> AssetKey:
    """Convert ``value`` to an `AssetKey`. A string may contain several parts, separated by ``/``; a sequence contains one part per item."""
    if isinstance(value, AssetKey):
        return value
    if isinstance(value, str):
        return AssetKey.from_user_string(value)
    return AssetKey(value)


def _prefix(prefix: str | Sequence[str]) -> tuple[str, ...]:
    """Return the parts of a prefix; a string may contain several parts, separated by ``/``."""
    return tuple(prefix.split("/")) if isinstance(prefix, str) else tuple(prefix)


def prefixed(prefix: str | Sequence[str] | None, name: str) -> AssetKey:
    """Return the key that consists of the parts of ``prefix``, if any, and ``name``."""
    return AssetKey((*_prefix(prefix), name) if prefix else (name,))


def check_name(kind: str, name: str, *, where: str = "") -> str:
    """Return ``name`` if it is a valid name of an op, graph, job, input or output; raise an error otherwise.

    Parameters
    ----------
    kind
        The kind of thing that has the name, with an article, for the message; for example ``an op``.
    name
        The name.
    where
        The source location of the definition, for the message.

    Raises
    ------
    InvalidDefinitionError
        If ``name`` is empty, contains characters other than letters, digits and ``_``, or is one of `RESERVED_NAMES`.
    """
    # The methods of `str` answer for most names, and take less time than a regular expression.
    is_valid = isinstance(name, str) and ((name.isidentifier() and name.isascii()) or NAME.fullmatch(name))
    if not is_valid:
        raise InvalidDefinitionError(
            f"{name!r} cannot be the name of {kind}", where=where, remedy="use letters, digits and _ only"
        )
    if name in RESERVED_NAMES:
        raise InvalidDefinitionError(
            f"{name!r} is reserved and cannot be the name of {kind}",
            where=where,
            remedy=f"choose another name, for example my_{name}",
        )
    return name


def join_step(parent: str, node: str) -> str:
    """Return the step key of the op or graph with the name ``node`` inside the asset or graph with the key ``parent``.

    An empty ``parent`` means that the op or graph is at the top level of a job.
    """
    return f"{parent}.{node}" if parent else node


_LISTED = 6
"""Maximum number of keys that `keys_text` writes out."""


def keys_text(keys: Iterable[object]) -> str:
    """Return the keys as one text, separated by commas. After six keys, only the number of the others follows: ``a, b, c, d, e, f and 3 more``."""
    names = [str(key) for key in keys]
    return ", ".join(names[:_LISTED]) + (f" and {len(names) - _LISTED} more" if len(names) > _LISTED else "")


_counter = count()
_latest = 0
_process = ""
_process_id = 0


def new_id() -> str:
    """Return a new, unique identifier of 26 hexadecimal digits.

    It consists of the time in microseconds, a counter of this process, and a random part. The identifiers that one process creates sort in
    the order of their creation, even if the clock is set back. Identifiers of different processes have no reliable order.
    """
    global _process, _process_id, _latest  # noqa: PLW0603 - a forked child needs a random part other than its parent's
    if _process_id != os.getpid():
        _process_id = os.getpid()
        _process = os.urandom(4).hex()
    _latest = max(_latest, time.time_ns() // 1000)
    return f"{_latest:014x}{next(_counter) & 0xFFFF:04x}{_process}"
