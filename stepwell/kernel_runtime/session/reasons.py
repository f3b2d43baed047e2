"""Why the stored results of a step cannot be reused: they are compared with the step's present code, inputs and reads.

Each reason names the smallest part of the code that changed, and the path from the step to this part. The option ``--ignore NAME`` is suggested
as a remedy only if a code walk with this option shows that the remedy works.

The comparison of two code versions leaves out changes that are consequences of other changes. If a helper function was edited, only the helper is
named, not the objects that it reaches only since the edit. If a global variable changed, the old and the new value are shown, unless they are
long or secret. A part is identified by its path without the step's key, so the parts of two steps with different keys can be compared.
"""

from __future__ import annotations

import ast
import difflib
import os
import textwrap
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace
from types import FunctionType, ModuleType
from typing import TYPE_CHECKING

from stepwell.kernel_runtime.definitions.bodies import CellBody, SqlBody
from stepwell.kernel_runtime.planning.build import step_extra
from stepwell.kernel_runtime.planning.decision import DecisionFacts, refusal
from stepwell.kernel_runtime.planning.plan import PlanStep
from stepwell.kernel_runtime.planning.states import Reason
from stepwell.kernel_runtime.reads import what_changed
from stepwell.kernel_runtime.records.keys import keys_text
from stepwell.kernel_runtime.records.materializations import (
    PYTHON,
    CodeKind,
    CodePart,
    CodeVersion,
    InputVersion,
    Materialization,
    Unverifiable,
)
from stepwell.kernel_runtime.versions.encode import ATOMS
from stepwell.kernel_runtime.versions.graph import ARROW, IGNORED, MISSING
from stepwell.kernel_runtime.versions.left_out import name_in, scope_of, value_at
from stepwell.kernel_runtime.versions.secrets import HIDDEN, hidden_text, looks_secret
from stepwell.kernel_runtime.versions.walk import CodeWalk

if TYPE_CHECKING:
    from stepwell.kernel_runtime.store.store import ValueStore


class ResultComparer:
    """Explains why the stored results of a step cannot be reused (implements `planning.states.Explainer`).

    Parameters
    ----------
    facts
        The facts on which the decisions about the steps are based.
    walk
        The code walk that tests whether ``--ignore NAME`` works as a remedy.
    code_parts
        Takes a step and returns its present code version with the parts; None if the step has no code version.
    """

    def __init__(
        self,
        store: ValueStore,
        facts: DecisionFacts,
        walk: CodeWalk,
        code_parts: Callable[[PlanStep], CodeVersion | None],
    ) -> None:
        self.store = store
        self.facts = facts
        self.walk = walk
        self.code_parts = code_parts
        self._codes: dict[str, CodeVersion] = {}
        self._read_versions: set[str] = set()

    def __call__(
        self, step: PlanStep, stored: tuple[Materialization, ...], inputs: tuple[InputVersion, ...] | None
    ) -> tuple[Reason, ...]:
        """Return the reasons why the stored results of a step cannot be reused.

        Parameters
        ----------
        stored
            The current materializations of the step's outputs; at least one.
        inputs
            The present versions of the step's inputs; None if they are not known before upstream steps run. Then inputs are not compared,
            and the result may be empty.
        """
        old = stored[0]
        if old.step_key != step.address:
            return (Reason(f"the value is now computed by {step.address}, no longer by {old.step_key}", kind="step"),)
        reasons: list[Reason] = []
        if step.code is not None and old.code_version != step.code.digest:
            reasons += self._code(step, old)
        if inputs is not None:
            reasons += input_reasons(old.inputs, inputs)
        reasons += [Reason(what_changed(read), kind=read.kind) for read in old.reads if not self.facts.holds(read, step, old)]
        if not reasons and inputs is not None and old.code_version == (step.code.digest if step.code else ""):
            if not old.memo_key:
                return (Reason("the step failed after it had produced this value", kind="failure"),)
            lacking = [output.key for output in step.outputs if output.required]
            lacking = [key for key in lacking if key not in {item.key for item in stored}]
            if lacking:
                return (Reason(f"{keys_text(lacking)} is no longer stored", kind="missing"),)
            if old.unverifiable:
                return (
                    Reason(
                        f"the value was computed with an object that had no digest: {old.unverifiable[0]}",
                        kind="unverifiable",
                    ),
                )
            if old.memo_key == self.facts.key(step, inputs) and (why := refusal(step, old.memo_key, self.facts)):
                return (Reason(why, kind="refused"),)
            return (
                Reason(
                    f"the recorded memo key differs: probably, another Python version than {PYTHON} computed the value",
                    kind="python",
                ),
            )
        return tuple(reasons)

    def unverifiable(self, step: PlanStep) -> tuple[Reason, ...]:
        """Return a reason for each object without a digest that the step's code reaches.

        The detail of the reason says how to exclude only this object from the code version or, if that is impossible, how to keep the stored value.
        """
        items = step.code.unverifiable if step.code is not None else ()
        return tuple(Reason(item.reason, item.path, self._way_out(step, item), "unverifiable") for item in items)

    def _recorded_code(self, version: str) -> CodeVersion | None:
        """Return the recorded code version whose digest is `version`, with its parts; None if it is not recorded.

        The first call reads the recorded code versions of all steps whose code changed, in one query.
        """
        if version not in self._read_versions:
            wanted = {version, *self._changed_versions()} - self._read_versions
            self._read_versions |= wanted
            self._codes.update(self.store.codes(wanted))
        return self._codes.get(version)

    def _changed_versions(self) -> set[str]:
        """Return the digests of the code versions with which current values were computed, except the present code versions of steps."""
        snapshot = self.facts.snapshot
        current = {row.materialization.code_version for rows in snapshot.current.values() for row in rows}
        return current - {execution[0].code_version for executions in snapshot.by_memo_key.values() for execution in executions}

    def _code(self, step: PlanStep, old: Materialization) -> list[Reason]:
        before = self._recorded_code(old.code_version)
        now = self.code_parts(step)
        return code_reasons(before, now, step.key, lambda change: self._remedy(step, change))

    # -- remedies: a code walk tries ``--ignore NAME`` before it is suggested

    def _way_out(self, step: PlanStep, item: Unverifiable) -> str:
        name = self._ignorable(step, item.path, lambda ignore: item not in self._unverifiable_without(step, ignore))
        ways = [*_flags(step, name), *_opaque(step, item.path)]
        if ways:
            return f"to exclude only this object from the code version: {', or '.join(ways)}"
        return f"to keep the stored value: %why {step.key} --accept"

    def _remedy(self, step: PlanStep, change: Change) -> str:
        """Return advice for a changed value that is not shown because it may be secret: how to exclude it from the code version.

        Return an empty string for any other change.
        """
        if not change.secret or change.change_kind != "changed":
            return ""
        name = self._ignorable(step, change.path, lambda ignore: change.path not in self._paths_without(step, ignore))
        ways = _flags(step, name)
        value = value_at(step.op.body, name) if name else MISSING
        if value is MISSING or isinstance(value, str):
            ways.append(f"read it with stepwell.secret({_environment_name(value)})")
        else:
            ways += _opaque(step, change.path)
        return f"the value is not shown, because it may be secret; to exclude it from the code version: {', or '.join(ways)}"

    def _ignorable(self, step: PlanStep, path: str, works: Callable[[tuple[str, ...]], bool]) -> str:
        """Return the most specific name for ``--ignore`` that excludes the object at the end of `path`; empty if no name does.

        Parameters
        ----------
        works
            Returns True if a step with this ``ignore`` option no longer reaches the object.
        """
        last = path.rpartition(ARROW)[2]
        if ARROW not in path or "(" in last:
            return ""
        parts = name_in(last).split(".")
        names = [".".join(parts[:count]) for count in range(len(parts), 0, -1)]
        scope = scope_of(step.op.body, path)
        module = scope.get("__name__") if scope is not None else None
        for name in (*names, *(f"{module}.{name}" for name in names)):
            value = value_at(step.op.body, name)
            if isinstance(value, FunctionType | ModuleType | type) and name_in(last) != name:
                continue
            if all(part.isidentifier() for part in name.split(".")) and works((*step.op.ignore, name)):
                return name
        return ""

    def _unverifiable_without(self, step: PlanStep, ignore: tuple[str, ...]) -> tuple[Unverifiable, ...]:
        return self.walk.of(step.op.body, path=step.key, extra=step_extra(step), ignore=ignore).unverifiable

    def _paths_without(self, step: PlanStep, ignore: tuple[str, ...]) -> set[str]:
        parts = self.walk.parts(step.op.body, path=step.key, extra=step_extra(step), ignore=ignore)
        return {part.path for part in parts}


def _flags(step: PlanStep, name: str) -> list[str]:
    if not name:
        return []
    in_cell = isinstance(step.op.body, CellBody | SqlBody)
    return [f"--ignore {name}" + ("" if in_cell else f" (of a decorator: ignore=[{name!r}])")]


def _opaque(step: PlanStep, path: str) -> list[str]:
    """Return a list of one text: the call of `stepwell.opaque` with which the user can give a version to the object at the end of `path`.

    The list is empty if code in the cell or module of the step cannot refer to the object by a name. It is also empty if the call is
    unnecessary, because objects of this type (such as numbers and strings) always have a digest.
    """
    last = path.rpartition(ARROW)[2]
    root = value_at(step.op.body, name_in(last).split(".")[0])
    if ARROW not in path or "(" in last or root is MISSING or scope_of(step.op.body, path) is not scope_of(step.op.body, ""):
        return []
    value = value_at(step.op.body, last)
    if value is not MISSING and (type(value) in ATOMS or type(value) in {tuple, frozenset, range}):
        return []
    return [f'stepwell.opaque({last}, version="1")']


def _environment_name(value: object) -> str:
    return next((repr(name) for name, text in os.environ.items() if text and text == value), "...")


def code_reasons(
    before: CodeVersion | None,
    now: CodeVersion | None,
    key: str,
    remedy: Callable[[Change], str] = lambda change: "",  # noqa: ARG005 - past runs have no remedy
) -> list[Reason]:
    """Return a reason for each cause of the difference between two code versions of a step.

    Parameters
    ----------
    before, now
        The code versions with their parts; None for a code version that is not recorded. If either is None, the only reason is that the code
        changed.
    key
        The key of the step.
    remedy
        Takes a change that has no diff, and returns the detail of the reason for this change. By default, the detail is empty.
    """
    if before is None or now is None or not before.parts or not now.parts:
        return [Reason("the code of the step changed", kind="body")]
    reasons = []
    for change in explain(before, now, key):
        text = describe(change)
        place = change.where if change.where and change.where not in text else ""
        reasons.append(Reason(text, change.path, change.diff or remedy(change), change.kind, place=place))
    return reasons or [Reason("the code of the step changed", kind="body")]


def input_reasons(old: tuple[InputVersion, ...], new: tuple[InputVersion, ...]) -> list[Reason]:
    """Return a reason for each input of a step that was added or removed, or whose version changed.

    Parameters
    ----------
    old, new
        The inputs of the step in two runs, or in a run and now.
    """
    before = {(item.name, item.key, item.kind): item.version for item in old}
    now = {(item.name, item.key, item.kind): item.version for item in new}
    reasons = []
    for (name, key, kind), version in now.items():
        reason = Reason("", key, kind="input" if kind == "value" else "order")
        if (name, key, kind) not in before:
            text = f"{key} is a new input" if kind == "value" else f"the step must now run after {key}"
            reasons.append(replace(reason, text=text))
        elif before[name, key, kind] != version:
            text = f"the value of {key} changed" if kind == "value" else f"{key} was computed again"
            reasons.append(replace(reason, text=text, versions=(before[name, key, kind], version)))
    reasons += [
        Reason(f"{key} is no longer an input", key, kind="input" if kind == "value" else "order")
        for (name, key, kind) in before
        if (name, key, kind) not in now
    ]
    return reasons


_KEY = 8


@dataclass(frozen=True, slots=True)
class Change:
    """One cause of the difference between two code versions of a step."""

    kind: CodeKind
    path: str
    """The path from the step to the changed object, for example ``report.transform -> normalise``."""
    where: str = ""
    """The cell or file that defines the object now; empty if unknown."""
    before: str | None = None
    """The source code, value or package version of the object before the change. None if this is unknown or may be secret, or if the object did not
    exist."""
    after: str | None = None
    """The source code, value or package version of the object after the change. None if this is unknown or may be secret, or if the object does not
    exist."""
    diff: str = ""
    """A unified diff of the source code of a changed function, body or SELECT; empty for any other change, and if the source code is unknown."""
    change_kind: str = "changed"
    """What happened to the object: ``changed``, ``added`` or ``removed``."""
    secret: bool = False
    """True if the object's value is not shown because it may be secret."""


def explain(old: CodeVersion, new: CodeVersion, key: str = "") -> tuple[Change, ...]:
    """Return the causes of the difference between two code versions, those with the shortest path from the step first.

    Parameters
    ----------
    old, new
        The code versions, with their parts.
    key
        The step key with which the paths in the result begin; if empty, they begin with the step key in `new`.

    Returns
    -------
    tuple of Change
        The causes; empty if the code versions are equal.
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
    # If the source code of a part is unchanged, its digest changed only because of the objects that the code reads.
    unedited = {pair for pair in changed if pair[1] == "code" and before[pair].text == after[pair].text is not None}
    edited = {path for path, group in changed if (path, group) not in unedited}
    added, removed = _unmatched(before, after, changed, edited, canonical=canonical)
    for pair, part in added.items():
        changed[pair] = Change(part.kind, part.path, part.where, None, _part_text(part), change_kind="added")
    for pair, part in removed.items():
        changed[pair] = Change(part.kind, part.path, part.where, _part_text(part), None, change_kind="removed")
    for pair in unedited:
        if any(_follows(path, {pair[0]}) for path, _ in changed):
            del changed[pair]
    _drop_consequences(changed, before, after, key)
    if not changed:
        return (Change("body", key),)
    in_order = sorted(changed, key=lambda pair: (changed[pair].path.count(ARROW), changed[pair].path))
    # If several functions read the same changed variable, only the change with the shortest path is kept.
    once: dict[tuple[object, ...], Change] = {}
    for pair in in_order:
        digests = [parts[pair].digest if pair in parts else "" for parts in (before, after)]
        once.setdefault((_label(pair), changed[pair].change_kind, *digests), changed[pair])
    return tuple(once.values())


Parts = dict[tuple[str, str], CodePart]


def _as_parts_of(key: str, parts: tuple[CodePart, ...]) -> tuple[CodePart, ...]:
    """Return copies of the parts of a code version. In the copies, every path begins with `key` in place of the recorded step key."""
    root = parts[0].path if parts else key
    if root == key:
        return parts
    return tuple(replace(part, path=key + part.path[len(root) :]) if part.path.startswith(root) else part for part in parts)


def _unmatched(
    before: Parts, after: Parts, changed: dict[tuple[str, str], Change], edited: set[str], *, canonical: bool
) -> tuple[Parts, Parts]:
    """Return two dicts: the added parts, which only `after` has, and the removed parts, which only `before` has.

    Consequences of other changes are left out. The following parts count neither as added nor as removed:

    - A part with the same name and digest in `before` and `after`, but with another path. It has only moved.
    - A part with the same name in `before` and `after`, but with another path and another digest, if no other added or removed part has this
      name. It has moved and changed; the change is added to `changed`.
    - Two parts of different kinds with the same path (a function became another kind of value). They are one change, which is added to `changed`.

    Parameters
    ----------
    before, after
        The parts of both code versions.
    changed
        The changes by path and kind of part; the function adds to this dict.
    edited
        The paths of the objects whose source code or value changed.
    canonical
        True to ignore layout, comments, annotations and docstrings in diffs.
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
        # A name that was bound to a function is now bound to another kind of value, or the reverse.
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
    """Remove from `changed` the changes that are consequences of another change in `changed`.

    If the option ``ignore`` changed, the changes of the objects that only the old or only the new option names are removed. If an attribute of
    an object changed, the change of the object itself is removed.
    """
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
            # The digest of the object changed only because one of its attributes changed.
            del changed[place]


def _label(key: tuple[str, str]) -> tuple[str, str]:
    return _last_name(key[0]), key[1]


def describe(change: Change) -> str:
    """Return one line of text about a change, for example ``normalise() changed (cell 9)`` or ``CUTOFF: 3 -> 4``."""
    name = change.path.rpartition(ARROW)[2]
    place = f" ({change.where})" if change.where else ""
    if change.kind == "package":
        if change.change_kind == "changed":
            return f"{name} {change.before} -> {change.after}"
        return f"package {name} {change.change_kind}"
    if change.kind in {"function", "body"}:
        called = f"{name}()" if change.kind == "function" else name
        return f"{called} {change.change_kind}{place}"
    if change.kind == "class":
        return f"class {name} {change.change_kind}{place}"
    if change.kind == "sql":
        return f"the SELECT of {name} {change.change_kind}{place}"
    if change.kind == "name":
        return (
            f"{name} is {'now' if change.change_kind == 'added' else 'no longer'} an asset"
            if change.change_kind != "changed"
            else f"{name} refers to another asset"
        )
    if change.path.endswith(IGNORED):
        names = change.after if change.change_kind != "removed" else change.before
        return f"--ignore {names} was {change.change_kind}"
    if change.change_kind == "changed" and change.before is not None and change.after is not None and not looks_secret(name):
        return f"{name}: {change.before} -> {change.after}"
    return f"{name} {change.change_kind}{place}"


def _by_path(parts: tuple[CodePart, ...]) -> Parts:
    by_path: Parts = {}
    for part in parts:
        by_path.setdefault((part.path, "code" if part.kind in {"function", "class", "body"} else part.kind), part)
    return by_path


def _is_equal(before: CodePart, after: CodePart) -> bool:
    """Return True if two parts have equal digests. If the digests were made with the signing keys of two users, compare the texts instead."""
    if before.digest == after.digest or len(before.digest) != len(after.digest) or len(after.digest) <= _KEY:
        return before.digest == after.digest
    if before.digest[:_KEY] == after.digest[:_KEY] or before.kind in {"package", "name"}:
        return False
    return before.text == after.text


def _change(before: CodePart, after: CodePart, *, canonical: bool) -> Change:
    """Return the change of a part that both code versions have.

    Parameters
    ----------
    canonical
        True to exclude layout, comments, annotations and docstrings from the diff; used if the parts were recorded for different steps.
    """
    diff = ""
    if after.kind in {"function", "body", "sql"} and before.text is not None and after.text is not None:
        name = after.path.rpartition(ARROW)[2]
        texts = [_canonical(text) if canonical else text for text in (before.text, after.text)]
        diff = "\n".join(
            difflib.unified_diff(texts[0].splitlines(), texts[1].splitlines(), f"{name} (before)", f"{name} (now)", lineterm="")
        )
    secret = after.kind == "global" and (HIDDEN in (before.text, after.text) or looks_secret(_last_name(after.path)))
    return Change(after.kind, after.path, after.where, _part_text(before), _part_text(after), diff, secret=secret)


def _canonical(source: str) -> str:
    """Return Python code in a standard layout, without comments, docstrings and annotations of functions; other text unchanged."""
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


def _part_text(part: CodePart) -> str | None:
    """Return the source code, value or package version of a part as a string; None if it is unknown or may be secret."""
    hidden = part.kind == "global" and (part.text == HIDDEN or looks_secret(_last_name(part.path)))
    if hidden or part.text is None or part.kind != "global":
        return None if hidden else part.text
    return hidden_text(part.text)


def _follows(path: str, causes: set[str]) -> bool:
    """Return True if a changed object lies on the path of a part, so that this change explains why the part was added or removed.

    Parameters
    ----------
    path
        The path of the part.
    causes
        The paths of the changed objects.
    """
    return any(path.startswith((cause + ARROW, cause + ".", cause + "(", cause + "[")) for cause in causes)
