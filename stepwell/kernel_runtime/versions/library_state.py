"""Settings of libraries that user code changes and that results depend on: printing precision, error handling, plotting style.

Only what differs from the library's defaults is told, so that a notebook that changes nothing depends on nothing. What governs only how
values are shown as text (``pandas.options.display``, numpy's print options) counts for code that itself makes text of values:
changing the number of displayed rows must not compute everything again. A helper of a library that renders values, called with no
such word in the user's code, is not seen.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FunctionType, ModuleType
from typing import Any

RENDERING = frozenset((
    "repr", "str", "format", "print", "to_string", "to_html", "to_latex", "to_markdown", "info", "style", "array2string", "array_repr",
    "array_str",
))  # fmt: skip
"""Names in code that makes text of values."""
# Where a figure is shown is no part of it.
_WHERE_SHOWN = ("backend", "interactive", "toolbar", "webagg", "tk.", "macosx")


def _numpy(np: Any) -> Any:
    return {name: value for name, value in np.geterr().items() if value != ("ignore" if name == "under" else "warn")}


def _numpy_text(np: Any) -> Any:
    found = np.get_printoptions()
    return {
        name: value for name, value in found.items() if value is not None and value != _NUMPY_PRINTS.get(name, False)
    }


_NUMPY_PRINTS = {
    "edgeitems": 3, "threshold": 1000, "precision": 8, "linewidth": 75, "suppress": False, "nanstr": "nan", "infstr": "inf",
    "sign": "-", "floatmode": "maxprec", "legacy": False, "override_repr": None,
}  # fmt: skip


def _pandas_options(pd: Any) -> list[tuple[str, Any]]:
    config = pd._config.config  # noqa: SLF001 - the public way takes 30 times as long
    registered = config._registered_options  # noqa: SLF001 - as above
    found = []
    for name, option in registered.items():
        value: Any = config._global_config  # noqa: SLF001 - as above
        for part in name.split("."):
            value = value[part]
        if value is not option.defval and value != option.defval:
            found.append((name, value))
    return found


def _pandas(pd: Any) -> Any:
    return [(name, value) for name, value in _pandas_options(pd) if not name.startswith("display.")]


def _pandas_text(pd: Any) -> Any:
    return [(name, value) for name, value in _pandas_options(pd) if name.startswith("display.")]


def _decimal(module: Any) -> Any:
    context = module.getcontext()
    told = [context.prec, context.rounding, context.Emin, context.Emax, context.capitals, context.clamp]
    told.append(sorted(signal.__name__ for signal, on in context.traps.items() if on))
    return (
        ()
        if told == [28, "ROUND_HALF_EVEN", -999999, 999999, 1, 0, ["DivisionByZero", "InvalidOperation", "Overflow"]]
        else told
    )


def _matplotlib(module: Any) -> Any:
    default = module.rcParamsDefault
    return [
        (name, repr(value))
        for name, value in dict.items(module.rcParams)
        if not name.startswith(_WHERE_SHOWN) and value != dict.get(default, name)
    ]


_READERS: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any] | None]] = {
    "numpy": (_numpy, _numpy_text),
    "pandas": (_pandas, _pandas_text),
    "decimal": (_decimal, None),
    "matplotlib": (_matplotlib, None),
}

state: dict[str, str] = {}
"""For each library that some code used, what was changed in it when this was last looked at; equal texts are one object, so that the
walk's guards need only compare identities."""


def library_of(value: Any) -> str | None:
    """Return which of the libraries with settings an object of a library belongs to."""
    if type(value) is ModuleType:
        name: Any = value.__name__
    elif type(value) is FunctionType or isinstance(value, type):
        name = value.__module__
    else:
        return None
    top = name.partition(".")[0] if type(name) is str else ""
    return top if top in _READERS else None


def told(library: str, *, text: bool) -> list[tuple[str, str]]:
    """Return what code that uses a library depends on, each under its name in `state`."""
    found = []
    for name in (library, f"{library} text") if text else (library,):
        if name not in state:
            state[name] = _read(name)
        found.append((name, state[name]))
    return found


def look_again() -> None:
    """Read the settings of every library that some code has used."""
    for name, before in state.items():
        now = _read(name)
        if now != before:
            state[name] = now


def _read(name: str) -> str:
    library, _, text = name.partition(" ")
    module = sys.modules.get(library)
    reader = _READERS[library][1 if text else 0]
    if module is None or reader is None:
        return ""
    try:
        found = reader(module)
    except Exception:
        # Another version of the library keeps its settings elsewhere; that it has none is told by its version.
        return ""
    return repr(found) if found else ""
