"""Why two code versions differ: the smallest true causes.

Where a helper was edited, only the helper is named, not what it now reaches in addition; where a name was bound to another value, old and
new value are shown if they are small and no secret.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from stepwell.kernel_runtime.records.code import CodeKind, CodePart, CodeVersion
from stepwell.kernel_runtime.versions.secrets import hidden_text, looks_secret

_ARROW = " -> "
_KEY = 8


@dataclass(frozen=True, slots=True)
class Change:
    """One cause of a difference."""

    kind: CodeKind
    path: str
    """How the changed thing is reached: ``report.transform -> normalise``."""
    where: str = ""
    """Where it is defined now."""
    before: str | None = None
    """Its source, value or version before; None where unreadable, secret or absent."""
    after: str | None = None
    diff: str = ""
    """For code: a unified diff of its source."""
    what: str = "changed"
    """``changed``, ``added`` or ``removed``."""


def explain(old: CodeVersion, new: CodeVersion) -> tuple[Change, ...]:
    """Return the causes for which two code versions with their parts differ, nearest to the step first."""
    if old.digest == new.digest:
        return ()
    before = _by_path(old.parts)
    after = _by_path(new.parts)
    changed: dict[tuple[str, str], Change] = {}
    for key, part in after.items():
        earlier = before.get(key)
        if earlier is not None and not _same(earlier, part):
            changed[key] = _change(earlier, part)
    paths = {path for path, _ in changed}
    for key, part in after.items():
        if key not in before and not _follows(part.path, paths) and not _elsewhere(part, before):
            changed[key] = Change(part.kind, part.path, part.where, None, _shown(part), what="added")
    for key, part in before.items():
        if key not in after and not _follows(part.path, paths) and not _elsewhere(part, after):
            changed[key] = Change(part.kind, part.path, part.where, _shown(part), None, what="removed")
    if not changed:
        path = new.parts[0].path if new.parts else ""
        return (Change("body", path),)
    # An object whose class changed is no cause of its own.
    return tuple(sorted(changed.values(), key=lambda change: (change.path.count(_ARROW), change.path)))


def describe(change: Change) -> str:
    """Return one short line: ``normalise() changed (cell 9)`` or ``CUTOFF: 3 -> 4``."""
    name = change.path.rpartition(_ARROW)[2]
    place = f" ({change.where})" if change.where else ""
    if change.kind == "package":
        if change.what == "changed":
            return f"{name} {change.before} -> {change.after}"
        return f"package {name} {change.what}"
    if change.kind in {"function", "body"}:
        called = f"{name}()" if change.kind == "function" else name
        return f"{called} {change.what}{place}"
    if change.kind == "class":
        return f"class {name} {change.what}{place}"
    if change.kind == "sql":
        return f"the SELECT of {name} {change.what}{place}"
    if change.kind == "name":
        return (
            f"{name} is {'now' if change.what == 'added' else 'no longer'} an asset"
            if change.what != "changed"
            else f"{name} is another asset"
        )
    if change.what == "changed" and change.before is not None and change.after is not None and not looks_secret(name):
        return f"{name}: {change.before} -> {change.after}"
    return f"{name} {change.what}{place}"


def _by_path(parts: tuple[CodePart, ...]) -> dict[tuple[str, str], CodePart]:
    found: dict[tuple[str, str], CodePart] = {}
    for part in parts:
        found.setdefault((part.path, "code" if part.kind in {"function", "class", "body"} else part.kind), part)
    return found


def _same(before: CodePart, after: CodePart) -> bool:
    """Whether two parts are the same, as far as their digests tell: those of two users' keys have nothing in common."""
    if before.digest == after.digest or len(before.digest) != len(after.digest) or len(after.digest) <= _KEY:
        return before.digest == after.digest
    if before.digest[:_KEY] == after.digest[:_KEY] or before.kind in {"package", "name"}:
        return False
    return before.text == after.text


def _change(before: CodePart, after: CodePart) -> Change:
    diff = ""
    if after.kind in {"function", "body", "sql"} and before.text is not None and after.text is not None:
        name = after.path.rpartition(_ARROW)[2]
        diff = "\n".join(
            difflib.unified_diff(
                before.text.splitlines(), after.text.splitlines(), f"{name} (before)", f"{name} (now)", lineterm=""
            )
        )
    return Change(after.kind, after.path, after.where, _shown(before), _shown(after), diff)


def _shown(part: CodePart) -> str | None:
    return (
        None
        if part.text is None or (part.kind == "global" and looks_secret(part.path.rpartition(_ARROW)[2]))
        else hidden_text(part.text)
        if part.kind == "global"
        else part.text
    )


def _follows(path: str, causes: set[str]) -> bool:
    """Whether a thing is there or gone only because something on the way to it changed."""
    return any(path.startswith((cause + _ARROW, cause + ".", cause + "(", cause + "[")) for cause in causes)


def _elsewhere(part: CodePart, others: dict[tuple[str, str], CodePart]) -> bool:
    """Whether the same thing is reached by another path in the other version."""
    if part.kind == "package":
        return any(other.kind == "package" and other.digest == part.digest for other in others.values())
    return False
