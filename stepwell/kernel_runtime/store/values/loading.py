"""Parameters of loading a value: functions that read code, and the library versions with which the value was written.

A pickle refers to classes and functions of libraries by name. Another version of a library may have moved them, or may expect another
format. A library is recorded as its module and its distribution, such as ``("sklearn", "scikit-learn 1.9.1")``. If a value cannot be
loaded, the message names the libraries whose versions differ.
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
"""Returns the name and version of the distribution to which a module belongs; None for the user's modules."""
Library = tuple[str, str]

_OURS = frozenset({"__main__", "stepwell", "builtins"})
_sets: dict[tuple[Owner, frozenset[str]], tuple[Library, ...]] = {}


def declared_version(module: str) -> str | None:
    """Return the name and version of a library from its module or its metadata. This function is the default `Owner`."""
    declared = vars(sys.modules[module]).get("__version__") if module in sys.modules else None
    if type(declared) is not str:
        from importlib.metadata import PackageNotFoundError, version

        try:
            declared = version(module)
        except (PackageNotFoundError, ValueError):
            return None
    return f"{module} {declared}"


def libraries_of(modules: Iterable[str], owner: Owner) -> tuple[Library, ...]:
    """Return the libraries to which modules belong, without the standard library and the user's modules."""
    key = (owner, frozenset(modules))
    libraries = _sets.get(key)
    if libraries is None:
        tops = {name.partition(".")[0] for name in key[1] if type(name) is str} - sys.stdlib_module_names - _OURS
        libraries = tuple(
            [(top, distribution) for top in sorted(tops) if (distribution := owner(top)) and " " in distribution]
        )
        if len(_sets) < 1000:
            _sets[key] = libraries
    return libraries


def other_libraries(stored_libraries: Sequence[Library], owner: Owner) -> list[tuple[str, str]]:
    """Return the libraries whose installed version differs or that are not installed, as pairs of the stored and the installed version."""
    return [
        (stored, now or f"no {stored.partition(' ')[0]}")
        for top, stored in stored_libraries
        if "." not in top and (now := owner(top)) != stored
    ]


def library_difference(stored_libraries: Sequence[Library], owner: Owner) -> str:
    """Return the end of a message that names the libraries whose versions differ; empty if no version differs."""
    libraries = other_libraries(stored_libraries, owner)
    if not libraries:
        return ""
    return f": it was written with {', '.join(stored for stored, _ in libraries)}, and this environment has {', '.join(now for _, now in libraries)}"


def library_remedy(stored_libraries: Sequence[Library], owner: Owner) -> str:
    """Return the remedy for different versions of libraries; empty if no version differs."""
    libraries = other_libraries(stored_libraries, owner)
    if not libraries:
        return ""
    return f"materialize it again, or pip install {' '.join(stored.replace(' ', '==') for stored, _ in libraries)}"


UNKNOWN = "?"
"""The version of code that cannot be versioned. It is never regarded as equal to another version."""


@dataclass(frozen=True, slots=True)
class CodeReader:
    """Functions of the `versions` layer by which the store reads code without importing that layer."""

    version: Callable[[Any], str] | None = None
    """Returns the code version of a class or function. If None, only names are compared."""
    owner: Owner = declared_version
    """Returns the distribution to which a module belongs."""
    is_secret: Callable[[str, Any], bool] | None = None
    """Returns True if a value must not be stored as part of a copy, or if the source of a class or function contains a secret."""
    on_copy: Callable[[type, str], None] | None = None
    """Called with each class that is created from a copy, and with the code version of the copy."""
    data_version: Callable[[Any], str | None] | None = None
    """Returns the data version of a value; None if the value has no data version."""

    def version_of(self, item: Any) -> str:
        """Return the code version of a class or function; empty if no function reads code versions."""
        if self.version is None:
            return ""
        try:
            return self.version(item)
        except KeyboardInterrupt:
            raise
        except BaseException:
            # The user's class may raise anything when it is inspected. In this case its copy is used.
            return UNKNOWN

    def hides(self, name: str, value: Any) -> bool:
        """Return True if a value, or the source of a class or function, must not be stored."""
        return self.is_secret is not None and self.is_secret(name, value)


def discard(_: Notice) -> None:
    """Discard a notice."""


@dataclass(frozen=True, slots=True)
class Loading:
    """The parameters of a load."""

    code: CodeReader = field(default_factory=CodeReader)
    notify: Notify = discard
    """Receives notices for the user."""
    folder: Folder | None = None
    """The store directory, below which stored files are restored."""
    libraries: tuple[Library, ...] = ()
    """Libraries with which the value was written, with their versions."""
    check: bool = True
    """True if the structure of the data must be validated, which is unnecessary for a file that was checked since the machine booted."""
    link: Link | None = None
    """Returns the object to which a link in the value refers."""
