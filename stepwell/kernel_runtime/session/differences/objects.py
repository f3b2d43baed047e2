"""Comparing small objects: a walk of both at once that lists the places where they differ, bounded in places and in steps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any, TypeAlias

from stepwell.kernel_runtime.session.differences.result import ObjectDifference
from stepwell.kernel_runtime.store.values.structure import summary, type_name
from stepwell.kernel_runtime.versions.data import data_version

MOST = 100
"""Places that are listed."""
_STEPS = 100_000
_LONGEST = 80
_SCALARS = (int, float, complex, bool, str, bytes, type(None))

_Change: TypeAlias = tuple[str, str, str]


def compare_objects(before: Any, after: Any) -> ObjectDifference:
    """Return where two objects differ; two NaNs are equal, 1, 1.0 and True are not."""
    walk = _Walk()
    changes: list[_Change] = []
    for change in walk.of(before, after, "", frozenset()):
        if len(changes) == MOST:
            return ObjectDifference(tuple(changes), more=True)
        changes.append(change)
    return ObjectDifference(tuple(changes), more=walk.steps >= _STEPS)


class _Walk:
    def __init__(self) -> None:
        self.steps = 0

    def of(self, old: Any, new: Any, path: str, above: frozenset[tuple[int, int]]) -> Iterator[_Change]:
        self.steps += 1
        pair = (id(old), id(new))
        if old is new or pair in above or self.steps >= _STEPS:
            return
        if type(old) is not type(new):
            yield path, _shown(old, typed=True), _shown(new, typed=True)
            return
        if isinstance(old, _SCALARS):
            if data_version(old) != data_version(new):
                yield path, _shown(old), _shown(new)
            return
        inside = above | {pair}
        if len(inside) > 200:
            # Deeper than anybody reads: whether, not where.
            yield from self._whole(old, new, path)
        elif isinstance(old, Mapping) and type(old).__module__ in ("builtins", "collections"):
            yield from self._mapping(old, new, path, inside)
        elif isinstance(old, list | tuple):
            yield from self._sequence(old, new, path, inside)
        elif isinstance(old, set | frozenset):
            yield from ((f"{path} without", _shown(item), "") for item in _sorted(old - new))
            yield from ((f"{path} with", "", _shown(item)) for item in _sorted(new - old))
        elif is_dataclass(old):
            for field in fields(old):
                yield from self.of(
                    getattr(old, field.name, None), getattr(new, field.name, None), f"{path}.{field.name}", inside
                )
        elif _is_plain_instance(old):
            yield from self._attributes(vars(old), vars(new), path, inside)
        else:
            yield from self._whole(old, new, path)

    def _whole(self, old: Any, new: Any, path: str) -> Iterator[_Change]:
        version = data_version(old)
        if version is None or version != data_version(new):
            yield path, _shown(old, typed=True), _shown(new, typed=True)

    def _mapping(self, old: Any, new: Any, path: str, above: frozenset[tuple[int, int]]) -> Iterator[_Change]:
        for key in old:
            if key not in new:
                yield f"{path}[{_shown(key)}]", _shown(old[key]), ""
            else:
                yield from self.of(old[key], new[key], f"{path}[{_shown(key)}]", above)
        for key in new:
            if key not in old:
                yield f"{path}[{_shown(key)}]", "", _shown(new[key])
        common = [key for key in old if key in new]
        if common != [key for key in new if key in old]:
            yield (
                f"{path} order",
                ", ".join(map(_shown, common[:5])),
                ", ".join(_shown(key) for key in [key for key in new if key in old][:5]),
            )

    def _sequence(self, old: Any, new: Any, path: str, above: frozenset[tuple[int, int]]) -> Iterator[_Change]:
        names = getattr(type(old), "_fields", None)
        for at, (one, two) in enumerate(zip(old, new, strict=False)):
            yield from self.of(one, two, f"{path}.{names[at]}" if names else f"{path}[{at}]", above)
        for at in range(len(new), len(old)):
            yield f"{path}[{at}]", _shown(old[at]), ""
        for at in range(len(old), len(new)):
            yield f"{path}[{at}]", "", _shown(new[at])

    def _attributes(
        self, old: dict[str, Any], new: dict[str, Any], path: str, above: frozenset[tuple[int, int]]
    ) -> Iterator[_Change]:
        for name in dict.fromkeys((*old, *new)):
            if name not in new:
                yield f"{path}.{name}", _shown(old[name]), ""
            elif name not in old:
                yield f"{path}.{name}", "", _shown(new[name])
            else:
                yield from self.of(old[name], new[name], f"{path}.{name}", above)


def _is_plain_instance(value: Any) -> bool:
    """Tell whether an instance is all in its ``__dict__``."""
    kind = type(value)
    return (
        type(getattr(value, "__dict__", None)) is dict
        and not any(
            {"__reduce__", "__reduce_ex__", "__getstate__", "__slots__"} & set(vars(base)) for base in kind.__mro__[:-1]
        )
        and not isinstance(value, type)
        and not callable(value)
    )


def _sorted(items: Any) -> list[Any]:
    return sorted(items, key=lambda item: (type(item).__name__, repr(item)))


def _shown(value: Any, *, typed: bool = False) -> str:
    """Return a value as a short text."""
    if isinstance(value, _SCALARS):
        try:
            text = repr(value)
        except ValueError:  # an int of more digits than Python prints
            text = summary(value)
    else:
        text = " ".join(part for part in (type_name(value), summary(value)) if part)
        typed = False
    text = f"{text} ({type_name(value)})" if typed else text
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
