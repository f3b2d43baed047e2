"""What loading a value needs in addition to its stored form: who reads code, and which libraries wrote the value.

A pickle names classes and functions of libraries; another version may have moved them or read another form. A library is kept as the
module that was seen and the distribution that owned it: ``("sklearn", "scikit-learn 1.9.1")``. The versions are compared where a value does not load.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from stepwell.kernel_runtime.records.materializations import Link
from stepwell.kernel_runtime.records.runs import Notice, Notify
from stepwell.kernel_runtime.store.folder import Folder

Owner = Callable[[str], "str | None"]
"""Returns name and version of the distribution that a module belongs to; None for the user's own modules."""
Library = tuple[str, str]

_OURS = frozenset({"__main__", "stepwell", "builtins"})
_sets: dict[tuple[Owner, frozenset[str]], tuple[Library, ...]] = {}


def by_its_word(module: str) -> str | None:
    """Return name and version of a library from its module or its metadata: the default `Owner`."""
    found = vars(sys.modules[module]).get("__version__") if module in sys.modules else None
    if type(found) is not str:
        from importlib.metadata import PackageNotFoundError, version

        try:
            found = version(module)
        except (PackageNotFoundError, ValueError):
            return None
    return f"{module} {found}"


def libraries_of(modules: Iterable[str], owner: Owner) -> tuple[Library, ...]:
    """Return the libraries that modules belong to; not the standard library, not the user's own modules."""
    key = (owner, frozenset(modules))
    found = _sets.get(key)
    if found is None:
        tops = {each.partition(".")[0] for each in key[1] if type(each) is str} - sys.stdlib_module_names - _OURS
        found = tuple([(top, who) for top in sorted(tops) if (who := owner(top)) and " " in who])
        if len(_sets) < 1000:
            _sets[key] = found
    return found


def other_libraries(written: Sequence[Library], owner: Owner) -> list[tuple[str, str]]:
    """Return those libraries that are of another version here, or not here: what wrote, and what is here."""
    return [
        (then, now or f"no {then.partition(' ')[0]}")
        for top, then in written
        if "." not in top and (now := owner(top)) != then
    ]


def library_difference(written: Sequence[Library], owner: Owner) -> str:
    """Return the end of a sentence that says which other versions wrote a value; empty if there are none."""
    found = other_libraries(written, owner)
    if not found:
        return ""
    return f": {', '.join(then for then, _ in found)} wrote it, and here is {', '.join(now for _, now in found)}"


def library_remedy(written: Sequence[Library], owner: Owner) -> str:
    """Return what to do about other versions; empty if there are none."""
    found = other_libraries(written, owner)
    if not found:
        return ""
    return f"materialize it again, or pip install {' '.join(then.replace(' ', '==') for then, _ in found)}"


UNKNOWN = "?"
"""The version of code that has none: it equals nothing."""


@dataclass(frozen=True, slots=True)
class CodeReader:
    """The functions by which the store learns about code, of the layer that can read code."""

    version: Callable[[Any], str] | None = None
    """Returns the code version of a class or function; without it names alone decide."""
    owner: Owner = by_its_word

    is_secret: Callable[[str, Any], bool] | None = None
    """Returns True if a value must not be stored as part of a copy, or if a class or function has a secret in its source."""

    made: Callable[[type, str], None] | None = None
    """Is called with each class that is made from a copy, and the code version of the copy."""
    data_version: Callable[[Any], str | None] | None = None
    """Returns the data version of a value; None where it has none."""

    def version_of(self, found: Any) -> str:
        """Return a code version; empty if there is no reader of code."""
        if self.version is None:
            return ""
        try:
            return self.version(found)
        except KeyboardInterrupt:
            raise
        except BaseException:
            # A class may raise anything when it is looked at; it is its copy then.
            return UNKNOWN

    def hides(self, name: str, value: Any) -> bool:
        """Return True if a value, or the source of a class or function, must not be stored."""
        return self.is_secret is not None and self.is_secret(name, value)


def silent(found: Notice) -> None:
    """Discard a notice."""
    del found


@dataclass(frozen=True, slots=True)
class Loading:
    """The surroundings of a load: who reads code, who gets notices, which store, and which libraries wrote the value."""

    code: CodeReader = field(default_factory=CodeReader)
    tell: Notify = silent
    folder: Folder | None = None
    """The store directory; below it the contents of files are restored."""
    written: tuple[Library, ...] = ()
    check: bool = True
    """False if the structure of the data need not be validated: this file was checked since the machine was started."""
    link: Link | None = None
    """Returns the object that a link in the value means."""
