"""Which libraries wrote a value: their versions are kept beside it, and compared where it cannot be loaded.

A pickle names classes and functions of libraries; another version may have moved them or read another form. A library is kept as the
module that was seen and the distribution that owned it: ``("sklearn", "scikit-learn 1.9.1")``.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence

Owner = Callable[[str], "str | None"]
"""Returns name and version of the distribution that a module belongs to; None for the user's own modules."""
Library = tuple[str, str]

_OURS = frozenset({"__main__", "stepwell", "builtins"})
_sets: dict[tuple[Owner, frozenset[str]], tuple[Library, ...]] = {}


def by_its_word(module: str) -> str | None:
    """Return name and version of a library as its own module or its metadata say: an `Owner` for where there is no better one."""
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


def differing(written: Sequence[Library], owner: Owner) -> list[tuple[str, str]]:
    """Return those libraries that are of another version here, or not here: what wrote, and what is here."""
    return [
        (then, now or f"no {then.partition(' ')[0]}")
        for top, then in written
        if "." not in top and (now := owner(top)) != then
    ]


def difference(written: Sequence[Library], owner: Owner) -> str:
    """Return the end of a sentence that says which other versions wrote a value; empty if there are none."""
    found = differing(written, owner)
    if not found:
        return ""
    return f": {', '.join(then for then, _ in found)} wrote it, and here is {', '.join(now for _, now in found)}"


def remedy(written: Sequence[Library], owner: Owner) -> str:
    """Return what to do about other versions; empty if there are none."""
    found = differing(written, owner)
    if not found:
        return ""
    return f"materialize it again, or pip install {' '.join(then.replace(' ', '==') for then, _ in found)}"
