"""Differences between two code versions: the smallest set of true causes.

If a helper was edited, only the helper is named, not the objects that it now reaches in addition. If a name has another value, the old and
the new value are shown, unless they are long or secret. Parts that were recorded for another key with equal code are read as parts of the
step: a part is identified by its path from the step, never by the step's name.
"""

from __future__ import annotations

import ast
import difflib
import textwrap
from collections import Counter, defaultdict
from dataclasses import dataclass, replace

from stepwell.kernel_runtime.records.materializations import CodeKind, CodePart, CodeVersion
from stepwell.kernel_runtime.versions.graph import ARROW, IGNORED
from stepwell.kernel_runtime.versions.secrets import HIDDEN, hidden_text, looks_secret

_KEY = 8


@dataclass(frozen=True, slots=True)
class Change:
    """One cause of a difference."""

    kind: CodeKind
    path: str
    """The path to the changed object: ``report.transform -> normalise``."""
    where: str = ""
    """The place of its present definition."""
    before: str | None = None
    """Its source, value or version before; None if unreadable, secret or absent."""
    after: str | None = None
    diff: str = ""
    """For code: a unified diff of its source."""
    what: str = "changed"
    """``changed``, ``added`` or ``removed``."""
    secret: bool = False
    """True if its value is not shown because it could be a secret."""


def explain(old: CodeVersion, new: CodeVersion, key: str = "") -> tuple[Change, ...]:
    """Return the causes of the difference between two code versions, nearest to the step first.

    Parameters
    ----------
    old, new
        The versions, with their parts.
    key
        The step's key; by default the key for which the newer version was recorded.

    Returns
    -------
    tuple of Change
        Empty if the versions are equal.
    """
    if old.digest == new.digest:
        return ()
    key = key or (new.parts[0].path if new.parts else "")
    canonical = any(version.parts and version.parts[0].path != key for version in (old, new))
    before, after = (_by_path(_as_parts_of(key, version.parts)) for version in (old, new))
    changed: dict[tuple[str, str], Change] = {}
    for pair, part in after.items():
        earlier = before.get(pair)
        if earlier is not None and not _is_equal(earlier, part):
            changed[pair] = _change(earlier, part, canonical=canonical)
    # A part with the same text has another digest only because of the objects that it reads.
    unedited = {pair for pair in changed if pair[1] == "code" and before[pair].text == after[pair].text is not None}
    edited = {path for path, group in changed if (path, group) not in unedited}
    added, removed = _unmatched(before, after, changed, edited, canonical=canonical)
    for pair, part in added.items():
        changed[pair] = Change(part.kind, part.path, part.where, None, _shown(part), what="added")
    for pair, part in removed.items():
        changed[pair] = Change(part.kind, part.path, part.where, _shown(part), None, what="removed")
    for pair in unedited:
        if any(_follows(path, {pair[0]}) for path, _ in changed):
            del changed[pair]
    _drop_consequences(changed, before, after, key)
    if not changed:
        return (Change("body", key),)
    in_order = sorted(changed, key=lambda pair: (changed[pair].path.count(ARROW), changed[pair].path))
    # A variable that is read in several places is one cause, shown with its shortest path.
    once: dict[tuple[object, ...], Change] = {}
    for pair in in_order:
        digests = [parts[pair].digest if pair in parts else "" for parts in (before, after)]
        once.setdefault((_label(pair), changed[pair].what, *digests), changed[pair])
    return tuple(once.values())


Parts = dict[tuple[str, str], CodePart]


def _as_parts_of(key: str, parts: tuple[CodePart, ...]) -> tuple[CodePart, ...]:
    """Return parts with paths that begin with a key, even if they were recorded for another key."""
    root = parts[0].path if parts else key
    if root == key:
        return parts
    return tuple(
        replace(part, path=key + part.path[len(root) :]) if part.path.startswith(root) else part for part in parts
    )


def _unmatched(
    before: Parts, after: Parts, changed: dict[tuple[str, str], Change], edited: set[str], *, canonical: bool
) -> tuple[Parts, Parts]:
    """Return the added and the removed parts that are not consequences of another change.

    A part that both versions have, with different paths, is left out if it is equal, and added to ``changed`` otherwise.
    """
    known = [{(*_label(key), part.digest) for key, part in parts.items()} for parts in (before, after)]

    def only(parts: Parts, others: Parts, same: set[tuple[str, str, str]]) -> Parts:
        return {
            key: part
            for key, part in parts.items()
            if key not in others and (*_label(key), part.digest) not in same and not _follows(part.path, edited)
        }

    added, removed = only(after, before, known[0]), only(before, after, known[1])
    for place in list(added):
        # A value took the place of a function, or a function that of a value.
        earlier = next((other for other in removed if other[0] == place[0]), None)
        if earlier is not None:
            changed[place] = _change(removed.pop(earlier), added.pop(place), canonical=canonical)
    counts = Counter(map(_label, added))
    moved = defaultdict(list)
    for key in removed:
        moved[_label(key)].append(key)
    for key in list(added):
        places = moved[_label(key)]
        if len(places) == counts[_label(key)] == 1:
            changed[key] = _change(removed.pop(places[0]), added.pop(key), canonical=canonical)
    return added, removed


def _drop_consequences(changed: dict[tuple[str, str], Change], before: Parts, after: Parts, key: str) -> None:
    """Remove changes that are consequences of another change in the list."""
    ignore_key = (key + IGNORED, "global")
    ignored: set[str] = set()
    if ignore_key in changed:
        lists = [(parts[ignore_key].text or "").split(", ") if ignore_key in parts else [] for parts in (before, after)]
        ignored = set(lists[0]) ^ set(lists[1])
    for place in list(changed):
        path, group = place
        last = _last_name(path)
        if place != ignore_key and any(
            last == name or last.startswith(f"{name}.") or name.startswith(f"{last}.") for name in ignored
        ):
            del changed[place]
        elif group == "global" and any(other.startswith(f"{path}.") for other, _ in changed):
            # The object changed only because its attribute did.
            del changed[place]


def _label(key: tuple[str, str]) -> tuple[str, str]:
    return _last_name(key[0]), key[1]


def describe(change: Change) -> str:
    """Return a short line about a change: ``normalise() changed (cell 9)`` or ``CUTOFF: 3 -> 4``."""
    name = change.path.rpartition(ARROW)[2]
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
            else f"{name} refers to another asset"
        )
    if change.path.endswith(IGNORED):
        names = change.after if change.what != "removed" else change.before
        return f"--ignore {names} was {change.what}"
    if change.what == "changed" and change.before is not None and change.after is not None and not looks_secret(name):
        return f"{name}: {change.before} -> {change.after}"
    return f"{name} {change.what}{place}"


def _by_path(parts: tuple[CodePart, ...]) -> Parts:
    by_path: Parts = {}
    for part in parts:
        by_path.setdefault((part.path, "code" if part.kind in {"function", "class", "body"} else part.kind), part)
    return by_path


def _is_equal(before: CodePart, after: CodePart) -> bool:
    """Return True if two parts are equal; digests with the keys of two users cannot be compared, then their texts are."""
    if before.digest == after.digest or len(before.digest) != len(after.digest) or len(after.digest) <= _KEY:
        return before.digest == after.digest
    if before.digest[:_KEY] == after.digest[:_KEY] or before.kind in {"package", "name"}:
        return False
    return before.text == after.text


def _change(before: CodePart, after: CodePart, *, canonical: bool) -> Change:
    """Return the change of a part that both versions have.

    Parameters
    ----------
    canonical
        True to leave layout, comments and documentation out of the diff: the earlier ones belong to another definition.
    """
    diff = ""
    if after.kind in {"function", "body", "sql"} and before.text is not None and after.text is not None:
        name = after.path.rpartition(ARROW)[2]
        texts = [_canonical(text) if canonical else text for text in (before.text, after.text)]
        diff = "\n".join(
            difflib.unified_diff(
                texts[0].splitlines(), texts[1].splitlines(), f"{name} (before)", f"{name} (now)", lineterm=""
            )
        )
    secret = after.kind == "global" and (HIDDEN in (before.text, after.text) or looks_secret(_last_name(after.path)))
    return Change(after.kind, after.path, after.where, _shown(before), _shown(after), diff, secret=secret)


def _canonical(source: str) -> str:
    """Return Python code without documentation, annotations and layout; other text unchanged."""
    try:
        tree = ast.parse(textwrap.dedent(source))
    except (SyntaxError, ValueError, RecursionError):
        return source
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            node.returns = None
        elif isinstance(node, ast.arg):
            node.annotation = None
        if isinstance(node, ast.Module | ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            first = node.body[0] if node.body else None
            if (
                isinstance(first, ast.Expr)
                and isinstance(first.value, ast.Constant)
                and isinstance(first.value.value, str)
                and len(node.body) > 1
            ):
                del node.body[0]
    return ast.unparse(tree)


def _last_name(path: str) -> str:
    return path.rpartition(ARROW)[2]


def _shown(part: CodePart) -> str | None:
    """Return the text of a part; None if it must not be shown."""
    hidden = part.kind == "global" and (part.text == HIDDEN or looks_secret(_last_name(part.path)))
    if hidden or part.text is None or part.kind != "global":
        return None if hidden else part.text
    return hidden_text(part.text)


def _follows(path: str, causes: set[str]) -> bool:
    """Return True if a part was added or removed only because an object on its path changed."""
    return any(path.startswith((cause + ARROW, cause + ".", cause + "(", cause + "[")) for cause in causes)
