"""What a load needs besides the stored form: functions that read code, and the library versions with which the value was written.

A pickle refers to classes and functions of libraries by name. In another version of a library, a class may have another name or module, or may
expect another format of its data. So the libraries of a value are recorded when the value is stored, each as its module and its distribution,
such as ``("sklearn", "scikit-learn 1.9.1")``. If the value cannot be loaded later, the message names the libraries whose versions differ.
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
"""A function that is called with the name of a module. It returns the name and version of the distribution that contains the module, such as
``scikit-learn 1.9.1``; None for a module of the user."""
Library = tuple[str, str]
"""A pair: the top-level module of a library, and the name and version of its distribution. Example: ``("sklearn", "scikit-learn 1.9.1")``."""

_OURS = frozenset({"__main__", "stepwell", "builtins"})
_sets: dict[tuple[Owner, frozenset[str]], tuple[Library, ...]] = {}


def declared_version(module: str) -> str | None:
    """Return a library's name and version, such as ``numpy 2.4.0``; None if neither its module nor its metadata declares a version.

    The parameter ``module`` is the name of the library's top-level module. This function is the default `Owner`.
    """
    declared = vars(sys.modules[module]).get("__version__") if module in sys.modules else None
    if type(declared) is not str:
        from importlib.metadata import PackageNotFoundError, version

        try:
            declared = version(module)
        except (PackageNotFoundError, ValueError):
            return None
    return f"{module} {declared}"


def libraries_of(modules: Iterable[str], owner: Owner) -> tuple[Library, ...]:
    """Return the libraries that contain the modules named ``modules``, with the versions that ``owner`` returns.

    Modules of the standard library, of Stepwell and of the user are omitted.
    """
    key = (owner, frozenset(modules))
    libraries = _sets.get(key)
    if libraries is None:
        tops = {name.partition(".")[0] for name in key[1] if type(name) is str} - sys.stdlib_module_names - _OURS
        libraries = tuple([(top, distribution) for top in sorted(tops) if (distribution := owner(top)) and " " in distribution])
        if len(_sets) < 1000:
            _sets[key] = libraries
    return libraries


def other_libraries(stored_libraries: Sequence[Library], owner: Owner) -> list[tuple[str, str]]:
    """Return the libraries whose installed version differs from the version with which a value was written.

    Parameters
    ----------
    stored_libraries
        The libraries that were recorded with the value.
    owner
        Returns the name and the installed version of the library to which a module belongs; None if the library is not installed.

    Returns
    -------
    list
        Pairs such as ``("numpy 2.1.0", "numpy 2.4.0")``: the recorded version and the installed version. If the library is not
        installed, the second string is ``no numpy``.
    """
    return [
        (stored, now or f"no {stored.partition(' ')[0]}")
        for top, stored in stored_libraries
        if "." not in top and (now := owner(top)) != stored
    ]


def library_difference(stored_libraries: Sequence[Library], owner: Owner) -> str:
    """Return the last part of an error message: the libraries of a value whose installed version differs from the version in ``stored_libraries``.

    The result is empty if no version differs.
    """
    libraries = other_libraries(stored_libraries, owner)
    if not libraries:
        return ""
    return f": it was written with {', '.join(stored for stored, _ in libraries)}, and this environment has {', '.join(now for _, now in libraries)}"


def library_remedy(stored_libraries: Sequence[Library], owner: Owner) -> str:
    """Return a remedy that tells the user to install the library versions with which a value was written, or to materialize again.

    The remedy is empty if the installed versions equal those in ``stored_libraries``.
    """
    libraries = other_libraries(stored_libraries, owner)
    if not libraries:
        return ""
    return f"materialize the value again, or run: pip install {' '.join(stored.replace(' ', '==') for stored, _ in libraries)}"


UNKNOWN = "?"
"""Stands for the code version of a class or function whose code version could not be computed. A load then uses the stored copy."""


@dataclass(frozen=True, slots=True)
class CodeReader:
    """Functions of the package `versions`, which the caller passes to the store because the store must not import that package."""

    version: Callable[[Any], str] | None = None
    """Returns the code version of a class or function. If this attribute is None, a stored class or function is identified by its name alone."""
    owner: Owner = declared_version
    """Returns the name and version of the distribution that contains a module. `Owner` describes this function."""
    is_secret: Callable[[str, Any], bool] | None = None
    """Called with a name and its value. Returns True if the value is a secret or, for a class or function, if its source contains one. If this
    attribute is None, nothing counts as secret."""
    on_copy: Callable[[type, str], None] | None = None
    """Called with each class that a load creates from a stored copy, and with the code version of this class. May be None."""
    data_version: Callable[[Any], str | None] | None = None
    """Returns the data version of a value, or None if the value has no data version. If this attribute is None, test loads do not compare
    data versions."""

    def version_of(self, item: Any) -> str:
        """Return the code version of a class or function.

        The result is `UNKNOWN` if the computation fails, and empty if the attribute `version` is None.
        """
        if self.version is None:
            return ""
        try:
            return self.version(item)
        except KeyboardInterrupt:
            raise
        except BaseException:
            # The user's class may raise anything when it is inspected. With the version UNKNOWN, a load uses the stored copy of the class.
            return UNKNOWN

    def hides(self, name: str, value: Any) -> bool:
        """Return True if ``value``, the value of a variable called ``name``, must not be stored because it is or contains a secret."""
        return self.is_secret is not None and self.is_secret(name, value)


def discard(_: Notice) -> None:
    """Ignore a notice. This is the default receiver of the notices of a load."""


@dataclass(frozen=True, slots=True)
class Loading:
    """The functions and data that a load needs besides the stored form of the value."""

    code: CodeReader = field(default_factory=CodeReader)
    notify: Notify = discard
    """Receives notices for the user."""
    folder: Folder | None = None
    """The store directory, below which a load restores the file of a stored path; None if files must not be restored."""
    libraries: tuple[Library, ...] = ()
    """The libraries with which the value was written, with their versions."""
    check: bool = True
    """True to validate offsets and indices in the data. False if this is unnecessary, because the value file was checked since the machine
    booted."""
    link: Link | None = None
    """A function that is called with each link in the stored value. A link is the identifier of an object of the notebook; the function returns
    this object. None to refuse a value that contains links."""
